#include "devices/virtio/pci_transport.hpp"

#include <sys/eventfd.h>

#include <array>
#include <bit>
#include <future>
#include <utility>

#include "base/eventfd.hpp"
#include "devices/pci/dwords.hpp"
#include "devices/pci/option_rom.hpp"
#include "devices/virtio/pci_legacy.hpp"

namespace lodge::devices::virtio {

namespace {

// 4.1.2: vendor and device IDs of modern devices.
constexpr uint16_t kVendor = 0x1af4, kFirstDevice = 0x1040;
constexpr uint8_t kRevision = 1;

constexpr uint32_t kCommon = 0x0000, kInterruptStatusAt = 0x1000, kDeviceConfig = 0x2000, kNotify = 0x3000, kTable = 0x4000,
                   kPending = 0x7000, kBarBytes = 0x8000, kStructureBytes = 0x1000;
constexpr uint32_t kNotifyMultiplier = 4;

// 4.1.4: struct virtio_pci_cap, types of structures.
constexpr uint8_t kCapCommon = 1, kCapNotify = 2, kCapIsr = 3, kCapDevice = 4, kCapPciConfig = 5;
constexpr unsigned kCapBar = 4, kCapOffset = 8, kCapLength = 12, kCapData = 16;

// 4.1.4.3: struct virtio_pci_common_cfg.
enum Common : uint8_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kQueueCount = 0x12,
  kDeviceStatus = 0x14,
  kGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOffset = 0x1e,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kQueueNotifyData = 0x38,
  kQueueReset = 0x3a,
  kCommonBytes = 0x3c,
};
// The fields in order, 64-bit ones as their two halves, which is how drivers access them.
constexpr std::array<uint8_t, 22> kFields{
    kDeviceFeatureSelect, kDeviceFeature,    kDriverFeatureSelect,  kDriverFeature, kConfigVector,    kQueueCount,
    kDeviceStatus,        kGeneration,       kQueueSelect,          kQueueSize,     kQueueVector,     kQueueEnable,
    kQueueNotifyOffset,   kQueueDescriptors, kQueueDescriptors + 4, kQueueDriver,   kQueueDriver + 4, kQueueDevice,
    kQueueDevice + 4,     kQueueNotifyData,  kQueueReset,           kCommonBytes};

constexpr uint16_t kNoVector = 0xffff;  // 4.1.5.1.2

// 2.1.
constexpr uint8_t kStatusDriverOk = 4, kStatusFeaturesOk = 8, kStatusNeedsReset = 64;
// Chapter 6.
constexpr unsigned kRingIndirect = 28, kRingEventIndex = 29, kVersion1 = 32, kRingPacked = 34, kRingReset = 40;

constexpr uint8_t kIsrQueue = 1, kIsrConfig = 2;  // 4.1.4.5

// 4.1.2.1: what transitional devices are called.
uint16_t transitional_device(Type type) {
  switch (type) {
    case Type::Network: return 0x1000;
    case Type::Block: return 0x1001;
    case Type::Balloon: return 0x1002;
    case Type::Console: return 0x1003;
    case Type::Entropy: return 0x1005;
  }
  return 0;
}

pci::Identity identity_of(Type type, bool transitional) {
  const auto id = static_cast<uint16_t>(type);
  const uint32_t class_code = [type]() -> uint32_t {
    switch (type) {
      case Type::Network: return 0x020000;  // Ethernet controller
      case Type::Block: return 0x010000;    // SCSI controller: what firmware and systems expect disks behind
      case Type::Console: return 0x078000;  // other communication controller
      default: return 0x00ff00;             // none of the classes
    }
  }();
  // An older driver knows the device by its subsystem, and its interface by the revision 0.
  if (transitional)
    return {.vendor = kVendor,
            .device = transitional_device(type),
            .revision = 0,
            .class_code = class_code,
            .subsystem_vendor = kVendor,
            .subsystem = id};
  return {.vendor = kVendor,
          .device = static_cast<uint16_t>(kFirstDevice + id),
          .revision = kRevision,
          .class_code = class_code,
          .subsystem_vendor = kVendor,
          .subsystem = static_cast<uint16_t>(kFirstDevice + id)};
}

void put(std::span<uint8_t> at, uint64_t value) {
  for (uint8_t& byte : at) {
    byte = static_cast<uint8_t>(value);
    value >>= 8;
  }
}
uint64_t get(std::span<const uint8_t> from) {
  uint64_t value = 0;
  for (size_t i = from.size(); i-- > 0;) value = value << 8 | from[i];
  return value;
}

}  // namespace

// --- Making

PciTransport::PciTransport(std::unique_ptr<Device> device, memory::GuestMemory& memory, AttachDoorbell attach, const Options& options)
    : Function(identity_of(device->type(), options.transitional), device->name()),
      device_(std::move(device)),
      memory_(memory),
      attach_(std::move(attach)),
      options_(options),
      queue_vectors_(device_->queue_count()),
      config_vector_(kNoVector),
      queues_(device_->queue_count()) {
  if (options.transitional) add_bar(kLegacyBar, {.kind = pci::BarKind::Io, .size = kLegacyBytes});
  add_bar(modern_bar(), {.kind = pci::BarKind::Memory64, .size = kBarBytes, .prefetchable = true});
  if (!options.rom.empty()) {
    const pci::Identity identity = identity_of(device_->type(), options.transitional);
    add_rom(pci::option_rom_for(options.rom, identity.vendor, identity.device));
  }
  add_interrupt_pin();
  if (options.express) add_express_endpoint();
  // One vector for each queue and one for the configuration.
  add_msix({.vectors = device_->queue_count() + 1, .bar = modern_bar(), .table_offset = kTable, .pending_offset = kPending});
  add_capabilities();
  device_->connect(*this);
  MutexLock lock(mutex_);
  forget();
}

Result<std::unique_ptr<PciTransport>> PciTransport::create(std::unique_ptr<Device> device, memory::GuestMemory& memory,
                                                           AttachDoorbell attach, const Options& options) {
  std::unique_ptr<PciTransport> made(new PciTransport(std::move(device), memory, std::move(attach), options));
  made->kick_ = TRY(new_eventfd());
  PciTransport& transport = *made;
  transport.device_->worker().post([&transport] {
    transport.watch_ = transport.device_->worker().watch(transport.kick_.get(), [&transport] { transport.device_->notified(); });
  });
  return made;
}

PciTransport::~PciTransport() { shut_down(); }

void PciTransport::shut_down() {
  doorbells_.clear();
  if (!kick_) return;
  std::promise<void> done;
  device_->worker().post([this, &done] {
    watch_.reset();
    device_->allow_access(false);
    device_->stop([&done] { done.set_value(); });
  });
  done.get_future().wait();
  kick_.reset();
}

unsigned PciTransport::add_structure(uint8_t type, uint32_t offset, uint32_t length, std::span<const uint8_t> more) {
  std::vector<uint8_t> body(kCapData - 2 + more.size());
  const std::span all(body);
  // The ID and the link stand before; offsets count from them.
  body[0] = static_cast<uint8_t>(2 + body.size());
  body[1] = type;
  body[kCapBar - 2] = static_cast<uint8_t>(modern_bar());
  put(all.subspan(kCapOffset - 2, 4), offset);
  put(all.subspan(kCapLength - 2, 4), length);
  std::ranges::copy(more, all.subspan(kCapData - 2).begin());
  return config().add_capability(pci::Capability::Vendor, body);
}

void PciTransport::add_capabilities() {
  // Last in the list, since each one is put in front: of no use to a driver that can reach the BAR.
  constexpr std::array<uint8_t, 4> kNothing{};
  config_window_ = add_structure(kCapPciConfig, 0, 0, kNothing);
  config().allow(config_window_ + kCapBar, 1, 0xff);
  config().allow(config_window_ + kCapOffset, 4, 0xffffffff);
  config().allow(config_window_ + kCapLength, 4, 0xffffffff);
  config().allow(config_window_ + kCapData, 4, 0xffffffff);
  add_structure(kCapDevice, kDeviceConfig, kStructureBytes, {});
  std::array<uint8_t, 4> multiplier{};
  put(multiplier, kNotifyMultiplier);
  add_structure(kCapNotify, kNotify, device_->queue_count() * kNotifyMultiplier, multiplier);
  add_structure(kCapIsr, kInterruptStatusAt, 1, {});
  add_structure(kCapCommon, kCommon, kCommonBytes, {});
}

uint64_t PciTransport::offered() const {
  return device_->features() | feature(kVersion1) | feature(kRingIndirect) | feature(kRingEventIndex) | feature(kRingReset) |
         (options_.packed ? feature(kRingPacked) : 0);
}

// --- Accesses to the BAR

uint64_t PciTransport::bar_read(unsigned index, uint64_t offset, unsigned size) {
  if (index != modern_bar()) return read_legacy(offset, size);
  const uint64_t structure = offset & ~uint64_t{kStructureBytes - 1};
  const uint64_t within = offset - structure;
  std::array<uint8_t, 8> bytes{};
  const std::span all = std::span(bytes).first(size);
  if (structure == kCommon) {
    MutexLock lock(mutex_);
    for (unsigned i = 0; i < size; ++i) bytes[i] = read_common_byte(within + i);
  } else if (structure == kDeviceConfig) {
    device_->read_config(within, all);
  } else if (structure == kInterruptStatusAt && within == 0) {
    bytes[0] = take_interrupt_status();
  }
  return get(all);
}

void PciTransport::bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) {
  if (index != modern_bar()) return write_legacy(offset, size, value);
  const uint64_t structure = offset & ~uint64_t{kStructureBytes - 1};
  const uint64_t within = offset - structure;
  if (structure == kCommon) return write_common(static_cast<unsigned>(within), size, value);
  if (structure == kNotify) return notify();
  if (structure != kDeviceConfig) return;
  std::array<uint8_t, 8> bytes{};
  const std::span all = std::span(bytes).first(size);
  put(all, value);
  device_->write_config(within, all);
}

void PciTransport::notify() const { eventfd_write(kick_.get(), 1); }

uint8_t PciTransport::read_common_byte(uint64_t offset) {
  if (offset >= kCommonBytes) return 0;
  size_t i = kFields.size() - 1;
  while (kFields[i] > offset) --i;
  return static_cast<uint8_t>(read_common(kFields[i]) >> (8 * (offset - kFields[i])));
}

// 4.1.3.1: drivers access each field in its own width, and 64-bit fields as two of 32 bits. Two fields in one write, or one of 64 bits,
// are taken apart; part of a field is not written.
void PciTransport::write_common(unsigned offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  for (size_t i = 0; i + 1 < kFields.size(); ++i) {
    const unsigned field = kFields[i], bytes = kFields[i + 1] - kFields[i];
    if (field < offset || field + bytes > offset + size) continue;
    const uint64_t mask = bytes == 4 ? 0xffffffff : (uint64_t{1} << (8 * bytes)) - 1;
    write_common_field(field, static_cast<uint32_t>(value >> (8 * (field - offset)) & mask));
  }
}

PciTransport::QueueState* PciTransport::selected() { return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr; }

uint64_t PciTransport::read_common(unsigned field) {
  const QueueState* queue = selected();
  const auto half = [](uint64_t features, uint32_t select) { return select < 2 ? features >> (32 * select) & 0xffffffff : 0; };
  switch (field) {
    case kDeviceFeatureSelect: return device_feature_select_;
    case kDeviceFeature: return half(offered(), device_feature_select_);
    case kDriverFeatureSelect: return driver_feature_select_;
    case kDriverFeature: return half(driver_features_, driver_feature_select_);
    case kConfigVector: return config_vector_;
    case kQueueCount: return queues_.size();
    case kDeviceStatus: return status_;
    case kGeneration: return generation_;
    case kQueueSelect: return queue_select_;
    default: break;
  }
  if (!queue) return 0;  // 4.1.4.3.1: a size of 0 says that there is no such queue
  switch (field) {
    case kQueueSize: return queue->size;
    case kQueueVector: return queue_vectors_[queue_select_];
    case kQueueEnable: return queue->enabled;
    case kQueueNotifyOffset: return queue_select_;
    case kQueueDescriptors: return queue->descriptors & 0xffffffff;
    case kQueueDescriptors + 4: return queue->descriptors >> 32;
    case kQueueDriver: return queue->driver_area & 0xffffffff;
    case kQueueDriver + 4: return queue->driver_area >> 32;
    case kQueueDevice: return queue->device_area & 0xffffffff;
    case kQueueDevice + 4: return queue->device_area >> 32;
    case kQueueReset: return queue->resetting;
    default: return 0;
  }
}

void PciTransport::write_common_field(unsigned field, uint32_t value) {
  if (field == kDeviceStatus) return write_status(static_cast<uint8_t>(value));
  if (resetting_) return;
  QueueState* queue = selected();
  const auto set_half = [value](uint64_t& word, bool high) { word = high ? pci::with_high(word, value) : pci::with_low(word, value); };
  switch (field) {
    case kDeviceFeatureSelect: device_feature_select_ = value; return;
    case kDriverFeatureSelect: driver_feature_select_ = value; return;
    case kDriverFeature:
      // 2.2.1, 3.1.1: settled with FEATURES_OK.
      if (driver_feature_select_ < 2 && !(status_ & kStatusFeaturesOk)) set_half(driver_features_, driver_feature_select_ == 1);
      return;
    case kConfigVector: return set_vector(config_vector_, static_cast<uint16_t>(value));
    case kQueueSelect: queue_select_ = static_cast<uint16_t>(value); return;
    default: break;
  }
  if (!queue) return;
  if (field == kQueueVector) return set_vector(queue_vectors_[queue_select_], static_cast<uint16_t>(value));
  if (field == kQueueEnable && value == 1) return enable_queue(queue_select_);
  if (field == kQueueReset && value == 1) return reset_queue(queue_select_);
  if (queue->enabled) return;  // 4.1.4.3.2: not while it is in use
  switch (field) {
    case kQueueSize: {
      const auto size = static_cast<uint16_t>(value);
      const bool packed = (driver_features_ & feature(kRingPacked)) != 0;
      if (size != 0 && size <= device_->queue_most_entries(queue_select_) && (packed || std::has_single_bit(size))) queue->size = size;
      return;
    }
    case kQueueDescriptors: return set_half(queue->descriptors, false);
    case kQueueDescriptors + 4: return set_half(queue->descriptors, true);
    case kQueueDriver: return set_half(queue->driver_area, false);
    case kQueueDriver + 4: return set_half(queue->driver_area, true);
    case kQueueDevice: return set_half(queue->device_area, false);
    case kQueueDevice + 4: return set_half(queue->device_area, true);
    default: return;
  }
}

// 4.1.5.1.2.1: a vector that cannot be had reads back as none.
void PciTransport::set_vector(std::atomic<uint16_t>& place, uint16_t vector) {
  place.store(vector < msix()->vectors() ? vector : kNoVector, std::memory_order_release);
}

// --- Status, queues

QueueSetup PciTransport::setup_of(const QueueState& queue) const {
  const auto has = [this](unsigned bit) LODGE_REQUIRES(mutex_) { return (driver_features_ & feature(bit)) != 0; };
  return {.size = queue.size,
          .descriptors = queue.descriptors,
          .driver_area = queue.driver_area,
          .device_area = queue.device_area,
          .packed = has(kRingPacked),
          .event_index = has(kRingEventIndex),
          .indirect = has(kRingIndirect)};
}

void PciTransport::write_status(uint8_t value) {
  if (resetting_) return;
  if (value == 0) return reset();
  const uint8_t before = status_;
  // 2.1.1: software clears bits by a reset only; NEEDS_RESET is the device's.
  uint8_t now = before | (value & ~kStatusNeedsReset);
  if (!(before & kStatusFeaturesOk) && (now & kStatusFeaturesOk)) {
    // 2.2.2, 6.1: not with what was not offered, and not as a legacy device.
    if ((driver_features_ & ~offered()) != 0 || !(driver_features_ & feature(kVersion1))) now &= static_cast<uint8_t>(~kStatusFeaturesOk);
  }
  if (!(now & kStatusFeaturesOk)) now &= static_cast<uint8_t>(~kStatusDriverOk);
  status_ = now;
  if (!(before & kStatusDriverOk) && (now & kStatusDriverOk)) start_device();
}

void PciTransport::start_device() {
  if (std::exchange(started_, true)) return;
  device_->allow_access(bus_master() || driver_is_old_);
  device_->worker().post([this, features = driver_features_] { device_->start(memory_, features); });
  for (unsigned i = 0; i < queues_.size(); ++i)
    if (queues_[i].enabled) device_->worker().post([this, i, setup = setup_of(queues_[i])] { device_->start_queue(i, setup); });
}

void PciTransport::enable_queue(unsigned index) {
  QueueState& queue = queues_[index];
  if (queue.enabled || queue.resetting) return;
  queue.enabled = true;
  // With VIRTIO_F_RING_RESET a queue comes back while the device runs (4.1.4.3.2).
  if (started_) device_->worker().post([this, index, setup = setup_of(queue)] { device_->start_queue(index, setup); });
}

void PciTransport::reset_queue(unsigned index) {
  QueueState& queue = queues_[index];
  // An older driver does so with any queue.
  if (!(driver_is_old_ || (driver_features_ & feature(kRingReset))) || queue.resetting || !queue.enabled) return;
  // A reset of the device that comes before the end of this one takes its place.
  const auto done = [this, index] {
    MutexLock lock(mutex_);
    queues_[index] = {.size = device_->queue_most_entries(index)};
    queue_vectors_[index].store(kNoVector, std::memory_order_release);
  };
  if (!started_) {
    queue = {.size = device_->queue_most_entries(index)};
    return;
  }
  queue.resetting = true;
  device_->worker().post([this, index, done] { device_->stop_queue(index, done); });
}

void PciTransport::forget() {
  status_ = 0;
  resetting_ = started_ = false;
  driver_is_old_ = false;
  device_feature_select_ = driver_feature_select_ = 0;
  driver_features_ = 0;
  queue_select_ = 0;
  for (unsigned i = 0; i < queues_.size(); ++i) {
    queues_[i] = {.size = device_->queue_most_entries(i)};
    queue_vectors_[i].store(kNoVector, std::memory_order_release);
  }
  config_vector_.store(kNoVector, std::memory_order_release);
  static_cast<void>(take_interrupt_status());
}

void PciTransport::reset() {
  if (!started_) return forget();
  resetting_ = true;
  device_->worker().post([this] {
    device_->stop([this] {
      MutexLock lock(mutex_);
      forget();
    });
  });
}

// --- Interrupts

uint8_t PciTransport::take_interrupt_status() {
  // The line first: a status that comes in between raises it again.
  set_intx(false);
  const uint8_t status = interrupt_status_.exchange(0, std::memory_order_acq_rel);
  return status;
}

void PciTransport::signal(uint16_t vector, uint8_t status_bit) {
  if (msix()->enabled()) {
    if (vector != kNoVector) msix()->signal(vector);
    return;
  }
  interrupt_status_.fetch_or(status_bit, std::memory_order_acq_rel);
  set_intx(true);
}

void PciTransport::queue_interrupt(unsigned queue) { signal(queue_vectors_[queue].load(std::memory_order_acquire), kIsrQueue); }

void PciTransport::config_interrupt() {
  generation_.fetch_add(1, std::memory_order_acq_rel);
  signal(config_vector_.load(std::memory_order_acquire), kIsrConfig);
}

void PciTransport::needs_reset() {
  {
    MutexLock lock(mutex_);
    status_ |= kStatusNeedsReset;
  }
  config_interrupt();
}

// --- The bus

void PciTransport::bar_moved(unsigned index, std::optional<uint64_t> address) {
  if (index != modern_bar()) return;
  doorbells_.clear();
  if (!address) return;
  for (unsigned i = 0; i < device_->queue_count(); ++i)
    if (auto doorbell = attach_(*address + kNotify + i * kNotifyMultiplier, kick_.get())) doorbells_.push_back(std::move(doorbell));
}

void PciTransport::bus_master_changed(bool allowed) {
  device_->allow_access(allowed || driver_is_old_);
  if (allowed) notify();
}

// 4.1.4.9: the window's data field is the BAR's, at the place that the driver has written into the capability.
void PciTransport::config_reading(unsigned offset, unsigned size) {
  const unsigned at = config_window_ + kCapData;
  if (offset + size <= at || offset >= at + 4) return;
  const unsigned bar = config().read(config_window_ + kCapBar, 1);
  const uint32_t from = config().read(config_window_ + kCapOffset, 4), length = config().read(config_window_ + kCapLength, 4);
  if (bar != modern_bar() || (length != 1 && length != 2 && length != 4) || from % length != 0 || from >= kBarBytes) return;
  config().set(at, 4, static_cast<uint32_t>(read_bar(bar, from, length)));
}

void PciTransport::config_written(unsigned offset, unsigned size) {
  const unsigned at = config_window_ + kCapData;
  if (offset + size <= at || offset >= at + 4) return;
  const unsigned bar = config().read(config_window_ + kCapBar, 1);
  const uint32_t to = config().read(config_window_ + kCapOffset, 4), length = config().read(config_window_ + kCapLength, 4);
  if (bar != modern_bar() || (length != 1 && length != 2 && length != 4) || to % length != 0 || to >= kBarBytes) return;
  write_bar(bar, to, length, config().read(at, 4) & (length == 4 ? 0xffffffffu : (1u << (8 * length)) - 1));
}

}  // namespace lodge::devices::virtio
