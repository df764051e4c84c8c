#include "engine/soft/vcpu/clock.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace lodge::engine::soft {
namespace {

TEST(ClockScaleTest, ASecondOfTicksIsASecond) {
  for (const uint64_t hz : {uint64_t{19'200'000}, uint64_t{999'999'999}, uint64_t{1'000'000'001}, uint64_t{2'000'000'000},
                            uint64_t{2'596'132'000}, uint64_t{5'700'000'000}}) {
    const ClockScale scale = clock_scale(hz);
    EXPECT_GE(scale.mul, 1u << 31) << hz;  // all 32 bits of precision are used
    EXPECT_NEAR(static_cast<double>(clock_to_ns(scale, hz)), 1e9, 2) << hz;
    EXPECT_NEAR(static_cast<double>(clock_to_ns(scale, hz * 86400)) / 86400e9, 1.0, 1e-9) << hz;
  }
}

TEST(ClockScaleTest, AGigahertzIsExact) {
  const ClockScale scale = clock_scale(1'000'000'000);
  for (const uint64_t ticks : {uint64_t{0}, uint64_t{1}, uint64_t{123'456'789'123'456'789}}) EXPECT_EQ(clock_to_ns(scale, ticks), ticks);
}

class VirtualClockTest : public testing::Test {
 protected:
  VirtualClockTest() {
    clock_init(clock, 0, 2500);
    clock.virtual_cpu = cpu.get();
  }
  std::unique_ptr<CpuState> cpu = std::make_unique<CpuState>();
  Clock clock = {};
};

TEST_F(VirtualClockTest, TimeIsInstructionsTimesPicoseconds) {
  EXPECT_EQ(clock_now(clock), 0u);
  cpu->instructions = 1000;
  EXPECT_EQ(clock_now(clock), 2500u);
  EXPECT_EQ(clock_counter(clock), 2500u) << "the guest's TSC counts nanoseconds";
}

TEST_F(VirtualClockTest, HaltSkipsToTheDeadlineAndNeverBack) {
  cpu->instructions = 1000;
  clock_skip_to(clock, 10'000);
  EXPECT_EQ(clock_now(clock), 10'000u);
  clock_skip_to(clock, 5000);
  EXPECT_EQ(clock_now(clock), 10'000u);
  cpu->instructions = 1004;
  EXPECT_EQ(clock_now(clock), 10'010u);
}

TEST_F(VirtualClockTest, TheBudgetReachesTheDeadlineAndNotMore) {
  EXPECT_EQ(clock_instructions_until(clock, 10'000), 4000);
  EXPECT_EQ(clock_instructions_until(clock, 10'001), 4001) << "rounded up: after it the deadline is over";
  cpu->instructions = 4001;
  EXPECT_EQ(clock_instructions_until(clock, 10'000), 0);
  EXPECT_GT(clock_instructions_until(clock, UINT64_MAX), int64_t{1} << 40);
}

TEST_F(VirtualClockTest, TheParavirtualClockRunsOnFromWhatItWasSetTo) {
  cpu->instructions = 400;
  clock_set_kvmclock(clock, 5'000'000);
  EXPECT_EQ(clock_kvmclock(clock), 5'000'000u);
  cpu->instructions = 800;
  EXPECT_EQ(clock_kvmclock(clock), 5'001'000u);
  clock_set_kvmclock(clock, 7);  // below the time since the VM's creation
  EXPECT_EQ(clock_kvmclock(clock), 7u);
}

}  // namespace
}  // namespace lodge::engine::soft
