// System instructions, segment loads, control transfers and event delivery: what is not copied to the host.
//
// Every operation here is called with c.rip at the running instruction and c.next_rip after it; it either returns, and the
// caller commits rip = next_rip, or unwinds with nothing of the instruction done. Those that change what code runs
// or with which rights have called mode_changed(). Operands are values already read by the translated code; addresses are
// linear unless named otherwise. `operand_size` is 2, 4 or 8 bytes. Source: SDM vol. 2 and 3; APM vol. 2 and 3 where
// the two differ and the host is AMD's.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

extern "C" {

// --- segments and descriptors (cpu/segments.cpp)
void sys_load_segment(CpuState* c, uint32_t index, uint32_t selector);  // MOV Sreg / POP Sreg / LxS; MOV SS and POP SS set the shadow
void sys_lldt(CpuState* c, uint32_t selector);
void sys_ltr(CpuState* c, uint32_t selector);
uint32_t sys_sldt(CpuState* c);  // UMIP checks included, here and in the next four
uint32_t sys_str(CpuState* c);
uint32_t sys_smsw(CpuState* c);
void sys_sgdt(CpuState* c, uint64_t linear);
void sys_sidt(CpuState* c, uint64_t linear);
void sys_lgdt(CpuState* c, uint64_t linear, uint32_t operand_size);
void sys_lidt(CpuState* c, uint64_t linear, uint32_t operand_size);
void sys_lmsw(CpuState* c, uint32_t value);
// LAR/LSL set ZF in the state and return the new value of the destination (or `old`, unchanged, with ZF clear).
uint64_t sys_lar(CpuState* c, uint32_t selector, uint64_t old, uint32_t operand_size);
uint64_t sys_lsl(CpuState* c, uint32_t selector, uint64_t old, uint32_t operand_size);
void sys_verr(CpuState* c, uint32_t selector);
void sys_verw(CpuState* c, uint32_t selector);
uint32_t sys_arpl(CpuState* c, uint32_t destination, uint32_t source);  // sets ZF; the destination's new value

// --- control transfers (cpu/far.cpp)
void sys_far_jump(CpuState* c, uint32_t selector, uint64_t offset, uint32_t operand_size);
void sys_far_call(CpuState* c, uint32_t selector, uint64_t offset, uint32_t operand_size);
void sys_far_return(CpuState* c, uint32_t operand_size, uint32_t extra_pop);
void sys_iret(CpuState* c, uint32_t operand_size);
enum SoftwareInterrupt : uint32_t { kIntN, kInt3, kInto, kInt1 };
void sys_software_interrupt(CpuState* c, uint32_t vector, uint32_t kind);
void sys_syscall(CpuState* c);
void sys_sysret(CpuState* c, uint32_t operand_size);
void sys_sysenter(CpuState* c);
void sys_sysexit(CpuState* c, uint32_t operand_size);

// --- control, debug and model-specific registers (cpu/control.cpp, cpu/msr.cpp)
uint64_t sys_read_cr(CpuState* c, uint32_t number);
void sys_write_cr(CpuState* c, uint32_t number, uint64_t value);
uint64_t sys_read_dr(CpuState* c, uint32_t number);
void sys_write_dr(CpuState* c, uint32_t number, uint64_t value);
void sys_clts(CpuState* c);
void sys_invlpg(CpuState* c, uint64_t linear);
void sys_invpcid(CpuState* c, uint64_t type, uint64_t descriptor_linear);
void sys_wbinvd(CpuState* c);  // also INVD: privilege check only
void sys_rdmsr(CpuState* c);
void sys_wrmsr(CpuState* c);
void sys_xgetbv(CpuState* c);
void sys_xsetbv(CpuState* c);
void sys_cpuid(CpuState* c);
void sys_rdtsc(CpuState* c);
void sys_rdtscp(CpuState* c);
uint64_t sys_rdpid(CpuState* c);
void sys_rdpmc(CpuState* c);
void sys_swapgs(CpuState* c);
uint64_t sys_read_fsgsbase(CpuState* c, uint32_t segment);  // RDFSBASE/RDGSBASE, with the CR4 check
void sys_write_fsgsbase(CpuState* c, uint32_t segment, uint64_t value);
void sys_clac(CpuState* c);
void sys_stac(CpuState* c);

// --- flags and interrupts (cpu/flags.cpp)
void sys_cli(CpuState* c);
void sys_sti(CpuState* c);
uint64_t sys_pushf_value(CpuState* c, uint32_t operand_size);  // with the virtual-8086 and VME checks
void sys_popf(CpuState* c, uint64_t value, uint32_t operand_size);
void sys_hlt(CpuState* c);    // privilege check; sets c.halted
void sys_mwait(CpuState* c);  // not offered: #UD
void sys_vmcall(CpuState* c);
// Raises #GP unless CPL <= IOPL or the TSS's bitmap allows the port (SDM vol. 1, 19.5).
void sys_check_io(CpuState* c, uint32_t port, uint32_t size);

}  // extern "C"

// --- event delivery (cpu/interrupt.cpp): to be run under soft_guarded(); may raise in turn.
// Pushes the frame and enters the handler of c.exception / of an external interrupt or NMI.
void deliver_exception(CpuState& c, const PendingException& exception);
void deliver_interrupt(CpuState& c, uint8_t vector);
void deliver_nmi(CpuState& c);
// What follows when delivering `first` raised `second` (SDM vol. 3, table 6-5): deliver `second`, a double fault, or shutdown.
enum class Escalation { Serial, DoubleFault, Shutdown };
Escalation escalate(const PendingException& first, const PendingException& second);

// INIT and power-on state (SDM vol. 3, table 9-1). Vector state is the caller's.
void cpu_reset(CpuState& c, bool init);

// Debug exceptions after a completed instruction (key::kSingleStep): TF and matches noted by the MMU; fills c.exception.
bool debug_trap_pending(CpuState& c, bool tf_was_set);

// MSRs through KVM_GET_MSRS/KVM_SET_MSRS: the same rules with the host's rights. False: refused.
bool msr_read(CpuState& c, uint32_t index, uint64_t& value, bool host);
bool msr_write(CpuState& c, uint32_t index, uint64_t value, bool host);

}  // namespace lodge::engine::soft
