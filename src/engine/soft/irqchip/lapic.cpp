#include "engine/soft/irqchip/lapic.hpp"

#include "engine/soft/irqchip/muldiv.hpp"

namespace lodge::engine::soft {
namespace {

// Register numbers: bits 11:4 of the xAPIC address, and the x2APIC MSR less 0x800 (SDM vol. 3, tables 11-1 and 11-6).
enum Register : uint32_t {
  kId = 0x02,
  kVersion = 0x03,
  kTpr = 0x08,
  kApr = 0x09,
  kPpr = 0x0a,
  kEoi = 0x0b,
  kRrd = 0x0c,
  kLdr = 0x0d,
  kDfr = 0x0e,
  kSvr = 0x0f,
  kIsr = 0x10,
  kTmr = 0x18,
  kIrr = 0x20,
  kEsr = 0x28,
  kIcr = 0x30,
  kIcr2 = 0x31,
  kLvtTimer = 0x32,
  kLvtThermal = 0x33,
  kLvtPerformance = 0x34,
  kLvtLint0 = 0x35,
  kLvtLint1 = 0x36,
  kLvtError = 0x37,
  kInitialCount = 0x38,
  kCurrentCount = 0x39,
  kDivide = 0x3e,
  kSelfIpi = 0x3f,
};

constexpr uint32_t kVersionValue = 0x14 | 5 << 16;  // six LVT entries

// IA32_APIC_BASE (11.4.4).
constexpr uint64_t kBaseBsp = 1u << 8;
constexpr uint64_t kBaseExtd = 1u << 10;
constexpr uint64_t kBaseEnable = 1u << 11;
constexpr uint64_t kBaseMode = kBaseExtd | kBaseEnable;
constexpr uint64_t kBaseReserved = 0x2ff;
constexpr uint64_t kPageMask = 0xfff;

constexpr uint32_t kSvrEnable = 1u << 8;
constexpr uint32_t kSvrImplemented = 0x3ff;  // without bit 12: EOI broadcasts cannot be suppressed

constexpr uint32_t kLvtMasked = 1u << 16;
constexpr uint32_t kLvtLevel = 1u << 15;
constexpr uint32_t kLvtReadOnly = 1u << 12 | 1u << 14;  // delivery status and LINT's remote IRR: writes are ignored

constexpr uint32_t kIcrImplemented = 0x000ccfff;
constexpr uint64_t kIcrReserved = 0xfff32000;  // of the x2APIC's; bit 12 is tolerated
constexpr uint32_t kDivideImplemented = 0xb;

constexpr uint32_t kErrorSendIllegalVector = 1u << 5;
constexpr uint32_t kErrorReceiveIllegalVector = 1u << 6;
constexpr uint32_t kErrorIllegalRegister = 1u << 7;

constexpr uint8_t kFirstLegalVector = 16;

constexpr uint32_t kEventNmi = 1u << 0;
constexpr uint32_t kEventSmi = 1u << 1;
constexpr uint32_t kEventInit = 1u << 2;
constexpr uint32_t kEventSipi = 1u << 3;

constexpr uint64_t kNever = UINT64_MAX;
constexpr uint64_t kShortestPeriodNs = 200000;  // KVM's min_timer_period_us
constexpr uint64_t kKilo = 1000000;             // nanoseconds x kHz in one

uint32_t lvt_implemented(uint32_t index) {
  switch (index) {
    case kLvtTimer: return 0x700ff;
    case kLvtThermal:
    case kLvtPerformance: return 0x107ff;
    case kLvtLint0:
    case kLvtLint1: return 0x1a7ff;
    default: return 0x100ff;
  }
}

bool is_lvt(uint32_t index) { return index >= kLvtTimer && index <= kLvtError; }

DeliveryMode delivery_mode(uint32_t value) { return static_cast<DeliveryMode>(value >> 8 & 7); }

uint32_t x2apic_ldr(uint32_t id) { return id >> 4 << 16 | 1u << (id & 15); }

// The bits of a write that an x2APIC answers with #GP (11.12.1.2).
uint64_t x2apic_reserved(uint32_t index) {
  constexpr uint64_t kHigh = 0xffffffff00000000;
  if (is_lvt(index)) return kHigh | (0xffffffff & ~(lvt_implemented(index) | kLvtReadOnly));
  switch (index) {
    case kTpr:
    case kSelfIpi: return kHigh | 0xffffff00;
    case kEoi:
    case kEsr: return UINT64_MAX;
    case kSvr: return kHigh | (0xffffffff & ~kSvrImplemented);
    case kIcr: return kIcrReserved;
    case kDivide: return kHigh | (0xffffffff & ~kDivideImplemented);
    default: return kHigh;
  }
}

}  // namespace

// --- Life cycle ---

Lapic::Lapic() = default;

void Lapic::attach(uint32_t id, bool bootstrap, const VcpuEvents& events, const LapicBus& bus) {
  id_ = id;
  bootstrap_ = bootstrap;
  events_ = events;
  bus_ = bus;
  reset();
}

void Lapic::set_features(const LapicFeatures& features) { features_ = features; }

void Lapic::reset() {
  base_.store(kDefaultBase | kBaseEnable | (bootstrap_ ? kBaseBsp : 0), std::memory_order_relaxed);
  reset_registers(false);
  events_pending_.store(0, std::memory_order_relaxed);
  set_wait_for_sipi(!bootstrap_);
}

// 11.4.7.1 and 11.4.7.3: INIT leaves the APIC ID (and with it an x2APIC's logical ID) alone.
void Lapic::reset_registers(bool init) {
  const uint32_t id = init ? reg(kId) : id_ << 24;
  for (uint32_t index = 0; index < kRegisters; ++index) set_reg(index, 0);
  set_reg(kId, id);
  set_reg(kVersion, kVersionValue);
  set_reg(kDfr, 0xffffffff);
  set_reg(kSvr, 0xff);
  for (uint32_t index = kLvtTimer; index <= kLvtError; ++index) set_reg(index, kLvtMasked);
  if (bootstrap_) set_reg(kLvtLint0, static_cast<uint32_t>(DeliveryMode::ExtInt) << 8);
  errors_.store(0, std::memory_order_relaxed);
  disarm_timer();
  if (x2apic_mode()) enter_x2apic();
}

bool Lapic::x2apic_mode() const { return (base() & kBaseMode) == kBaseMode; }

bool Lapic::hardware_enabled() const { return base() & kBaseEnable; }

bool Lapic::enabled() const { return hardware_enabled() && (reg(kSvr) & kSvrEnable); }

// --- Modes (11.12.5) ---

bool Lapic::valid_base(uint64_t value) const {
  const uint64_t reserved = kBaseReserved | ~0ull << features_.physical_address_bits | (features_.x2apic ? 0 : kBaseExtd);
  return !(value & reserved) && (value & kBaseMode) != kBaseExtd;
}

bool Lapic::write_base(uint64_t value) {
  if (!valid_base(value)) return false;
  const uint64_t old_mode = base() & kBaseMode;
  const uint64_t new_mode = value & kBaseMode;
  if (old_mode == kBaseMode && new_mode == kBaseEnable) return false;  // x2APIC is left through "disabled" only
  if (old_mode == 0 && new_mode == kBaseMode) return false;            // and entered from xAPIC only
  return load_base(value);
}

bool Lapic::load_base(uint64_t value) {
  if (!valid_base(value)) return false;
  const uint64_t old_base = base();
  base_.store(value, std::memory_order_relaxed);
  change_mode(old_base & kBaseMode, value & kBaseMode);
  return true;
}

void Lapic::change_mode(uint64_t old_mode, uint64_t new_mode) {
  if (old_mode == new_mode) return;
  if (new_mode == 0) {
    reset_registers(false);
  } else if (new_mode == kBaseMode) {
    enter_x2apic();
  } else {
    set_reg(kId, id_ << 24);
  }
}

void Lapic::enter_x2apic() {
  set_reg(kId, id_);
  set_reg(kLdr, x2apic_ldr(id_));
}

// --- Accepting messages (any thread) ---

bool Lapic::matches(const InterruptMessage& message) const {
  if (message.broadcast()) return true;
  const uint32_t destination = message.destination;
  if (!message.logical) return destination == (x2apic_mode() || destination > 0xff ? id_ : reg(kId) >> 24);
  const uint32_t ldr = reg(kLdr);
  if (x2apic_mode()) return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff);
  const uint32_t logical_id = ldr >> 24;
  if (destination > 0xff) return false;
  if (reg(kDfr) >> 28 == 0xf) return logical_id & destination;                     // flat model
  return logical_id >> 4 == destination >> 4 && (logical_id & destination & 0xf);  // cluster model
}

bool Lapic::accept(const InterruptMessage& message) {
  if (!hardware_enabled()) return false;
  switch (message.mode) {
    case DeliveryMode::Fixed:
    case DeliveryMode::LowestPriority:
      if (!enabled() || (message.level_triggered && !message.assert)) return false;
      return accept_vector(message.vector, message.level_triggered);
    case DeliveryMode::Nmi: events_pending_.fetch_or(kEventNmi); return true;
    case DeliveryMode::Smi: events_pending_.fetch_or(kEventSmi); return true;
    case DeliveryMode::Init:
      if (message.level_triggered && !message.assert) return false;  // de-assert only synchronised arbitration IDs
      accept_init();
      return true;
    case DeliveryMode::StartUp:
      sipi_vector_.store(message.vector);
      events_pending_.fetch_or(kEventSipi);
      return true;
    case DeliveryMode::ExtInt:  // reaches a processor through LINT0 only
    case DeliveryMode::Reserved: return false;
  }
  return false;
}

// A SIPI that came before an INIT is void; one that comes after it waits for the vCPU to have taken the INIT.
void Lapic::accept_init() {
  uint32_t events = events_pending_.load();
  while (!events_pending_.compare_exchange_weak(events, (events & ~kEventSipi) | kEventInit)) {
  }
}

bool Lapic::accept_vector(uint8_t vector, bool level_triggered) {
  if (vector < kFirstLegalVector) {
    report_error(kErrorReceiveIllegalVector);
    return false;
  }
  const uint32_t word = vector >> 5;
  const uint32_t bit = 1u << (vector & 31);
  if (level_triggered) {
    registers_[kTmr + word].fetch_or(bit);
  } else {
    registers_[kTmr + word].fetch_and(~bit);
  }
  registers_[kIrr + word].fetch_or(bit);
  return true;
}

void Lapic::report_error(uint32_t bit) {
  errors_.fetch_or(bit);
  const uint32_t lvt = reg(kLvtError);
  const auto vector = static_cast<uint8_t>(lvt);
  if (!(lvt & kLvtMasked) && vector >= kFirstLegalVector) (void)accept_vector(vector, false);
}

bool Lapic::deliver_local(Lvt entry) {
  const auto index = static_cast<uint32_t>(entry);
  const uint32_t lvt = reg(index);
  if (!hardware_enabled() || (lvt & kLvtMasked)) return false;
  switch (delivery_mode(lvt)) {
    case DeliveryMode::Fixed: {
      // A performance counter's interrupt masks its entry (11.5.1).
      if (entry == Lvt::Performance) registers_[index].fetch_or(kLvtMasked);
      return accept_vector(static_cast<uint8_t>(lvt), lvt & kLvtLevel);
    }
    case DeliveryMode::Nmi:
      if (entry == Lvt::Performance) registers_[index].fetch_or(kLvtMasked);
      events_pending_.fetch_or(kEventNmi);
      return true;
    case DeliveryMode::Smi: events_pending_.fetch_or(kEventSmi); return true;
    case DeliveryMode::Init: accept_init(); return true;
    default: return false;
  }
}

bool Lapic::accepts_extint() const {
  if (!hardware_enabled()) return true;  // LINT0 is the processor's INTR pin (11.4.3)
  const uint32_t lvt = reg(kLvtLint0);
  return !(lvt & kLvtMasked) && delivery_mode(lvt) == DeliveryMode::ExtInt;
}

bool Lapic::lint0_rise() { return accepts_extint() || deliver_local(Lvt::Lint0); }

uint8_t Lapic::processor_priority() const { return static_cast<uint8_t>(reg(kPpr)); }

bool Lapic::event_pending() const {
  const uint32_t events = events_pending_.load();
  return events & (wait_for_sipi() ? kEventInit | kEventSipi : kEventNmi | kEventSmi | kEventInit);
}

// --- Events (the vCPU's thread) ---

int Lapic::highest(uint32_t first_register) const {
  for (uint32_t word = 8; word-- > 0;) {
    const uint32_t bits = registers_[first_register + word].load();
    if (bits) return static_cast<int>(word * 32 + 31 - static_cast<uint32_t>(__builtin_clz(bits)));
  }
  return -1;
}

int Lapic::pending_interrupt() const {
  if (!hardware_enabled()) return -1;
  const int vector = highest(kIrr);
  return vector >> 4 > static_cast<int>(reg(kPpr) >> 4) ? vector : -1;
}

void Lapic::acknowledge(uint8_t vector) {
  const uint32_t bit = 1u << (vector & 31);
  registers_[kIrr + (vector >> 5)].fetch_and(~bit);
  registers_[kIsr + (vector >> 5)].fetch_or(bit);
  update_ppr();
}

bool Lapic::take_nmi() { return events_pending_.fetch_and(~kEventNmi) & kEventNmi; }

bool Lapic::take_smi() { return events_pending_.fetch_and(~kEventSmi) & kEventSmi; }

bool Lapic::take_init() {
  if (!(events_pending_.load() & kEventInit)) return false;
  events_pending_.fetch_and(~(kEventInit | kEventNmi | kEventSmi));
  reset_registers(true);
  set_wait_for_sipi(!bootstrap_);
  return true;
}

bool Lapic::take_sipi(uint8_t& vector) {
  uint32_t events = events_pending_.load();
  do {
    if ((events & (kEventInit | kEventSipi)) != kEventSipi) return false;  // an INIT is to be taken first, though it may come only now
  } while (!events_pending_.compare_exchange_weak(events, events & ~kEventSipi));
  if (!wait_for_sipi()) return false;
  vector = sipi_vector_.load();
  set_wait_for_sipi(false);
  return true;
}

// 11.8.3.1.
void Lapic::update_ppr() {
  const uint32_t tpr = reg(kTpr);
  const int in_service = highest(kIsr);
  const uint32_t service_class = in_service < 0 ? 0 : static_cast<uint32_t>(in_service) & 0xf0;
  set_reg(kPpr, (tpr & 0xf0) >= service_class ? tpr : service_class);
}

void Lapic::wake_if_pending() {
  if (pending_interrupt() >= 0) wake();
}

void Lapic::end_of_interrupt() {
  const int vector = highest(kIsr);
  if (vector < 0) return;
  const uint32_t word = static_cast<uint32_t>(vector) >> 5;
  const uint32_t bit = 1u << (vector & 31);
  registers_[kIsr + word].fetch_and(~bit);
  update_ppr();
  bus_.end_of_interrupt(bus_.context, static_cast<uint8_t>(vector), registers_[kTmr + word].load() & bit);
  wake_if_pending();
}

// --- Registers ---

uint8_t Lapic::cr8() const { return static_cast<uint8_t>(reg(kTpr) >> 4 & 0xf); }

void Lapic::set_cr8(uint8_t value) {
  set_reg(kTpr, static_cast<uint32_t>(value & 0xf) << 4);
  update_ppr();
  wake_if_pending();
}

bool Lapic::owns(uint64_t gpa) const { return (base() & kBaseMode) == kBaseEnable && (gpa & ~kPageMask) == (base() & ~(kPageMask)); }

// The registers are 32 bits at multiples of 16; narrower reads give a part, all else is undefined (11.4.1).
uint64_t Lapic::mmio_read(uint64_t gpa, unsigned size) {
  const auto offset = static_cast<uint32_t>(gpa & kPageMask);
  const uint32_t part = offset & 0xf;
  uint32_t value = 0;
  if (part + size > 4) return 0;
  if (!read_register(offset >> 4, value)) {
    report_error(kErrorIllegalRegister);
    wake_if_pending();
  }
  return value >> 8 * part;
}

void Lapic::mmio_write(uint64_t gpa, unsigned size, uint64_t value) {
  const auto offset = static_cast<uint32_t>(gpa & kPageMask);
  if (size != 4 || (offset & 0xf)) return;
  if (write_register(offset >> 4, static_cast<uint32_t>(value))) return;
  report_error(kErrorIllegalRegister);
  wake_if_pending();
}

bool Lapic::read_register(uint32_t index, uint32_t& value) const {
  switch (index) {
    case kEoi: value = 0; return true;  // write-only, yet reading is no error
    case kCurrentCount: value = current_count(bus_.now_ns(bus_.context)); return true;
    case kId:
    case kVersion:
    case kTpr:
    case kApr:
    case kPpr:
    case kRrd:
    case kLdr:
    case kDfr:
    case kSvr:
    case kEsr:
    case kIcr:
    case kIcr2:
    case kInitialCount:
    case kDivide: value = reg(index); return true;
    default:
      if (!is_lvt(index) && (index < kIsr || index >= kEsr)) return false;
      value = reg(index);
      return true;
  }
}

bool Lapic::write_register(uint32_t index, uint32_t value) {
  switch (index) {
    case kId:
      if (!x2apic_mode()) set_reg(kId, value & 0xff000000);
      return true;
    case kTpr:
      set_reg(kTpr, value & 0xff);
      update_ppr();
      wake_if_pending();
      return true;
    case kEoi: end_of_interrupt(); return true;
    case kLdr: set_reg(kLdr, value & 0xff000000); return true;
    case kDfr: set_reg(kDfr, value | 0x0fffffff); return true;
    case kSvr: write_svr(value); return true;
    case kEsr: write_esr(); return true;
    case kIcr:
      set_reg(kIcr, value & kIcrImplemented);
      send_ipi();
      return true;
    case kIcr2: set_reg(kIcr2, value & 0xff000000); return true;
    case kLvtTimer: write_timer_lvt(value); return true;
    case kLvtThermal:
    case kLvtPerformance:
    case kLvtLint0:
    case kLvtLint1:
    case kLvtError: write_lvt(index, value); return true;
    case kInitialCount:
      if (timer_mode() != TimerMode::TscDeadline) start_timer(value);
      return true;
    case kDivide: write_divide(value); return true;
    default: return false;
  }
}

// While software-disabled, the LVT's mask bits are set and cannot be cleared (11.4.7.2).
void Lapic::write_svr(uint32_t value) {
  set_reg(kSvr, value & kSvrImplemented);
  if (value & kSvrEnable) return;
  for (uint32_t index = kLvtTimer; index <= kLvtError; ++index) registers_[index].fetch_or(kLvtMasked);
}

void Lapic::write_lvt(uint32_t index, uint32_t value) {
  value &= lvt_implemented(index);
  if (!(reg(kSvr) & kSvrEnable)) value |= kLvtMasked;
  set_reg(index, value);
  // The 8259 may have been waiting for this.
  if (index == kLvtLint0 && accepts_extint()) wake();
}

// 11.5.3: a write of any value brings the errors since the last one into view.
void Lapic::write_esr() { set_reg(kEsr, errors_.exchange(0)); }

// --- MSRs ---

bool Lapic::owns_msr(uint32_t msr) {
  return msr == kMsrApicBase || msr == kMsrTscDeadline || (msr >= kMsrX2apicFirst && msr <= kMsrX2apicLast);
}

bool Lapic::read_msr(uint32_t msr, uint64_t& value) {
  if (msr == kMsrApicBase) {
    value = base();
    return true;
  }
  if (msr == kMsrTscDeadline) {
    value = tsc_deadline_;
    return features_.tsc_deadline;
  }
  return x2apic_mode() && read_x2apic(msr - kMsrX2apicFirst, value);
}

bool Lapic::write_msr(uint32_t msr, uint64_t value) {
  if (msr == kMsrApicBase) return write_base(value);
  if (msr == kMsrTscDeadline) {
    if (!features_.tsc_deadline) return false;
    write_tsc_deadline(value);
    return true;
  }
  return x2apic_mode() && write_x2apic(msr - kMsrX2apicFirst, value);
}

bool Lapic::read_x2apic(uint32_t index, uint64_t& value) const {
  switch (index) {
    case kApr:
    case kRrd:
    case kDfr:
    case kIcr2:
    case kEoi: return false;  // not there, or write-only
    case kIcr: value = reg(kIcr) | static_cast<uint64_t>(reg(kIcr2)) << 32; return true;
    default: break;
  }
  uint32_t low = 0;
  if (!read_register(index, low)) return false;
  value = low;
  return true;
}

bool Lapic::write_x2apic(uint32_t index, uint64_t value) {
  if (value & x2apic_reserved(index)) return false;
  switch (index) {
    case kId:
    case kLdr:
    case kDfr:
    case kIcr2: return false;  // read-only, or not there
    case kIcr: set_reg(kIcr2, static_cast<uint32_t>(value >> 32)); break;
    case kSelfIpi: self_ipi(static_cast<uint8_t>(value)); return true;
    default: break;
  }
  return write_register(index, static_cast<uint32_t>(value));
}

// --- IPIs (11.6) ---

void Lapic::send_ipi() {
  const uint32_t icr = reg(kIcr);
  InterruptMessage message;
  message.wide = x2apic_mode();
  message.destination = message.wide ? reg(kIcr2) : reg(kIcr2) >> 24;
  message.logical = icr >> 11 & 1;
  message.mode = delivery_mode(icr);
  message.shorthand = static_cast<Shorthand>(icr >> 18 & 3);
  message.vector = static_cast<uint8_t>(icr);
  if (message.mode == DeliveryMode::Init) {  // level and trigger mode mean nothing elsewhere
    message.assert = icr >> 14 & 1;
    message.level_triggered = icr >> 15 & 1;
  }
  const bool has_vector = message.mode == DeliveryMode::Fixed || message.mode == DeliveryMode::LowestPriority;
  if (has_vector && message.vector < kFirstLegalVector) {
    report_error(kErrorSendIllegalVector);
    wake_if_pending();
    return;
  }
  bus_.send(bus_.context, id_, message);
}

void Lapic::self_ipi(uint8_t vector) {
  if (vector < kFirstLegalVector) {
    report_error(kErrorSendIllegalVector);
  } else if (enabled()) {
    (void)accept_vector(vector, false);
  }
  wake_if_pending();
}

// --- Timer (11.5.4) ---

Lapic::TimerMode Lapic::timer_mode() const { return static_cast<TimerMode>(reg(kLvtTimer) >> 17 & 3); }

uint32_t Lapic::divide() const {
  const uint32_t value = reg(kDivide);
  return 1u << (((value & 3) + (value >> 1 & 4) + 1) & 7);
}

void Lapic::disarm_timer() {
  deadline_ns_ = kNever;
  period_ns_ = 0;
  tsc_deadline_ = 0;
}

// Counts down to 0 at the deadline; a tick that has begun still shows.
uint32_t Lapic::current_count(uint64_t now_ns) const {
  if (deadline_ns_ == kNever || timer_mode() == TimerMode::TscDeadline) return 0;
  uint64_t remaining = deadline_ns_ - now_ns;
  if (now_ns >= deadline_ns_) {
    if (timer_mode() != TimerMode::Periodic) return 0;
    remaining = period_ns_ - (now_ns - deadline_ns_) % period_ns_;
  }
  return static_cast<uint32_t>((remaining + divide() - 1) / divide());
}

void Lapic::start_timer(uint32_t count) {
  disarm_timer();
  set_reg(kInitialCount, count);
  if (count == 0) return;
  period_ns_ = static_cast<uint64_t>(count) * divide();
  if (timer_mode() == TimerMode::Periodic && period_ns_ < kShortestPeriodNs) period_ns_ = kShortestPeriodNs;
  deadline_ns_ = bus_.now_ns(bus_.context) + period_ns_;
}

void Lapic::write_timer_lvt(uint32_t value) {
  const bool was_tsc_deadline = timer_mode() == TimerMode::TscDeadline;
  write_lvt(kLvtTimer, value);
  if (was_tsc_deadline != (timer_mode() == TimerMode::TscDeadline)) {
    disarm_timer();
    set_reg(kInitialCount, 0);
  } else if (timer_mode() == TimerMode::Periodic && period_ns_ != 0 && period_ns_ < kShortestPeriodNs) {
    period_ns_ = kShortestPeriodNs;
  }
}

// The count goes on from where it is, at the new pace.
void Lapic::write_divide(uint32_t value) {
  const uint64_t now_ns = bus_.now_ns(bus_.context);
  const uint32_t count = current_count(now_ns);
  const bool counts = deadline_ns_ != kNever && timer_mode() != TimerMode::TscDeadline;
  set_reg(kDivide, value & kDivideImplemented);
  if (!counts) return;
  period_ns_ = static_cast<uint64_t>(reg(kInitialCount)) * divide();
  if (timer_mode() == TimerMode::Periodic && period_ns_ < kShortestPeriodNs) period_ns_ = kShortestPeriodNs;
  deadline_ns_ = now_ns + static_cast<uint64_t>(count) * divide();
}

void Lapic::write_tsc_deadline(uint64_t value) {
  if (timer_mode() != TimerMode::TscDeadline) return;  // "a write in other modes is ignored"
  tsc_deadline_ = value;
  arm_tsc_deadline();
}

void Lapic::tsc_changed() {
  if (tsc_deadline_ != 0) arm_tsc_deadline();
}

void Lapic::arm_tsc_deadline() {
  deadline_ns_ = kNever;
  if (tsc_deadline_ == 0) return;
  const uint64_t now_ns = bus_.now_ns(bus_.context);
  const uint64_t tsc = events_.guest_tsc(events_.vcpu);
  const uint64_t wait_ns = tsc >= tsc_deadline_ ? 0 : mul_div_up(tsc_deadline_ - tsc, kKilo, features_.tsc_khz);
  deadline_ns_ = wait_ns < kNever - 1 - now_ns ? now_ns + wait_ns : kNever - 1;
  if (wait_ns != 0) return;
  expire(now_ns);
  wake_if_pending();
}

void Lapic::expire(uint64_t now_ns) {
  if (now_ns < deadline_ns_) return;
  if (timer_mode() == TimerMode::Periodic) {
    deadline_ns_ += ((now_ns - deadline_ns_) / period_ns_ + 1) * period_ns_;
  } else {
    deadline_ns_ = kNever;
    tsc_deadline_ = 0;
  }
  deliver_local(Lvt::Timer);
}

// --- State ---

void Lapic::get_state(kvm_lapic_state& state) const {
  for (uint32_t index = 0; index < kRegisters; ++index) {
    uint32_t value = reg(index);
    if (index == kCurrentCount) value = current_count(bus_.now_ns(bus_.context));
    if (index == kId && x2apic_mode()) value <<= 24;
    for (uint32_t byte = 0; byte < 16; ++byte) state.regs[index * 16 + byte] = byte < 4 ? static_cast<char>(value >> 8 * byte) : 0;
  }
}

void Lapic::set_state(const kvm_lapic_state& state) {
  disarm_timer();
  for (uint32_t index = 0; index < kRegisters; ++index) {
    uint32_t value = 0;
    for (uint32_t byte = 0; byte < 4; ++byte)
      value |= static_cast<uint32_t>(static_cast<uint8_t>(state.regs[index * 16 + byte])) << 8 * byte;
    if (is_lvt(index)) value &= lvt_implemented(index);
    set_reg(index, value);
  }
  set_reg(kVersion, kVersionValue);
  set_reg(kSvr, reg(kSvr) & kSvrImplemented);
  set_reg(kDivide, reg(kDivide) & kDivideImplemented);
  set_reg(kTpr, reg(kTpr) & 0xff);
  if (x2apic_mode()) enter_x2apic();
  update_ppr();
  const uint32_t remaining = reg(kCurrentCount);
  const bool counts = timer_mode() == TimerMode::Periodic || (timer_mode() == TimerMode::OneShot && remaining != 0);
  if (counts && reg(kInitialCount) != 0) {
    start_timer(reg(kInitialCount));
    if (remaining != 0) deadline_ns_ = bus_.now_ns(bus_.context) + static_cast<uint64_t>(remaining) * divide();
  }
  wake_if_pending();
}

}  // namespace lodge::engine::soft
