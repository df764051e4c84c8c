#include "devices/usb/xhci.hpp"

#include <algorithm>
#include <cassert>

#include "devices/pci/dwords.hpp"

namespace lodge::devices::usb {

namespace {

constexpr unsigned kBar = 0;
constexpr uint64_t kBarBytes = 0x4000, kOperational = 0x40, kPortRegisters = 0x400, kPortStride = 0x10, kRuntime = 0x1000,
                   kInterrupter = 0x20, kDoorbells = 0x2000, kMsixTable = 0x3000, kMsixPending = 0x3800, kExtended = 0x20;
constexpr pci::Identity kIdentity{
    .vendor = 0x1b36, .device = 0x000d, .revision = 1, .class_code = 0x0c0330, .subsystem_vendor = 0x1af4, .subsystem = 0x1100};
constexpr unsigned kReleaseNumber = 0x60;  // of configuration space: the USB revision (5.2.3)

// USBCMD, USBSTS (5.4.1, 5.4.2).
constexpr uint32_t kRun = 1 << 0, kReset = 1 << 1, kInterruptEnable = 1 << 2, kCommandBits = 0x30d;
constexpr uint32_t kHalted = 1 << 0, kEventInterrupt = 1 << 3, kPortChange = 1 << 4, kStatusClear = 0x41c;
// CRCR (5.4.5).
constexpr uint32_t kRingCycle = 1 << 0, kCommandStop = 1 << 1, kCommandAbort = 1 << 2, kCommandRunning = 1 << 3;
// PORTSC (5.4.8).
constexpr uint32_t kConnected = 1 << 0, kPortEnabled = 1 << 1, kPortReset = 1 << 4, kLinkShift = 5, kLinkMask = 0xf << kLinkShift,
                   kPower = 1 << 9, kHighSpeed = 3 << 10, kLinkWrite = 1 << 16, kConnectChange = 1 << 17, kResetChange = 1 << 21,
                   kLinkChange = 1 << 22, kPortChanges = 0x00fe0000, kWakeBits = 0x0e000000;
constexpr uint32_t kLinkU0 = 0, kLinkU3 = 3, kLinkPolling = 7, kLinkResume = 15, kLinkDetect = 5;
// IMAN, ERDP (5.5.2).
constexpr uint32_t kPending = 1 << 0, kEnable = 1 << 1;
constexpr uint64_t kHandlerBusy = 1 << 3;

enum TrbType : uint8_t {
  kNormal = 1,
  kSetupStage = 2,
  kDataStage = 3,
  kStatusStage = 4,
  kLink = 6,
  kEventData = 7,
  kNoOp = 8,
  kEnableSlot = 9,
  kDisableSlot = 10,
  kAddressDevice = 11,
  kConfigureEndpoint = 12,
  kEvaluateContext = 13,
  kResetEndpoint = 14,
  kStopEndpoint = 15,
  kSetDequeue = 16,
  kResetDevice = 17,
  kNoOpCommand = 23,
  kTransferEvent = 32,
  kCommandCompletion = 33,
  kPortStatusChange = 34,
};
constexpr uint32_t kCycle = 1 << 0, kToggleCycle = 1 << 1, kInterruptOnShort = 1 << 2, kInterruptOnCompletion = 1 << 5, kImmediate = 1 << 6,
                   kBlockAddress = 1 << 9, kDeconfigure = 1 << 9, kIsEventData = 1 << 2;

enum Code : uint8_t {
  kSuccess = 1,
  kTrbError = 5,
  kStall = 6,
  kNoSlots = 9,
  kSlotNotEnabled = 11,
  kShortPacket = 13,
  kParameterError = 17,
  kContextStateError = 19,
};
enum SlotState : uint32_t { kDefault = 1, kAddressed = 2, kConfigured = 3 };
enum EndpointState : uint8_t { kDisabled = 0, kRunning = 1, kIsHalted = 2, kStopped = 3 };

constexpr unsigned kTrbBytes = 16, kContextBytes = 32;
constexpr unsigned kMostAtOnce = 4096;  // TRBs: a ring that leads into itself ends there
constexpr size_t kMostEvents = 256, kMostControlBytes = 4096;
constexpr uint32_t kLargestSegment = 4096;

using pci::high, pci::low, pci::with_high, pci::with_low;

}  // namespace

Xhci::Xhci(memory::GuestMemory& memory, const Clock& clock) : Function(kIdentity, "USB"), memory_(memory), clock_(clock) {
  add_bar(kBar, {.kind = pci::BarKind::Memory64, .size = kBarBytes});
  add_interrupt_pin();
  add_msix({.vectors = 1, .bar = kBar, .table_offset = kMsixTable, .pending_offset = kMsixPending});
  config().set(kReleaseNumber, 1, 0x30);
  MutexLock lock(mutex_);
  reset_controller();
}

void Xhci::attach(unsigned port, Device& device) {
  assert(port >= 1 && port <= kPorts);
  MutexLock lock(mutex_);
  ports_[port - 1].device = &device;
  device.set_wake([this, port](unsigned endpoint) { device_woke(port, endpoint); });
  reset_controller();
}

// 4.2: what software finds after power-on and after it has asked for a reset.
void Xhci::reset_controller() {
  command_ = notification_ = configuration_ = management_ = segments_ = 0;
  moderation_ = 4000;
  status_ = kHalted;
  commands_ = {};
  commands_run_ = false;
  contexts_ = segment_table_ = dequeue_ = 0;
  segment_ = place_ = 0;
  cycle_ = true;
  events_.clear();
  slots_ = {};
  for (Port& port : ports_) {
    port.status =
        kPower | (port.device ? kConnected | kConnectChange | kHighSpeed | kLinkPolling << kLinkShift : kLinkDetect << kLinkShift);
    if (port.device) port.device->reset();
  }
  update_pin();
}

// --- Guest memory

template <typename T>
T Xhci::load(uint64_t address) const {
  T value{};
  // What is no memory reads as all ones, which is no command.
  if (!memory_.read(address, std::as_writable_bytes(std::span(&value, 1)))) value = static_cast<T>(~T{0});
  return value;
}

template <typename T>
void Xhci::store(uint64_t address, T value) {
  static_cast<void>(memory_.write(address, std::as_bytes(std::span(&value, 1))));
}

uint32_t Xhci::load_context(uint64_t context, unsigned index, unsigned dword) const {
  return load<uint32_t>(context + uint64_t{index} * kContextBytes + 4 * dword);
}
void Xhci::store_context(uint64_t context, unsigned index, unsigned dword, uint32_t value) {
  store(context + uint64_t{index} * kContextBytes + 4 * dword, value);
}

// --- Registers: dwords; a wider access is two of them, a narrower one a part.

uint64_t Xhci::bar_read(unsigned, uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  return pci::read_dwords(offset, size, [this](uint64_t at) LODGE_REQUIRES(mutex_) { return read_register(at); });
}

// 5: registers are written as dwords.
void Xhci::bar_write(unsigned, uint64_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  pci::write_dwords(offset, size, value, [this](uint64_t at, uint32_t dword) LODGE_REQUIRES(mutex_) { write_register(at, dword); });
}

uint32_t Xhci::read_register(uint64_t offset) {
  switch (offset) {
    case 0x00: return kOperational | 0x0100 << 16;                     // CAPLENGTH, HCIVERSION 1.0
    case 0x04: return kSlots | 1 << 8 | kPorts << 24;                  // HCSPARAMS1
    case 0x10: return 1 | static_cast<uint32_t>(kExtended / 4) << 16;  // HCCPARAMS1: 64-bit addresses
    case 0x14: return kDoorbells;
    case 0x18: return kRuntime;
    // The only extended capability (7.2): its ports are of USB 2.0.
    case kExtended: return 2 | 0x0200 << 16;
    case kExtended + 4: return 0x20425355;  // "USB "
    case kExtended + 8: return 1 | kPorts << 8;
    case kOperational + 0x00: return command_;
    case kOperational + 0x04: return status_;
    case kOperational + 0x08: return 1;  // pages of 4 KiB
    case kOperational + 0x14: return notification_;
    case kOperational + 0x18: return commands_run_ ? kCommandRunning : 0;  // all else reads as 0
    case kOperational + 0x30: return low(contexts_);
    case kOperational + 0x34: return high(contexts_);
    case kOperational + 0x38: return configuration_;
    case kRuntime: return static_cast<uint32_t>(clock_.monotonic_ns() / 125'000 & 0x3fff);  // MFINDEX
    case kRuntime + kInterrupter + 0x00: return management_;
    case kRuntime + kInterrupter + 0x04: return moderation_;
    case kRuntime + kInterrupter + 0x08: return segments_;
    case kRuntime + kInterrupter + 0x10: return low(segment_table_);
    case kRuntime + kInterrupter + 0x14: return high(segment_table_);
    case kRuntime + kInterrupter + 0x18: return low(dequeue_);
    case kRuntime + kInterrupter + 0x1c: return high(dequeue_);
    default: break;
  }
  const uint64_t in_ports = offset - (kOperational + kPortRegisters);
  return in_ports < kPorts * kPortStride && in_ports % kPortStride == 0 ? ports_[in_ports / kPortStride].status : 0;
}

void Xhci::write_register(uint64_t offset, uint32_t value) {
  if (offset - kDoorbells < 4 * (kSlots + 1)) return ring_doorbell(static_cast<unsigned>(offset - kDoorbells) / 4, value & 0xff);
  const uint64_t in_ports = offset - (kOperational + kPortRegisters);
  if (in_ports < kPorts * kPortStride) {
    if (in_ports % kPortStride == 0) write_port(static_cast<unsigned>(in_ports / kPortStride), value);
    return;
  }
  if (offset >= kRuntime + kInterrupter && offset < kRuntime + 2 * kInterrupter)
    return write_runtime(offset - kRuntime - kInterrupter, value);
  if (offset >= kOperational && offset < kRuntime) write_operational(offset - kOperational, value);
}

void Xhci::write_command_register(uint32_t value) {
  if (value & kReset) return reset_controller();
  const bool starts = (value & kRun) && !(command_ & kRun);
  command_ = value & kCommandBits;
  if (command_ & kRun)
    status_ &= ~kHalted;
  else
    status_ |= kHalted;
  if (!(command_ & kRun)) commands_run_ = false;
  if (starts)
    for (unsigned i = 0; i < kPorts; ++i)
      if (ports_[i].status & kPortChanges) port_event(i);
  update_pin();
}

void Xhci::write_operational(uint64_t offset, uint32_t value) {
  switch (offset) {
    case 0x00: return write_command_register(value);
    case 0x04: status_ &= ~(value & kStatusClear); return update_pin();
    case 0x14: notification_ = value & 0xffff; return;
    case 0x18:
      if (commands_run_) {  // only to be stopped
        if (value & (kCommandStop | kCommandAbort)) commands_run_ = false;
        return;
      }
      commands_.dequeue = with_low(commands_.dequeue, value & ~0x3fU);
      commands_.cycle = (value & kRingCycle) != 0;
      return;
    case 0x1c:
      if (!commands_run_) commands_.dequeue = with_high(commands_.dequeue, value);
      return;
    case 0x30: contexts_ = with_low(contexts_, value & ~0x3fU); return;
    case 0x34: contexts_ = with_high(contexts_, value); return;
    case 0x38: configuration_ = value & 0xff; return;
    default: return;
  }
}

void Xhci::write_runtime(uint64_t offset, uint32_t value) {
  switch (offset) {
    case 0x00:
      if (value & kPending) management_ &= ~kPending;
      management_ = (management_ & kPending) | (value & kEnable);
      return update_pin();
    case 0x04: moderation_ = value; return;
    case 0x08: segments_ = value & 0xffff; return;
    case 0x10: segment_table_ = with_low(segment_table_, value & ~0x3fU); return;
    case 0x14:
      segment_table_ = with_high(segment_table_, value);
      segment_ = place_ = 0;
      cycle_ = true;
      return;
    case 0x18: {
      // Bit 3 is cleared by writing it: the handler is done.
      const bool done = (value & kHandlerBusy) != 0;
      dequeue_ = with_low(dequeue_, (value & ~uint32_t{kHandlerBusy}) | (done ? 0 : low(dequeue_) & kHandlerBusy));
      return;
    }
    case 0x1c: dequeue_ = with_high(dequeue_, value); return write_events();
    default: return;
  }
}

void Xhci::write_port(unsigned number, uint32_t value) {
  Port& port = ports_[number];
  port.status &= ~(value & kPortChanges);
  port.status = (port.status & ~kWakeBits) | (value & kWakeBits);
  if (!port.device) return;
  if (value & kPortReset) {
    // 4.19.5: a USB 2.0 port is enabled when its reset is over.
    port.device->reset();
    port.status = (port.status & ~kLinkMask) | kPortEnabled | kResetChange | kLinkU0 << kLinkShift;
    return port_event(number);
  }
  if (value & port.status & kPortEnabled) port.status &= ~kPortEnabled;
  if (value & kLinkWrite) {
    const uint32_t wanted = (value & kLinkMask) >> kLinkShift, now = (port.status & kLinkMask) >> kLinkShift;
    if (wanted != kLinkU0 && wanted != kLinkU3 && wanted != kLinkResume) return;
    port.status = (port.status & ~kLinkMask) | wanted << kLinkShift;
    if (wanted == kLinkU0 && now != kLinkU0) {
      port.status |= kLinkChange;
      port_event(number);
    }
  }
}

// --- Events (4.9.4)

void Xhci::post(uint64_t parameter, uint32_t status, uint32_t control) {
  if (events_.size() < kMostEvents) events_.push_back({.parameter = parameter, .status = status, .control = control});
  write_events();
}

// As many as there is room for: the place before the one that software has come to stays free.
void Xhci::write_events() {
  bool some = false;
  while (!events_.empty() && (command_ & kRun) && segments_ != 0) {
    const uint64_t entry = segment_table_ + uint64_t{16} * segment_;
    const uint64_t base = load<uint64_t>(entry);
    const uint32_t size = load<uint32_t>(entry + 8) & 0xffff;
    if (size == 0 || size > kLargestSegment) break;
    const uint64_t address = base + uint64_t{kTrbBytes} * place_;
    uint32_t next_place = place_ + 1, next_segment = segment_;
    bool next_cycle = cycle_;
    uint64_t next = address + kTrbBytes;
    if (next_place >= size) {
      next_place = 0;
      next_segment = segment_ + 1 < segments_ ? segment_ + 1 : 0;
      if (next_segment == 0) next_cycle = !cycle_;
      next = load<uint64_t>(segment_table_ + uint64_t{16} * next_segment);
    }
    if (next == (dequeue_ & ~uint64_t{0xf})) break;
    const Trb& event = events_.front();
    store(address, event.parameter);
    store(address + 8, event.status);
    // The cycle bit comes last: by it software sees that the rest is there.
    store(address + 12, (event.control & ~kCycle) | (cycle_ ? kCycle : 0));
    events_.pop_front();
    place_ = next_place;
    segment_ = next_segment;
    cycle_ = next_cycle;
    some = true;
  }
  // Software that has not seen the last one looks again.
  const uint64_t here = load<uint64_t>(segment_table_ + uint64_t{16} * segment_) + uint64_t{kTrbBytes} * place_;
  const bool unseen = segments_ != 0 && (dequeue_ & ~uint64_t{0xf}) != here && !(dequeue_ & kHandlerBusy);
  if (some || (unseen && (command_ & kRun))) raise();
}

void Xhci::raise() {
  if (dequeue_ & kHandlerBusy) return;  // it will find this one, too
  dequeue_ |= kHandlerBusy;
  status_ |= kEventInterrupt;
  management_ |= kPending;
  if (msix()->enabled()) {
    if (!(management_ & kEnable) || !(command_ & kInterruptEnable)) return;
    management_ &= ~kPending;  // 4.17.5: a message takes it along
    return msix()->signal(0);
  }
  update_pin();
}

void Xhci::update_pin() {
  set_intx((management_ & kPending) && (management_ & kEnable) && (command_ & kInterruptEnable) && (status_ & kEventInterrupt));
}

void Xhci::port_event(unsigned port) {
  status_ |= kPortChange;
  if (command_ & kRun) post(uint64_t{port + 1} << 24, uint32_t{kSuccess} << 24, uint32_t{kPortStatusChange} << 10);
}

void Xhci::transfer_event(const Trb& trb, unsigned slot, unsigned target, uint8_t code, uint32_t left) {
  post(trb.address, uint32_t{code} << 24 | left, slot << 24 | target << 16 | uint32_t{kTransferEvent} << 10);
}

// --- Rings (4.9)

// The next TRB that is the controller's, past links; nothing: software has put none there yet.
std::optional<Xhci::Trb> Xhci::fetch(Ring& ring) {
  for (unsigned links = 0; links < kMostAtOnce; ++links) {
    Trb trb{.parameter = load<uint64_t>(ring.dequeue),
            .status = load<uint32_t>(ring.dequeue + 8),
            .control = load<uint32_t>(ring.dequeue + 12),
            .address = ring.dequeue};
    if (((trb.control & kCycle) != 0) != ring.cycle) return std::nullopt;
    if (trb.type() != kLink) {
      ring.dequeue += kTrbBytes;
      return trb;
    }
    ring.dequeue = trb.parameter & ~uint64_t{0xf};
    if (trb.control & kToggleCycle) ring.cycle = !ring.cycle;
  }
  return std::nullopt;
}

void Xhci::ring_doorbell(unsigned slot, unsigned target) {
  if (!(command_ & kRun)) return;
  if (slot == 0) {
    if (target == 0) run_commands();
    return;
  }
  if (!slots_[slot].enabled || target == 0 || target > 31) return;
  Endpoint& endpoint = slots_[slot].endpoints[target];
  if (endpoint.state == kStopped) set_endpoint_state(slots_[slot], target, kRunning);
  if (endpoint.state != kRunning) return;
  if (target == 1)
    serve_control(slot, endpoint);
  else
    serve_interrupt(slot, target, endpoint);
}

// --- Commands (4.6)

void Xhci::run_commands() {
  commands_run_ = true;
  for (unsigned done = 0; done < kMostAtOnce; ++done) {
    const auto trb = fetch(commands_);
    if (!trb) return;
    unsigned slot = trb->slot();
    const uint8_t code = command(*trb, slot);
    post(trb->address, uint32_t{code} << 24, slot << 24 | uint32_t{kCommandCompletion} << 10);
  }
}

uint8_t Xhci::command(const Trb& trb, unsigned& number) {
  if (trb.type() == kNoOpCommand) return kSuccess;
  if (trb.type() == kEnableSlot) {
    const auto free = std::find_if(slots_.begin() + 1, slots_.end(), [](const Slot& slot) { return !slot.enabled; });
    if (free == slots_.end()) return kNoSlots;
    *free = {};
    free->enabled = true;
    number = static_cast<unsigned>(free - slots_.begin());
    return kSuccess;
  }
  if (number == 0 || number > kSlots || !slots_[number].enabled) return kSlotNotEnabled;
  Slot& slot = slots_[number];
  switch (trb.type()) {
    case kDisableSlot: slot = {}; return kSuccess;
    case kAddressDevice: return address_device(slot, number, trb);
    case kConfigureEndpoint: return configure_endpoints(slot, trb);
    case kEvaluateContext: return evaluate_context(slot, trb);
    case kResetEndpoint: {
      Endpoint& endpoint = slot.endpoints[trb.endpoint()];
      if (endpoint.state != kIsHalted) return kContextStateError;
      endpoint.has_setup = false;
      set_endpoint_state(slot, trb.endpoint(), kStopped);
      return kSuccess;
    }
    case kStopEndpoint: return stop_endpoint(slot, trb);
    case kSetDequeue: return set_dequeue(slot, trb);
    case kResetDevice:
      disable_endpoints(slot, 2);
      store_context(slot.context, 0, 3, kDefault << 27);
      if (Device* device = device_of(slot)) device->reset();
      return kSuccess;
    default: return kTrbError;
  }
}

Device* Xhci::device_of(const Slot& slot) { return slot.port == 0 ? nullptr : ports_[slot.port - 1].device; }

void Xhci::disable_endpoints(Slot& slot, unsigned from) {
  for (unsigned i = from; i < slot.endpoints.size(); ++i) {
    if (slot.endpoints[i].state == kDisabled) continue;
    slot.endpoints[i] = {};
    store_context(slot.context, i, 0, load_context(slot.context, i, 0) & ~7U);
  }
}

void Xhci::set_endpoint_state(Slot& slot, unsigned number, uint8_t state) {
  Endpoint& endpoint = slot.endpoints[number];
  endpoint.state = state;
  store_context(slot.context, number, 0, (load_context(slot.context, number, 0) & ~7U) | state);
  // 4.6.9: where it stands is seen by software when it has stopped.
  store_context(slot.context, number, 2, low(endpoint.ring.dequeue) | (endpoint.ring.cycle ? 1 : 0));
  store_context(slot.context, number, 3, high(endpoint.ring.dequeue));
}

// From the input context at `input`, whose parts come one later than the output's (6.2.5).
void Xhci::load_endpoint(Slot& slot, unsigned number, uint64_t input) {
  for (unsigned dword = 0; dword < kContextBytes / 4; ++dword)
    store_context(slot.context, number, dword, load_context(input, number + 1, dword));
  Endpoint& endpoint = slot.endpoints[number];
  endpoint = {};
  const uint64_t dequeue = load_context(input, number + 1, 2) | uint64_t{load_context(input, number + 1, 3)} << 32;
  endpoint.ring = {.dequeue = dequeue & ~uint64_t{0xf}, .cycle = (dequeue & 1) != 0};
  set_endpoint_state(slot, number, kRunning);
}

uint8_t Xhci::address_device(Slot& slot, unsigned number, const Trb& trb) {
  constexpr uint32_t kSlotAndControl = 3;
  const uint64_t input = trb.parameter & ~uint64_t{0xf};
  if ((load_context(input, 0, 1) & kSlotAndControl) != kSlotAndControl) return kParameterError;
  const unsigned port = load_context(input, 1, 1) >> 16 & 0xff;
  if (port == 0 || port > kPorts || !ports_[port - 1].device) return kParameterError;
  slot.port = port;
  slot.context = load<uint64_t>(contexts_ + uint64_t{8} * number) & ~uint64_t{0x3f};
  for (unsigned dword = 0; dword < kContextBytes / 4; ++dword) store_context(slot.context, 0, dword, load_context(input, 1, dword));
  const bool only_default = (trb.control & kBlockAddress) != 0;
  store_context(slot.context, 0, 3, only_default ? kDefault << 27 : kAddressed << 27 | number);
  load_endpoint(slot, 1, input);
  return kSuccess;
}

uint8_t Xhci::configure_endpoints(Slot& slot, const Trb& trb) {
  constexpr unsigned kInterruptIn = 7;  // endpoint types (table 58)
  if (slot.context == 0) return kContextStateError;
  const auto set_state = [&](SlotState state) {
    store_context(slot.context, 0, 3, (load_context(slot.context, 0, 3) & 0x07ffffff) | state << 27);
  };
  if (trb.control & kDeconfigure) {
    disable_endpoints(slot, 2);
    set_state(kAddressed);
    return kSuccess;
  }
  const uint64_t input = trb.parameter & ~uint64_t{0xf};
  const uint32_t drop = load_context(input, 0, 0), add = load_context(input, 0, 1);
  for (unsigned i = 2; i < 32; ++i)
    if ((add >> i & 1) && (load_context(input, i + 1, 1) >> 3 & 7) != kInterruptIn) return kParameterError;
  for (unsigned i = 2; i < 32; ++i) {
    if ((drop >> i & 1) && slot.endpoints[i].state != kDisabled) {
      slot.endpoints[i] = {};
      store_context(slot.context, i, 0, 0);
    }
    if (add >> i & 1) load_endpoint(slot, i, input);
  }
  if (add & 1) store_context(slot.context, 0, 0, load_context(input, 1, 0));
  set_state(kConfigured);
  return kSuccess;
}

uint8_t Xhci::evaluate_context(Slot& slot, const Trb& trb) {
  const uint64_t input = trb.parameter & ~uint64_t{0xf};
  if (slot.context == 0) return kContextStateError;
  const uint32_t add = load_context(input, 0, 1);
  // 4.6.7: exit latency and interrupter of the slot, and the packet size of the control endpoint.
  if (add & 1) {
    store_context(slot.context, 0, 1, (load_context(slot.context, 0, 1) & ~0xffffU) | (load_context(input, 1, 1) & 0xffff));
    store_context(slot.context, 0, 2, (load_context(slot.context, 0, 2) & ~0xffc00000U) | (load_context(input, 1, 2) & 0xffc00000));
  }
  if (add & 2) store_context(slot.context, 1, 1, (load_context(slot.context, 1, 1) & 0xffff) | (load_context(input, 2, 1) & ~0xffffU));
  return kSuccess;
}

uint8_t Xhci::stop_endpoint(Slot& slot, const Trb& trb) {
  Endpoint& endpoint = slot.endpoints[trb.endpoint()];
  if (endpoint.state != kRunning) return kContextStateError;
  endpoint.has_setup = false;
  set_endpoint_state(slot, trb.endpoint(), kStopped);
  return kSuccess;
}

uint8_t Xhci::set_dequeue(Slot& slot, const Trb& trb) {
  Endpoint& endpoint = slot.endpoints[trb.endpoint()];
  if (endpoint.state != kStopped) return kContextStateError;
  endpoint.ring = {.dequeue = trb.parameter & ~uint64_t{0xf}, .cycle = (trb.parameter & 1) != 0};
  endpoint.has_setup = false;
  set_endpoint_state(slot, trb.endpoint(), kStopped);
  return kSuccess;
}

// --- Transfers (4.11.2)

// One stage of a control transfer; `left`: bytes of the TRB's that were not moved.
uint8_t Xhci::control_stage(Device& device, Endpoint& endpoint, const Trb& trb, uint32_t& left) {
  constexpr uint8_t kToHost = 0x80;
  switch (trb.type()) {
    case kSetupStage: {
      if (!(trb.control & kImmediate)) return kTrbError;
      const uint64_t p = trb.parameter;
      endpoint.setup = {static_cast<uint8_t>(p), static_cast<uint8_t>(p >> 8), static_cast<uint16_t>(p >> 16),
                        static_cast<uint16_t>(p >> 32), static_cast<uint16_t>(p >> 48)};
      endpoint.has_setup = true;
      endpoint.data.clear();
      endpoint.moved = 0;
      if (!(endpoint.setup.type & kToHost)) return kSuccess;
      auto data = device.control_in(endpoint.setup);
      if (!data) return kStall;
      endpoint.data = std::move(*data);
      endpoint.data.resize(std::min<size_t>(endpoint.data.size(), endpoint.setup.length));
      return kSuccess;
    }
    case kNormal:
    case kDataStage: {
      if (!endpoint.has_setup) return kTrbError;
      const uint32_t length = trb.status & 0x1ffff;
      left = length;
      if (endpoint.setup.type & kToHost) {
        const auto bytes = static_cast<uint32_t>(std::min<size_t>(length, endpoint.data.size() - endpoint.moved));
        static_cast<void>(memory_.write(trb.parameter, std::as_bytes(std::span(endpoint.data)).subspan(endpoint.moved, bytes)));
        endpoint.moved += bytes;
        left -= bytes;
        return left != 0 ? kShortPacket : kSuccess;
      }
      if (length > kMostControlBytes - std::min(endpoint.data.size(), kMostControlBytes)) return kTrbError;
      const size_t at = endpoint.data.size();
      endpoint.data.resize(at + length);
      static_cast<void>(memory_.read(trb.parameter, std::as_writable_bytes(std::span(endpoint.data)).subspan(at)));
      left = 0;
      return kSuccess;
    }
    case kStatusStage: {
      if (!endpoint.has_setup) return kTrbError;
      endpoint.has_setup = false;
      return (endpoint.setup.type & kToHost) || device.control_out(endpoint.setup, endpoint.data) ? kSuccess : kStall;
    }
    case kNoOp: return kSuccess;
    default: return kTrbError;
  }
}

void Xhci::serve_control(unsigned number, Endpoint& endpoint) {
  constexpr unsigned kControl = 1;
  Slot& slot = slots_[number];
  Device* device = device_of(slot);
  if (!device) return;
  for (unsigned done = 0; done < kMostAtOnce && endpoint.state == kRunning; ++done) {
    const auto trb = fetch(endpoint.ring);
    if (!trb) return;
    if (trb->type() == kEventData) {  // 4.11.5.2
      if (trb->control & kInterruptOnCompletion)
        post(trb->parameter, uint32_t{kSuccess} << 24 | static_cast<uint32_t>(endpoint.moved),
             number << 24 | kControl << 16 | uint32_t{kTransferEvent} << 10 | kIsEventData);
      continue;
    }
    uint32_t left = 0;
    const uint8_t code = control_stage(*device, endpoint, *trb, left);
    const bool failed = code != kSuccess && code != kShortPacket;
    if (failed) {
      endpoint.has_setup = false;
      set_endpoint_state(slot, kControl, kIsHalted);
    }
    const bool wanted = (trb->control & kInterruptOnCompletion) || (code == kShortPacket && (trb->control & kInterruptOnShort));
    if (failed || wanted) transfer_event(*trb, number, kControl, code, left);
  }
}

void Xhci::serve_interrupt(unsigned number, unsigned target, Endpoint& endpoint) {
  Device* device = device_of(slots_[number]);
  if (!device || target % 2 == 0) return;  // an OUT endpoint cannot be configured
  for (unsigned done = 0; done < kMostAtOnce; ++done) {
    Ring ahead = endpoint.ring;
    const auto trb = fetch(ahead);
    if (!trb) return;
    if (trb->type() != kNormal) {  // no-ops and event data
      endpoint.ring = ahead;
      if (trb->control & kInterruptOnCompletion) transfer_event(*trb, number, target, kSuccess, 0);
      continue;
    }
    const auto data = device->interrupt_in(target / 2);
    if (!data) return;  // the TRB stays until there is something
    endpoint.ring = ahead;
    const uint32_t length = trb->status & 0x1ffff;
    const auto bytes = static_cast<uint32_t>(std::min<size_t>(length, data->size()));
    static_cast<void>(memory_.write(trb->parameter, std::as_bytes(std::span(*data)).first(bytes)));
    const bool is_short = bytes < length;
    if ((trb->control & kInterruptOnCompletion) || (is_short && (trb->control & kInterruptOnShort)))
      transfer_event(*trb, number, target, is_short ? kShortPacket : kSuccess, length - bytes);
  }
}

void Xhci::device_woke(unsigned port, unsigned endpoint) {
  MutexLock lock(mutex_);
  const unsigned target = 2 * endpoint + 1;
  if (!(command_ & kRun) || target > 31) return;
  for (unsigned i = 1; i <= kSlots; ++i)
    if (slots_[i].enabled && slots_[i].port == port && slots_[i].endpoints[target].state == kRunning)
      serve_interrupt(i, target, slots_[i].endpoints[target]);
}

}  // namespace lodge::devices::usb
