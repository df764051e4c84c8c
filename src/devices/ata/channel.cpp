#include "devices/ata/channel.hpp"

#include <algorithm>
#include <cstring>

namespace lodge::devices::ata {

namespace {

// Offsets of the command block.
constexpr unsigned kData = 0, kErrorFeatures = 1, kCount = 2, kLow = 3, kMid = 4, kHigh = 5, kDevice = 6, kStatusCommand = 7;
constexpr uint8_t kNobody = 0x7f;  // what a channel without devices reads as
constexpr uint8_t kExecuteDiagnostic = 0x90, kDeviceReset = 0x08;

}  // namespace

Channel::~Channel() = default;

void Channel::attach(unsigned number, std::unique_ptr<Device> device) {
  devices_[number] = std::move(device);
  if (!devices_[selected_]) selected_ = 0;
}

// --- Ports

uint32_t Channel::CommandPorts::read(uint64_t offset, unsigned size) {
  MutexLock lock(channel.mutex_);
  if (offset == kData && size > 1) return channel.read_data(size);
  uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint32_t{channel.read_register(static_cast<unsigned>(offset) + i)} << (8 * i);
  return value;
}

void Channel::CommandPorts::write(uint64_t offset, unsigned size, uint32_t value) {
  MutexLock lock(channel.mutex_);
  if (offset == kData && size > 1) return channel.write_data(size, value);
  for (unsigned i = 0; i < size; ++i) channel.write_register(static_cast<unsigned>(offset) + i, static_cast<uint8_t>(value >> (8 * i)));
}

// The alternate status, which leaves INTRQ as it is.
uint8_t Channel::ControlPorts::read_byte(uint64_t) {
  MutexLock lock(channel.mutex_);
  if (const Device* device = channel.selected()) return device->registers.status;
  return channel.devices_[1 - channel.selected_] ? 0 : kNobody;
}

void Channel::ControlPorts::write_byte(uint64_t, uint8_t value) {
  MutexLock lock(channel.mutex_);
  channel.write_control(value);
}

// A device that is not there leaves the bus to the other one, which answers for it with a status of zero (volume 2, 9.16.1).
uint8_t Channel::read_register(unsigned offset) {
  Device* device = selected();
  if (offset == kData) return static_cast<uint8_t>(read_data(1));
  if (!device) {
    device = devices_[1 - selected_].get();
    if (!device) return kNobody;
    if (offset == kStatusCommand) return 0;
  }
  Registers& registers = device->registers;
  const auto byte = [&](uint16_t value) { return static_cast<uint8_t>(control_ & kControlHighOrder ? value >> 8 : value); };
  switch (offset) {
    case kErrorFeatures: return registers.error;
    case kCount: return byte(registers.count);
    case kLow: return byte(registers.low);
    case kMid: return byte(registers.mid);
    case kHigh: return byte(registers.high);
    case kDevice: return registers.device | kDeviceObsolete;
    default:
      device->asserts_interrupt = false;
      update_pin();
      return registers.status;
  }
}

void Channel::write_register(unsigned offset, uint8_t value) {
  if (offset == kData) return write_data(1, value);
  if (offset == kStatusCommand) return write_command(value);
  // Any write of the command block lets the low bytes be read again (volume 2, 7.8).
  control_ &= static_cast<uint8_t>(~kControlHighOrder);
  for (const auto& device : devices_) {
    if (!device) continue;
    Registers& registers = device->registers;
    // A busy device takes no writes, except to its select bit (7.2.4).
    const bool busy = (registers.status & (kBusy | kDataRequest)) != 0;
    if (busy && offset != kDevice) continue;
    switch (offset) {
      case kErrorFeatures: Registers::push(registers.features, value); break;
      case kCount: Registers::push(registers.count, value); break;
      case kLow: Registers::push(registers.low, value); break;
      case kMid: Registers::push(registers.mid, value); break;
      case kHigh: Registers::push(registers.high, value); break;
      default: registers.device = value; break;
    }
  }
  if (offset == kDevice) {
    selected_ = (value & kDeviceSecond) != 0 ? 1 : 0;
    update_pin();
  }
}

void Channel::write_command(uint8_t value) {
  if (value == kExecuteDiagnostic) return diagnose();
  Device* device = selected();
  if (!device || (control_ & kControlSoftReset)) return;
  if (device->registers.status & (kBusy | kDataRequest)) {
    // A packet device can be reset out of anything; other commands are not for a busy device.
    if (!(device->is_packet_device() && value == kDeviceReset)) return;
  }
  if (block_owner_ == device) block_owner_ = nullptr;
  if (dma_owner_ == device) {
    dma_owner_ = nullptr;
    if (dma_) dma_->abandoned();
  }
  device->start(value);
  update_pin();
}

void Channel::write_control(uint8_t value) {
  const uint8_t before = std::exchange(control_, value);
  const bool was = before & kControlSoftReset, is = value & kControlSoftReset;
  if (is && !was) {
    reset_all();
    for (const auto& device : devices_)
      if (device) device->registers.status = kBusy;
  }
  if (was && !is) reset_all();
  update_pin();
}

void Channel::reset_all() {
  block_owner_ = nullptr;
  if (dma_owner_) {
    dma_owner_ = nullptr;
    if (dma_) dma_->abandoned();
  }
  for (const auto& device : devices_)
    if (device) device->reset();
  selected_ = 0;
}

// EXECUTE DEVICE DIAGNOSTIC is for both, whichever is selected, and device 0 tells its end (volume 1, 6.13).
void Channel::diagnose() {
  reset_all();
  if (devices_[0]) raise(*devices_[0]);
}

// --- The data register

uint32_t Channel::read_data(unsigned size) {
  if (!block_owner_ || block_owner_ != selected() || block_direction_ != Direction::ToHost) return 0xffffffffu >> (32 - 8 * size);
  uint32_t value = 0;
  const size_t bytes = std::min<size_t>(size, block_.size() - block_position_);
  std::memcpy(&value, block_.data() + block_position_, bytes);
  block_position_ += bytes;
  if (block_position_ == block_.size()) end_block();
  return value;
}

void Channel::write_data(unsigned size, uint32_t value) {
  if (!block_owner_ || block_owner_ != selected() || block_direction_ != Direction::ToDevice) return;
  const size_t bytes = std::min<size_t>(size, block_.size() - block_position_);
  std::memcpy(block_.data() + block_position_, &value, bytes);
  block_position_ += bytes;
  if (block_position_ == block_.size()) end_block();
}

void Channel::end_block() {
  Device* owner = std::exchange(block_owner_, nullptr);
  owner->block_moved();
}

void Channel::move_block(Device& device, Direction direction, std::span<uint8_t> block, bool interrupt) {
  block_owner_ = &device;
  block_direction_ = direction;
  block_ = block;
  block_position_ = 0;
  if (interrupt) raise(device);
}

// --- DMA

void Channel::want_dma(Device& device, Direction direction, uint64_t bytes) {
  dma_owner_ = &device;
  if (dma_) dma_->wanted(direction, bytes);
}

void Channel::dma_memory(block::Buffers memory, Announcement announcement) {
  if (dma_owner_) dma_owner_->dma_memory(std::move(memory), std::move(announcement));
}

void Channel::dma_moved(Device&, uint64_t bytes) {
  if (dma_) dma_->moved(bytes);
}

// --- INTRQ

void Channel::finished(Device& device) {
  if (dma_owner_ == &device) dma_owner_ = nullptr;
  raise(device);
}

void Channel::raise(Device& device) {
  device.asserts_interrupt = true;
  update_pin();
}

// Only the selected device drives the line, and with nIEN set none does (volume 2, 8.3).
void Channel::update_pin() {
  const Device* device = selected();
  const bool level = device && device->asserts_interrupt && !(control_ & kControlNoInterrupt);
  if (level == level_) return;
  level_ = level;
  if (level && dma_) dma_->interrupted();
  pin_.set(level);
}

void Channel::shut_down() {
  for (const auto& device : devices_)
    if (device) device->wait_until_idle();
}

}  // namespace lodge::devices::ata
