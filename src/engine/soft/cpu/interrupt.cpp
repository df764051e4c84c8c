// Delivery of exceptions and interrupts (SDM vol. 3, chapters 6 and 20).
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"

namespace lodge::engine::soft {

Stack inner_stack(CpuState& c, uint32_t cpl, uint32_t ist, uint32_t ext) {
  const uint32_t tss_error = selector_error(c.tr.selector, ext);
  Stack stack;
  stack.system = cpl != 3;
  if (long_mode(c)) {
    const uint32_t offset = ist ? 36 + (ist - 1) * 8 : 4 + cpl * 8;
    if (offset + 7 > c.tr.limit) raise(c, kTs, tss_error);
    stack.rsp = mmu_read_system<uint64_t>(c, c.tr.base + offset);
    stack.ss = null_segment(cpl, cpl);
    stack.width = 8;
    stack.error_code = ext;
    if (!canonical(stack.rsp)) raise(c, kSs_, ext);
    return stack;
  }
  const bool wide = (c.tr.attributes & 8) != 0;  // a 32-bit TSS
  const uint32_t offset = wide ? 4 + cpl * 8 : 2 + cpl * 4;
  if (offset + (wide ? 5 : 3) > c.tr.limit) raise(c, kTs, tss_error);
  const uint64_t at = linear_wrap(c, c.tr.base + offset);
  stack.rsp = wide ? mmu_read_system<uint32_t>(c, at) : mmu_read_system<uint16_t>(c, at);
  const uint32_t selector = mmu_read_system<uint16_t>(c, linear_wrap(c, at + (wide ? 4 : 2)));
  if (null_selector(selector)) raise(c, kTs, ext);
  Descriptor d = need_descriptor(c, selector, kTs, ext);
  if ((selector & 3) != cpl || d.dpl() != cpl || !d.writable_data()) raise(c, kTs, selector_error(selector, ext));
  if (!d.present()) raise(c, kSs_, selector_error(selector, ext));
  set_accessed(c, d);
  stack.ss = make_segment(selector, d);
  stack.width = d.big() ? 4 : 2;
  stack.error_code = selector_error(selector, ext);
  return stack;
}

namespace {

struct Event {
  uint32_t vector;
  uint32_t error_code;
  bool has_error_code;
  bool check_dpl;  // INT n, INT3, INTO
  uint32_t ext;    // of error codes raised on the way: 0 for those three, else 1
  uint64_t return_rip;
  uint32_t flags;  // as pushed
};

// An entry of the real-mode table (SDM vol. 3, 20.1.4).
void deliver_ivt(CpuState& c, const Event& e, uint64_t table) {
  const uint32_t entry = mmu_read_system<uint32_t>(c, linear_wrap(c, table + e.vector * 4));
  const SegmentRegister cs = real_segment(c, kCs, entry >> 16);
  Frame frame;
  frame.size = 2;
  frame.count = 0;
  frame.push(e.flags);
  frame.push(c.seg[kCs].selector);
  frame.push(e.return_rip);
  c.gpr[kRsp] = write_frame(c, current_stack(c), frame);
  c.seg[kCs] = cs;
  c.next_rip = entry & 0xffff;
}

void deliver_real(CpuState& c, const Event& e) {
  if (e.vector * 4 + 3 > c.idtr.limit) raise(c, kGp, e.vector * 8 + 2 + e.ext);
  deliver_ivt(c, e, c.idtr.base);
  c.eflags_system &= ~(eflags::kIf | eflags::kTf | eflags::kAc | eflags::kRf);
}

// The gate of a vector with the checks that precede its target.
Descriptor need_gate(CpuState& c, const Event& e) {
  const uint32_t size = long_mode(c) ? 16 : 8;
  const uint32_t error = e.vector * 8 + 2 + e.ext;
  if (e.vector * size + size - 1 > c.idtr.limit) raise(c, kGp, error);
  Descriptor gate;
  gate.address = linear_wrap(c, c.idtr.base + e.vector * size);
  const uint64_t raw = mmu_read_system<uint64_t>(c, gate.address);
  gate.low = static_cast<uint32_t>(raw);
  gate.high = static_cast<uint32_t>(raw >> 32);
  gate.upper_low = long_mode(c) ? mmu_read_system<uint32_t>(c, gate.address + 8) : 0;
  gate.upper_high = 0;
  constexpr uint32_t kLong = 1 << system_type::kInterruptGate32 | 1 << system_type::kTrapGate32;
  constexpr uint32_t kLegacy = kLong | 1 << system_type::kInterruptGate16 | 1 << system_type::kTrapGate16 | 1 << system_type::kTaskGate;
  if (gate.segment() || !((long_mode(c) ? kLong : kLegacy) & (1u << gate.type()))) raise(c, kGp, error);
  if (e.check_dpl && gate.dpl() < c.cpl) raise(c, kGp, error);
  if (!gate.present()) raise(c, kNp, error);
  return gate;
}

struct Target {
  SegmentRegister cs;
  uint32_t cpl;
  uint64_t offset;
};

Target gate_target(CpuState& c, const Event& e, const Descriptor& gate) {
  const uint32_t selector = gate.gate_selector();
  if (null_selector(selector)) raise(c, kGp, e.ext);
  Descriptor d = need_descriptor(c, selector, kGp, e.ext);
  const uint32_t error = selector_error(selector, e.ext);
  if (!d.code() || d.dpl() > c.cpl) raise(c, kGp, error);
  if (long_mode(c) && (!d.code64() || d.big())) raise(c, kGp, error);
  if (!d.present()) raise(c, kNp, error);
  if (v86_mode(c) && (d.conforming() || d.dpl() != 0)) raise(c, kGp, error);
  set_accessed(c, d);
  Target t;
  t.cs = make_segment(selector, d);
  t.cpl = d.conforming() ? c.cpl : d.dpl();
  const bool small = gate.type() == system_type::kInterruptGate16 || gate.type() == system_type::kTrapGate16;
  t.offset = long_mode(c) ? gate.gate_offset64() : small ? gate.low & 0xffff : gate.gate_offset32();
  check_entry(c, t.cs, t.offset, e.ext);
  return t;
}

void push_return(const CpuState& c, const Event& e, Frame& frame) {
  frame.push(e.flags);
  frame.push(c.seg[kCs].selector);
  frame.push(e.return_rip);
  if (e.has_error_code) frame.push(e.error_code);
}

void enter_handler(CpuState& c, const Descriptor& gate, const Target& t) {
  uint32_t clear = eflags::kTf | eflags::kVm | eflags::kRf | eflags::kNt;
  if (!(gate.type() & 1)) clear |= eflags::kIf;  // an interrupt gate
  c.eflags_system &= ~clear;
  enter_code(c, t.cs, t.cpl, t.offset);
}

void deliver_long(CpuState& c, const Event& e, const Descriptor& gate) {
  const Target t = gate_target(c, e, gate);
  const uint32_t ist = gate.high & 7;
  Stack stack;
  if (t.cpl < c.cpl || ist != 0) {
    stack = inner_stack(c, t.cpl, ist, e.ext);
    if (t.cpl == c.cpl) stack.ss = c.seg[kSs], stack.system = false;
  } else {
    stack = {c.seg[kSs], c.gpr[kRsp], 8, false, e.ext};
  }
  stack.rsp &= ~15ull;
  Frame frame;
  frame.size = 8;
  frame.count = 0;
  frame.push(c.seg[kSs].selector);
  frame.push(c.gpr[kRsp]);
  push_return(c, e, frame);
  c.gpr[kRsp] = write_frame(c, stack, frame);
  c.seg[kSs] = stack.ss;
  enter_handler(c, gate, t);
}

void deliver_to_inner(CpuState& c, const Event& e, const Descriptor& gate, const Target& t, uint32_t item_size) {
  const Stack stack = inner_stack(c, t.cpl, 0, e.ext);
  const bool from_v86 = v86_mode(c);
  Frame frame;
  frame.size = item_size;
  frame.count = 0;
  if (from_v86) {
    for (const uint32_t index : {kGs, kFs, kDs, kEs}) frame.push(c.seg[index].selector);
  }
  frame.push(c.seg[kSs].selector);
  frame.push(c.gpr[kRsp]);
  push_return(c, e, frame);
  c.gpr[kRsp] = write_frame(c, stack, frame);
  c.seg[kSs] = stack.ss;
  if (from_v86) {
    for (const uint32_t index : {kGs, kFs, kDs, kEs}) c.seg[index] = null_segment(0, 0);
  }
  enter_handler(c, gate, t);
}

void deliver_legacy(CpuState& c, const Event& e, const Descriptor& gate) {
  const Target t = gate_target(c, e, gate);
  const bool small = gate.type() == system_type::kInterruptGate16 || gate.type() == system_type::kTrapGate16;
  const uint32_t item_size = small ? 2 : 4;
  if (t.cpl < c.cpl) {
    deliver_to_inner(c, e, gate, t, item_size);
    return;
  }
  Stack stack = current_stack(c);
  stack.error_code = e.ext;
  Frame frame;
  frame.size = item_size;
  frame.count = 0;
  push_return(c, e, frame);
  c.gpr[kRsp] = write_frame(c, stack, frame);
  enter_handler(c, gate, t);
}

// An error code of an event through a task gate goes to the new task's stack.
void deliver_task(CpuState& c, const Event& e, const Descriptor& gate) {
  const TaskSwitchEvent event{e.ext, e.has_error_code, e.error_code};
  c.eflags_system = (c.eflags_system & ~eflags::kRf) | (e.flags & eflags::kRf);
  task_switch(c, gate.gate_selector(), TaskSwitch::Event, e.return_rip, &event);
}

// Writes next_rip.
void deliver(CpuState& c, const Event& e) {
  if (!protected_mode(c)) {
    deliver_real(c, e);
  } else {
    const Descriptor gate = need_gate(c, e);
    if (gate.type() == system_type::kTaskGate)
      deliver_task(c, e, gate);
    else if (long_mode(c))
      deliver_long(c, e, gate);
    else
      deliver_legacy(c, e, gate);
  }
  mode_changed(c);
}

// Between instructions: the handler's entry is where execution goes on.
void deliver_between(CpuState& c, const Event& e) {
  deliver(c, e);
  c.rip = c.next_rip;
  c.shadow = kShadowNone;
  c.halted = false;
}

// Faults, whose EFLAGS image has RF set (SDM vol. 3, 18.3.1.1); #DB's own value is the caller's: RF is set in an instruction
// breakpoint's frame by its handler.
bool fault_class(uint32_t vector) {
  constexpr uint32_t kOthers = 1u << kDb | 1u << kNmi | 1u << kBp | 1u << kOf | 1u << kDf | 1u << kMc;
  return vector < 32 && !(kOthers & (1u << vector));
}

// Redirection of INT n in virtual-8086 mode with VME (SDM vol. 3, 20.3): true when it goes through the 8086 program's own table.
bool redirected(CpuState& c, uint32_t vector) {
  if (103 > c.tr.limit) return false;
  const uint32_t io_map = mmu_read_system<uint16_t>(c, linear_wrap(c, c.tr.base + 102));
  const uint32_t offset = io_map - 32 + vector / 8;
  if (io_map < 32 || offset > c.tr.limit) return false;
  return !(mmu_read_system<uint8_t>(c, linear_wrap(c, c.tr.base + offset)) & (1u << (vector & 7)));
}

void deliver_redirected(CpuState& c, Event e) {
  const bool virtual_if = iopl(c) < 3;
  if (virtual_if) {
    e.flags = (e.flags & ~eflags::kIf) | eflags::kIopl | (c.eflags_system & eflags::kVif ? eflags::kIf : 0);
  }
  deliver_ivt(c, e, 0);
  c.eflags_system &= ~(eflags::kTf | (virtual_if ? eflags::kVif : eflags::kIf));
  mode_changed(c);
}

}  // namespace

void deliver_exception(CpuState& c, const PendingException& exception) {
  // `exception` may be c.exception itself, which delivery overwrites when it raises.
  const PendingException x = exception;
  Event e;
  e.vector = x.vector;
  e.error_code = x.error_code;
  e.has_error_code = x.has_error_code;
  e.check_dpl = x.is_software;
  e.ext = x.is_software ? 0 : 1;
  e.return_rip = x.is_software ? c.next_rip : c.rip;
  e.flags = get_eflags(c);
  if (!x.is_software && fault_class(x.vector)) e.flags |= eflags::kRf;
  if (x.vector == kPf && !x.is_software) c.cr2 = x.cr2;
  if (x.vector == kDb && !x.is_software) {
    if (x.dr6) c.dr[6] = (c.dr[6] & ~dr6::kBreakpoints) | x.dr6;
    c.dr[7] &= ~dr7::kGd;
  }
  deliver_between(c, e);
}

void deliver_interrupt(CpuState& c, uint8_t vector) { deliver_between(c, {vector, 0, false, false, 1, c.rip, get_eflags(c)}); }

void deliver_nmi(CpuState& c) {
  c.nmi_blocked = true;
  deliver_between(c, {kNmi, 0, false, false, 1, c.rip, get_eflags(c)});
}

namespace {

enum class Class { Benign, Contributory, PageFault, DoubleFault };

// SDM vol. 3, table 6-4. Interrupts and software interrupts are benign whatever their vector; an interrupt with the vector of an
// exception is known by its missing error code.
Class exception_class(const PendingException& e) {
  if (e.is_software) return Class::Benign;
  switch (e.vector) {
    case kDf: return e.is_external && !e.has_error_code ? Class::Benign : Class::DoubleFault;
    case kPf: return e.is_external && !e.has_error_code ? Class::Benign : Class::PageFault;
    case kTs:
    case kNp:
    case kSs_:
    case kGp: return e.is_external && !e.has_error_code ? Class::Benign : Class::Contributory;
    case kDe: return Class::Contributory;
    default: return Class::Benign;
  }
}

}  // namespace

Escalation escalate(const PendingException& first, const PendingException& second) {
  const Class a = exception_class(first), b = exception_class(second);
  if (b == Class::Benign) return Escalation::Serial;
  switch (a) {
    case Class::Benign: return Escalation::Serial;
    case Class::Contributory: return b == Class::Contributory ? Escalation::DoubleFault : Escalation::Serial;
    case Class::PageFault: return Escalation::DoubleFault;
    case Class::DoubleFault: return Escalation::Shutdown;
  }
  return Escalation::Shutdown;
}

void sys_software_interrupt(CpuState* cpu, uint32_t vector, uint32_t kind) {
  CpuState& c = *cpu;
  if (kind == kInto && !c.flags_of) return;
  const Event e{vector & 0xff, 0, false, kind != kInt1, kind == kInt1 ? 1u : 0u, c.next_rip, get_eflags(c) & ~eflags::kRf};
  const bool stepping = c.key & key::kSingleStep;
  if (protected_mode(c) && v86_mode(c) && kind == kIntN) {
    if ((c.cr4 & cr4::kVme) && redirected(c, e.vector)) {
      deliver_redirected(c, e);
      c.step_cancelled = stepping;
      return;
    }
    if (iopl(c) < 3) raise(c, kGp, 0);
  }
  deliver(c, e);
  c.step_cancelled = stepping;
}

}  // namespace lodge::engine::soft
