// Control and debug registers, XCR0, CPUID, time-stamp and TLB instructions (SDM vol. 3, 2.5, 2.6 and 4.1; vol. 2 for each).
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {

bool vendor_is_amd(CpuState& c) {
  uint32_t r[4];
  c.hooks->cpuid(&c, 0, 0, r);
  return r[1] == 0x68747541 || r[1] == 0x6f677948;  // "Auth"enticAMD, "Hygo"nGenuine
}

bool cpuid_bit(CpuState& c, uint32_t leaf, uint32_t subleaf, uint32_t register_index, uint32_t bit) {
  uint32_t r[4];
  c.hooks->cpuid(&c, leaf, subleaf, r);
  return r[register_index] & (1u << bit);
}

namespace {

constexpr uint64_t kPhysicalMask = (1ull << kPhysicalBits) - 1;
constexpr uint64_t kCr3NoFlush = 1ull << 63;

void need_cpl0(CpuState& c) {
  if (c.cpl != 0) raise(c, kGp, 0);
}

[[noreturn]] void gp(CpuState& c) { raise(c, kGp, 0); }

bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer) { return (cr0 & cr0::kPg) && (cr4 & cr4::kPae) && !(efer & efer::kLma); }

// IA-32e mode begins with PG while LME is set (SDM vol. 3, 9.8.5).
void check_long_mode_entry(CpuState& c) {
  const bool busy16 = (c.tr.attributes & 15) == 3 || (c.tr.attributes & 15) == 1;
  if (!(c.cr4 & cr4::kPae) || (c.seg[kCs].attributes & attr::kL) || busy16) gp(c);
}

void write_cr0(CpuState& c, uint64_t value) {
  constexpr uint64_t kDefined =
      cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs | cr0::kEt | cr0::kNe | cr0::kWp | cr0::kAm | cr0::kNw | cr0::kCd | cr0::kPg;
  if (value >> 32) gp(c);
  value = (value & kDefined) | cr0::kEt;
  if ((value & cr0::kPg) && !(value & cr0::kPe)) gp(c);
  if ((value & cr0::kNw) && !(value & cr0::kCd)) gp(c);
  const bool pg_on = (value & cr0::kPg) && !(c.cr0 & cr0::kPg);
  const bool pg_off = !(value & cr0::kPg) && (c.cr0 & cr0::kPg);
  uint64_t efer = c.efer;
  if (pg_on && (c.efer & efer::kLme)) {
    check_long_mode_entry(c);
    efer |= efer::kLma;
  }
  if (pg_off) {
    if ((c.cr4 & cr4::kPcide) || code64(c)) gp(c);
    efer &= ~efer::kLma;
  }
  const uint64_t changed = value ^ c.cr0;
  if (pae_paging(value, c.cr4, efer) && (changed & (cr0::kPg | cr0::kCd | cr0::kNw)) && !mmu_load_pdptes(c, c.cr3)) gp(c);
  c.cr0 = value;
  c.efer = efer;
  if (changed & (cr0::kPg | cr0::kWp | cr0::kPe)) mmu_flush_all(c);
}

void write_cr3(CpuState& c, uint64_t value) {
  const bool pcid = c.cr4 & cr4::kPcide;
  const bool no_flush = pcid && (value & kCr3NoFlush);
  if (pcid) value &= ~kCr3NoFlush;
  if (long_mode(c) && (value & ~kPhysicalMask)) gp(c);
  if (!long_mode(c)) value &= 0xffffffff;
  if (pae_paging(c.cr0, c.cr4, c.efer) && !mmu_load_pdptes(c, value)) gp(c);
  c.cr3 = value;
  mmu_load_cr3(c, no_flush);
}

// Bits that the guest's CPUID offers.
uint64_t cr4_allowed(CpuState& c) {
  uint64_t allowed = cr4::kPce;
  struct Row {
    uint64_t bits;
    uint32_t leaf, reg, bit;
  };
  static constexpr Row kRows[] = {
      {cr4::kVme | cr4::kPvi, 1, 3, 1},
      {cr4::kDe, 1, 3, 2},
      {cr4::kPse, 1, 3, 3},
      {cr4::kTsd, 1, 3, 4},
      {cr4::kPae, 1, 3, 6},
      {cr4::kMce, 1, 3, 7},
      {cr4::kPge, 1, 3, 13},
      {cr4::kOsfxsr, 1, 3, 24},
      {cr4::kOsxmmexcpt, 1, 3, 25},
      {cr4::kPcide, 1, 2, 17},
      {cr4::kOsxsave, 1, 2, 26},
      {cr4::kFsgsbase, 7, 1, 0},
      {cr4::kSmep, 7, 1, 7},
      {cr4::kSmap, 7, 1, 20},
      {cr4::kUmip, 7, 2, 2},
  };
  uint32_t leaf1[4], leaf7[4];
  c.hooks->cpuid(&c, 1, 0, leaf1);
  c.hooks->cpuid(&c, 7, 0, leaf7);
  for (const Row& row : kRows) {
    const uint32_t* leaf = row.leaf == 1 ? leaf1 : leaf7;
    if (leaf[row.reg] & (1u << row.bit)) allowed |= row.bits;
  }
  return allowed;
}

void write_cr4(CpuState& c, uint64_t value) {
  if (value & ~cr4_allowed(c)) gp(c);
  const uint64_t changed = value ^ c.cr4;
  if (long_mode(c) && !(value & cr4::kPae)) gp(c);
  if ((changed & value & cr4::kPcide) && (!long_mode(c) || (c.cr3 & 0xfff))) gp(c);
  constexpr uint64_t kReloads = cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep;
  if (pae_paging(c.cr0, value, c.efer) && (changed & kReloads) && !mmu_load_pdptes(c, c.cr3)) gp(c);
  c.cr4 = value;
  if (changed & (cr4::kPge | cr4::kPse | cr4::kPae | cr4::kSmep | cr4::kSmap | cr4::kPcide)) mmu_flush_all(c);
}

// DR4 and DR5 are DR6 and DR7 unless CR4.DE is set; then GD (SDM vol. 3, 18.2.2 and 18.2.4).
uint32_t debug_register(CpuState& c, uint32_t number) {
  if (number == 4 || number == 5) {
    if (c.cr4 & cr4::kDe) raise(c, kUd);
    number += 2;
  }
  if (number > 7) raise(c, kUd);
  need_cpl0(c);
  if (c.dr[7] & dr7::kGd) {
    c.exception = {};
    c.exception.vector = kDb;
    c.exception.dr6 = dr6::kBd;
    unwind_to_loop(c, Unwind::Exception);
  }
  return number;
}

bool tsc_denied(const CpuState& c) { return (c.cr4 & cr4::kTsd) && c.cpl != 0; }

void set_edx_eax(CpuState& c, uint64_t value) {
  c.gpr[kRax] = value & 0xffffffff;
  c.gpr[kRdx] = value >> 32;
}

uint64_t edx_eax(const CpuState& c) { return (c.gpr[kRdx] << 32) | (c.gpr[kRax] & 0xffffffff); }

}  // namespace

uint64_t sys_read_cr(CpuState* cpu, uint32_t number) {
  CpuState& c = *cpu;
  if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8) raise(c, kUd);
  need_cpl0(c);
  switch (number) {
    case 0: return c.cr0;
    case 2: return c.cr2;
    case 3: return c.cr3;
    case 4: return c.cr4;
    default: return c.hooks->get_cr8(&c);
  }
}

void sys_write_cr(CpuState* cpu, uint32_t number, uint64_t value) {
  CpuState& c = *cpu;
  if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8) raise(c, kUd);
  need_cpl0(c);
  if (!code64(c)) value &= 0xffffffff;
  switch (number) {
    case 0: write_cr0(c, value); break;
    case 2: c.cr2 = value; break;
    case 3: write_cr3(c, value); break;
    case 4: write_cr4(c, value); break;
    default:
      if (value > 15) gp(c);
      c.hooks->set_cr8(&c, value);
  }
  mode_changed(c);
}

uint64_t sys_read_dr(CpuState* cpu, uint32_t number) {
  CpuState& c = *cpu;
  return c.dr[debug_register(c, number)];
}

void sys_write_dr(CpuState* cpu, uint32_t number, uint64_t value) {
  CpuState& c = *cpu;
  number = debug_register(c, number);
  if (!code64(c)) value &= 0xffffffff;
  if (number >= 6 && (value >> 32)) gp(c);
  switch (number) {
    case 6: c.dr[6] = (value & dr6::kWritable) | dr6::kFixed; break;
    case 7: c.dr[7] = (value & dr7::kWritable) | dr7::kFixed; break;
    default: c.dr[number] = value;
  }
  mode_changed(c);
}

void sys_clts(CpuState* cpu) {
  need_cpl0(*cpu);
  cpu->cr0 &= ~cr0::kTs;
  mode_changed(*cpu);
}

// Cannot clear PE (SDM vol. 2, LMSW).
void sys_lmsw(CpuState* cpu, uint32_t value) {
  CpuState& c = *cpu;
  need_cpl0(c);
  constexpr uint64_t kBits = cr0::kMp | cr0::kEm | cr0::kTs;
  write_cr0(c, (c.cr0 & ~kBits) | (value & (kBits | cr0::kPe)));
  mode_changed(c);
}

void sys_invlpg(CpuState* cpu, uint64_t linear) {
  need_cpl0(*cpu);
  if (canonical(linear)) mmu_flush_page(*cpu, linear);
}

void sys_invpcid(CpuState* cpu, uint64_t type, uint64_t descriptor_linear) {
  CpuState& c = *cpu;
  enum Type : uint64_t { kAddress = 0, kContext = 1, kAllGlobal = 2, kAll = 3 };
  need_cpl0(c);
  if (type > kAll) gp(c);
  uint64_t descriptor[2];
  mmu_read(c, descriptor_linear, descriptor, sizeof descriptor);
  if (descriptor[0] >> 12) gp(c);
  const bool names_pcid = type == kAddress || type == kContext;
  if (names_pcid && !(c.cr4 & cr4::kPcide) && descriptor[0] != 0) gp(c);
  if (type == kAddress && !canonical(descriptor[1])) gp(c);
  switch (type) {
    case kAddress: mmu_flush_page_pcid(c, static_cast<uint32_t>(descriptor[0]), descriptor[1]); break;
    case kContext: mmu_flush_pcid(c, static_cast<uint32_t>(descriptor[0])); break;
    default: mmu_flush_all(c);
  }
}

void sys_wbinvd(CpuState* c) { need_cpl0(*c); }

void sys_xgetbv(CpuState* cpu) {
  CpuState& c = *cpu;
  if (!(c.cr4 & cr4::kOsxsave)) raise(c, kUd);
  // ECX 1 is XCR0 & XINUSE; a processor may always report a component as in use (SDM vol. 1, 13.6).
  const uint32_t index = static_cast<uint32_t>(c.gpr[kRcx]);
  if (index > 1 || (index == 1 && !cpuid_bit(c, 0xd, 1, 0, 2))) gp(c);
  set_edx_eax(c, c.xcr0);
}

void sys_xsetbv(CpuState* cpu) {
  CpuState& c = *cpu;
  if (!(c.cr4 & cr4::kOsxsave)) raise(c, kUd);
  need_cpl0(c);
  constexpr uint64_t kX87 = 1, kSse = 2, kAvx = 4;
  const uint64_t value = edx_eax(c);
  if (static_cast<uint32_t>(c.gpr[kRcx]) != 0 || (value & ~(kX87 | kSse | kAvx)) || !(value & kX87)) gp(c);
  if ((value & kAvx) && !(value & kSse)) gp(c);
  if (value & ~kX87) {  // what CPUID's leaf 0xD does not list is not to be had
    uint32_t r[4];
    c.hooks->cpuid(&c, 0xd, 0, r);
    if (value & ~static_cast<uint64_t>(r[0])) gp(c);
  }
  c.xcr0 = value;
  mode_changed(c);
}

// The table comes with the bits that follow the processor's state: OSXSAVE, the APIC's enable, sizes of XSAVE areas.
void sys_cpuid(CpuState* cpu) {
  CpuState& c = *cpu;
  uint32_t r[4];
  c.hooks->cpuid(&c, static_cast<uint32_t>(c.gpr[kRax]), static_cast<uint32_t>(c.gpr[kRcx]), r);
  c.gpr[kRax] = r[0];
  c.gpr[kRbx] = r[1];
  c.gpr[kRcx] = r[2];
  c.gpr[kRdx] = r[3];
}

void sys_rdtsc(CpuState* cpu) {
  if (tsc_denied(*cpu)) gp(*cpu);
  set_edx_eax(*cpu, cpu->hooks->guest_tsc(cpu));
}

void sys_rdtscp(CpuState* cpu) {
  sys_rdtsc(cpu);
  cpu->gpr[kRcx] = cpu->msrs.tsc_aux & 0xffffffff;
}

uint64_t sys_rdpid(CpuState* c) { return c->msrs.tsc_aux; }

// No performance counters are offered.
void sys_rdpmc(CpuState* c) { gp(*c); }

void sys_swapgs(CpuState* cpu) {
  CpuState& c = *cpu;
  if (!code64(c)) raise(c, kUd);
  need_cpl0(c);
  const uint64_t base = c.seg[kGs].base;
  c.seg[kGs].base = c.msrs.kernel_gs_base;
  c.msrs.kernel_gs_base = base;
}

uint64_t sys_read_fsgsbase(CpuState* c, uint32_t segment) {
  if (!code64(*c) || !(c->cr4 & cr4::kFsgsbase)) raise(*c, kUd);
  return c->seg[segment].base;
}

void sys_write_fsgsbase(CpuState* c, uint32_t segment, uint64_t value) {
  if (!code64(*c) || !(c->cr4 & cr4::kFsgsbase)) raise(*c, kUd);
  if (!canonical(value)) gp(*c);
  c->seg[segment].base = value;
}

namespace {

void set_ac(CpuState& c, bool set) {
  if (c.cpl != 0 || !cpuid_bit(c, 7, 0, 1, 20)) raise(c, kUd);
  c.eflags_system = set ? c.eflags_system | eflags::kAc : c.eflags_system & ~eflags::kAc;
  mode_changed(c);
}

}  // namespace

void sys_clac(CpuState* c) { set_ac(*c, false); }
void sys_stac(CpuState* c) { set_ac(*c, true); }

}  // namespace lodge::engine::soft
