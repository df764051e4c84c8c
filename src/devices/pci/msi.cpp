#include "devices/pci/msi.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

namespace lodge::devices::pci {

namespace {

// Offsets in the capability with 64-bit address and per-vector masking (figure 6-9).
constexpr unsigned kControl = 2, kAddressLow = 4, kAddressHigh = 8, kData = 12, kMask = 16, kPending = 20, kBytes = 24;
// Message control (6.8.1.3).
constexpr uint16_t kEnable = 1 << 0, kMultipleEnable = 7 << 4, k64Bit = 1 << 7, kPerVectorMask = 1 << 8;
constexpr unsigned kMultipleCapableShift = 1, kMultipleEnableShift = 4;

}  // namespace

Msi::Msi(ConfigSpace& config, unsigned vectors, SendMessage send) : config_(config), send_(std::move(send)) {
  assert(std::has_single_bit(vectors) && vectors <= 32);
  std::array<uint8_t, kBytes - 2> body{};
  const auto control = static_cast<uint16_t>(std::countr_zero(vectors) << kMultipleCapableShift | k64Bit | kPerVectorMask);
  body[0] = static_cast<uint8_t>(control);
  body[1] = static_cast<uint8_t>(control >> 8);
  at_ = config.add_capability(Capability::Msi, body);
  config.allow(at_ + kControl, 2, kEnable | kMultipleEnable);
  config.allow(at_ + kAddressLow, 4, ~3u);
  config.allow(at_ + kAddressHigh, 4, ~0u);
  config.allow(at_ + kData, 2, 0xffff);
  config.allow(at_ + kMask, 4, vectors == 32 ? ~0u : (1u << vectors) - 1);
}

bool Msi::enabled() const { return (config_.read(at_ + kControl, 2) & kEnable) != 0; }

void Msi::config_written() {
  const uint32_t control = config_.read(at_ + kControl, 2);
  const unsigned capable = control >> kMultipleCapableShift & 7, wanted = (control & kMultipleEnable) >> kMultipleEnableShift;
  MutexLock lock(mutex_);
  enabled_ = (control & kEnable) != 0;
  granted_ = 1u << std::min(wanted, capable);
  address_ = static_cast<uint64_t>(config_.read(at_ + kAddressHigh, 4)) << 32 | config_.read(at_ + kAddressLow, 4);
  data_ = config_.read(at_ + kData, 2);
  mask_ = config_.read(at_ + kMask, 4);
  send_pending();
}

void Msi::config_reading() {
  MutexLock lock(mutex_);
  config_.set(at_ + kPending, 4, pending_);
}

void Msi::set_bus_master(bool allowed) {
  MutexLock lock(mutex_);
  bus_master_ = allowed;
  send_pending();
}

void Msi::signal(unsigned vector) {
  MutexLock lock(mutex_);
  if (!enabled_) return;
  pending_ |= 1u << (vector % granted_);
  send_pending();
}

// The low bits of the data name the vector (6.8.1.6).
void Msi::send_pending() {
  if (!enabled_ || !bus_master_) return;
  for (uint32_t ready = pending_ & ~mask_; ready != 0; ready &= ready - 1) {
    const auto vector = static_cast<uint32_t>(std::countr_zero(ready));
    pending_ &= ~(1u << vector);
    send_(address_, (data_ & ~(granted_ - 1)) | vector);
  }
}

}  // namespace lodge::devices::pci
