#include "devices/ata/piix_ide.hpp"

#include <algorithm>
#include <cstring>

#include "devices/chipset/identities.hpp"

namespace lodge::devices::ata {

namespace {

// Bus master registers (SFF-8038i, 3.0).
constexpr unsigned kCommand = 0, kStatus = 2, kTable = 4, kMasterBytes = 8;
constexpr uint8_t kStart = 0x01, kToMemory = 0x08;
constexpr uint8_t kActive = 0x01, kFailed = 0x02, kInterrupted = 0x04, kDriveCapable = 0x60;
constexpr uint32_t kTableBits = 0xfffffffc;

// A physical region descriptor (1.2): the memory's address, and its length with the mark of the last one.
struct RegionDescriptor {
  uint32_t base, length;
};
constexpr uint32_t kEndOfTable = 1u << 31;
constexpr uint64_t kTableReach = 1 << 16;  // a table does not cross a 64 KiB boundary

// Configuration registers (2.3).
constexpr unsigned kTiming = 0x40, kSlaveTiming = 0x44, kMasterBar = 4;
constexpr uint32_t kDecode = 1 << 15;
constexpr std::array<uint16_t, 2> kCommandPort{0x1f0, 0x170}, kControlPort{0x3f6, 0x376};

constexpr pci::Identity kIdentity = chipset::intel(0x7010, 0, 0x010180);  // IDE with a bus master, at the ports of old

}  // namespace

// --- Bus master

uint8_t BusMaster::read(unsigned offset) {
  MutexLock lock(channel_.mutex());
  if (offset == kCommand) return command_;
  if (offset == kStatus) return status_;
  if (offset >= kTable) return static_cast<uint8_t>(table_ >> (8 * (offset - kTable)));
  return 0;
}

void BusMaster::write(unsigned offset, uint8_t value) {
  MutexLock lock(channel_.mutex());
  if (offset == kCommand) {
    const bool starts = (value & kStart) && !(command_ & kStart);
    command_ = value & (kStart | kToMemory);
    if (starts) status_ |= kActive;
    // Stopping in the middle loses what is on its way, and there is no going on (2.7.1).
    if (!(value & kStart)) status_ &= static_cast<uint8_t>(~kActive);
    if (starts) begin_if_ready();
  } else if (offset == kStatus) {
    status_ = static_cast<uint8_t>((status_ & ~kDriveCapable & ~(value & (kFailed | kInterrupted))) | (value & kDriveCapable));
  } else if (offset >= kTable) {
    const unsigned shift = 8 * (offset - kTable);
    table_ = ((table_ & ~(0xffu << shift)) | static_cast<uint32_t>(value) << shift) & kTableBits;
  }
}

void BusMaster::set_allowed(bool allowed) {
  MutexLock lock(channel_.mutex());
  allowed_ = allowed;
  begin_if_ready();
}

void BusMaster::wanted(Direction direction, uint64_t bytes) {
  waiting_ = true;
  direction_ = direction;
  bytes_ = bytes;
  begin_if_ready();
}

void BusMaster::begin_if_ready() {
  if (!waiting_ || running_ || !allowed_ || !(command_ & kStart)) return;
  auto memory = collect(bytes_);
  if (!memory) {
    status_ = static_cast<uint8_t>((status_ & ~kActive) | kFailed);
    return;
  }
  waiting_ = false;
  running_ = true;
  Announcement announcement;
  if (direction_ == Direction::ToHost) announcement = std::make_shared<memory::AnnouncedWrites>(memory_, std::move(memory->ranges));
  channel_.dma_memory(std::move(memory->buffers), std::move(announcement));
}

std::optional<BusMaster::Memory> BusMaster::collect(uint64_t bytes) {
  Memory memory;
  table_ends_with_it_ = false;
  for (uint64_t offset = 0; memory.buffers.size() < bytes && offset < kTableReach; offset += sizeof(RegionDescriptor)) {
    RegionDescriptor descriptor{};
    if (!memory_.read(table_ + offset, std::as_writable_bytes(std::span(&descriptor, 1)))) return std::nullopt;
    const uint64_t length = (descriptor.length & 0xfffe) == 0 ? 0x10000 : descriptor.length & 0xfffe;
    const uint64_t base = descriptor.base & ~1u, used = std::min(length, bytes - memory.buffers.size());
    const auto span = memory_.span(base, used);
    if (span.size() != used) return std::nullopt;
    memory.buffers.append(span.data(), used);
    memory.ranges.push_back({base, used});
    const bool last = (descriptor.length & kEndOfTable) != 0;
    table_ends_with_it_ = last && used == length;
    if (last) break;
  }
  return memory;
}

void BusMaster::moved(uint64_t) {
  running_ = false;
  // 1.3: a table that is longer than the transfer leaves the master active.
  if (table_ends_with_it_) status_ &= static_cast<uint8_t>(~kActive);
}

void BusMaster::abandoned() { waiting_ = running_ = false; }

void BusMaster::interrupted() { status_ |= kInterrupted; }

// --- The function

PiixIde::PiixIde(memory::GuestMemory& memory, PortBus& ports, std::array<IrqPin, kChannels> pins)
    : Function(kIdentity, "PIIX3 IDE"),
      channels_{Channel(std::move(pins[0])), Channel(std::move(pins[1]))},
      masters_{BusMaster(channels_[0], memory), BusMaster(channels_[1], memory)},
      command_{chipset::PortBlock(ports, channels_[0].command_ports(), Channel::kCommandPorts, "IDE 0"),
               chipset::PortBlock(ports, channels_[1].command_ports(), Channel::kCommandPorts, "IDE 1")},
      control_{chipset::PortBlock(ports, channels_[0].control_ports(), Channel::kControlPorts, "IDE 0 control"),
               chipset::PortBlock(ports, channels_[1].control_ports(), Channel::kControlPorts, "IDE 1 control")} {
  add_bar(kMasterBar, {.kind = pci::BarKind::Io, .size = 16});
  config().set(pci::kStatus, 2, pci::kFastBackToBack | pci::kDevselMedium);
  // After a reset the chip decodes nothing; firmware for virtual machines (OVMF) expects that it does.
  config().define(kTiming, 4, kDecode | kDecode << 16, 0xffffffff);
  config().allow(kSlaveTiming, 1, 0xff);
  decode();
}

void PiixIde::config_written(unsigned offset, unsigned size) {
  if (pci::overlaps(offset, size, kTiming, 4)) decode();
}

void PiixIde::decode() {
  for (unsigned i = 0; i < kChannels; ++i) {
    const bool decodes = (config().read(kTiming + 2 * i, 2) & kDecode) != 0;
    command_[i].move(decodes ? std::optional(kCommandPort[i]) : std::nullopt);
    control_[i].move(decodes ? std::optional(kControlPort[i]) : std::nullopt);
  }
}

void PiixIde::bus_master_changed(bool allowed) {
  for (BusMaster& master : masters_) master.set_allowed(allowed);
}

uint64_t PiixIde::bar_read(unsigned, uint64_t offset, unsigned size) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    value |= uint64_t{masters_[at / kMasterBytes].read(at % kMasterBytes)} << (8 * i);
  }
  return value;
}

void PiixIde::bar_write(unsigned, uint64_t offset, unsigned size, uint64_t value) {
  for (unsigned i = 0; i < size; ++i) {
    const auto at = static_cast<unsigned>(offset) + i;
    masters_[at / kMasterBytes].write(at % kMasterBytes, static_cast<uint8_t>(value >> (8 * i)));
  }
}

void PiixIde::shut_down() {
  for (Channel& channel : channels_) channel.shut_down();
}

}  // namespace lodge::devices::ata
