#include "machine/memory_map.hpp"

#include <gtest/gtest.h>

#include "machine/config.hpp"

namespace lodge::machine {
namespace {

uint64_t ram_in(const std::vector<E820Entry>& entries) {
  uint64_t total = 0;
  for (const E820Entry& entry : entries)
    if (entry.type == E820Type::Ram) total += entry.size;
  return total;
}

TEST(MemoryMap, SmallGuestLiesBelowTheHole) {
  const MemoryMap map(16 * kMiB);
  EXPECT_EQ(map.low_end, 16 * kMiB);
  EXPECT_EQ(map.above_size, 0u);
  EXPECT_EQ(e820(map).size(), 5u);
}

TEST(MemoryMap, ExactlyThreeGiBNeedsNothingAbove) {
  EXPECT_EQ(MemoryMap(3 * kGiB).above_size, 0u);
  EXPECT_EQ(MemoryMap(3 * kGiB + kMiB).above_size, kMiB);
}

TEST(MemoryMap, LargeGuestContinuesAt4GiB) {
  const MemoryMap map(8 * kGiB);
  EXPECT_EQ(map.low_end, 3 * kGiB);
  EXPECT_EQ(map.above_size, 5 * kGiB);
  const auto entries = e820(map);
  EXPECT_EQ(entries.back().base, 4 * kGiB);
  EXPECT_EQ(entries.back().size, 5 * kGiB);
  EXPECT_EQ(ram_in(entries), 8 * kGiB - (kHighMemory - kEbda)) << "all but the legacy area is RAM";
}

TEST(MemoryMap, EntriesAreSortedAndBackedByMemory) {
  const MemoryMap map(5 * kGiB);
  const auto backing = map.backing();
  uint64_t end = 0;
  for (const E820Entry& entry : e820(map)) {
    EXPECT_GE(entry.base, end);
    end = entry.base + entry.size;
    if (entry.base == kPciConfiguration) continue;
    bool backed = false;
    for (const memory::Range& range : backing) backed |= entry.base >= range.guest_physical && end <= range.guest_physical + range.size;
    EXPECT_TRUE(backed) << std::hex << entry.base;
  }
}

TEST(MemoryMap, NoMemoryLiesWhereApicsAndPciAnswer) {
  for (const memory::Range& range : MemoryMap(64 * kGiB).backing())
    for (uint64_t apic : {kIoapic, kLocalApic, kPciMemory, kPciConfiguration})
      EXPECT_FALSE(apic >= range.guest_physical && apic < range.guest_physical + range.size);
}

}  // namespace
}  // namespace lodge::machine
