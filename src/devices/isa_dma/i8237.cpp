#include "devices/isa_dma/i8237.hpp"

#include <algorithm>
#include <utility>

namespace lodge::devices {

namespace {

// Registers behind the channels' addresses and counts (figure 5 of the data sheet).
enum Register : uint8_t {
  kCommandStatus = 8,
  kRequest = 9,
  kMaskOne = 10,
  kMode = 11,
  kClearFlipFlop = 12,
  kMasterClear = 13,
  kClearMask = 14,
  kMaskAll = 15,
};
constexpr uint8_t kControllerOff = 0x04;                                       // command register
constexpr uint8_t kModeDirection = 0x0c, kModeWrite = 0x04, kModeRead = 0x08;  // as memory sees it
constexpr uint8_t kModeAutomatic = 0x10, kModeDown = 0x20;
constexpr uint8_t kMaskSet = 0x04, kChannelBits = 0x03;

// Which channel a page register belongs to, by its offset from kPagePorts.
constexpr int page_channel(unsigned offset) {
  switch (I8237::kPagePorts + offset) {
    case 0x87: return 0;
    case 0x83: return 1;
    case 0x81: return 2;
    case 0x82: return 3;
    case 0x8b: return 5;
    case 0x89: return 6;
    case 0x8a: return 7;
    default: return -1;
  }
}

}  // namespace

Result<> I8237::attach(PortBus& ports) {
  TRY(ports.attach(kBytesPorts, kBytesLength, byte_ports_, "DMA controller"));
  TRY(ports.attach(kWordsPorts, kWordsLength, word_ports_, "second DMA controller"));
  return ports.attach(kPagePorts, kPageLength, page_ports_, "DMA pages");
}

// --- Registers

uint8_t I8237::read(unsigned controller, unsigned reg) {
  MutexLock lock(mutex_);
  Controller& chip = controllers_[controller];
  if (reg < kCommandStatus) {
    const Channel& channel = chip.channels[reg / 2];
    const uint16_t value = reg % 2 ? channel.count : channel.address;
    chip.high_byte = !chip.high_byte;
    return static_cast<uint8_t>(chip.high_byte ? value : value >> 8);
  }
  if (reg == kCommandStatus) return std::exchange(chip.reached, uint8_t{0});
  if (reg == kMaskAll) {  // of the ATs whose chips can be asked
    uint8_t mask = 0xf0;
    for (unsigned i = 0; i < 4; ++i) mask |= static_cast<uint8_t>(chip.channels[i].masked << i);
    return mask;
  }
  return 0;
}

void I8237::write(unsigned controller, unsigned reg, uint8_t value) {
  MutexLock lock(mutex_);
  Controller& chip = controllers_[controller];
  if (reg < kCommandStatus) {
    Channel& channel = chip.channels[reg / 2];
    uint16_t& base = reg % 2 ? channel.base_count : channel.base_address;
    base = static_cast<uint16_t>(chip.high_byte ? (base & 0x00ff) | value << 8 : (base & 0xff00) | value);
    (reg % 2 ? channel.count : channel.address) = base;
    chip.high_byte = !chip.high_byte;
    return;
  }
  switch (reg) {
    case kCommandStatus: chip.command = value; break;
    case kMaskOne: chip.channels[value & kChannelBits].masked = (value & kMaskSet) != 0; break;
    case kMode: chip.channels[value & kChannelBits].mode = value; break;
    case kClearFlipFlop: chip.high_byte = false; break;
    case kMasterClear:
      chip.command = chip.reached = 0;
      chip.high_byte = false;
      for (Channel& channel : chip.channels) channel.masked = true;
      break;
    case kClearMask:
      for (Channel& channel : chip.channels) channel.masked = false;
      break;
    case kMaskAll:
      for (unsigned i = 0; i < 4; ++i) chip.channels[i].masked = (value >> i & 1) != 0;
      break;
    default: break;  // requests by software are for memory to memory
  }
}

uint8_t I8237::read_page(unsigned offset) {
  MutexLock lock(mutex_);
  const int channel = page_channel(offset);
  return channel < 0 ? spare_pages_[offset] : controllers_[channel / 4].channels[channel % 4].page;
}

void I8237::write_page(unsigned offset, uint8_t value) {
  MutexLock lock(mutex_);
  if (const int channel = page_channel(offset); channel >= 0)
    controllers_[channel / 4].channels[channel % 4].page = value;
  else
    spare_pages_[offset] = value;
}

// --- Transfers

I8237::Moved I8237::move(unsigned channel_number, Direction direction, std::span<uint8_t> data) {
  MutexLock lock(mutex_);
  Controller& chip = controllers_[channel_number / 4];
  const unsigned index = channel_number % 4, unit = channel_number < kCascade ? 1 : 2;
  Channel& channel = chip.channels[index];
  const uint8_t wanted = direction == Direction::ToMemory ? kModeWrite : kModeRead;
  // The second controller's first channel lets the first one through.
  const bool off = (chip.command & kControllerOff) || channel.masked || (channel_number < kCascade && controllers_[1].channels[0].masked);
  if (off || (channel.mode & kModeDirection) != wanted) return {};
  Moved moved;
  // Addresses of the second controller are those of words, and the page's lowest bit is not used. None leaves its page.
  const uint64_t page = unit == 1 ? uint64_t{channel.page} << 16 : uint64_t{channel.page & 0xfeu} << 16;
  while (moved.bytes + unit <= data.size() && !moved.terminal_count) {
    const uint64_t left = uint64_t{channel.count} + 1;
    uint64_t units = std::min<uint64_t>(left, (data.size() - moved.bytes) / unit);
    if (channel.mode & kModeDown)
      units = 1;
    else
      units = std::min<uint64_t>(units, 0x10000u - channel.address);
    access(page + uint64_t{channel.address} * unit, direction, data.subspan(moved.bytes, units * unit));
    moved.bytes += units * unit;
    moved.terminal_count = units == left;
    channel.count = static_cast<uint16_t>(channel.count - units);
    channel.address = static_cast<uint16_t>(channel.mode & kModeDown ? channel.address - 1 : channel.address + units);
  }
  if (moved.terminal_count) {
    chip.reached |= static_cast<uint8_t>(1u << index);
    if (channel.mode & kModeAutomatic) {
      channel.address = channel.base_address;
      channel.count = channel.base_count;
    } else {
      channel.masked = true;
    }
  }
  return moved;
}

void I8237::access(uint64_t address, Direction direction, std::span<uint8_t> data) {
  if (direction == Direction::ToMemory)
    static_cast<void>(memory_.write(address, std::as_bytes(data)));
  else if (!memory_.read(address, std::as_writable_bytes(data)))
    std::ranges::fill(data, uint8_t{0xff});
}

}  // namespace lodge::devices
