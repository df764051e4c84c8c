#include "devices/virtio/balloon/balloon.hpp"

#include <gtest/gtest.h>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

constexpr uint64_t kStatistics = feature(1), kReporting = feature(5);
constexpr uint64_t kData = 0x800000, kPages = 0xa00000;

class BalloonTest : public testing::Test {
 protected:
  ~BalloonTest() override { test::Driven::stop(balloon); }
  void start(uint64_t features, const std::vector<unsigned>& queues) { driven.start(balloon, features, queues); }
  [[nodiscard]] test::Memory& memory() { return driven.memory; }
  void fill() { ASSERT_TRUE(memory().guest->fill(kPages, std::byte{0xaa}, 16 * 4096)); }
  [[nodiscard]] bool is_zero(unsigned page) { return memory().text(kPages + page * 4096, 4096) == std::string(4096, '\0'); }
  // A buffer with the numbers of pages, counted from kPages.
  void hand_over(const std::vector<uint32_t>& pages, unsigned queue = 0) {
    for (size_t i = 0; i < pages.size(); ++i) memory().put<uint32_t>(kData + 4 * i, pages[i] + static_cast<uint32_t>(kPages >> 12));
    driven.ring(queue).add({{kData, static_cast<uint32_t>(4 * pages.size())}});
    balloon.notified();
    EXPECT_EQ(driven.ring(queue).used().size(), 1u);
  }
  void tell(const std::vector<std::pair<uint16_t, uint64_t>>& values, size_t more = 0) {
    uint64_t at = kData;
    for (const auto& [tag, value] : values) {
      memory().put(at, tag);
      memory().put(at + 2, value);
      at += 10;
    }
    driven.ring(2).add({{kData, static_cast<uint32_t>(at - kData + more)}});
    balloon.notified();
  }

  test::Driven driven;
  Balloon balloon{driven.worker, 7};
};

TEST_F(BalloonTest, ThePagesInItAreTheHosts) {
  start(0, {0, 1});
  fill();
  hand_over({3, 4, 5, 9, 8, 15});
  for (unsigned page = 0; page < 16; ++page)
    EXPECT_EQ(is_zero(page), page == 15 || (page >= 3 && page <= 5) || page == 8 || page == 9) << page;
  hand_over({3, 4}, 1);
  EXPECT_EQ(memory().open, 0);
  EXPECT_EQ(driven.port.interrupts[0], 1u);
  EXPECT_EQ(driven.port.interrupts[1], 1u);
}

TEST_F(BalloonTest, PagesThatAreNotThereAreNone) {
  start(0, {0, 1});
  fill();
  memory().put<uint32_t>(kData, 0xffffffff);
  memory().put<uint32_t>(kData + 4, static_cast<uint32_t>(test::Memory::kBytes >> 12));
  memory().put<uint32_t>(kData + 8, static_cast<uint32_t>(kPages >> 12));
  driven.ring(0).add({{kData, 15}});
  balloon.notified();
  EXPECT_EQ(driven.ring(0).used().size(), 1u);
  EXPECT_TRUE(is_zero(0));
  EXPECT_FALSE(is_zero(1)) << "half a number is none";
}

TEST_F(BalloonTest, ReportedPagesComeBack) {
  start(kStatistics | kReporting, {0, 1, 2, 3});
  fill();
  driven.ring(3).add({{kPages, 2 * 4096, true}, {kPages + 5 * 4096, 4096, true}, {kPages + 8 * 4096 + 1, 2 * 4096, true}});
  balloon.notified();
  EXPECT_EQ(driven.ring(3).used().size(), 1u);
  for (unsigned page = 0; page < 16; ++page) EXPECT_EQ(is_zero(page), page < 2 || page == 5 || page == 9) << page << ": whole pages only";
}

TEST_F(BalloonTest, WithoutStatisticsReportsAreTheThirdQueue) {
  start(kReporting, {0, 1, 2});
  fill();
  driven.ring(2).add({{kPages, 4096, true}});
  balloon.notified();
  EXPECT_TRUE(is_zero(0));
}

TEST_F(BalloonTest, ATargetAndWhatThereIs) {
  start(0, {0, 1});
  EXPECT_EQ(test::config_of<uint32_t>(balloon, 0), 7u);
  balloon.set_target(100);
  EXPECT_EQ(driven.port.config_changes, 1u);
  balloon.set_target(100);
  EXPECT_EQ(driven.port.config_changes, 1u) << "no news";
  EXPECT_EQ(test::config_of<uint32_t>(balloon, 0), 100u);
  const std::array<uint8_t, 4> actual{50, 0, 0, 0};
  balloon.write_config(4, actual);
  EXPECT_EQ(balloon.actual(), 50u);
  EXPECT_EQ(test::config_of<uint64_t>(balloon, 0), 50ull << 32 | 100);
  balloon.write_config(0, actual);
  balloon.write_config(5, actual);
  EXPECT_EQ(test::config_of<uint64_t>(balloon, 0), 50ull << 32 | 100) << "the target is the host's";
  test::Driven::stop(balloon);
  EXPECT_EQ(balloon.actual(), 0u);
  start(0, {0, 1});
}

TEST_F(BalloonTest, StatisticsComeWhenAskedFor) {
  start(kStatistics, {0, 1, 2});
  std::vector<MemoryStatistics> told;
  const auto ask = [&] { return balloon.ask_statistics([&told](const MemoryStatistics& all) { told.push_back(all); }); };
  EXPECT_FALSE(ask()) << "the driver has not left its buffer yet";
  tell({{MemoryStatistics::Free, 1000}});
  EXPECT_TRUE(driven.ring(2).used().empty()) << "kept, to ask with";
  for (unsigned round = 0; round < 40; ++round) {
    ASSERT_TRUE(ask());
    EXPECT_FALSE(ask()) << "one at a time";
    EXPECT_EQ(driven.ring(2).used().size(), 1u);
    EXPECT_EQ(driven.port.interrupts[2], round + 1);
    driven.ring(2).must_notify();
    tell({{MemoryStatistics::Total, round}, {77, 1}, {MemoryStatistics::Caches, ~uint64_t{0}}}, 5);
    EXPECT_TRUE(driven.ring(2).must_notify());
    ASSERT_EQ(told.size(), round + 1);
    EXPECT_EQ(told.back().values[MemoryStatistics::Total], round);
    EXPECT_EQ(told.back().values[MemoryStatistics::Caches], ~uint64_t{0});
    EXPECT_EQ(told.back().values[MemoryStatistics::Free], std::nullopt);
  }
}

// Found with a guest: with an event index the driver was never asked to tell of its answer.
TEST_F(BalloonTest, AnAnswerIsToldOfWithEveryKindOfRing) {
  for (const test::Shape& shape : test::kAllShapes) {
    driven.start(balloon, kStatistics, {0, 1, 2}, 4, shape);
    tell({});
    unsigned told = 0;
    for (unsigned round = 0; round < 9; ++round) {
      ASSERT_TRUE(balloon.ask_statistics([&told](const MemoryStatistics&) { ++told; }));
      EXPECT_EQ(driven.ring(2).used().size(), 1u);
      driven.ring(2).must_notify();
      driven.ring(2).add({{kData, 10}});
      ASSERT_TRUE(driven.ring(2).must_notify()) << test::name_of(shape) << round;
      balloon.notified();
      EXPECT_EQ(told, round + 1);
    }
    test::Driven::stop(balloon);
  }
  start(0, {0, 1});
}

TEST_F(BalloonTest, AResetTakesTheBufferBack) {
  start(kStatistics, {0, 1, 2});
  tell({});
  test::Driven::stop(balloon);
  EXPECT_FALSE(balloon.ask_statistics([](const MemoryStatistics&) {}));
  start(kStatistics, {0, 1, 2});
  tell({});
  EXPECT_TRUE(balloon.ask_statistics([](const MemoryStatistics&) { FAIL() << "of a driver that is gone"; }));
  test::Driven::stop(balloon);
  start(kStatistics, {0, 1, 2});
  tell({});
}

}  // namespace
}  // namespace lodge::devices::virtio
