#include "engine/soft/mmu/filter.hpp"

#include <gtest/gtest.h>

namespace lodge::engine::soft {
namespace {

TEST(PageFilter, HoldsWhatWasAdded) {
  PageFilter<8> filter{};
  for (uint64_t page = 0; page < 2000; ++page) filter.add(page * 0x1003 + 5);
  for (uint64_t page = 0; page < 2000; ++page) EXPECT_TRUE(filter.may_hold(page * 0x1003 + 5));
}

TEST(PageFilter, EmptyHoldsNothing) {
  PageFilter<64> filter{};
  for (uint64_t page = 0; page < 10000; ++page) ASSERT_FALSE(filter.may_hold(page));
  for (uint64_t page = 0; page < 10000; ++page) filter.add(page);
  filter.clear();
  for (uint64_t page = 0; page < 10000; ++page) ASSERT_FALSE(filter.may_hold(page));
}

// Runs of pages, as programs have them, and others that differ in their high bits only.
TEST(PageFilter, IsSeldomWrong) {
  PageFilter<64> filter{};
  constexpr uint64_t kText = 0x7f5274960, kKernel = 0xfffffffa58a87;
  for (uint64_t i = 0; i < 150; ++i) filter.add(kText + i), filter.add(kKernel + i);
  uint32_t wrong = 0, asked = 0;
  for (uint64_t high = 1; high < 100; ++high) {
    for (uint64_t i = 0; i < 150; ++i, ++asked) wrong += filter.may_hold(kText + i + (high << 12 | high << 24));
  }
  EXPECT_LT(wrong, asked / 30);  // (300 / 2048)^2 is 2.1 %
}

}  // namespace
}  // namespace lodge::engine::soft
