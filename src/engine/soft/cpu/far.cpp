// Far jumps, calls and returns, IRET, and the fast system calls (SDM vol. 2; vol. 3, 5.8).
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"

namespace lodge::engine::soft {

void check_entry(CpuState& c, const SegmentRegister& cs, uint64_t offset, uint32_t ext) {
  const bool wide = long_mode(c) && (cs.attributes & attr::kL);
  if (wide ? !canonical(offset) : offset > cs.limit) raise(c, kGp, ext);
}

void enter_code(CpuState& c, SegmentRegister cs, uint32_t cpl, uint64_t rip) {
  cs.selector = static_cast<uint16_t>((cs.selector & 0xfffc) | cpl);
  c.seg[kCs] = cs;
  c.cpl = static_cast<uint8_t>(cpl);
  c.next_rip = rip;
}

SegmentRegister return_code_segment(CpuState& c, uint32_t selector) {
  const uint32_t rpl = selector & 3;
  if (null_selector(selector)) raise(c, kGp, 0);
  Descriptor d = need_descriptor(c, selector, kGp);
  const bool level = d.conforming() ? d.dpl() <= rpl : d.dpl() == rpl;
  if (!d.code() || rpl < c.cpl || !level) raise(c, kGp, selector_error(selector));
  if (long_mode(c) && d.code64() && d.big()) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  set_accessed(c, d);
  return make_segment(selector, d);
}

SegmentRegister return_stack_segment(CpuState& c, uint32_t selector, const SegmentRegister& cs) {
  const uint32_t rpl = cs.selector & 3;
  if (null_selector(selector)) {
    if (!long_mode(c) || !(cs.attributes & attr::kL) || rpl == 3 || (selector & 3) != rpl) raise(c, kGp, 0);
    return null_segment(selector, rpl);
  }
  Descriptor d = need_descriptor(c, selector, kGp);
  if ((selector & 3) != rpl || !d.writable_data() || d.dpl() != rpl) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kSs_, selector_error(selector));
  set_accessed(c, d);
  return make_segment(selector, d);
}

void drop_inner_segments(CpuState& c) {
  for (const uint32_t index : {kEs, kDs, kFs, kGs}) {
    SegmentRegister& s = c.seg[index];
    if (!(s.attributes & attr::kPresent)) continue;  // null already; FS and GS keep their bases
    const uint32_t dpl = (s.attributes >> attr::kDplShift) & 3;
    const bool conforming = (s.attributes & attr::kCode) && (s.attributes & attr::kConforming);
    if (dpl >= c.cpl || conforming) continue;
    s.selector = 0;
    s.attributes &= static_cast<uint16_t>(~attr::kPresent);
  }
}

namespace {

uint64_t truncate(uint64_t value, uint32_t size) { return size == 8 ? value : size == 4 ? value & 0xffffffff : value & 0xffff; }

// The stack pointer after a transfer to `ss` in code of `cs`.
void enter_stack(CpuState& c, const SegmentRegister& ss, const SegmentRegister& cs, uint64_t rsp) {
  const bool wide = long_mode(c) && (cs.attributes & attr::kL);
  c.seg[kSs] = ss;
  c.gpr[kRsp] = merge_rsp(c.gpr[kRsp], rsp, wide ? 8 : ss.attributes & attr::kDb ? 4 : 2);
}

// A code segment named by a far JMP or CALL directly.
SegmentRegister direct_code_segment(CpuState& c, uint32_t selector, Descriptor& d) {
  const bool allowed = d.conforming() ? d.dpl() <= c.cpl : (selector & 3) <= c.cpl && d.dpl() == c.cpl;
  if (!allowed) raise(c, kGp, selector_error(selector));
  if (long_mode(c) && d.code64() && d.big()) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  set_accessed(c, d);
  return make_segment(selector, d);
}

// An offset of 64 bits into code that is not 64-bit code: Intel's processors take its low half.
uint64_t offset_for(const CpuState& c, const SegmentRegister& cs, uint64_t offset) {
  return c.intel_rules && !(cs.attributes & attr::kL) ? offset & 0xffffffff : offset;
}

// What a call gate leads to.
struct GateTarget {
  SegmentRegister cs;
  uint64_t offset;
  uint32_t item_size, parameters, cpl;
};

GateTarget through_call_gate(CpuState& c, uint32_t selector, Descriptor& gate, bool jump) {
  if (gate.dpl() < c.cpl || gate.dpl() < (selector & 3)) raise(c, kGp, selector_error(selector));
  if (!gate.present()) raise(c, kNp, selector_error(selector));
  fetch_upper_half(c, selector, gate);
  const uint32_t target = gate.gate_selector();
  if (null_selector(target)) raise(c, kGp, 0);
  Descriptor d = need_descriptor(c, target, kGp);
  const bool level = jump && !d.conforming() ? d.dpl() == c.cpl : d.dpl() <= c.cpl;
  if (!d.code() || !level) raise(c, kGp, selector_error(target));
  if (long_mode(c) && (!d.code64() || d.big())) raise(c, kGp, selector_error(target));
  if (!d.present()) raise(c, kNp, selector_error(target));
  set_accessed(c, d);
  const bool small = gate.type() == system_type::kCallGate16;
  GateTarget t;
  t.cs = make_segment(target, d);
  t.offset = long_mode(c) ? gate.gate_offset64() : small ? gate.low & 0xffff : gate.gate_offset32();
  t.item_size = long_mode(c) ? 8 : small ? 2 : 4;
  t.parameters = long_mode(c) ? 0 : gate.high & 31;
  t.cpl = d.conforming() ? c.cpl : d.dpl();
  check_entry(c, t.cs, t.offset);
  return t;
}

bool is_call_gate(const CpuState& c, uint32_t type) {
  return type == system_type::kCallGate32 || (type == system_type::kCallGate16 && !long_mode(c));
}

void call_inner(CpuState& c, const GateTarget& t) {
  const Stack old = current_stack(c);
  const Stack inner = inner_stack(c, t.cpl, 0, 0);
  Frame frame;
  frame.size = t.item_size;
  frame.count = 0;
  frame.push(c.seg[kSs].selector);
  frame.push(c.gpr[kRsp]);
  for (uint32_t i = t.parameters; i > 0; --i) frame.push(stack_peek(c, old, (i - 1) * t.item_size, t.item_size));
  frame.push(c.seg[kCs].selector);
  frame.push(c.next_rip);
  const uint64_t rsp = write_frame(c, inner, frame);
  c.seg[kSs] = inner.ss;
  c.gpr[kRsp] = rsp;
  enter_code(c, t.cs, t.cpl, t.offset);
}

void call_same(CpuState& c, const SegmentRegister& cs, uint64_t offset, uint32_t item_size) {
  Frame frame;
  frame.size = item_size;
  frame.count = 0;
  frame.push(c.seg[kCs].selector);
  frame.push(c.next_rip);
  Stack stack = current_stack(c);
  // The processors at hand push as the code called would: from 64-bit into compatibility mode by ESP or SP, and the rest of RSP becomes
  // zero or stays, as there. (The manuals leave it open; seen by the host oracle.)
  if (stack.width == 8 && !(cs.attributes & attr::kL)) stack.width = c.seg[kSs].attributes & attr::kDb ? 4 : 2;
  c.gpr[kRsp] = write_frame(c, stack, frame);
  enter_code(c, cs, c.cpl, offset);
}

// A far JMP or CALL to a system descriptor other than a call gate: a TSS or a task gate.
void transfer_to_task(CpuState& c, uint32_t selector, const Descriptor& d, TaskSwitch reason) {
  const uint32_t type = d.type();
  const bool tss = type == system_type::kTss16 || type == system_type::kTss32;
  if (long_mode(c) || !(tss || type == system_type::kTaskGate)) raise(c, kGp, selector_error(selector));
  if (d.dpl() < c.cpl || d.dpl() < (selector & 3)) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  task_switch(c, tss ? selector : d.gate_selector(), reason, c.next_rip, nullptr);
}

void far_real(CpuState& c, uint32_t selector, uint64_t offset) {
  SegmentRegister cs = real_segment(c, kCs, selector);
  check_entry(c, cs, offset);
  c.seg[kCs] = cs;
  c.next_rip = offset;
}

}  // namespace

void sys_far_jump(CpuState* cpu, uint32_t selector, uint64_t offset, uint32_t operand_size) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  offset = truncate(offset, operand_size);
  if (real_or_v86(c)) {
    far_real(c, selector, offset);
    mode_changed(c);
    return;
  }
  if (null_selector(selector)) raise(c, kGp, 0);
  Descriptor d = need_descriptor(c, selector, kGp);
  if (d.code()) {
    const SegmentRegister cs = direct_code_segment(c, selector, d);
    offset = offset_for(c, cs, offset);
    check_entry(c, cs, offset);
    enter_code(c, cs, c.cpl, offset);
  } else if (!d.segment() && is_call_gate(c, d.type())) {
    const GateTarget t = through_call_gate(c, selector, d, true);
    enter_code(c, t.cs, c.cpl, t.offset);
  } else if (!d.segment()) {
    transfer_to_task(c, selector, d, TaskSwitch::Jump);
  } else {
    raise(c, kGp, selector_error(selector));
  }
  mode_changed(c);
}

void sys_far_call(CpuState* cpu, uint32_t selector, uint64_t offset, uint32_t operand_size) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  offset = truncate(offset, operand_size);
  if (real_or_v86(c)) {
    const SegmentRegister cs = real_segment(c, kCs, selector);
    check_entry(c, cs, offset);
    Frame frame;
    frame.size = operand_size;
    frame.count = 0;
    frame.push(c.seg[kCs].selector);
    frame.push(c.next_rip);
    c.gpr[kRsp] = write_frame(c, current_stack(c), frame);
    c.seg[kCs] = cs;
    c.next_rip = offset;
    mode_changed(c);
    return;
  }
  if (null_selector(selector)) raise(c, kGp, 0);
  Descriptor d = need_descriptor(c, selector, kGp);
  if (d.code()) {
    const SegmentRegister cs = direct_code_segment(c, selector, d);
    offset = offset_for(c, cs, offset);
    check_entry(c, cs, offset);
    call_same(c, cs, offset, operand_size);
  } else if (!d.segment() && is_call_gate(c, d.type())) {
    const GateTarget t = through_call_gate(c, selector, d, false);
    if (t.cpl < c.cpl)
      call_inner(c, t);
    else
      call_same(c, t.cs, t.offset, t.item_size);
  } else if (!d.segment()) {
    transfer_to_task(c, selector, d, TaskSwitch::Call);
  } else {
    raise(c, kGp, selector_error(selector));
  }
  mode_changed(c);
}

void sys_far_return(CpuState* cpu, uint32_t operand_size, uint32_t extra_pop) {
  CpuState& c = *cpu;
  const Stack stack = current_stack(c);
  // Which of two faults comes first is the processor's choice; AMD's look at the selector first.
  const uint32_t selector = stack_peek_selector(c, stack, operand_size, operand_size);
  uint64_t rip = stack_peek(c, stack, 0, operand_size);
  if (real_or_v86(c)) {
    far_real(c, selector, rip);
    set_rsp(c, stack.rsp + 2 * operand_size + extra_pop);
    mode_changed(c);
    return;
  }
  const SegmentRegister cs = return_code_segment(c, selector);
  rip = offset_for(c, cs, rip);
  check_entry(c, cs, rip);
  if ((selector & 3) == c.cpl) {
    c.gpr[kRsp] = merge_rsp(stack.rsp, stack.rsp + 2 * operand_size + extra_pop, stack.width);
    enter_code(c, cs, c.cpl, rip);
  } else {
    const uint64_t rsp = stack_peek(c, stack, 2 * operand_size + extra_pop, operand_size);
    const uint32_t ss_selector = stack_peek_selector(c, stack, 3 * operand_size + extra_pop, operand_size);
    const SegmentRegister ss = return_stack_segment(c, ss_selector, cs);
    enter_stack(c, ss, cs, rsp + extra_pop);
    enter_code(c, cs, selector & 3, rip);
    drop_inner_segments(c);
  }
  mode_changed(c);
}

// --- IRET

namespace {

// EFLAGS out of a frame popped at privilege level `cpl` (SDM vol. 2, IRET): what that level may not change stays.
void return_flags(CpuState& c, uint64_t value, uint32_t operand_size, uint32_t cpl) {
  uint32_t mask = eflags::kArithmetic | eflags::kTf | eflags::kDf | eflags::kNt;
  if (operand_size > 2) mask |= eflags::kRf | eflags::kAc | eflags::kId;
  if (cpl <= iopl(c)) mask |= eflags::kIf;
  if (cpl == 0) {
    mask |= eflags::kIopl;
    if (operand_size > 2) mask |= eflags::kVif | eflags::kVip;
  }
  set_eflags(c, (get_eflags(c) & ~mask) | (static_cast<uint32_t>(value) & mask));
}

void iret_real(CpuState& c, uint32_t operand_size) {
  const Stack stack = current_stack(c);
  const uint64_t rip = stack_peek(c, stack, 0, operand_size);
  const uint32_t selector = stack_peek_selector(c, stack, operand_size, operand_size);
  const uint32_t flags = static_cast<uint32_t>(stack_peek(c, stack, 2 * operand_size, operand_size));
  far_real(c, selector, rip);
  set_rsp(c, stack.rsp + 3 * operand_size);
  return_flags(c, flags, operand_size, 0);
}

// SDM vol. 3, 20.3: IOPL 3, or with VME a 16-bit IRET whose IF goes to VIF.
void iret_v86(CpuState& c, uint32_t operand_size) {
  const bool virtual_if = iopl(c) < 3;
  if (virtual_if && !((c.cr4 & cr4::kVme) && operand_size == 2)) raise(c, kGp, 0);
  const Stack stack = current_stack(c);
  const uint64_t rip = stack_peek(c, stack, 0, operand_size);
  const uint32_t selector = stack_peek_selector(c, stack, operand_size, operand_size);
  const uint32_t flags = static_cast<uint32_t>(stack_peek(c, stack, 2 * operand_size, operand_size));
  if (virtual_if && ((flags & eflags::kTf) || ((flags & eflags::kIf) && (c.eflags_system & eflags::kVip)))) raise(c, kGp, 0);
  far_real(c, selector, rip);
  set_rsp(c, stack.rsp + 3 * operand_size);
  return_flags(c, flags, operand_size, 3);
  if (virtual_if) c.eflags_system = (c.eflags_system & ~eflags::kVif) | (flags & eflags::kIf ? eflags::kVif : 0);
}

void iret_to_v86(CpuState& c, const Stack& stack, uint64_t rip, uint32_t selector, uint32_t flags) {
  uint32_t popped[6];  // ESP, SS, ES, DS, FS, GS
  for (uint32_t i = 0; i < 6; ++i) popped[i] = static_cast<uint32_t>(stack_peek(c, stack, 12 + 4 * i, 4));
  if ((rip & 0xffffffff) > 0xffff) raise(c, kGp, 0);
  set_eflags(c, flags);
  c.cpl = 3;
  c.seg[kCs] = real_segment(c, kCs, selector);
  c.seg[kSs] = real_segment(c, kSs, popped[1]);
  c.seg[kEs] = real_segment(c, kEs, popped[2]);
  c.seg[kDs] = real_segment(c, kDs, popped[3]);
  c.seg[kFs] = real_segment(c, kFs, popped[4]);
  c.seg[kGs] = real_segment(c, kGs, popped[5]);
  c.gpr[kRsp] = popped[0];
  c.next_rip = rip & 0xffff;
}

void iret_task(CpuState& c) {
  if (long_mode(c)) raise(c, kGp, 0);
  const uint16_t link = mmu_read_system<uint16_t>(c, linear_wrap(c, c.tr.base));
  task_switch(c, link, TaskSwitch::Return, c.next_rip, nullptr);
}

void iret_protected(CpuState& c, uint32_t operand_size) {
  if (c.eflags_system & eflags::kNt) {
    iret_task(c);
    return;
  }
  const Stack stack = current_stack(c);
  const uint64_t flags = stack_peek(c, stack, 2 * operand_size, operand_size);  // from the top down, as with a far RET
  const uint32_t selector = stack_peek_selector(c, stack, operand_size, operand_size);
  uint64_t rip = stack_peek(c, stack, 0, operand_size);
  if (operand_size == 4 && (flags & eflags::kVm) && c.cpl == 0 && !long_mode(c)) {
    iret_to_v86(c, stack, rip, selector, static_cast<uint32_t>(flags));
    return;
  }
  const SegmentRegister cs = return_code_segment(c, selector);
  rip = offset_for(c, cs, rip);
  const uint32_t old_cpl = c.cpl, rpl = selector & 3;
  if (code64(c) || rpl != old_cpl) {
    const uint64_t rsp = stack_peek(c, stack, 3 * operand_size, operand_size);
    const uint32_t ss_selector = stack_peek_selector(c, stack, 4 * operand_size, operand_size);
    const SegmentRegister ss = return_stack_segment(c, ss_selector, cs);
    check_entry(c, cs, rip);
    enter_stack(c, ss, cs, rsp);
  } else {
    check_entry(c, cs, rip);
    c.gpr[kRsp] = merge_rsp(stack.rsp, stack.rsp + 3 * operand_size, stack.width);
  }
  return_flags(c, flags, operand_size, old_cpl);
  enter_code(c, cs, rpl, rip);
  if (rpl != old_cpl) drop_inner_segments(c);
}

}  // namespace

// NMIs are unblocked even if IRET faults (SDM vol. 3, 6.7.1).
void sys_iret(CpuState* cpu, uint32_t operand_size) {
  CpuState& c = *cpu;
  const bool stepping = c.key & key::kSingleStep;
  c.nmi_blocked = false;
  if (!protected_mode(c))
    iret_real(c, operand_size);
  else if (v86_mode(c))
    iret_v86(c, operand_size);
  else
    iret_protected(c, operand_size);
  c.rf_loaded = (c.eflags_system & eflags::kRf) != 0;
  mode_changed(c);
  // RF guards the next instruction from its breakpoint; where none can be hit, and no trap shows it, it need not outlive this one.
  if (c.rf_loaded && !stepping && !(c.key & key::kSingleStep)) {
    c.eflags_system &= ~eflags::kRf;
    c.rf_loaded = false;
  }
}

// --- fast system calls

namespace {

constexpr uint16_t kCode64Kernel = 0xa09b, kCode32Kernel = 0xc09b, kDataKernel = 0xc093;
constexpr uint16_t kCode64User = 0xa0fb, kCode32User = 0xc0fb, kDataUser = 0xc0f3;

void need_syscall(CpuState& c) {
  if (!(c.efer & efer::kSce)) raise(c, kUd);
  if (!code64(c) && !vendor_is_amd(c)) raise(c, kUd);  // Intel: 64-bit mode only
}

void enter_flat(CpuState& c, uint32_t cs, uint16_t cs_attributes, uint32_t ss, uint16_t ss_attributes, uint32_t cpl, uint64_t rip) {
  c.seg[kSs] = flat_segment(ss, ss_attributes);
  enter_code(c, flat_segment(cs, cs_attributes), cpl, rip);
}

}  // namespace

// Whether a single-step trap follows SYSCALL and SYSENTER depends on TF as they leave it.
void sys_syscall(CpuState* cpu) {
  CpuState& c = *cpu;
  need_syscall(c);
  const bool stepping = c.key & key::kSingleStep;
  const uint32_t cs = (c.msrs.star >> 32) & 0xfffc;
  const uint32_t ss = ((c.msrs.star >> 32) & 0xfffc) + 8;
  if (long_mode(c)) {
    const uint64_t target = code64(c) ? c.msrs.lstar : c.msrs.cstar;
    const uint32_t flags = get_eflags(c) & ~eflags::kRf;
    c.gpr[kRcx] = c.next_rip;
    c.gpr[kR11] = flags;
    set_eflags(c, flags & ~static_cast<uint32_t>(c.msrs.sfmask));
    enter_flat(c, cs, kCode64Kernel, ss, kDataKernel, 0, target);
  } else {  // AMD's legacy form (APM vol. 3, SYSCALL)
    c.gpr[kRcx] = c.next_rip & 0xffffffff;
    c.eflags_system &= ~(eflags::kIf | eflags::kVm | eflags::kRf);
    enter_flat(c, cs, kCode32Kernel, ss, kDataKernel, 0, c.msrs.star & 0xffffffff);
  }
  c.step_cancelled = stepping && !(c.eflags_system & eflags::kTf);
  mode_changed(c);
}

void sys_sysret(CpuState* cpu, uint32_t operand_size) {
  CpuState& c = *cpu;
  need_syscall(c);
  if (!protected_mode(c)) raise(c, kUd);
  if (c.cpl != 0) raise(c, kGp, 0);
  const uint32_t base = (c.msrs.star >> 48) & 0xfffc;
  const bool wide = operand_size == 8 && code64(c);
  const uint64_t rip = wide ? c.gpr[kRcx] : c.gpr[kRcx] & 0xffffffff;
  // Intel faults here, with the kernel's privilege; AMD in user mode, at the fetch.
  if (wide && !canonical(rip) && !vendor_is_amd(c)) raise(c, kGp, 0);
  if (long_mode(c))
    set_eflags(c, static_cast<uint32_t>(c.gpr[kR11]) & ~(eflags::kRf | eflags::kVm));
  else
    c.eflags_system |= eflags::kIf;
  const uint32_t cs = wide ? base + 16 : base;
  enter_flat(c, cs | 3, wide ? kCode64User : kCode32User, (base + 8) | 3, kDataUser, 3, rip);
  mode_changed(c);
}

void sys_sysenter(CpuState* cpu) {
  CpuState& c = *cpu;
  if (long_mode(c) && vendor_is_amd(c)) raise(c, kUd);
  if (!protected_mode(c) || null_selector(static_cast<uint32_t>(c.msrs.sysenter_cs))) raise(c, kGp, 0);
  const bool wide = long_mode(c);
  const uint32_t cs = c.msrs.sysenter_cs & 0xfffc;
  c.eflags_system &= ~(eflags::kVm | eflags::kIf | eflags::kRf);
  c.gpr[kRsp] = wide ? c.msrs.sysenter_esp : c.msrs.sysenter_esp & 0xffffffff;
  enter_flat(c, cs, wide ? kCode64Kernel : kCode32Kernel, cs + 8, kDataKernel, 0,
             wide ? c.msrs.sysenter_eip : c.msrs.sysenter_eip & 0xffffffff);
  mode_changed(c);
}

void sys_sysexit(CpuState* cpu, uint32_t operand_size) {
  CpuState& c = *cpu;
  if (long_mode(c) && vendor_is_amd(c)) raise(c, kUd);
  if (!protected_mode(c) || null_selector(static_cast<uint32_t>(c.msrs.sysenter_cs)) || c.cpl != 0) raise(c, kGp, 0);
  const bool wide = operand_size == 8 && code64(c);
  const uint64_t rip = wide ? c.gpr[kRdx] : c.gpr[kRdx] & 0xffffffff;
  const uint64_t rsp = wide ? c.gpr[kRcx] : c.gpr[kRcx] & 0xffffffff;
  if (wide && (!canonical(rip) || !canonical(rsp))) raise(c, kGp, 0);
  const uint32_t base = (c.msrs.sysenter_cs & 0xfffc) + (wide ? 32 : 16);
  c.gpr[kRsp] = rsp;
  enter_flat(c, base | 3, wide ? kCode64User : kCode32User, (base + 8) | 3, kDataUser, 3, rip);
  mode_changed(c);
}

}  // namespace lodge::engine::soft
