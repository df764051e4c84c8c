#include "engine/soft/vcpu/memory_slots.hpp"

#include <gtest/gtest.h>

namespace lodge::engine::soft {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHost = 0x700000000000;

kvm_userspace_memory_region region(uint32_t slot, uint64_t gpa, uint64_t pages, uint64_t host, uint32_t flags = 0) {
  return {.slot = slot, .flags = flags, .guest_phys_addr = gpa, .memory_size = pages * kPage, .userspace_addr = host};
}

class MemorySlotsTest : public testing::Test {
 protected:
  int set(const kvm_userspace_memory_region& r) {
    const Result<> result = slots.set(r);
    return result ? 0 : result.error().os_errno;
  }
  PhysicalMap map;
  MemorySlots slots{map};
};

TEST_F(MemorySlotsTest, FindsTheSlotOfEachAddressWhateverTheOrderOfCreation) {
  EXPECT_EQ(set(region(0, 0x100000, 16, kHost)), 0);
  EXPECT_EQ(set(region(1, 0, 4, kHost + 0x100000)), 0);
  ASSERT_NE(map.find(0), nullptr);
  EXPECT_EQ(map.find(0)->id, 1u);
  EXPECT_EQ(map.find(4 * kPage - 1)->id, 1u);
  EXPECT_EQ(map.find(4 * kPage), nullptr);
  EXPECT_EQ(map.find(0x100000 + 16 * kPage - 1)->id, 0u);
  EXPECT_EQ(map.find(0x100000 + 16 * kPage), nullptr);
}

TEST_F(MemorySlotsTest, SlotsOnTheSameHostMemoryShareItsFlags) {
  EXPECT_EQ(set(region(0, 0, 16, kHost)), 0);
  EXPECT_EQ(set(region(1, 0x100000, 4, kHost + 8 * kPage)), 0);
  map.find(9 * kPage)->page_flags[9].store(kPageCode);
  EXPECT_EQ(map.find(0x100000)->page_flags[1].load(), kPageCode);
  EXPECT_EQ(map.find(0x100000)->page_flags[0].load(), 0);
}

TEST_F(MemorySlotsTest, ALargerAliasKeepsTheFlagsOfTheSmaller) {
  EXPECT_EQ(set(region(0, 0, 2, kHost + 4 * kPage)), 0);
  EXPECT_EQ(set(region(1, 0x10000, 2, kHost + 12 * kPage)), 0);
  map.find(0)->page_flags[1].store(kPageCode);
  map.find(0x10000)->page_flags[0].store(kPageCode);
  EXPECT_EQ(set(region(2, 0x100000, 16, kHost)), 0);
  const Slot* all = map.find(0x100000);
  for (uint64_t page = 0; page < 16; ++page) EXPECT_EQ(all->page_flags[page].load(), page == 5 || page == 12 ? kPageCode : 0) << page;
  EXPECT_EQ(map.find(0)->page_flags, all->page_flags + 4);
  EXPECT_EQ(map.find(0x10000)->page_flags, all->page_flags + 12);
}

TEST_F(MemorySlotsTest, DeletingOneAliasLeavesTheOther) {
  EXPECT_EQ(set(region(0, 0, 16, kHost)), 0);
  EXPECT_EQ(set(region(1, 0x100000, 16, kHost)), 0);
  map.find(0)->page_flags[3].store(kPageCode);
  EXPECT_EQ(set(region(0, 0, 0, 0)), 0);
  EXPECT_EQ(map.find(0), nullptr);
  EXPECT_EQ(map.find(0x100000)->page_flags[3].load(), kPageCode);
}

TEST_F(MemorySlotsTest, HarvestReturnsAndClearsTheBits) {
  EXPECT_EQ(set(region(3, 0, 100, kHost, KVM_MEM_LOG_DIRTY_PAGES)), 0);
  map.find(0)->dirty[0].fetch_or(5);
  map.find(0)->dirty[1].fetch_or(uint64_t{1} << 35);
  const auto bits = slots.harvest(3);
  ASSERT_TRUE(bits);
  EXPECT_EQ(*bits, (std::vector<uint64_t>{5, uint64_t{1} << 35}));
  EXPECT_EQ(*slots.harvest(3), (std::vector<uint64_t>{0, 0}));
}

TEST_F(MemorySlotsTest, TheLogCanBeSwitchedOnAndOffAndSurvivesAMove) {
  EXPECT_EQ(set(region(3, 0, 64, kHost)), 0);
  EXPECT_EQ(slots.harvest(3).error().os_errno, ENOENT);
  EXPECT_EQ(set(region(3, 0, 64, kHost, KVM_MEM_LOG_DIRTY_PAGES)), 0);
  map.find(0)->dirty[0].fetch_or(2);
  EXPECT_EQ(set(region(3, 0x200000, 64, kHost, KVM_MEM_LOG_DIRTY_PAGES)), 0);
  EXPECT_EQ(map.find(0), nullptr);
  EXPECT_EQ(*slots.harvest(3), std::vector<uint64_t>{2});
  EXPECT_EQ(set(region(3, 0x200000, 64, kHost)), 0);
  EXPECT_EQ(map.find(0x200000)->dirty, nullptr);
}

TEST_F(MemorySlotsTest, RefusesWhatKvmRefuses) {
  EXPECT_EQ(set(region(0, 0, 16, kHost)), 0);
  EXPECT_EQ(set(region(1, 15 * kPage, 1, kHost)), EEXIST);
  EXPECT_EQ(set(region(0, 0, 17, kHost)), EINVAL) << "size of an existing slot";
  EXPECT_EQ(set(region(0, 0, 16, kHost + kPage)), EINVAL) << "host memory of an existing slot";
  EXPECT_EQ(set(region(0, 0, 16, kHost, KVM_MEM_READONLY)), EINVAL);
  EXPECT_EQ(set(region(1, 0x100001, 1, kHost)), EINVAL);
  EXPECT_EQ(set(region(1, 0x100000, 1, kHost + 1)), EINVAL);
  EXPECT_EQ(set(region(1, ~uint64_t{0} - kPage + 1, 2, kHost)), EINVAL) << "wraps around";
  EXPECT_EQ(set(region(1, 0x100000, 1, kHost, 0x80)), EINVAL);
  EXPECT_EQ(set(region(512, 0x100000, 1, kHost)), EINVAL);
  EXPECT_EQ(set(region(7, 0, 0, 0)), EINVAL) << "deletes what is not there";
  EXPECT_EQ(map.count, 1u);
}

}  // namespace
}  // namespace lodge::engine::soft
