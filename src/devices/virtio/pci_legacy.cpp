// The interface of drivers that are older than virtio 1.0, beside the one of today (virtio 1.2, 4.1.4.10, 4.1.5.1.1.1 and the sections
// "Legacy Interface" of chapter 2): registers of its own, one page for all of a queue's rings, no agreement on features.
#include "devices/virtio/pci_legacy.hpp"

#include <array>

#include "devices/virtio/pci_transport.hpp"

namespace lodge::devices::virtio {

namespace {

enum Field : unsigned {
  kDeviceFeatures = 0,
  kDriverFeatures = 4,
  kQueueAddress = 8,
  kQueueSize = 12,
  kQueueSelect = 14,
  kQueueNotify = 16,
  kStatus = 18,
  kInterruptStatus = 19,
  // With MSI-X enabled; otherwise the device's configuration begins here.
  kConfigVector = 20,
  kQueueVector = 22,
  kEnd = 24,
};
constexpr std::array<uint8_t, 11> kFields{kDeviceFeatures, kDriverFeatures,  kQueueAddress, kQueueSize,   kQueueSelect, kQueueNotify,
                                          kStatus,         kInterruptStatus, kConfigVector, kQueueVector, kEnd};

constexpr uint64_t kPage = 4096;
constexpr unsigned kAnyLayout = 27;                    // 6.3: buffers are taken however they are cut
constexpr uint8_t kDriverOk = 4, kKnownStatus = 0x87;  // acknowledge, driver, its readiness, failed (2.1)

}  // namespace

uint64_t PciTransport::legacy_offered() const { return (offered() | feature(kAnyLayout)) & 0xffffffff; }
unsigned PciTransport::legacy_config_at() { return msix()->enabled() ? kEnd : kConfigVector; }

uint32_t PciTransport::read_legacy_field(unsigned field) {
  const QueueState* queue = selected();
  switch (field) {
    case kDeviceFeatures: return static_cast<uint32_t>(legacy_offered());
    case kDriverFeatures: return static_cast<uint32_t>(driver_features_);
    case kQueueAddress: return queue && queue->enabled ? static_cast<uint32_t>(queue->descriptors / kPage) : 0;
    case kQueueSize: return queue ? queue->size : 0;
    case kQueueSelect: return queue_select_;
    case kStatus: return status_;
    case kConfigVector: return config_vector_;
    case kQueueVector: return queue ? queue_vectors_[queue_select_].load() : uint32_t{0xffff};
    default: return 0;
  }
}

// 2.7.2: the rings lie one behind the other, the used ring at a page's beginning.
void PciTransport::place_legacy_queue(uint32_t page) {
  QueueState* queue = selected();
  if (!queue) return;
  if (page == 0) return reset_queue(queue_select_);
  if (queue->enabled) return;
  constexpr uint64_t kDescriptorBytes = 16, kEntryBytes = 2, kAvailableHeader = 4, kEventBytes = 2;
  queue->descriptors = uint64_t{page} * kPage;
  queue->driver_area = queue->descriptors + kDescriptorBytes * queue->size;
  queue->device_area = (queue->driver_area + kAvailableHeader + kEntryBytes * queue->size + kEventBytes + kPage - 1) / kPage * kPage;
  enable_queue(queue_select_);
}

void PciTransport::write_legacy_field(unsigned field, uint32_t value) {
  if (resetting_) return;
  switch (field) {
    case kDriverFeatures:
      // What was not offered cannot be had, and there is no way to say so.
      if (!started_) driver_features_ = value & legacy_offered();
      return;
    case kQueueAddress: return place_legacy_queue(value);
    case kQueueSelect: queue_select_ = static_cast<uint16_t>(value); return;
    case kStatus:
      if (value == 0) return reset();
      status_ |= static_cast<uint8_t>(value) & kKnownStatus;
      if (status_ & kDriverOk) start_device();
      return;
    case kConfigVector: return set_vector(config_vector_, static_cast<uint16_t>(value));
    case kQueueVector:
      if (selected()) set_vector(queue_vectors_[queue_select_], static_cast<uint16_t>(value));
      return;
    default: return;
  }
}

uint64_t PciTransport::read_legacy(uint64_t offset, unsigned size) {
  std::array<uint8_t, 8> bytes{};
  const unsigned config_at = legacy_config_at();
  for (unsigned i = 0; i < size; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    if (at >= config_at) {
      device_->read_config(at - config_at, std::span(bytes).subspan(i, size - i));
      break;
    }
    if (at == kInterruptStatus) {
      bytes[i] = take_interrupt_status();
      continue;
    }
    size_t field = kFields.size() - 1;
    while (kFields[field] > at) --field;
    MutexLock lock(mutex_);
    bytes[i] = static_cast<uint8_t>(read_legacy_field(kFields[field]) >> (8 * (at - kFields[field])));
  }
  uint64_t value = 0;
  for (unsigned i = size; i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

// Each field in its own width; the device's configuration in any.
void PciTransport::write_legacy(uint64_t offset, unsigned size, uint64_t value) {
  const auto at = static_cast<unsigned>(offset);
  if (const unsigned config_at = legacy_config_at(); at >= config_at) {
    std::array<uint8_t, 8> bytes{};
    for (unsigned i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
    return device_->write_config(at - config_at, std::span(bytes).first(size));
  }
  for (size_t i = 0; i + 1 < kFields.size(); ++i) {
    if (kFields[i] != at || kFields[i + 1] - kFields[i] != static_cast<int>(size)) continue;
    {
      MutexLock lock(mutex_);
      driver_is_old_ = true;
      // 3.1.2: drivers of those days used a device before they said that they were ready.
      if (at == kQueueNotify && !resetting_) start_device();
      if (at != kQueueNotify) write_legacy_field(at, static_cast<uint32_t>(value));
    }
    if (at == kQueueNotify) notify();
    return;
  }
}

}  // namespace lodge::devices::virtio
