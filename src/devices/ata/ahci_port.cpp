#include "devices/ata/ahci_port.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "devices/pci/dwords.hpp"

namespace lodge::devices::ata {

namespace {

// Registers (3.3).
enum Register : uint8_t {
  kListBase = 0x00,
  kListBaseHigh = 0x04,
  kReceivedBase = 0x08,
  kReceivedBaseHigh = 0x0c,
  kInterruptStatus = 0x10,
  kInterruptEnable = 0x14,
  kCommand = 0x18,
  kTaskFile = 0x20,
  kSignature = 0x24,
  kStatus = 0x28,
  kControl = 0x2c,
  kErrors = 0x30,
  kActive = 0x34,
  kIssue = 0x38,
};

// PxIS and PxIE (3.3.5).
enum Cause : uint32_t {
  kRegistersReceived = 1u << 0,
  kPioSetup = 1u << 1,
  kSetDeviceBits = 1u << 3,
  kPortConnectChange = 1u << 6,
  kPhyReadyChange = 1u << 22,
  kOverflow = 1u << 24,
  kInterfaceFatal = 1u << 27,
  kHostBusFatal = 1u << 29,
  kTaskFileError = 1u << 30,
};
constexpr uint32_t kClearable =
    kRegistersReceived | kPioSetup | kSetDeviceBits | kOverflow | kInterfaceFatal | kHostBusFatal | kTaskFileError;
constexpr uint32_t kInterrupts = 0x7dc0007f;  // all of PxIE but those of presence switches, whether or not they ever come (3.3.6)

// PxCMD (3.3.7).
enum CommandBit : uint32_t {
  kStart = 1u << 0,
  kSpinUp = 1u << 1,
  kPowerOn = 1u << 2,
  kListOverride = 1u << 3,
  kReceive = 1u << 4,
  kReceiveRunning = 1u << 14,
  kListRunning = 1u << 15,
  kAtapi = 1u << 24,
  kLed = 1u << 25,
};

constexpr uint64_t kListMask = ~uint64_t{0x3ff}, kReceivedMask = ~uint64_t{0xff}, kTableMask = ~uint64_t{0x7f};
constexpr uint32_t kDetection = 0x0f, kComReset = 1, kOffline = 4;  // of PxSCTL (3.3.11)
constexpr uint32_t kControlBits = 0x0fff;
constexpr uint32_t kConnected = 0x123;  // PxSSTS (3.3.10): a device, at 3 Gbit/s, active
constexpr uint32_t kDiagPhyReady = 1u << 16, kDiagHandshake = 1u << 22, kDiagExchanged = 1u << 26;  // PxSERR (3.3.12)
constexpr uint16_t kNoDevice = 0x7f;                                                                // of PxTFD
constexpr uint16_t kBusyBits = kBusy | kDataRequest;

// Frames (SATA 2.6, 10.3) and their places in the memory for received ones (4.2.1).
enum FrameType : uint8_t { kToDevice = 0x27, kToHost = 0x34, kDeviceBits = 0xa1, kPioSetupFrame = 0x5f };
constexpr unsigned kPioSetupPlace = 0x20, kRegistersPlace = 0x40, kDeviceBitsPlace = 0x58;
constexpr uint8_t kIsCommand = 0x80, kFrameInterrupt = 0x40, kFrameToHost = 0x20;

// A command header and table (4.2.2 and 4.2.3).
constexpr unsigned kHeaderBytes = 32, kMovedPlace = 4, kTablePackets = 0x40, kTableRegions = 0x80, kRegionBytes = 16;
constexpr uint16_t kIsPacket = 1 << 5;
constexpr uint32_t kRegionLength = 0x3fffff;

// Commands that are the link's business.
constexpr uint8_t kReadQueued = 0x60, kWriteQueued = 0x61, kExecuteDiagnostic = 0x90, kDeviceReset = 0x08;

using pci::high, pci::low, pci::with_high, pci::with_low;

}  // namespace

void AhciPort::attach(std::unique_ptr<Device> device) {
  device_ = std::move(device);
  reset();
}

// --- Registers

// Two of the causes only show what is in PxSERR.
uint32_t AhciPort::interrupt_status() const {
  return interrupt_status_ | (error_ & kDiagExchanged ? kPortConnectChange : 0u) | (error_ & kDiagPhyReady ? kPhyReadyChange : 0u);
}

// The list runs until the last command that it holds reaches memory no more, also after software has stopped it.
uint32_t AhciPort::command_register() const {
  uint32_t value = command_ | kSpinUp | kPowerOn | current_slot_ << 8;
  if (command_ & kReceive) value |= kReceiveRunning;
  if ((command_ & kStart) || !quiet()) value |= kListRunning;
  return value;
}

uint32_t AhciPort::read(unsigned offset) const {
  switch (offset) {
    case kListBase: return low(list_);
    case kListBaseHigh: return high(list_);
    case kReceivedBase: return low(received_);
    case kReceivedBaseHigh: return high(received_);
    case kInterruptStatus: return interrupt_status();
    case kInterruptEnable: return interrupt_enable_;
    case kCommand: return command_register();
    case kTaskFile: return task_file_;
    case kSignature: return signature_;
    case kStatus: {
      const uint32_t wanted = control_ & kDetection;
      if (wanted == kOffline) return kOffline;
      return device_ && wanted != kComReset ? kConnected : 0;
    }
    case kControl: return control_;
    case kErrors: return error_;
    case kActive: return active_;
    case kIssue: return issued_;
    default: return 0;
  }
}

void AhciPort::write(unsigned offset, uint32_t value) {
  switch (offset) {
    case kListBase: list_ = with_low(list_, value) & kListMask; break;
    case kListBaseHigh: list_ = with_high(list_, value); break;
    case kReceivedBase: received_ = with_low(received_, value) & kReceivedMask; break;
    case kReceivedBaseHigh: received_ = with_high(received_, value); break;
    case kInterruptStatus: interrupt_status_ &= ~(value & kClearable); break;
    case kInterruptEnable: interrupt_enable_ = value & kInterrupts; break;
    case kCommand: write_command(value); break;
    case kControl: write_control(value); break;
    case kErrors: error_ &= ~value; break;
    // Both take bits while the list runs, and lose them only by what happens (3.3.13, 3.3.14).
    case kActive:
      if (command_ & kStart) active_ |= value;
      break;
    case kIssue:
      if (command_ & kStart) issued_ |= value;
      break;
    default: return;
  }
  host_.interrupts_changed();
  proceed();
}

void AhciPort::write_command(uint32_t value) {
  const uint32_t before = std::exchange(command_, value & (kStart | kReceive | kAtapi | kLed));
  if (value & kListOverride) task_file_ &= static_cast<uint16_t>(~kBusyBits);
  if ((command_ & kReceive) && signature_waits_) show_signature();
  if ((before & kStart) && !(command_ & kStart)) stop();
  if (!(before & kStart) && (command_ & kStart)) {
    halted_ = false;
    current_slot_ = next_slot_ = 0;
  }
}

// 3.3.11: a new value of DET takes the link down, or starts it anew.
void AhciPort::write_control(uint32_t value) {
  const uint32_t before = std::exchange(control_, value & kControlBits) & kDetection, now = control_ & kDetection;
  if (before == now) return;
  if (now == kComReset || now == kOffline) {
    task_file_ = kNoDevice;
    stop();
    return;
  }
  reset_link();
}

// 10.3.2: the list is empty then. What the device has in hand goes on, and is not heard of any more.
void AhciPort::stop() {
  issued_ = active_ = queued_ = 0;
  running_command_.reset();
  block_.reset();
  if (device_) device_->abandon();
}

// COMRESET (10.4.2).
void AhciPort::reset_link() {
  stop();
  in_soft_reset_ = false;
  signature_ = ~0u;
  task_file_ = kNoDevice;
  if (!device_) return;
  error_ |= kDiagExchanged | kDiagPhyReady;
  device_->reset();
  if (command_ & kReceive)
    show_signature();
  else
    signature_waits_ = true;
}

void AhciPort::reset() {
  list_ = received_ = 0;
  interrupt_status_ = interrupt_enable_ = command_ = control_ = error_ = 0;
  halted_ = signature_waits_ = false;
  current_slot_ = next_slot_ = 0;
  reset_link();
}

// The frame that the device sends after a reset (5.3.2, 3.3.9).
void AhciPort::show_signature() {
  signature_waits_ = false;
  const Registers& registers = device_->registers;
  signature_ = static_cast<uint8_t>(registers.count) | static_cast<uint32_t>(static_cast<uint8_t>(registers.low)) << 8 |
               static_cast<uint32_t>(static_cast<uint8_t>(registers.mid)) << 16 |
               static_cast<uint32_t>(static_cast<uint8_t>(registers.high)) << 24;
  send_registers(false);
}

// --- The command list

bool AhciPort::may_issue() const {
  if (!device_ || !(command_ & kStart) || halted_ || signature_waits_ || running_command_ || !host_.may_master()) return false;
  return issued_ != 0 && !(task_file_ & kBusyBits) && (control_ & kDetection) == 0;
}

// Everything that does not wait for the disk, one thing after the other: devices answer while they are asked.
void AhciPort::proceed() {
  if (running_) return;
  running_ = true;
  for (;;) {
    if (block_) {
      move_block_now();
    } else if (may_issue()) {
      // In turns, from the one behind the last (5.3.3).
      const uint32_t turned = std::rotr(issued_, static_cast<int>(next_slot_));
      issue((next_slot_ + static_cast<unsigned>(std::countr_zero(turned))) % kSlots);
    } else {
      break;
    }
  }
  running_ = false;
}

std::optional<AhciPort::CommandHeader> AhciPort::read_header(unsigned slot) const {
  CommandHeader header;
  if (!host_.memory().read(list_ + uint64_t{slot} * kHeaderBytes, std::as_writable_bytes(std::span(&header, 1)))) return std::nullopt;
  header.table &= kTableMask;
  return header;
}

void AhciPort::issue(unsigned slot) {
  current_slot_ = slot;
  next_slot_ = (slot + 1) % kSlots;
  const auto header = read_header(slot);
  Frame frame{};
  if (!header || !host_.memory().read(header->table, std::as_writable_bytes(std::span(frame)))) return host_bus_error();
  if (frame[0] != kToDevice) {
    // The device takes no other frame from a host, and says so (SATA 2.6, 9.5).
    error_ |= kDiagHandshake;
    halted_ = true;
    return raise(kInterfaceFatal);
  }
  const Command command{.slot = slot, .header = *header};
  if (frame[1] & kIsCommand) return start(command, frame);
  // A change of the device control register.
  const bool asserted = (frame[15] & kControlSoftReset) != 0;
  if (asserted || in_soft_reset_) return soft_reset(slot, asserted);
  issued_ &= ~(1u << slot);
}

// 10.4.1: two frames, of which the device answers the second with its signature.
void AhciPort::soft_reset(unsigned slot, bool asserted) {
  issued_ &= ~(1u << slot);
  in_soft_reset_ = asserted;
  queued_ = active_ = 0;
  device_->abandon();
  if (asserted) return;
  device_->reset();
  show_signature();
}

void AhciPort::take_registers(const Frame& frame) {
  Registers& registers = device_->registers;
  const auto both = [&](unsigned low, unsigned high) { return static_cast<uint16_t>(frame[low] | frame[high] << 8); };
  registers.features = both(3, 11);
  registers.low = both(4, 8);
  registers.mid = both(5, 9);
  registers.high = both(6, 10);
  registers.device = frame[7];
  registers.count = both(12, 13);
}

void AhciPort::start(const Command& command, const Frame& frame) {
  const uint8_t code = frame[2];
  if (in_soft_reset_) return static_cast<void>(issued_ &= ~(1u << command.slot));
  if ((code == kReadQueued || code == kWriteQueued) && device_->native_queue()) return start_queued(command, frame);
  running_command_ = command;
  take_registers(frame);
  // SATA 2.6, 13.6.4.1: all that is queued goes, with an error.
  if (queued_ != 0) return refuse_with(kAborted);
  if (code == kExecuteDiagnostic || (code == kDeviceReset && device_->is_packet_device())) {
    device_->reset();
    send_registers(code == kExecuteDiagnostic);
    return command_over(false);
  }
  task_file_ = kBusy;
  device_->start(code);
}

// --- Queued commands

void AhciPort::start_queued(const Command& command, const Frame& frame) {
  const auto byte = [&](unsigned index) { return uint64_t{frame[index]}; };
  QueuedCommand queued{.write = frame[2] == kWriteQueued, .fua = (frame[7] & 0x80) != 0, .tag = static_cast<uint8_t>(frame[12] >> 3)};
  for (unsigned i = 0; i < 3; ++i) queued.sector |= byte(4 + i) << (8 * i) | byte(8 + i) << (24 + 8 * i);
  queued.count = byte(3) | byte(11) << 8;
  if (queued.count == 0) queued.count = 65536;
  const uint32_t bit = 1u << queued.tag;
  // A tag that is in use, or that software does not wait for, is no queued command.
  if ((queued_ & bit) || !(active_ & bit)) {
    running_command_ = command;
    take_registers(frame);
    return refuse_with(kAborted);
  }
  if (const auto refusal = device_->native_queue()->refuse_queued(queued)) {
    issued_ &= ~(1u << command.slot);
    return queued_ended(queued.tag, *refusal);
  }
  const uint64_t bytes = queued.count * block::kSector;
  Command reading = command;
  auto memory = take_memory(reading, bytes);
  if (!memory) return host_bus_error();
  issued_ &= ~(1u << command.slot);
  if (memory->buffers.size() < bytes) {
    raise(kOverflow);
    return queued_ended(queued.tag, {.status = kReady | kError, .error = kAborted});
  }
  queued_ |= bit;
  // Released, that the next one may come (13.6.3.1): a frame without an interrupt.
  device_->registers.status = kReady;
  device_->registers.error = 0;
  send_registers(false);
  Announcement announcement;
  if (!queued.write) announcement = std::make_shared<memory::AnnouncedWrites>(host_.memory(), std::move(memory->ranges));
  device_->native_queue()->execute_queued(queued, std::move(memory->buffers), std::move(announcement),
                                          [this, tag = queued.tag](QueuedEnd end) {
                                            queued_ended(tag, end);
                                            proceed();
                                          });
}

// A Set Device Bits frame (SATA 2.6, 10.3.6).
void AhciPort::queued_ended(uint8_t tag, QueuedEnd end) {
  const bool failed = (end.status & kError) != 0;
  const uint32_t done = failed ? 0 : 1u << tag;
  queued_ = failed ? 0 : queued_ & ~done;
  active_ &= ~done;
  constexpr uint8_t kStatusBits = 0x77;  // not BSY and DRQ
  std::array<uint8_t, 8> frame{kDeviceBits, kFrameInterrupt, static_cast<uint8_t>(end.status & kStatusBits), end.error};
  std::memcpy(&frame[4], &done, sizeof done);
  task_file_ = static_cast<uint16_t>((task_file_ & kBusyBits) | (end.status & kStatusBits) | end.error << 8);
  receive(kDeviceBitsPlace, frame);
  if (failed) {
    device_->abandon();
    halted_ = true;
  }
  raise(kSetDeviceBits | (failed ? kTaskFileError : 0u));
}

void AhciPort::refuse_with(uint8_t error) {
  queued_ = 0;
  device_->abandon();
  device_->registers.status = kReady | kServiceOrSeekComplete | kError;
  device_->registers.error = error;
  finished(*device_);
}

// --- Data

std::optional<AhciPort::Memory> AhciPort::take_memory(Command& command, uint64_t bytes) const {
  Memory memory;
  while (memory.buffers.size() < bytes && command.entry < command.header.table_length) {
    struct Region {
      uint64_t base;
      uint32_t reserved, length;
    } region{};
    const uint64_t at = command.header.table + kTableRegions + uint64_t{command.entry} * kRegionBytes;
    if (!host_.memory().read(at, std::as_writable_bytes(std::span(&region, 1)))) return std::nullopt;
    const uint64_t length = ((region.length & kRegionLength) | 1) + 1;
    const uint64_t base = (region.base & ~uint64_t{1}) + command.entry_used;
    const uint64_t used = std::min(length - command.entry_used, bytes - memory.buffers.size());
    const auto span = host_.memory().span(base, used);
    if (span.size() != used) return std::nullopt;
    memory.buffers.append(span.data(), used);
    memory.ranges.push_back({base, used});
    command.entry_used += used;
    if (command.entry_used == length) {
      command.entry_used = 0;
      ++command.entry;
    }
  }
  return memory;
}

void AhciPort::move_block(Device&, Direction direction, std::span<uint8_t> bytes, bool interrupt) {
  if (!running_command_) return;
  block_ = Block{.direction = direction, .bytes = bytes, .interrupt = interrupt};
  proceed();
}

void AhciPort::move_block_now() {
  const Block block = *std::exchange(block_, {});
  Command& command = *running_command_;
  const uint8_t status = device_->registers.status;
  if (block.direction == Direction::ToDevice && (command.header.flags & kIsPacket) && !command.packet_sent) {
    command.packet_sent = true;
    if (!host_.memory().read(command.header.table + kTablePackets, std::as_writable_bytes(block.bytes))) return host_bus_error();
  } else {
    auto memory = take_memory(command, block.bytes.size());
    if (!memory) return host_bus_error();
    const uint64_t bytes = memory->buffers.size();
    if (block.direction == Direction::ToHost) {
      const memory::AnnouncedWrites announced(host_.memory(), std::move(memory->ranges));
      memory->buffers.copy_from(0, block.bytes.data(), bytes);
    } else {
      memory->buffers.copy_to(0, block.bytes.data(), bytes);
    }
    command.moved += bytes;
    write_moved(command);
    if (bytes < block.bytes.size()) {
      // What the host has no memory for is lost, and a device that gets too little gives up.
      interrupt_status_ |= kOverflow;
      if (block.direction == Direction::ToDevice) return device_->abort_command();
    }
  }
  task_file_ = kBusy;
  device_->block_moved();
  send_pio_setup(block.direction, status, block.interrupt, block.bytes.size());
  // The last block to the host is the command's end, without a frame of its own.
  if (running_command_ && !block_ && !(device_->registers.status & kBusyBits)) {
    task_file_ = device_->registers.status;
    command_over(false);
  }
}

void AhciPort::want_dma(Device& device, Direction direction, uint64_t bytes) {
  if (!running_command_) return;
  auto memory = take_memory(*running_command_, bytes);
  if (!memory) return host_bus_error();
  if (memory->buffers.size() < bytes) {
    interrupt_status_ |= kOverflow;
    return device.abort_command();
  }
  Announcement announcement;
  if (direction == Direction::ToHost) announcement = std::make_shared<memory::AnnouncedWrites>(host_.memory(), std::move(memory->ranges));
  device.dma_memory(std::move(memory->buffers), std::move(announcement));
}

void AhciPort::dma_moved(Device&, uint64_t bytes) {
  if (!running_command_) return;
  running_command_->moved += bytes;
  write_moved(*running_command_);
}

void AhciPort::write_moved(const Command& command) {
  const auto moved = static_cast<uint32_t>(command.moved);
  static_cast<void>(host_.memory().write(list_ + uint64_t{command.slot} * kHeaderBytes + kMovedPlace, std::as_bytes(std::span(&moved, 1))));
}

// --- Ends

void AhciPort::finished(Device& device) {
  if (!running_command_) return;
  send_registers(true);
  command_over((device.registers.status & kError) != 0);
  proceed();
}

// 6.2.2.1: a command that failed keeps its bit, and the list stands still.
void AhciPort::command_over(bool error) {
  const unsigned slot = running_command_->slot;
  running_command_.reset();
  block_.reset();
  if (error) {
    halted_ = true;
    return raise(kTaskFileError);
  }
  issued_ &= ~(1u << slot);
}

void AhciPort::host_bus_error() {
  running_command_.reset();
  block_.reset();
  halted_ = true;
  raise(kHostBusFatal);
}

void AhciPort::receive(unsigned offset, std::span<const uint8_t> frame) {
  if (command_ & kReceive) static_cast<void>(host_.memory().write(received_ + offset, std::as_bytes(frame)));
}

void AhciPort::send_registers(bool interrupt) {
  const Registers& r = device_->registers;
  const auto low = [](uint16_t value) { return static_cast<uint8_t>(value); };
  const auto high = [](uint16_t value) { return static_cast<uint8_t>(value >> 8); };
  const Frame frame{kToHost,      interrupt ? kFrameInterrupt : uint8_t{0},
                    r.status,     r.error,
                    low(r.low),   low(r.mid),
                    low(r.high),  r.device,
                    high(r.low),  high(r.mid),
                    high(r.high), 0,
                    low(r.count), high(r.count)};
  task_file_ = static_cast<uint16_t>(r.status | r.error << 8);
  receive(kRegistersPlace, frame);
  if (interrupt) raise(kRegistersReceived);
}

void AhciPort::send_pio_setup(Direction direction, uint8_t status, bool interrupt, size_t bytes) {
  const Registers& r = device_->registers;
  Frame frame{kPioSetupFrame};
  frame[1] = static_cast<uint8_t>((direction == Direction::ToHost ? kFrameToHost : 0) | (interrupt ? kFrameInterrupt : 0));
  frame[2] = status;
  frame[4] = static_cast<uint8_t>(r.low);
  frame[5] = static_cast<uint8_t>(r.mid);
  frame[6] = static_cast<uint8_t>(r.high);
  frame[7] = r.device;
  frame[12] = static_cast<uint8_t>(r.count);
  frame[15] = r.status;  // how it is after the data
  frame[16] = static_cast<uint8_t>(bytes);
  frame[17] = static_cast<uint8_t>(bytes >> 8);
  receive(kPioSetupPlace, frame);
  if (interrupt) raise(kPioSetup);
}

void AhciPort::raise(uint32_t causes) {
  interrupt_status_ |= causes;
  host_.interrupts_changed();
}

}  // namespace lodge::devices::ata
