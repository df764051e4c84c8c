// Model-specific registers (SDM vol. 4; APM vol. 2, appendix A). What is there and what is not follows KVM: a guest that runs on
// the kernel's engine finds the same registers here. Most are rows of a table; the others have a case of their own.
#include "engine/soft/cpu/msr.hpp"

#include <cstddef>

#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {
namespace {

enum Msr : uint32_t {
  kTscMsr = 0x10,
  kApicBase = 0x1b,
  kFeatureControl = 0x3a,
  kTscAdjust = 0x3b,
  kUcodeRev = 0x8b,
  kMtrrCap = 0xfe,
  kMcgCap = 0x179,
  kMcgStatus = 0x17a,
  kMcgCtl = 0x17b,
  kMtrrVariable = 0x200,
  kMtrrFixed64k = 0x250,
  kMtrrFixed16k = 0x258,
  kMtrrFixed4k = 0x268,
  kPat = 0x277,
  kMtrrDefType = 0x2ff,
  kMcBank = 0x400,
  kTscDeadline = 0x6e0,
  kX2Apic = 0x800,
  kXss = 0xda0,
  kKvmWallClockOld = 0x11,
  kKvmSystemTimeOld = 0x12,
  kKvmFirst = 0x4b564d00,
  kKvmLast = 0x4b564dff,
  kEfer = 0xc0000080,
  kStar = 0xc0000081,
  kLstar = 0xc0000082,
  kCstar = 0xc0000083,
  kSfmask = 0xc0000084,
  kFsBase = 0xc0000100,
  kGsBase = 0xc0000101,
  kKernelGsBase = 0xc0000102,
  kTscAux = 0xc0000103,
};

constexpr uint64_t kPhysicalMask = (1ull << kPhysicalBits) - 1;

// --- the table

enum class Kind : uint8_t {
  Storage,    // `argument`: bits that may be set, others #GP
  Canonical,  // storage of a linear address
  ReadOnly,   // reads as `argument`, writes #GP
  Ignored,    // reads as `argument`, writes are dropped
  WriteZero,  // reads as 0, takes only 0
  Command,    // reads #GP; `argument`: bits that may be written, to no effect
};
enum Vendor : uint8_t { kAny, kIntel, kAmd };

struct Row {
  uint32_t first, last;
  Kind kind;
  Vendor vendor;
  uint16_t offset;  // in Msrs
  uint64_t argument;
};

// ARCH_CAPABILITIES (SDM vol. 4, 2.1): the attacks that the guest need not guard itself against. In user space and by translated code its
// guards would do nothing: the translator's own indirect jumps stand where the retpolines were, each access is looked up in software
// whatever the page tables say, and the host's kernel guards this process from others.
constexpr uint64_t bit(uint32_t n) { return uint64_t{1} << n; }
constexpr uint64_t kArchCapabilities = bit(0)      // RDCL_NO
                                       | bit(1)    // IBRS_ALL
                                       | bit(3)    // SKIP_L1DFL_VMENTRY
                                       | bit(4)    // SSB_NO
                                       | bit(5)    // MDS_NO
                                       | bit(6)    // PSCHANGE_MC_NO
                                       | bit(8)    // TAA_NO
                                       | bit(13)   // SBDR_SSDP_NO
                                       | bit(14)   // FBSDP_NO
                                       | bit(15)   // PSDP_NO
                                       | bit(20)   // BHI_NO
                                       | bit(24)   // PBRSB_NO
                                       | bit(26)   // GDS_NO
                                       | bit(27)   // RFDS_NO
                                       | bit(62);  // ITS_NO

#define LODGE_AT(member) static_cast<uint16_t>(offsetof(Msrs, member))
constexpr Row kRows[] = {
    {0x17, 0x17, Kind::ReadOnly, kAny, 0, 0},                                  // PLATFORM_ID
    {0x2a, 0x2a, Kind::Ignored, kAny, 0, 0},                                   // EBL_CR_POWERON
    {0x2c, 0x2c, Kind::ReadOnly, kIntel, 0, 1 << 24},                          // EBC_FREQUENCY_ID
    {0x34, 0x34, Kind::ReadOnly, kAny, 0, 0},                                  // SMI_COUNT
    {0x3a, 0x3a, Kind::ReadOnly, kIntel, 0, 1},                                // FEATURE_CONTROL: locked, nothing on
    {0x48, 0x48, Kind::Storage, kAny, LODGE_AT(spec_ctrl), 0x403},             // SPEC_CTRL: IBRS, STIBP, BHI_DIS_S
    {0x49, 0x49, Kind::Command, kAny, 0, 1},                                   // PRED_CMD: IBPB
    {0x79, 0x79, Kind::Ignored, kIntel, 0, 0},                                 // BIOS_UPDT_TRIG
    {0xc1, 0xc2, Kind::Ignored, kIntel, 0, 0},                                 // PERFCTR0, 1 (no counters)
    {0xcd, 0xcd, Kind::ReadOnly, kIntel, 0, 3},                                // FSB_FREQ
    {0xce, 0xce, Kind::ReadOnly, kIntel, 0, 0},                                // PLATFORM_INFO
    {0xe2, 0xe2, Kind::Ignored, kIntel, 0, 0},                                 // PKG_CST_CONFIG_CONTROL
    {0x10a, 0x10a, Kind::ReadOnly, kIntel, 0, kArchCapabilities},              // ARCH_CAPABILITIES
    {0x11e, 0x11e, Kind::Ignored, kIntel, 0, 0xbe702111},                      // BBL_CR_CTL3: L2 there and enabled
    {0x140, 0x140, Kind::WriteZero, kIntel, 0, 0},                             // MISC_FEATURES_ENABLES
    {0x174, 0x174, Kind::Storage, kAny, LODGE_AT(sysenter_cs), 0xffffffff},    // SYSENTER_CS
    {0x175, 0x175, Kind::Canonical, kAny, LODGE_AT(sysenter_esp), 0},          // SYSENTER_ESP
    {0x176, 0x176, Kind::Canonical, kAny, LODGE_AT(sysenter_eip), 0},          // SYSENTER_EIP
    {0x186, 0x187, Kind::Ignored, kIntel, 0, 0},                               // EVNTSEL0, 1
    {0x198, 0x198, Kind::ReadOnly, kAny, 0, 1000 | 4ull << 40},                // PERF_STATUS, as KVM shows it
    {0x199, 0x199, Kind::Ignored, kAny, 0, 0},                                 // PERF_CTL
    {0x19a, 0x19c, Kind::Ignored, kIntel, 0, 0},                               // clock modulation, thermal interrupt and status
    {0x1a0, 0x1a0, Kind::Storage, kAny, LODGE_AT(misc_enable), 0x7fffffffff},  // MISC_ENABLE
    {0x1a2, 0x1a2, Kind::ReadOnly, kIntel, 0, 0},                              // TEMPERATURE_TARGET
    {0x1b0, 0x1b0, Kind::Ignored, kIntel, 0, 0},                               // ENERGY_PERF_BIAS
    {0x1d9, 0x1d9, Kind::Ignored, kAny, 0, 0},                                 // DEBUGCTL: no branch records or BTF
    {0x1db, 0x1de, Kind::Ignored, kAny, 0, 0},                                 // last branch and exception
    {0x1fc, 0x1fc, Kind::Ignored, kIntel, 0, 0},                               // POWER_CTL
    {0x606, 0x606, Kind::ReadOnly, kAny, 0, 0},                                // RAPL_POWER_UNIT
    {0x611, 0x611, Kind::ReadOnly, kAny, 0, 0},                                // PKG_ENERGY_STATUS
    {0x619, 0x619, Kind::ReadOnly, kAny, 0, 0},                                // DRAM_ENERGY_STATUS
    {0x639, 0x639, Kind::ReadOnly, kAny, 0, 0},                                // PP0_ENERGY_STATUS
    {0x641, 0x641, Kind::ReadOnly, kAny, 0, 0},                                // PP1_ENERGY_STATUS
    {kXss, kXss, Kind::WriteZero, kAny, 0, 0},                                 // XSS: no supervisor components
    {kStar, kStar, Kind::Storage, kAny, LODGE_AT(star), ~0ull},                // STAR
    {kLstar, kLstar, Kind::Canonical, kAny, LODGE_AT(lstar), 0},               // LSTAR
    {kCstar, kCstar, Kind::Canonical, kAny, LODGE_AT(cstar), 0},               // CSTAR
    {kSfmask, kSfmask, Kind::Storage, kAny, LODGE_AT(sfmask), 0xffffffff},     // FMASK
    {kKernelGsBase, kKernelGsBase, Kind::Canonical, kAny, LODGE_AT(kernel_gs_base), 0},
    {0xc0010000, 0xc0010007, Kind::Ignored, kAmd, 0, 0},                       // EVNTSEL0-3, PERFCTR0-3 (no counters)
    {0xc0010010, 0xc0010010, Kind::Ignored, kAmd, 0, 0},                       // SYSCFG
    {0xc0010015, 0xc0010015, Kind::Storage, kAmd, LODGE_AT(hwcr), 0x1040148},  // HWCR: what KVM lets through, MCi_STATUS_WREN, TscFreqSel
    {0xc001001a, 0xc001001a, Kind::Ignored, kAmd, 0, 0},                       // TOP_MEM
    {0xc001001b, 0xc001001b, Kind::Ignored, kAmd, 0, 0x20000000},              // CLK_CTL
    {0xc001001d, 0xc001001d, Kind::Ignored, kAmd, 0, 0},                       // TOP_MEM2
    {0xc001001f, 0xc001001f, Kind::Ignored, kAmd, 0, 0},                       // NB_CFG
    {0xc0010020, 0xc0010020, Kind::Ignored, kAmd, 0, 0},                       // PATCH_LOADER
    {0xc0010055, 0xc0010055, Kind::Ignored, kAmd, 0, 0},                       // INT_PENDING_MSG
    {0xc0010058, 0xc0010058, Kind::Ignored, kAmd, 0, 0},                       // MMIO_CONF_BASE
    {0xc0010061, 0xc0010064, Kind::Ignored, kAmd, 0, 0},                       // P-state limit, control, status, definition
    {0xc0010111, 0xc0010113, Kind::Ignored, kAmd, 0, 0},                       // SMBASE, TSEG
    {0xc0010114, 0xc0010114, Kind::ReadOnly, kAmd, 0, 1 << 3 | 1 << 4},        // VM_CR: SVM locked and disabled
    {0xc0010115, 0xc0010115, Kind::Ignored, kAmd, 0, 0},                       // IGNNE
    {0xc0010117, 0xc0010117, Kind::Ignored, kAmd, 0, 0},                       // VM_HSAVE_PA
    {0xc0010140, 0xc0010141, Kind::ReadOnly, kAmd, 0, 0},                      // OSVW: no workarounds
    {0xc0010200, 0xc001020b, Kind::Ignored, kAmd, 0, 0},                       // PERF_CTL0-5 and PERF_CTR0-5
    {0xc0011020, 0xc0011023, Kind::Ignored, kAmd, 0, 0},                       // LS_CFG, IC_CFG, DC_CFG, TW_CFG
    {0xc0011029, 0xc0011029, Kind::Storage, kAmd, LODGE_AT(de_cfg), 2},        // DE_CFG: LFENCE serialises
    {0xc001102a, 0xc001102a, Kind::Ignored, kAmd, 0, 0},                       // BU_CFG2
    {0xc001102c, 0xc001102c, Kind::Ignored, kAmd, 0, 0},                       // EX_CFG
};
#undef LODGE_AT

const Row* find_row(uint32_t index) {
  for (const Row& row : kRows) {
    if (index >= row.first && index <= row.last) return &row;
  }
  return nullptr;
}

bool row_visible(CpuState& c, const Row& row, bool host) { return host || row.vendor == kAny || vendor_is_amd(c) == (row.vendor == kAmd); }

uint64_t& row_storage(CpuState& c, const Row& row) {
  return *reinterpret_cast<uint64_t*>(reinterpret_cast<uint8_t*>(&c.msrs) + row.offset);
}

bool read_row(CpuState& c, uint32_t index, uint64_t& value, bool host) {
  const Row* row = find_row(index);
  if (!row || !row_visible(c, *row, host)) return false;
  switch (row->kind) {
    case Kind::Storage:
    case Kind::Canonical: value = row_storage(c, *row); break;
    case Kind::ReadOnly:
    case Kind::Ignored: value = row->argument; break;
    case Kind::WriteZero: value = 0; break;
    case Kind::Command: return host;
  }
  return true;
}

bool write_row(CpuState& c, uint32_t index, uint64_t value, bool host) {
  const Row* row = find_row(index);
  if (!row || !row_visible(c, *row, host)) return false;
  switch (row->kind) {
    case Kind::Storage:
      if (value & ~row->argument) return false;
      row_storage(c, *row) = value;
      return true;
    case Kind::Canonical:
      if (!canonical(value)) return false;
      row_storage(c, *row) = value;
      return true;
    case Kind::ReadOnly: return host && value == row->argument;
    case Kind::Ignored: return true;
    case Kind::WriteZero: return value == 0;
    case Kind::Command: return !(value & ~row->argument);
  }
  return false;
}

// --- memory types (SDM vol. 3, 11.11 and 11.12)

bool mtrr_type(uint64_t type) { return type < 7 && ((1u << type) & 0x73); }
bool pat_type(uint64_t type) { return type < 8 && ((1u << type) & 0xf3); }

template <typename Valid>
bool all_bytes(uint64_t value, Valid valid) {
  for (uint32_t i = 0; i < 8; ++i) {
    if (!valid((value >> (8 * i)) & 0xff)) return false;
  }
  return true;
}

// Index into Msrs::mtrr_fixed, or -1.
int fixed_mtrr(uint32_t index) {
  if (index == kMtrrFixed64k) return 0;
  if (index >= kMtrrFixed16k && index <= kMtrrFixed16k + 1) return static_cast<int>(1 + index - kMtrrFixed16k);
  if (index >= kMtrrFixed4k && index <= kMtrrFixed4k + 7) return static_cast<int>(3 + index - kMtrrFixed4k);
  return -1;
}

bool variable_mtrr(uint32_t index) { return index >= kMtrrVariable && index < kMtrrVariable + 2 * kMtrrVariableCount; }

bool read_mtrr(const CpuState& c, uint32_t index, uint64_t& value) {
  if (index == kMtrrCap)
    value = 0x500 | kMtrrVariableCount;  // WC, fixed ranges
  else if (index == kMtrrDefType)
    value = c.msrs.mtrr_def_type;
  else if (fixed_mtrr(index) >= 0)
    value = c.msrs.mtrr_fixed[fixed_mtrr(index)];
  else if (variable_mtrr(index))
    value = c.msrs.mtrr_variable[index - kMtrrVariable];
  else
    return false;
  return true;
}

bool write_mtrr(CpuState& c, uint32_t index, uint64_t value) {
  if (index == kMtrrDefType) {
    if ((value & ~0xcffull) || !mtrr_type(value & 0xff)) return false;
    c.msrs.mtrr_def_type = value;
  } else if (fixed_mtrr(index) >= 0) {
    if (!all_bytes(value, mtrr_type)) return false;
    c.msrs.mtrr_fixed[fixed_mtrr(index)] = value;
  } else if (variable_mtrr(index)) {
    const bool mask = index & 1;
    if (value & ~kPhysicalMask) return false;
    if (mask ? value & 0x7ff : (value & 0xf00) || !mtrr_type(value & 0xff)) return false;
    c.msrs.mtrr_variable[index - kMtrrVariable] = value;
  } else {
    return false;
  }
  return true;
}

// --- machine check (SDM vol. 3, 15.3)

bool mc_bank(uint32_t index) { return index >= kMcBank && index < kMcBank + 4 * kMcBanks; }

bool write_mc_bank(CpuState& c, uint32_t index, uint64_t value, bool host) {
  const uint32_t offset = index - kMcBank;
  enum { kCtl = 0, kStatus = 1 };
  // CTL takes all zeroes or all ones; one with some low bits clear is what Linux writes on some AMD models (as in KVM).
  if (!host && (offset & 3) == kCtl && value != 0 && (value | (1 << 10) | 1) != ~0ull) return false;
  const bool status_writable = host || (c.msrs.hwcr & (1u << 18));
  if ((offset & 3) == kStatus && value != 0 && !status_writable) return false;
  c.msrs.mc_banks[offset] = value;
  return true;
}

// --- EFER

bool write_efer(CpuState& c, uint64_t value, bool host) {
  uint64_t allowed = efer::kLma | efer::kSce;
  if (host || cpuid_bit(c, 0x80000001, 0, 3, 20)) allowed |= efer::kNx;
  if (host || cpuid_bit(c, 0x80000001, 0, 3, 29)) allowed |= efer::kLme;
  if (host || cpuid_bit(c, 0x80000021, 0, 0, 8)) allowed |= efer::kAutoIbrs;
  if (value & ~allowed) return false;
  const uint64_t changed = value ^ c.efer;
  if (!host && (changed & efer::kLme) && (c.cr0 & cr0::kPg)) return false;
  c.efer = (value & ~efer::kLma) | (c.efer & efer::kLma);
  if (changed & efer::kNx) mmu_flush_all(c);
  mode_changed(c);
  return true;
}

// --- time

// A write moves TSC and TSC_ADJUST together (SDM vol. 3, 17.17.3).
bool write_tsc_adjust(CpuState& c, uint64_t value, bool host) {
  if (!host) c.hooks->set_guest_tsc(&c, c.hooks->guest_tsc(&c) + (value - c.msrs.tsc_adjust));
  c.msrs.tsc_adjust = value;
  return true;
}

bool write_tsc(CpuState& c, uint64_t value, bool host) {
  if (!host) c.msrs.tsc_adjust += value - c.hooks->guest_tsc(&c);
  c.hooks->set_guest_tsc(&c, value);
  return true;
}

bool write_tsc_aux(CpuState& c, uint64_t value, bool host) {
  if (value >> 32) {
    if (!host && !vendor_is_amd(c)) return false;
    value &= 0xffffffff;
  }
  c.msrs.tsc_aux = value;
  return true;
}

bool write_segment_base(CpuState& c, uint32_t segment, uint64_t value) {
  if (!canonical(value)) return false;
  c.seg[segment].base = value;
  mode_changed(c);
  return true;
}

bool kvm_msr(uint32_t index) {
  return index == kKvmWallClockOld || index == kKvmSystemTimeOld || (index >= kKvmFirst && index <= kKvmLast);
}
bool x2apic_msr(uint32_t index) { return index >= kX2Apic && index <= kX2Apic + 0xff; }

}  // namespace

bool msr_read(CpuState& c, uint32_t index, uint64_t& value, bool host) {
  value = 0;
  if (x2apic_msr(index)) return c.hooks->read_x2apic(&c, index, &value);
  if (kvm_msr(index)) return c.hooks->read_kvm_msr(&c, index, &value);
  if (mc_bank(index)) {
    value = c.msrs.mc_banks[index - kMcBank];
    return true;
  }
  switch (index) {
    case kTscMsr: value = c.hooks->guest_tsc(&c); return true;
    case kTscAdjust: value = c.msrs.tsc_adjust; return true;
    case kTscDeadline: value = c.hooks->get_tsc_deadline(&c); return true;
    case kTscAux: value = c.msrs.tsc_aux; return true;
    case kApicBase: value = c.hooks->get_apic_base(&c); return true;
    case kEfer: value = c.efer; return true;
    case kFsBase: value = c.seg[kFs].base; return true;
    case kGsBase: value = c.seg[kGs].base; return true;
    case kPat: value = c.msrs.pat; return true;
    case kUcodeRev: value = c.msrs.patch_level; return true;
    case kMcgCap: value = c.msrs.mcg_cap; return true;
    case kMcgStatus: value = c.msrs.mcg_status; return true;
    case kMcgCtl: value = c.msrs.mcg_ctl; return c.msrs.mcg_cap & (1 << 8);
    default: return read_mtrr(c, index, value) || read_row(c, index, value, host);
  }
}

bool msr_write(CpuState& c, uint32_t index, uint64_t value, bool host) {
  if (x2apic_msr(index)) return c.hooks->write_x2apic(&c, index, value);
  if (kvm_msr(index)) return c.hooks->write_kvm_msr(&c, index, value);
  if (mc_bank(index)) return write_mc_bank(c, index, value, host);
  switch (index) {
    case kTscMsr: return write_tsc(c, value, host);
    case kTscAdjust: return write_tsc_adjust(c, value, host);
    case kTscDeadline: c.hooks->set_tsc_deadline(&c, value); return true;
    case kTscAux: return write_tsc_aux(c, value, host);
    case kApicBase: return c.hooks->set_apic_base(&c, value);
    case kEfer: return write_efer(c, value, host);
    case kFsBase: return write_segment_base(c, kFs, value);
    case kGsBase: return write_segment_base(c, kGs, value);
    case kPat:
      if (!all_bytes(value, pat_type)) return false;
      c.msrs.pat = value;
      return true;
    case kUcodeRev:  // Intel: loading a signature, which writes 0 first
      if (host) c.msrs.patch_level = value;
      return host || value == 0;
    case kMcgCap:
      if (host) c.msrs.mcg_cap = value;
      return host;
    case kMcgStatus:
      if (!host && value != 0) return false;
      c.msrs.mcg_status = value;
      return true;
    case kMcgCtl:
      if (!(c.msrs.mcg_cap & (1 << 8)) || (value != 0 && value != ~0ull)) return false;
      c.msrs.mcg_ctl = value;
      return true;
    default: return write_mtrr(c, index, value) || write_row(c, index, value, host);
  }
}

void sys_rdmsr(CpuState* cpu) {
  CpuState& c = *cpu;
  uint64_t value;
  if (c.cpl != 0 || !msr_read(c, static_cast<uint32_t>(c.gpr[kRcx]), value, false)) raise(c, kGp, 0);
  c.gpr[kRax] = value & 0xffffffff;
  c.gpr[kRdx] = value >> 32;
}

void sys_wrmsr(CpuState* cpu) {
  CpuState& c = *cpu;
  const uint64_t value = (c.gpr[kRdx] << 32) | (c.gpr[kRax] & 0xffffffff);
  if (c.cpl != 0 || !msr_write(c, static_cast<uint32_t>(c.gpr[kRcx]), value, false)) raise(c, kGp, 0);
}

void reset_msrs(CpuState& c) {
  auto* bytes = reinterpret_cast<uint64_t*>(&c.msrs);
  for (size_t i = 0; i < sizeof c.msrs / 8; ++i) bytes[i] = 0;
  c.msrs.pat = 0x0007040600070406;
  c.msrs.misc_enable = 1 | 1 << 11 | 1 << 12;  // fast strings; no branch trace store, no event sampling
  c.msrs.mcg_cap = kMcBanks | 1 << 8;
  c.msrs.mcg_ctl = ~0ull;
  for (uint32_t i = 0; i < kMcBanks; ++i) c.msrs.mc_banks[4 * i] = ~0ull;
  c.msrs.hwcr = 1 << 24;  // the TSC counts at the P0 frequency
  c.msrs.patch_level = c.hooks && vendor_is_amd(c) ? 0x01000065 : 0x100000000;
}

const uint32_t kMsrIndexList[] = {
    kTscMsr,
    kApicBase,
    kTscAdjust,
    kUcodeRev,
    0x174,
    0x175,
    0x176,
    kMcgStatus,
    kMcgCtl,
    0x48,
    0x10a,
    0x1a0,
    kPat,
    kMtrrDefType,
    0x250,
    0x258,
    0x259,
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f,
    0x200,
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207,
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f,
    kTscDeadline,
    kXss,
    kEfer,
    kStar,
    kLstar,
    kCstar,
    kSfmask,
    kFsBase,
    kGsBase,
    kKernelGsBase,
    kTscAux,
    0xc0010015,
    0xc0011029,
    kKvmWallClockOld,
    kKvmSystemTimeOld,
    0x4b564d00,
    0x4b564d01,
};
const uint32_t kMsrIndexCount = sizeof kMsrIndexList / sizeof kMsrIndexList[0];

}  // namespace lodge::engine::soft
