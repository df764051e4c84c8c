// State after power-on and INIT (SDM vol. 3, table 9-1).
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/msr.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {
namespace {

void reset_registers(CpuState& c) {
  for (uint64_t& r : c.gpr) r = 0;
  c.gpr[kRdx] = 0x600;
  if (c.hooks) {
    uint32_t r[4];
    c.hooks->cpuid(&c, 1, 0, r);
    c.gpr[kRdx] = r[0];
  }
  c.rip = c.next_rip = 0xfff0;
  set_eflags(c, 0);
  for (SegmentRegister& s : c.seg) s = {0, 0xffff, 0, 0x93};
  c.seg[kCs] = {0xffff0000, 0xffff, 0xf000, 0x9b};
  c.ldtr = {0, 0xffff, 0, 0x82};
  c.tr = {0, 0xffff, 0, 0x8b};
  c.gdtr = c.idtr = {0, 0xffff, 0};
}

void reset_control(CpuState& c, bool init) {
  constexpr uint64_t kCacheBits = cr0::kCd | cr0::kNw;
  c.cr0 = cr0::kEt | (init ? c.cr0 & kCacheBits : kCacheBits);
  c.cr2 = c.cr3 = c.cr4 = c.efer = 0;
  for (uint64_t& d : c.dr) d = 0;
  c.dr[6] = dr6::kFixed;
  c.dr[7] = dr7::kFixed;
  for (uint64_t& p : c.pdpte) p = 0;
  if (!init) c.xcr0 = 1;
}

}  // namespace

void cpu_reset(CpuState& c, bool init) {
  reset_registers(c);
  reset_control(c, init);
  if (!init) reset_msrs(c);
  c.cpl = 0;
  c.shadow = kShadowNone;
  c.nmi_blocked = c.halted = c.smm = c.step_cancelled = c.rf_loaded = false;
  c.exception = {};
  c.debug_hits = 0;
  if (c.mmu) mmu_flush_all(c);
  mode_changed(c);
}

}  // namespace lodge::engine::soft
