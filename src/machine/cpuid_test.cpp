#include "machine/cpuid.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace lodge::machine {
namespace {

using Entry = kvm_cpuid_entry2;

std::vector<Entry> intel() {
  return {{.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
          {.function = 1, .ebx = 0x55555555, .ecx = 0, .edx = 0},
          {.function = 4, .index = 0, .eax = 0xfc000000 | 0x03ffc000 | 1 << 5 | 1},
          {.function = 4, .index = 3, .eax = 0xfc000000 | 0x03ffc000 | 3 << 5 | 3},
          {.function = 0xb, .index = 0, .ebx = 99},
          {.function = 0x1f, .index = 0, .ebx = 99},
          {.function = 0x40000001, .eax = 0x01007efb}};
}

Entry find(const std::vector<Entry>& entries, uint32_t function, uint32_t index = 0) {
  const auto found = std::ranges::find_if(entries, [&](const Entry& e) { return e.function == function && e.index == index; });
  EXPECT_NE(found, entries.end()) << std::hex << function;
  return found == entries.end() ? Entry{} : *found;
}

TEST(Cpuid, ApicIdAndCountInLeaf1) {
  const Entry leaf = find(guest_cpuid(intel(), 2, 3), 1);
  EXPECT_EQ(leaf.ebx, 0x02045555u) << "APIC id 2, four ids in the package, the rest untouched";
  EXPECT_NE(leaf.edx & 1u << 28, 0u);
  EXPECT_NE(leaf.ecx & 1u << 31, 0u);
}

TEST(Cpuid, OneProcessorHasNoHtt) {
  const Entry leaf = find(guest_cpuid(intel(), 0, 1), 1);
  EXPECT_EQ(leaf.ebx >> 16, 1u);
  EXPECT_EQ(leaf.edx & 1u << 28, 0u);
}

TEST(Cpuid, InnerCachesArePrivateAndTheLastOneShared) {
  const auto entries = guest_cpuid(intel(), 0, 4);
  EXPECT_EQ(find(entries, 4, 0).eax >> 14 & 0xfff, 0u);
  EXPECT_EQ(find(entries, 4, 3).eax >> 14 & 0xfff, 3u);
  EXPECT_EQ(find(entries, 4, 0).eax >> 26, 3u);
}

TEST(Cpuid, ExtendedTopologyHasThreadAndCore) {
  const auto entries = guest_cpuid(intel(), 3, 6);
  for (uint32_t leaf : {0xbu, 0x1fu}) {
    EXPECT_EQ(find(entries, leaf, 0).eax, 0u);
    EXPECT_EQ(find(entries, leaf, 0).ebx, 1u);
    EXPECT_EQ(find(entries, leaf, 0).ecx, 0x100u);
    EXPECT_EQ(find(entries, leaf, 1).eax, 3u) << "six cores take three bits";
    EXPECT_EQ(find(entries, leaf, 1).ebx, 6u);
    EXPECT_EQ(find(entries, leaf, 1).ecx, 0x201u);
    EXPECT_EQ(find(entries, leaf, 1).edx, 3u);
    EXPECT_EQ(find(entries, leaf, 2).ebx, 0u);
  }
}

TEST(Cpuid, LeavesThatTheEngineLacksAreNotInvented) {
  std::vector<Entry> supported = intel();
  std::erase_if(supported, [](const Entry& e) { return e.function == 0x1f || e.function == 0xb; });
  for (const Entry& entry : guest_cpuid(supported, 0, 2)) EXPECT_TRUE(entry.function != 0xb && entry.function != 0x1f);
}

TEST(Cpuid, PhysicalAddressesAreAsLongAsNeeded) {
  const std::vector<Entry> supported{{.function = 0x80000008, .eax = 0x302e}};
  EXPECT_EQ(find(guest_cpuid(supported, 0, 1), 0x80000008).eax, 0x302eu);
  EXPECT_EQ(find(guest_cpuid(supported, 0, 1, 40), 0x80000008).eax, 0x3028u);
  EXPECT_EQ(find(guest_cpuid(supported, 0, 1, 48), 0x80000008).eax, 0x302eu) << "never more than the engine's";
  EXPECT_EQ(physical_bits(MemoryMap(uint64_t{1} << 30)), 40u);
  EXPECT_EQ(physical_bits(MemoryMap(uint64_t{1} << 40)), 41u);
}

TEST(Cpuid, KvmLeavesStayAsTheyAre) { EXPECT_EQ(find(guest_cpuid(intel(), 1, 2), 0x40000001).eax, 0x01007efbu); }

TEST(Cpuid, AmdCountsAndIdentifiers) {
  const std::vector<Entry> amd{{.function = 0, .ebx = 0x68747541},
                               {.function = 0x80000008, .eax = 0x3030, .ecx = 0x703f},
                               {.function = 0x8000001d, .index = 3, .eax = 0x03ffc163},
                               {.function = 0x8000001e, .eax = 9, .ebx = 0x0109, .ecx = 0x303}};
  const auto entries = guest_cpuid(amd, 2, 4);
  EXPECT_EQ(find(entries, 0x80000008).ecx, 0x2003u);
  EXPECT_EQ(find(entries, 0x8000001d, 3).eax >> 14 & 0xfff, 3u);
  EXPECT_EQ(find(entries, 0x8000001e).eax, 2u);
  EXPECT_EQ(find(entries, 0x8000001e).ebx, 2u) << "one thread a core";
  EXPECT_EQ(find(entries, 0x8000001e).ecx, 0u);
}

}  // namespace
}  // namespace lodge::machine
