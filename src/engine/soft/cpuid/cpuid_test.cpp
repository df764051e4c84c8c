#include "engine/soft/cpuid/cpuid.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "engine/soft/mmu/mmu.hpp"

namespace lodge::engine::soft {
namespace {

constexpr CpuidRegisters kAmd = {0x21, 0x68747541, 0x444d4163, 0x69746e65};
constexpr CpuidRegisters kIntel = {0x20, 0x756e6547, 0x6c65746e, 0x49656e69};

// A host on which every other bit of CPUID is set.
CpuidReader all_ones(CpuidRegisters vendor) {
  return [vendor](uint32_t leaf, uint32_t subleaf) -> CpuidRegisters {
    if (leaf == 0) return vendor;
    if (leaf == 0x80000000) return {0x80000021, vendor[1], vendor[2], vendor[3]};
    if (leaf == 4 && subleaf > 2) return {};
    return {~0u, ~0u, ~0u, ~0u};
  };
}
CpuidReader all_zeroes(CpuidRegisters vendor) {
  return [vendor](uint32_t leaf, uint32_t) -> CpuidRegisters {
    if (leaf == 0) return vendor;
    if (leaf == 0x80000000) return {0x80000008, 0, 0, 0};
    return {};
  };
}

CpuidRegisters at(const std::vector<kvm_cpuid_entry2>& table, uint32_t leaf, uint32_t subleaf = 0) {
  for (const kvm_cpuid_entry2& e : table) {
    if (e.function == leaf && e.index == subleaf) return {e.eax, e.ebx, e.ecx, e.edx};
  }
  ADD_FAILURE() << "no leaf " << std::hex << leaf << "." << subleaf;
  return {};
}

TEST(Cpuid, WhatIsNotCarriedOutIsNotOfferedWhateverTheHostHas) {
  for (const CpuidRegisters& vendor : {kAmd, kIntel}) {
    const auto table = filter_cpuid(all_ones(vendor), 0);
    const auto [a1, b1, c1, d1] = at(table, 1);
    EXPECT_EQ(c1 & 0x1u << 3, 0u) << "MONITOR";
    EXPECT_EQ(c1 & 0x1u << 5, 0u) << "VMX";
    EXPECT_EQ(c1 & 0x1u << 6, 0u) << "SMX";
    EXPECT_EQ(c1 & 0x1u << 27, 0u) << "OSXSAVE follows CR4";
    EXPECT_EQ(at(table, 7)[0], vendor == kIntel ? 2u : 0u);
    if (vendor == kIntel) {
      EXPECT_EQ(at(table, 7, 1), CpuidRegisters{});
      EXPECT_EQ(at(table, 7, 2), (CpuidRegisters{0, 0, 0, 1u << 4})) << "BHI_CTRL";
    }
    EXPECT_EQ(at(table, 7)[1] & 0xdc23'4810u, 0u) << "HLE RTM MPX AVX-512";
    EXPECT_EQ(at(table, 7)[2], 0x400704u) << "GFNI VAES VPCLMULQDQ UMIP RDPID, not PKU, CET, LA57, WAITPKG";
    EXPECT_EQ(at(table, 7)[3], 1u << 4 | 1u << 26 | (vendor == kIntel ? 1u << 29 : 0)) << "FSRM, IBRS and IBPB, ARCH_CAPABILITIES";
    EXPECT_EQ(at(table, 0xa), CpuidRegisters{}) << "no counters";
    EXPECT_EQ(at(table, 0x80000001)[2] & 1u << 2, 0u) << "SVM";
    EXPECT_EQ(at(table, 0x80000001)[2], 0x1e1u);
    EXPECT_EQ(at(table, 0xd, 1)[0], 15u) << "XSAVEOPT XSAVEC XGETBV1 XSAVES, not XFD";
    (void)a1, (void)b1, (void)d1;
  }
}

TEST(Cpuid, SystemFeaturesDoNotDependOnTheHost) {
  const auto table = filter_cpuid(all_zeroes(kAmd), 0);
  EXPECT_EQ(at(table, 1)[2], 1u << 17 | 1u << 21 | 1u << 24 | 1u << 31);
  EXPECT_EQ(at(table, 7)[1], 1u | 1u << 1 | 1u << 7 | 1u << 10 | 1u << 20);
  EXPECT_EQ(at(table, 7)[2], 1u << 2 | 1u << 22);
  EXPECT_EQ(at(table, 0x80000001)[3] & 0x2c100800u, 0x2c100800u) << "SYSCALL NX 1G RDTSCP LM";
}

TEST(Cpuid, VectorFeaturesNeedXsave) {
  const auto table = filter_cpuid(
      [](uint32_t leaf, uint32_t subleaf) {
        CpuidRegisters r = all_ones(kIntel)(leaf, subleaf);
        if (leaf == 1) r[2] &= ~(1u << 26);
        return r;
      },
      0);
  EXPECT_EQ(at(table, 1)[2] & (1u << 12 | 1u << 26 | 1u << 28 | 1u << 29), 0u);
  EXPECT_EQ(at(table, 7)[1] & 1u << 5, 0u);
  EXPECT_EQ(at(table, 0xd), CpuidRegisters{});
}

TEST(Cpuid, StateSizesAreThoseOfX87SseAvx) {
  const auto table = filter_cpuid(all_ones(kAmd), 0);
  EXPECT_EQ(at(table, 0xd, 0), (CpuidRegisters{7, 576, 832, 0}));
  EXPECT_EQ(at(table, 0xd, 2), (CpuidRegisters{256, 576, 0, 0}));
}

TEST(Cpuid, KvmLeavesAndTscFrequency) {
  const auto without = filter_cpuid(all_ones(kAmd), 0);
  EXPECT_EQ(at(without, 0x40000000), (CpuidRegisters{0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d}));
  EXPECT_EQ(at(without, 0x40000001)[0], 0x0100000bu);
  const auto with = filter_cpuid(all_ones(kAmd), 2596134);
  EXPECT_EQ(at(with, 0x40000000)[0], 0x40000010u);
  EXPECT_EQ(at(with, 0x40000010)[0], 2596134u);
}

TEST(Cpuid, VendorPhysicalBitsAndMaxima) {
  const auto amd = filter_cpuid(all_ones(kAmd), 0);
  EXPECT_EQ(at(amd, 0), (CpuidRegisters{0xd, kAmd[1], kAmd[2], kAmd[3]}));
  EXPECT_EQ(at(amd, 0x80000000)[0], 0x80000021u);
  EXPECT_EQ(at(amd, 0x80000008)[0], kPhysicalBits | 48u << 8);
  EXPECT_EQ(at(amd, 0x80000008)[1], 1u << 2 | 1u << 12 | 1u << 14 | 1u << 26 | 1u << 29) << "pointers, IBPB, IBRS, neither SSB nor BTC";
  EXPECT_EQ(at(amd, 0x80000021)[0], 1u << 2 | 1u << 6 | 1u << 8 | 1u << 29) << "automatic IBRS, no SRSO";
  EXPECT_EQ(at(amd, 0x80000021)[2], 6u) << "no TSA";
  const auto intel = filter_cpuid(all_ones(kIntel), 0);
  EXPECT_EQ(at(intel, 0x80000000), (CpuidRegisters{0x80000008, 0, 0, 0}));
  EXPECT_EQ(at(intel, 0x80000001)[3] & 0x0183f3ffu, 0u) << "only AMD repeats leaf 1";
  EXPECT_EQ(at(intel, 4, 1)[0] >> 14, 0u);
}

TEST(Cpuid, ThisHostsTableIsASubsetOfTheHostInUserModeFeatures) {
  const auto table = supported_cpuid();
  uint32_t a, b, c, d;
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
  constexpr uint32_t kOwn = 1u << 17 | 1u << 21 | 1u << 24 | 1u << 31;
  EXPECT_EQ(at(table, 1)[2] & ~c & ~kOwn, 0u);
  EXPECT_EQ(at(table, 1)[0], a);
}

}  // namespace
}  // namespace lodge::engine::soft
