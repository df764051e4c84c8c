#include "engine/soft/vcpu/timers.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

namespace lodge::engine::soft {
namespace {

uint64_t fake_now(void* now) { return static_cast<std::atomic<uint64_t>*>(now)->load(); }

class TimersTest : public testing::Test {
 protected:
  TimersTest() { timers_init(*timers); }
  uint32_t wait() { return timers_wait(*timers, fake_now, &now); }
  std::unique_ptr<Timers> timers = std::make_unique<Timers>();
  std::atomic<uint64_t> now = 1000;
};

TEST_F(TimersTest, GivesEachDueEntryOnce) {
  timer_set(*timers, 3, 900);
  timer_set(*timers, kPitTimer, 1000);
  timer_set(*timers, 5, 1001 + 3'600'000'000'000);  // not due in this test's life
  EXPECT_EQ(wait(), 3u);
  EXPECT_EQ(wait(), kPitTimer);
  EXPECT_EQ(timers->deadline[3].load(), kNever);
  timers_end(*timers);
  EXPECT_EQ(wait(), kTimerCount) << "entry 5 is not due";
}

TEST_F(TimersTest, AnEarlierDeadlineRousesTheThread) {
  uint32_t due = 0;
  std::thread thread([&] { due = wait(); });
  while (timers->sleeping_until.load() != kNever) std::this_thread::yield();
  timer_set(*timers, 7, 500);
  thread.join();
  EXPECT_EQ(due, 7u);
}

TEST_F(TimersTest, ALaterDeadlineLeavesItAsleep) {
  constexpr uint64_t kHour = 3'600'000'000'000;
  timer_set(*timers, 1, kHour);
  timers->sleeping_until.store(kHour);  // as the sleeping thread has it
  const uint32_t changes = timers->changes.load();
  timer_set(*timers, 2, 2 * kHour);
  EXPECT_EQ(timers->changes.load(), changes);
  timer_set(*timers, 2, kHour - 1);
  EXPECT_EQ(timers->changes.load(), changes + 1);
}

TEST_F(TimersTest, EndsTheSleepingThread) {
  uint32_t due = 0;
  std::thread thread([&] { due = wait(); });
  timers_end(*timers);
  thread.join();
  EXPECT_EQ(due, kTimerCount);
}

}  // namespace
}  // namespace lodge::engine::soft
