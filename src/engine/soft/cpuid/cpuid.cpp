#include "engine/soft/cpuid/cpuid.hpp"

#include <cpuid.h>

#include <algorithm>

#include "engine/soft/mmu/mmu.hpp"

namespace lodge::engine::soft {
namespace {

template <typename... Bits>
constexpr uint32_t bits(Bits... bit) {
  return (0u | ... | (1u << bit));
}

// `host`: offered where the host has it, for its instructions are copied. `own`: the engine's.
struct Mask {
  uint32_t host, own;
  uint32_t apply(uint32_t value) const { return (value & host) | own; }
};

// Bits of SDM vol. 2, CPUID, and APM vol. 3, appendix E.
// SSE3 PCLMULQDQ SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND; PCID X2APIC TSC-deadline hypervisor
constexpr Mask k1Ecx{bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30), bits(17, 21, 24, 31)};
// FPU CX8 CMOV CLFSH MMX FXSR SSE SSE2; VME DE PSE TSC MSR PAE MCE APIC SEP MTRR PGE MCA PAT PSE36
constexpr Mask k1Edx{bits(0, 8, 15, 19, 23, 24, 25, 26), bits(1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 16, 17)};
// BMI1 AVX2 BMI2 ERMS RDSEED ADX CLFLUSHOPT CLWB SHA; FSGSBASE TSC_ADJUST SMEP INVPCID SMAP
constexpr Mask k7Ebx{bits(3, 5, 8, 9, 18, 19, 23, 24, 29), bits(0, 1, 7, 10, 20)};
// GFNI VAES VPCLMULQDQ; UMIP RDPID
constexpr Mask k7Ecx{bits(8, 9, 10), bits(2, 22)};
// FSRM; IBRS and IBPB, and on Intel's ARCH_CAPABILITIES (cpu/msr.cpp): they tell the guest's kernel that it need not guard itself against
// speculation by page tables apart, retpolines and cleared buffers. Translated code makes all of these ineffective at best.
constexpr Mask k7Edx{bits(4), bits(26)};
constexpr uint32_t k7EdxIntel = bits(29);
// BHI_CTRL: a bit of SPEC_CTRL instead of a loop of branches at each system call
constexpr uint32_t k72EdxIntel = bits(4);
// IBPB IBRS; what the processor is not subject to: SSB, BTC (APM vol. 3, E.4.6)
constexpr uint32_t k80000008EbxAmd = bits(12, 14, 26, 29);
// A null selector clears the base; automatic IBRS; not subject to SRSO, TSA of the store queue and the L1 cache (APM vol. 3, E.4.18)
constexpr uint32_t k80000021Eax = bits(6, 8, 29), k80000021Ecx = bits(1, 2);
// XSAVEOPT XSAVEC XGETBV1 XSAVES
constexpr Mask kD1Eax{bits(0, 1, 2, 3), 0};
// LAHF ABM SSE4A MISALIGNSSE PREFETCHW
constexpr Mask k80000001Ecx{bits(0, 5, 6, 7, 8), 0};
// AMD repeats leaf 1's bits here.
constexpr uint32_t kAmdRepeated = 0x0183f3ff;
// MMXEXT; SYSCALL NX 1G-pages RDTSCP LM
constexpr Mask k80000001Edx{bits(22), bits(11, 20, 26, 27, 29)};
constexpr uint32_t kAvx = 1 << 28, kXsave = 1 << 26;

enum Register { kEax, kEbx, kEcx, kEdx };

class Filter {
 public:
  Filter(const CpuidReader& host, uint32_t tsc_khz) : host_(host), tsc_khz_(tsc_khz) {
    vendor_ = host(0, 0);
    amd_ = vendor_[kEbx] == 0x68747541 || vendor_[kEbx] == 0x6f677948;
    feature_ = host(1, 0);
    feature_[kEcx] = k1Ecx.apply(feature_[kEcx]);
    // Vector extensions stand on XSAVE.
    if (!(feature_[kEcx] & kXsave)) feature_[kEcx] &= ~(kAvx | bits(12, 29));
    avx_ = feature_[kEcx] & kAvx;
  }

  std::vector<kvm_cpuid_entry2> run() {
    basic();
    extended_state();
    paravirtual();
    extended();
    return std::move(table_);
  }

 private:
  void add(uint32_t leaf, const CpuidRegisters& r) { table_.push_back({leaf, 0, 0, r[0], r[1], r[2], r[3], {}}); }
  void add_indexed(uint32_t leaf, uint32_t subleaf, const CpuidRegisters& r) {
    table_.push_back({leaf, subleaf, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, r[0], r[1], r[2], r[3], {}});
  }

  void basic() {
    add(0, {0xd, vendor_[kEbx], vendor_[kEcx], vendor_[kEdx]});
    const uint32_t repeated = k1Edx.apply(feature_[kEdx]);
    add(1, {feature_[kEax], (feature_[kEbx] & 0xff00) | 1 << 16, feature_[kEcx], repeated});
    if (!amd_) caches_intel();
    add(5, {});
    add(6, {1 << 2, 0, 0, 0});  // ARAT: the APIC timer never stops
    structured_features();
    add(0xa, {});
    add_indexed(0xb, 0, {});
    add_indexed(0xb, 1, {0, 0, 1, 0});
  }

  void caches_intel() {
    if (vendor_[kEax] >= 2) add(2, host_(2, 0));
    for (uint32_t i = 0; vendor_[kEax] >= 4 && i < 8; ++i) {
      CpuidRegisters r = host_(4, i);
      if ((r[kEax] & 31) == 0) break;
      r[kEax] &= 0x3fff;  // who shares it is for the machine to say
      add_indexed(4, i, r);
    }
  }

  void structured_features() {
    const CpuidRegisters r = vendor_[kEax] >= 7 ? host_(7, 0) : CpuidRegisters{};
    uint32_t ebx = k7Ebx.apply(r[kEbx]), ecx = k7Ecx.apply(r[kEcx]);
    if (!avx_) {
      ebx &= ~bits(5);
      ecx &= ~bits(9, 10);
    }
    add_indexed(7, 0, {amd_ ? 0u : 2u, ebx, ecx, k7Edx.apply(r[kEdx]) | (amd_ ? 0 : k7EdxIntel)});
    if (amd_) return;
    add_indexed(7, 1, {});
    add_indexed(7, 2, {0, 0, 0, k72EdxIntel});
  }

  // x87, SSE and AVX in the standard places (SDM vol. 1, 13.4 and 13.5.3).
  void extended_state() {
    if (!(feature_[kEcx] & kXsave)) {
      add_indexed(0xd, 0, {});
      return;
    }
    const uint32_t size = avx_ ? 832 : 576;
    const uint32_t eax = kD1Eax.apply(host_(0xd, 1)[kEax]);
    add_indexed(0xd, 0, {avx_ ? 7u : 3u, 576, size, 0});
    add_indexed(0xd, 1, {eax, eax & bits(1, 3) ? 576u : 0, 0, 0});
    if (avx_) add_indexed(0xd, 2, {256, 576, 0, 0});
  }

  void paravirtual() {
    constexpr uint32_t kSignature[3] = {0x4b4d564b, 0x564b4d56, 0x4d};  // KVMKVMKVM
    add(0x40000000, {tsc_khz_ ? 0x40000010u : 0x40000001u, kSignature[0], kSignature[1], kSignature[2]});
    // CLOCKSOURCE NOP_IO_DELAY CLOCKSOURCE2 CLOCKSOURCE_STABLE (Documentation/virt/kvm/x86/cpuid.rst)
    add(0x40000001, {bits(0, 1, 3, 24), 0, 0, 0});
    if (tsc_khz_) add(0x40000010, {tsc_khz_, 0, 0, 0});
  }

  void extended() {
    const uint32_t last = host_(0x80000000, 0)[kEax];
    const auto host = [&](uint32_t leaf) { return leaf <= last ? host_(leaf, 0) : CpuidRegisters{}; };
    const uint32_t offered = amd_ ? 0x80000021 : 0x80000008;
    add(0x80000000, {offered, amd_ ? vendor_[kEbx] : 0, amd_ ? vendor_[kEcx] : 0, amd_ ? vendor_[kEdx] : 0});
    const CpuidRegisters feature = host(0x80000001);
    uint32_t edx = k80000001Edx.apply(feature[kEdx]);
    if (amd_) edx |= k1Edx.apply(feature_[kEdx]) & kAmdRepeated;
    add(0x80000001, {feature[kEax], amd_ ? feature[kEbx] & 0xf0000000 : 0, k80000001Ecx.apply(feature[kEcx]), edx});
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; ++leaf) add(leaf, host(leaf));  // name, caches
    add(0x80000007, {0, 0, 0, host(0x80000007)[kEdx] & bits(8)});                        // invariant TSC
    constexpr uint32_t kLinearBits = 48;
    const uint32_t error_pointers = amd_ ? host(0x80000008)[kEbx] & bits(2) : 0;  // how the host's FXSAVE treats x87 pointers
    add(0x80000008, {kPhysicalBits | kLinearBits << 8, error_pointers | (amd_ ? k80000008EbxAmd : 0), 0, 0});
    // LFENCE serialises as the host's does.
    if (amd_) add(0x80000021, {(host(0x80000021)[kEax] & bits(2)) | k80000021Eax, 0, k80000021Ecx, 0});
  }

  const CpuidReader& host_;
  uint32_t tsc_khz_;
  CpuidRegisters vendor_, feature_;
  bool amd_, avx_;
  std::vector<kvm_cpuid_entry2> table_;
};

}  // namespace

std::vector<kvm_cpuid_entry2> filter_cpuid(const CpuidReader& host, uint32_t tsc_khz) { return Filter(host, tsc_khz).run(); }

std::vector<kvm_cpuid_entry2> supported_cpuid(uint32_t tsc_khz) {
  const CpuidReader host = [](uint32_t leaf, uint32_t subleaf) {
    CpuidRegisters r;
    __cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
    return r;
  };
  return filter_cpuid(host, tsc_khz);
}

}  // namespace lodge::engine::soft
