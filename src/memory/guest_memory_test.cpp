#include "memory/guest_memory.hpp"

#include <gtest/gtest.h>

#include <array>

namespace lodge::memory {
namespace {

struct Recorder : WriteObserver {
  std::vector<std::pair<uint64_t, uint64_t>> begun, committed;
  void begin_write(uint64_t gpa, uint64_t length) noexcept override { begun.emplace_back(gpa, length); }
  void commit_write(uint64_t gpa, uint64_t length) noexcept override { committed.emplace_back(gpa, length); }
};

std::unique_ptr<GuestMemory> two_ranges() {
  auto memory = GuestMemory::create({{0, 0x10000}, {0x100000000, 0x2000}});
  EXPECT_TRUE(memory.has_value());
  return std::move(*memory);
}

TEST(GuestMemory, WritesAreReadBackAndAnnouncedToTheObserver) {
  auto memory = two_ranges();
  Recorder recorder;
  memory->set_observer(&recorder);
  const std::array<std::byte, 3> data{std::byte{1}, std::byte{2}, std::byte{3}};
  ASSERT_TRUE(memory->write(0x100001ffd, data));
  std::array<std::byte, 3> back{};
  ASSERT_TRUE(memory->read(0x100001ffd, back));
  EXPECT_EQ(back, data);
  ASSERT_EQ(recorder.begun.size(), 1u);
  EXPECT_EQ(recorder.committed, recorder.begun);
  EXPECT_EQ(recorder.begun[0], (std::pair<uint64_t, uint64_t>{0x100001ffd, 3}));
}

TEST(GuestMemory, RangesThatLeaveRamAreRefusedWhole) {
  auto memory = two_ranges();
  std::array<std::byte, 8> data{};
  EXPECT_FALSE(memory->write(0xfffc, data));
  EXPECT_FALSE(memory->read(0xfffc, data));
  EXPECT_FALSE(memory->read(0x10000, data));
  EXPECT_FALSE(memory->read(UINT64_MAX - 3, data));
  EXPECT_TRUE(memory->span(0x20000, 1).empty());
}

// What a device moves when a descriptor's length is 0; UBSan watches the null pointer of the empty span.
TEST(GuestMemory, NothingIsMovedFromAndToAnywhere) {
  auto memory = two_ranges();
  Recorder recorder;
  memory->set_observer(&recorder);
  for (const uint64_t address : {uint64_t{0x1000}, uint64_t{0x10000}, uint64_t{0x20000}, UINT64_MAX}) {
    EXPECT_TRUE(memory->read(address, {}));
    EXPECT_TRUE(memory->write(address, {}));
    EXPECT_TRUE(memory->fill(address, std::byte{0xff}, 0));
  }
  EXPECT_TRUE(recorder.begun.empty());
}

TEST(GuestMemory, UnsortedOrUnalignedRangesAreRefused) {
  EXPECT_FALSE(GuestMemory::create({{0x2000, 0x1000}, {0, 0x1000}}).has_value());
  EXPECT_FALSE(GuestMemory::create({{0x10, 0x1000}}).has_value());
  EXPECT_FALSE(GuestMemory::create({}).has_value());
}

}  // namespace
}  // namespace lodge::memory
