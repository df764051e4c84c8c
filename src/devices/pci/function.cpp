#include "devices/pci/function.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

#include "devices/pci/express.hpp"

namespace lodge::devices::pci {

namespace {

constexpr unsigned bar_register(unsigned index) { return index == Function::kRom ? unsigned{kExpansionRom} : kBar0 + 4 * index; }

}  // namespace

Function::Function(const Identity& identity, std::string name) : name_(std::move(name)) {
  config_.set(kVendorId, 2, identity.vendor);
  config_.set(kDeviceId, 2, identity.device);
  config_.set(kRevisionId, 1, identity.revision);
  config_.set(kClassCode, 1, identity.class_code);
  config_.set(kClassCode + 1, 2, identity.class_code >> 8);
  config_.set(kSubsystemVendorId, 2, identity.subsystem_vendor);
  config_.set(kSubsystemId, 2, identity.subsystem);
  // What a space needs before it can be enabled comes with its first BAR (6.2.2).
  config_.allow(kCommand, 2, kBusMaster | kParityErrorResponse | kSerrEnable);
  config_.allow(kCacheLineSize, 1, 0xff);
  config_.allow(kLatencyTimer, 1, 0xff);
  config_.allow(kInterruptLine, 1, 0xff);
}

// --- What the function is made of

// 6.2.5.1: the bits below the size are zero and stay so; by that software learns the size.
void Function::add_bar(unsigned index, const Bar& bar) {
  assert(index < kBars && bars_[index].kind == BarKind::None && std::has_single_bit(bar.size) && bar.size >= 16);
  bars_[index] = bar;
  const unsigned at = bar_register(index);
  const uint64_t address_bits = ~(bar.size - 1);
  config_.allow(at, 4, static_cast<uint32_t>(address_bits));
  if (bar.kind == BarKind::Io) {
    assert(bar.size <= 256);
    config_.set(at, 4, kBarIo);
    config_.allow(kCommand, 2, kIoSpace);
    return;
  }
  config_.allow(kCommand, 2, kMemorySpace);
  config_.set(at, 4, (bar.kind == BarKind::Memory64 ? kBarMemory64 : 0) | (bar.prefetchable ? kBarPrefetchable : 0));
  if (bar.kind == BarKind::Memory64) {
    assert(index + 1 < kBars && bars_[index + 1].kind == BarKind::None);
    config_.allow(at + 4, 4, static_cast<uint32_t>(address_bits >> 32));
  } else {
    assert(bar.size <= uint64_t{1} << 31);
  }
}

void Function::add_rom(std::span<const uint8_t> image) {
  constexpr size_t kLeast = 2048;  // the address has its lowest bit at 11
  rom_.assign(image.begin(), image.end());
  rom_.resize(std::bit_ceil(std::max(image.size(), kLeast)), 0xff);
  bars_[kRom] = {.kind = BarKind::Rom, .size = rom_.size()};
  config_.allow(kExpansionRom, 4, static_cast<uint32_t>(~(rom_.size() - 1)) | kRomEnable);
  config_.allow(kCommand, 2, kMemorySpace);
}

void Function::add_interrupt_pin() {
  config_.set(kInterruptPin, 1, 1);
  config_.allow(kCommand, 2, kInterruptDisable);
}

SendMessage Function::message_sender() {
  return [this](uint64_t address, uint32_t data) {
    if (port_) port_->send_message(address, data);
  };
}

void Function::add_msi(unsigned vectors) { msi_ = std::make_unique<Msi>(config_, vectors, message_sender()); }
void Function::add_express_endpoint() { add_express_capability(config_, ExpressType::Endpoint); }
void Function::add_msix(const Msix::Layout& layout) { msix_ = std::make_unique<Msix>(config_, layout, message_sender()); }

// --- Configuration space

uint32_t Function::read_config(unsigned offset, unsigned size) {
  if (overlaps(offset, size, kStatus, 2)) {
    MutexLock lock(intx_mutex_);
    const uint32_t status = config_.read(kStatus, 2) & ~uint32_t{kInterruptStatus};
    // 6.2.3: the device's state, whether or not the pin may show it; a function that sends messages instead has none.
    const bool messages = (msi_ && msi_->enabled()) || (msix_ && msix_->enabled());
    config_.set(kStatus, 2, status | (intx_wanted_ && !messages ? kInterruptStatus : 0));
  }
  if (msi_) msi_->config_reading();
  config_reading(offset, size);
  return config_.read(offset, size);
}

void Function::write_config(unsigned offset, unsigned size, uint32_t value) {
  config_.write(offset, size, value);
  if (overlaps(offset, size, kHeaderEnd, ConfigSpace::kBytes - kHeaderEnd)) {
    if (msi_) msi_->config_written();
    if (msix_) msix_->config_written();
  }
  if (overlaps(offset, size, kCommand, 2) || offset >= kHeaderEnd) command_written();
  config_written(offset, size);
}

void Function::command_written() {
  const uint32_t command = config_.read(kCommand, 2);
  const bool master = (command & kBusMaster) != 0;
  const bool changed = bus_master_.exchange(master, std::memory_order_acq_rel) != master;
  // A message is a write by the function and needs bus mastering (6.2.2).
  if (changed && msi_) msi_->set_bus_master(master);
  if (changed && msix_) msix_->set_bus_master(master);
  {
    MutexLock lock(intx_mutex_);
    // 6.8.1.3, 6.8.2.3: a function whose messages are enabled must not use its pin.
    intx_allowed_ = !(command & kInterruptDisable) && !(msi_ && msi_->enabled()) && !(msix_ && msix_->enabled());
    update_intx();
  }
  if (changed) bus_master_changed(master);
}

std::optional<uint64_t> Function::decoded(unsigned index) const {
  const Bar& bar = bars_[index];
  if (bar.kind == BarKind::None) return std::nullopt;
  const uint32_t command = config_.read(kCommand, 2);
  if (!(command & (bar.kind == BarKind::Io ? kIoSpace : kMemorySpace))) return std::nullopt;
  const unsigned at = bar_register(index);
  const uint32_t low = config_.read(at, 4);
  if (bar.kind == BarKind::Rom) return low & kRomEnable ? std::optional<uint64_t>(low & ~kRomFlags) : std::nullopt;
  uint64_t address = low & ~(bar.kind == BarKind::Io ? kBarIoFlags : kBarMemoryFlags);
  if (bar.kind == BarKind::Memory64) address |= static_cast<uint64_t>(config_.read(at + 4, 4)) << 32;
  return address;
}

void Function::place_bar(unsigned index, uint64_t address) {
  const Bar& bar = bars_[index];
  config_.write(bar_register(index), 4, static_cast<uint32_t>(address));
  if (bar.kind == BarKind::Memory64) config_.write(bar_register(index) + 4, 4, static_cast<uint32_t>(address >> 32));
  const uint32_t command = config_.read(kCommand, 2);
  config_.write(kCommand, 2, command | (bar.kind == BarKind::Io ? kIoSpace : kMemorySpace));
}

void Function::bar_moved(unsigned, std::optional<uint64_t>) {}
void Function::config_reading(unsigned, unsigned) {}
void Function::config_written(unsigned, unsigned) {}
void Function::bus_master_changed(bool) {}

// --- BARs

uint64_t Function::read_rom(uint64_t offset, unsigned size) const {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= static_cast<uint64_t>(rom_[offset + i]) << (8 * i);
  return value;
}

uint64_t Function::read_bar(unsigned index, uint64_t offset, unsigned size) {
  if (index == kRom) return read_rom(offset, size);
  return msix_ && msix_->covers(index, offset) ? msix_->read(offset, size) : bar_read(index, offset, size);
}

void Function::write_bar(unsigned index, uint64_t offset, unsigned size, uint64_t value) {
  if (index == kRom) return;
  if (msix_ && msix_->covers(index, offset)) return msix_->write(offset, size, value);
  bar_write(index, offset, size, value);
}

// --- The pin

void Function::set_intx(bool wanted) {
  MutexLock lock(intx_mutex_);
  intx_wanted_ = wanted;
  update_intx();
}

void Function::update_intx() {
  const bool level = intx_wanted_ && intx_allowed_;
  if (level == intx_level_) return;
  intx_level_ = level;
  if (port_) port_->set_intx(level);
}

}  // namespace lodge::devices::pci
