// EFLAGS, HLT and the I/O permission bitmap (SDM vol. 1, 19.5; vol. 3, 20.3 and 20.4).
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {
namespace {

enum class IfAccess { Real, Virtual, Denied };

// Which flag CLI and STI change.
IfAccess if_access(const CpuState& c) {
  if (!protected_mode(c)) return IfAccess::Real;
  if (v86_mode(c)) return iopl(c) == 3 ? IfAccess::Real : c.cr4 & cr4::kVme ? IfAccess::Virtual : IfAccess::Denied;
  if (iopl(c) >= c.cpl) return IfAccess::Real;
  return c.cpl == 3 && (c.cr4 & cr4::kPvi) ? IfAccess::Virtual : IfAccess::Denied;
}

bool in_v86(const CpuState& c) { return protected_mode(c) && v86_mode(c); }

void popf_v86_virtual(CpuState& c, uint32_t value, uint32_t operand_size) {
  if (!(c.cr4 & cr4::kVme) || operand_size != 2) raise(c, kGp, 0);
  if ((value & eflags::kTf) || ((value & eflags::kIf) && (c.eflags_system & eflags::kVip))) raise(c, kGp, 0);
  constexpr uint32_t kMask = eflags::kArithmetic | eflags::kTf | eflags::kDf | eflags::kNt;
  uint32_t flags = (get_eflags(c) & ~(kMask | eflags::kVif | eflags::kRf)) | (value & kMask);
  if (value & eflags::kIf) flags |= eflags::kVif;
  set_eflags(c, flags);
}

}  // namespace

void sys_cli(CpuState* cpu) {
  CpuState& c = *cpu;
  switch (if_access(c)) {
    case IfAccess::Real: c.eflags_system &= ~eflags::kIf; break;
    case IfAccess::Virtual: c.eflags_system &= ~eflags::kVif; break;
    case IfAccess::Denied: raise(c, kGp, 0);
  }
}

void sys_sti(CpuState* cpu) {
  CpuState& c = *cpu;
  switch (if_access(c)) {
    case IfAccess::Real:
      if (!interrupt_flag(c)) c.shadow = kShadowSti;
      c.eflags_system |= eflags::kIf;
      break;
    case IfAccess::Virtual:
      if (c.eflags_system & eflags::kVip) raise(c, kGp, 0);
      c.eflags_system |= eflags::kVif;
      break;
    case IfAccess::Denied: raise(c, kGp, 0);
  }
}

uint64_t sys_pushf_value(CpuState* cpu, uint32_t operand_size) {
  CpuState& c = *cpu;
  uint32_t value = get_eflags(c) & ~(eflags::kVm | eflags::kRf);
  if (in_v86(c) && iopl(c) < 3) {
    if (!(c.cr4 & cr4::kVme) || operand_size != 2) raise(c, kGp, 0);
    value = (value & ~eflags::kIf) | eflags::kIopl | (value & eflags::kVif ? eflags::kIf : 0);
  }
  return operand_size == 2 ? value & 0xffff : value;
}

void sys_popf(CpuState* cpu, uint64_t popped, uint32_t operand_size) {
  CpuState& c = *cpu;
  const uint32_t value = static_cast<uint32_t>(popped);
  if (in_v86(c) && iopl(c) < 3) {
    popf_v86_virtual(c, value, operand_size);
    mode_changed(c);
    return;
  }
  const bool level0 = !protected_mode(c) || (c.cpl == 0 && !v86_mode(c));
  uint32_t mask = eflags::kArithmetic | eflags::kTf | eflags::kDf | eflags::kNt;
  if (operand_size > 2) mask |= eflags::kAc | eflags::kId;
  if (level0 || c.cpl <= iopl(c)) mask |= eflags::kIf;
  if (level0) mask |= eflags::kIopl;
  uint32_t flags = (get_eflags(c) & ~(mask | eflags::kRf)) | (value & mask);
  if (level0 && operand_size > 2) flags &= ~(eflags::kVif | eflags::kVip);
  if (in_v86(c)) flags |= eflags::kVm;
  set_eflags(c, flags);
  mode_changed(c);
}

void sys_hlt(CpuState* cpu) {
  if (cpu->cpl != 0) raise(*cpu, kGp, 0);
  cpu->halted = true;
}

void sys_mwait(CpuState* c) { raise(*c, kUd); }

// KVM's convention: number in RAX, arguments in RBX, RCX, RDX, RSI (Documentation/virt/kvm/x86/hypercalls.rst); user mode gets -EPERM.
void sys_vmcall(CpuState* cpu) {
  CpuState& c = *cpu;
  const uint64_t mask = code64(c) ? ~0ull : 0xffffffff;
  constexpr uint64_t kEperm = 1;
  const uint64_t result = c.cpl != 0 ? -kEperm
                                     : c.hooks->hypercall(&c, c.gpr[kRax] & mask, c.gpr[kRbx] & mask, c.gpr[kRcx] & mask,
                                                          c.gpr[kRdx] & mask, c.gpr[kRsi] & mask);
  c.gpr[kRax] = result & mask;
}

void sys_check_io(CpuState* cpu, uint32_t port, uint32_t size) {
  CpuState& c = *cpu;
  if (!protected_mode(c) || (!v86_mode(c) && c.cpl <= iopl(c))) return;
  const bool tss32 = (c.tr.attributes & attr::kPresent) && (c.tr.attributes & 0xd) == 9;
  if (!tss32 || c.tr.limit < 103) raise(c, kGp, 0);
  const uint32_t map = mmu_read_system<uint16_t>(c, linear_wrap(c, c.tr.base + 102));
  const uint32_t offset = map + port / 8;
  if (offset + 1 > c.tr.limit) raise(c, kGp, 0);
  const uint32_t bits = mmu_read_system<uint16_t>(c, linear_wrap(c, c.tr.base + offset));
  if ((bits >> (port & 7)) & ((1u << size) - 1)) raise(c, kGp, 0);
}

}  // namespace lodge::engine::soft
