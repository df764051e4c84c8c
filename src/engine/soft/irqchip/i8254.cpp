#include "engine/soft/irqchip/i8254.hpp"

#include "engine/soft/irqchip/muldiv.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint64_t kNsPerSecond = 1000000000;
constexpr uint8_t kModeUndefined = 0xff;  // before the first control word, as KVM saves it
constexpr uint32_t kFullCount = 65536;
constexpr uint32_t kFullCountBcd = 10000;
// The shortest period of IRQ0, 200 us as in KVM: a guest cannot make the host spin.
constexpr uint64_t kShortestPeriodTicks = 239;
// The DRAM refresh toggle of port 0x61 flips about every 15 us; 2^14 ns, as KVM has it.
constexpr unsigned kRefreshShift = 14;

constexpr uint8_t kPortBGate2 = 0x01;
constexpr uint8_t kPortBSpeaker = 0x02;

uint64_t ticks(uint64_t ns) { return mul_div(ns, I8254::kFrequencyHz, kNsPerSecond); }
// The first nanosecond at which `n` ticks have elapsed.
uint64_t ns_of_ticks(uint64_t n) { return mul_div_up(n, kNsPerSecond, I8254::kFrequencyHz); }

uint32_t modulus(const kvm_pit_channel_state& state) { return state.bcd ? kFullCountBcd : kFullCount; }

uint16_t to_bcd(uint32_t value) {
  return static_cast<uint16_t>(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

uint32_t from_bcd(uint16_t value) { return (value >> 12) * 1000u + (value >> 8 & 15) * 100u + (value >> 4 & 15) * 10u + (value & 15); }

}  // namespace

void I8254::reset(uint64_t now_ns) {
  for (auto& counter : counters_) {
    counter = Counter{};
    counter.state.mode = kModeUndefined;
    counter.state.count = kFullCount;
    counter.state.rw_mode = counter.state.read_state = counter.state.write_state = kLsbThenMsb;
    counter.state.gate = 1;
    counter.state.count_load_time = static_cast<int64_t>(now_ns);
  }
  counters_[2].state.gate = 0;
  speaker_data_ = replaced_ = false;
  reinject_ = true;
  irq_edge_ = UINT64_MAX;
  irq_period_ = 0;
  forgive();
}

bool I8254::owns(uint16_t port) { return (port >= kCounter0 && port <= kControlWord) || port == kPortB; }

uint8_t I8254::read(uint16_t port, uint64_t now_ns) {
  if (port == kPortB) return read_port_b(now_ns);
  if (port >= kControlWord) return 0;  // the control word register cannot be read
  return read_counter(counters_[port - kCounter0], now_ns);
}

void I8254::write(uint16_t port, uint8_t value, uint64_t now_ns) {
  if (port == kPortB) {
    speaker_data_ = (value & kPortBSpeaker) != 0;
    set_gate2((value & kPortBGate2) != 0, now_ns);
  } else if (port == kControlWord) {
    write_control(value, now_ns);
  } else if (port >= kCounter0 && port < kControlWord) {
    write_counter(port - kCounter0, value, now_ns);
  }
}

// --- The counters ---

bool I8254::triggered_by_gate(const Counter& counter) { return counter.state.mode == 1 || counter.state.mode == 5; }

bool I8254::periodic(const Counter& counter) { return counter.state.mode == 2 || counter.state.mode == 3; }

uint64_t I8254::elapsed(const Counter& counter, uint64_t now_ns) {
  if (!counter.counting) return 0;
  if (!counter.state.gate && !triggered_by_gate(counter)) return counter.paused_ticks;
  const auto start = static_cast<uint64_t>(counter.state.count_load_time);
  return now_ns > start ? ticks(now_ns - start) : 0;
}

// What a read of the counting element gives, in the counter's own notation.
uint16_t I8254::current_count(const Counter& counter, uint64_t now_ns) {
  const kvm_pit_channel_state& state = counter.state;
  const uint64_t elapsed_ticks = elapsed(counter, now_ns);
  uint32_t value = 0;
  if (state.mode == 2) {
    value = state.count - static_cast<uint32_t>(elapsed_ticks % state.count);
  } else if (state.mode == 3) {  // counts by two, twice a period
    value = (state.count - static_cast<uint32_t>(2 * (elapsed_ticks % state.count) % state.count)) & ~1u;
  } else {  // counts on below zero
    value = state.count + modulus(state) - static_cast<uint32_t>(elapsed_ticks % modulus(state));
  }
  value %= modulus(state);
  return state.bcd ? to_bcd(value) : static_cast<uint16_t>(value);
}

// "Mode Definitions" of the datasheet.
bool I8254::counter_output(const Counter& counter, uint64_t now_ns) {
  const kvm_pit_channel_state& state = counter.state;
  if (!counter.counting) return state.mode != 0;  // only mode 0 starts low
  const uint64_t elapsed_ticks = elapsed(counter, now_ns);
  switch (state.mode) {
    case 0:
    case 1: return elapsed_ticks >= state.count;
    case 2: return !state.gate || elapsed_ticks % state.count != state.count - 1;
    case 3: return !state.gate || elapsed_ticks % state.count < (state.count + 1) / 2;
    case 4:
    case 5: return elapsed_ticks != state.count;
    default: return true;
  }
}

uint8_t I8254::status(const Counter& counter, uint64_t now_ns) {
  const kvm_pit_channel_state& state = counter.state;
  const uint8_t null_count = counter.loaded ? 0 : 0x40;
  return static_cast<uint8_t>(counter_output(counter, now_ns) << 7 | null_count | (state.rw_mode & 3) << 4 | (state.mode & 7) << 1 |
                              state.bcd);
}

void I8254::latch_count(Counter& counter, uint64_t now_ns) {
  if (counter.state.count_latched) return;  // "the count is not latched again until it is read"
  counter.state.latched_count = current_count(counter, now_ns);
  counter.state.count_latched = counter.state.rw_mode;
}

void I8254::latch_status(Counter& counter, uint64_t now_ns) {
  if (counter.state.status_latched) return;
  counter.state.status = status(counter, now_ns);
  counter.state.status_latched = 1;
}

uint8_t I8254::read_counter(Counter& counter, uint64_t now_ns) {
  kvm_pit_channel_state& state = counter.state;
  if (state.status_latched) {
    state.status_latched = 0;
    return state.status;
  }
  if (state.count_latched) {
    const uint8_t half = state.count_latched;
    state.count_latched = half == kLsbThenMsb ? kMsb : 0;
    return static_cast<uint8_t>(half == kMsb ? state.latched_count >> 8 : state.latched_count);
  }
  const uint16_t count = current_count(counter, now_ns);
  switch (state.read_state) {
    case kMsb: return static_cast<uint8_t>(count >> 8);
    case kLsbThenMsb: state.read_state = kMsbOfBoth; return static_cast<uint8_t>(count);
    case kMsbOfBoth: state.read_state = kLsbThenMsb; return static_cast<uint8_t>(count >> 8);
    default: return static_cast<uint8_t>(count);
  }
}

void I8254::write_counter(unsigned index, uint8_t value, uint64_t now_ns) {
  kvm_pit_channel_state& state = counters_[index].state;
  switch (state.write_state) {
    case kMsb: load(index, static_cast<uint16_t>(value << 8), now_ns); break;
    case kLsbThenMsb:
      state.write_latch = value;
      state.write_state = kMsbOfBoth;
      break;
    case kMsbOfBoth:
      state.write_state = kLsbThenMsb;
      load(index, static_cast<uint16_t>(state.write_latch | value << 8), now_ns);
      break;
    default: load(index, value, now_ns); break;
  }
}

void I8254::write_control(uint8_t value, uint64_t now_ns) {
  const unsigned index = value >> 6;
  if (index == 3) return read_back(value, now_ns);
  Counter& counter = counters_[index];
  const uint8_t access = value >> 4 & 3;
  if (access == kLatch) return latch_count(counter, now_ns);
  kvm_pit_channel_state& state = counter.state;
  const uint8_t mode = value >> 1 & 7;
  state.mode = mode > 5 ? mode - 4 : mode;  // x10 and x11
  state.bcd = value & 1;
  state.rw_mode = state.read_state = state.write_state = access;
  state.count_latched = state.status_latched = 0;
  counter.counting = counter.loaded = false;
  counter.paused_ticks = 0;
  if (index == 0) start_irq_timer();
}

void I8254::read_back(uint8_t value, uint64_t now_ns) {
  for (unsigned index = 0; index < 3; ++index) {
    if (!(value & 2u << index)) continue;
    if (!(value & 0x20)) latch_count(counters_[index], now_ns);
    if (!(value & 0x10)) latch_status(counters_[index], now_ns);
  }
}

void I8254::load(unsigned index, uint16_t written, uint64_t now_ns) {
  Counter& counter = counters_[index];
  const uint32_t count = counter.state.bcd ? from_bcd(written) : written;
  counter.state.count = count == 0 ? modulus(counter.state) : count;
  counter.state.count_load_time = static_cast<int64_t>(now_ns);
  counter.paused_ticks = 0;
  counter.loaded = true;
  counter.counting = !triggered_by_gate(counter);
  if (index == 0) start_irq_timer();
}

void I8254::set_gate2(bool gate, uint64_t now_ns) {
  Counter& counter = counters_[2];
  if (gate == (counter.state.gate != 0)) return;
  if (!gate) {
    counter.paused_ticks = elapsed(counter, now_ns);
    counter.state.gate = 0;
    return;
  }
  counter.state.gate = 1;
  if (!counter.loaded) return;
  const bool resumes = counter.state.mode == 0 || counter.state.mode == 4;  // the other modes reload on the rising edge
  counter.state.count_load_time = static_cast<int64_t>(now_ns - (resumes ? ns_of_ticks(counter.paused_ticks) : 0));
  counter.counting = true;
}

uint8_t I8254::read_port_b(uint64_t now_ns) const {
  return static_cast<uint8_t>((counters_[2].state.gate ? kPortBGate2 : 0) | (speaker_data_ ? kPortBSpeaker : 0) |
                              (now_ns >> kRefreshShift & 1) << 4 | output(2, now_ns) << 5);
}

bool I8254::output(unsigned counter, uint64_t now_ns) const { return counter_output(counters_[counter], now_ns); }

// --- IRQ0 ---

void I8254::start_irq_timer() {
  const Counter& counter = counters_[0];
  forgive();
  irq_edge_ = UINT64_MAX;
  irq_period_ = 0;
  if (!counter.counting || replaced_) return;
  const uint64_t count = counter.state.count;
  if (periodic(counter)) {
    irq_period_ = count >= kShortestPeriodTicks ? count : (kShortestPeriodTicks + count - 1) / count * count;
    irq_edge_ = irq_period_;
  } else if (counter.state.mode == 0) {
    irq_edge_ = count;
  } else if (counter.state.mode == 4) {
    irq_edge_ = count + 1;
  }
}

uint64_t I8254::next_deadline_ns() const {
  if (irq_edge_ == UINT64_MAX) return UINT64_MAX;
  return static_cast<uint64_t>(counters_[0].state.count_load_time) + ns_of_ticks(irq_edge_);
}

bool I8254::expire(uint64_t now_ns) {
  if (now_ns < next_deadline_ns()) return false;
  uint64_t edges = 1;
  if (irq_period_ == 0) {
    irq_edge_ = UINT64_MAX;
  } else {
    edges += (elapsed(counters_[0], now_ns) - irq_edge_) / irq_period_;
    irq_edge_ += edges * irq_period_;
  }
  if (!reinject_) return true;
  owed_ += edges;
  return inject_owed();
}

bool I8254::acknowledge() {
  acknowledged_ = true;
  return inject_owed();
}

bool I8254::inject_owed() {
  if (!acknowledged_ || owed_ == 0) return false;
  acknowledged_ = false;
  --owed_;
  return true;
}

void I8254::irq0_unmasked() { forgive(); }

void I8254::set_reinject(bool reinject) {
  reinject_ = reinject;
  forgive();
}

void I8254::forgive() {
  owed_ = 0;
  acknowledged_ = true;
}

// --- State ---

kvm_pit_state2 I8254::get_state() const {
  kvm_pit_state2 state{};
  for (unsigned index = 0; index < 3; ++index) state.channels[index] = counters_[index].state;
  if (speaker_data_) state.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
  if (replaced_) state.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
  return state;
}

void I8254::set_state(const kvm_pit_state2& state, uint64_t now_ns) {
  speaker_data_ = (state.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0;
  replaced_ = (state.flags & KVM_PIT_FLAGS_HPET_LEGACY) != 0;
  for (unsigned index = 0; index < 3; ++index) {
    Counter& counter = counters_[index];
    counter = Counter{};
    counter.state = state.channels[index];
    kvm_pit_channel_state& registers = counter.state;
    // Incoming state is hostile: no count of zero, no mode that the datasheet does not know.
    if (registers.mode > 5) registers.mode = kModeUndefined;
    registers.bcd = registers.bcd != 0;
    registers.gate = index == 2 ? registers.gate != 0 : 1;
    registers.rw_mode &= 3;
    if (registers.count == 0 || registers.count > modulus(registers)) registers.count = modulus(registers);
    registers.count_load_time = static_cast<int64_t>(now_ns);
    counter.loaded = registers.mode != kModeUndefined;
    counter.counting = counter.loaded && !triggered_by_gate(counter);
  }
  start_irq_timer();
}

}  // namespace lodge::engine::soft
