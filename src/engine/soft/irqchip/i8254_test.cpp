#include "engine/soft/irqchip/i8254.hpp"

#include <gtest/gtest.h>

namespace lodge::engine::soft {
namespace {

constexpr uint64_t kNever = UINT64_MAX;

// The first nanosecond at which n ticks of 1193182 Hz are complete, in wider arithmetic than the device's.
uint64_t after_ticks(uint64_t n) { return static_cast<uint64_t>((static_cast<unsigned __int128>(n) * 1000000000 + 1193181) / 1193182); }

void program(I8254& pit, uint8_t control, uint16_t count, uint64_t now = 0) {
  pit.write(0x43, control, now);
  const auto port = static_cast<uint16_t>(0x40 + (control >> 6));
  pit.write(port, count & 0xff, now);
  pit.write(port, count >> 8, now);
}

uint16_t read_latched(I8254& pit, unsigned counter, uint64_t now) {
  pit.write(0x43, static_cast<uint8_t>(counter << 6), now);
  const auto port = static_cast<uint16_t>(0x40 + counter);
  const uint8_t low = pit.read(port, now);
  return static_cast<uint16_t>(low | pit.read(port, now) << 8);
}

TEST(I8254, NothingIsDueAfterReset) {
  I8254 pit;
  EXPECT_EQ(pit.next_deadline_ns(), kNever);
  EXPECT_FALSE(pit.expire(1000000000));
}

TEST(I8254, RateGeneratorFiresAtExactMultiplesOfItsPeriod) {
  I8254 pit;
  program(pit, 0x34, 11932);
  for (uint64_t n = 1; n <= 5; ++n) {
    ASSERT_EQ(pit.next_deadline_ns(), after_ticks(n * 11932));
    EXPECT_FALSE(pit.expire(pit.next_deadline_ns() - 1));
    EXPECT_TRUE(pit.expire(pit.next_deadline_ns()));
    EXPECT_FALSE(pit.acknowledge());
  }
}

// Another timer stands in its place: KVM_PIT_FLAGS_HPET_LEGACY.
TEST(I8254, InterruptsOnlyWhileItIsNotReplaced) {
  I8254 pit;
  program(pit, 0x34, 1000);
  kvm_pit_state2 state = pit.get_state();
  state.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
  pit.set_state(state, 0);
  EXPECT_EQ(pit.next_deadline_ns(), kNever);
  program(pit, 0x34, 500);
  EXPECT_EQ(pit.next_deadline_ns(), kNever);
  EXPECT_EQ(pit.get_state().flags, uint32_t{KVM_PIT_FLAGS_HPET_LEGACY});
  EXPECT_LT(read_latched(pit, 0, after_ticks(10)), 500) << "it counts all the same";
  state = pit.get_state();
  state.flags = 0;
  pit.set_state(state, 0);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(500));
}

TEST(I8254, LateTicksAreOwedAndFollowTheAcknowledges) {
  I8254 pit;
  program(pit, 0x34, 1000);
  EXPECT_TRUE(pit.expire(after_ticks(3500)));  // three periods at once
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(4000));
  EXPECT_TRUE(pit.acknowledge());
  EXPECT_TRUE(pit.acknowledge());
  EXPECT_FALSE(pit.acknowledge());
}

TEST(I8254, TickIsHeldBackUntilTheLastOneIsAcknowledged) {
  I8254 pit;
  program(pit, 0x34, 1000);
  EXPECT_TRUE(pit.expire(after_ticks(1000)));
  EXPECT_FALSE(pit.expire(after_ticks(2000)));
  EXPECT_TRUE(pit.acknowledge());
}

TEST(I8254, UnmaskingForgivesTheDebt) {
  I8254 pit;
  program(pit, 0x34, 1000);
  EXPECT_TRUE(pit.expire(after_ticks(5000)));
  pit.irq0_unmasked();
  EXPECT_FALSE(pit.acknowledge());
  EXPECT_TRUE(pit.expire(after_ticks(6000)));
}

TEST(I8254, WithoutReinjectionLateTicksMerge) {
  I8254 pit;
  pit.set_reinject(false);
  program(pit, 0x34, 1000);
  EXPECT_TRUE(pit.expire(after_ticks(3500)));
  EXPECT_FALSE(pit.acknowledge());
  EXPECT_TRUE(pit.expire(after_ticks(4000)));
}

TEST(I8254, InterruptOnTerminalCountFiresOnce) {
  I8254 pit;
  program(pit, 0x30, 500);
  EXPECT_FALSE(pit.output(0, after_ticks(499)));
  EXPECT_TRUE(pit.output(0, after_ticks(500)));
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(500));
  EXPECT_TRUE(pit.expire(after_ticks(500)));
  EXPECT_EQ(pit.next_deadline_ns(), kNever);
}

TEST(I8254, ControlWordStopsTheTimer) {
  I8254 pit;
  program(pit, 0x34, 1000);
  pit.write(0x43, 0x30, 10);
  EXPECT_EQ(pit.next_deadline_ns(), kNever);
}

TEST(I8254, StrobeIsLowForOneTick) {
  I8254 pit;
  program(pit, 0x38, 100);
  EXPECT_TRUE(pit.output(0, after_ticks(99)));
  EXPECT_FALSE(pit.output(0, after_ticks(100)));
  EXPECT_TRUE(pit.output(0, after_ticks(101)));
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(101));
}

TEST(I8254, SquareWaveIsHighForTheLongerHalf) {
  I8254 pit;
  program(pit, 0x36, 5);
  const bool expected[] = {true, true, true, false, false, true};
  for (uint64_t tick = 0; tick < 6; ++tick) EXPECT_EQ(pit.output(0, after_ticks(tick)), expected[tick]) << tick;
}

TEST(I8254, RateGeneratorIsLowOnItsLastTick) {
  I8254 pit;
  program(pit, 0x34, 3);
  const bool expected[] = {true, true, false, true, true, false};
  for (uint64_t tick = 0; tick < 6; ++tick) EXPECT_EQ(pit.output(0, after_ticks(tick)), expected[tick]) << tick;
}

TEST(I8254, CountOfZeroIsTheLargest) {
  I8254 pit;
  program(pit, 0x34, 0);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(65536));
  EXPECT_EQ(read_latched(pit, 0, after_ticks(1)), 0xffff);
}

TEST(I8254, LatchHoldsTheCountUntilItIsRead) {
  I8254 pit;
  program(pit, 0x34, 1000);
  pit.write(0x43, 0x00, after_ticks(10));
  pit.write(0x43, 0x00, after_ticks(20));  // ignored: latched already
  EXPECT_EQ(pit.read(0x40, after_ticks(30)), 990 & 0xff);
  EXPECT_EQ(pit.read(0x40, after_ticks(30)), 990 >> 8);
  EXPECT_EQ(read_latched(pit, 0, after_ticks(40)), 960);
}

TEST(I8254, LsbAndMsbOnlyAccess) {
  I8254 pit;
  pit.write(0x43, 0x14, 0);  // LSB only, mode 2
  pit.write(0x40, 0x80, 0);
  EXPECT_EQ(pit.read(0x40, after_ticks(1)), 0x7f);
  pit.write(0x43, 0x24, 0);  // MSB only
  pit.write(0x40, 0x12, 0);
  EXPECT_EQ(pit.read(0x40, 0), 0x12);
  EXPECT_EQ(pit.read(0x40, after_ticks(1)), 0x11);
}

TEST(I8254, BcdCountsInDecimal) {
  I8254 pit;
  program(pit, 0x35, 0x1000);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(1000));
  EXPECT_EQ(read_latched(pit, 0, after_ticks(1)), 0x0999);
  program(pit, 0x35, 0x0000);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(10000));
}

TEST(I8254, ReadBackLatchesStatusThenCount) {
  I8254 pit;
  program(pit, 0x34, 1000);
  pit.write(0x43, 0xc2, after_ticks(5));  // status and count of counter 0
  EXPECT_EQ(pit.read(0x40, after_ticks(9)), 0x80 | 0x34);
  EXPECT_EQ(pit.read(0x40, after_ticks(9)), 995 & 0xff);
  EXPECT_EQ(pit.read(0x40, after_ticks(9)), 995 >> 8);
}

TEST(I8254, StatusShowsNullCountBeforeTheCountIsWritten) {
  I8254 pit;
  pit.write(0x43, 0x30, 0);
  pit.write(0x43, 0xe2, 0);
  EXPECT_EQ(pit.read(0x40, 0), 0x40 | 0x30);
}

TEST(I8254, Counter2CalibrationThroughPort61) {
  // What Linux does to measure the TSC: gate on, mode 0, wait for OUT2 in bit 5.
  I8254 pit;
  pit.write(0x61, 0x01, 0);
  program(pit, 0xb0, 1000);
  EXPECT_EQ(pit.read(0x61, after_ticks(999)) & 0x20, 0);
  EXPECT_EQ(pit.read(0x61, after_ticks(1000)) & 0x20, 0x20);
  EXPECT_EQ(pit.next_deadline_ns(), kNever);  // only counter 0 interrupts
}

TEST(I8254, GateOfCounter2StopsAndResumesMode0) {
  I8254 pit;
  program(pit, 0xb0, 1000);  // the gate is low after reset
  EXPECT_EQ(read_latched(pit, 2, after_ticks(100)), 1000);
  pit.write(0x61, 0x01, after_ticks(100));
  EXPECT_EQ(read_latched(pit, 2, after_ticks(150)), 950);
  pit.write(0x61, 0x00, after_ticks(150));
  EXPECT_EQ(read_latched(pit, 2, after_ticks(900)), 950);
  pit.write(0x61, 0x01, after_ticks(900));
  EXPECT_EQ(read_latched(pit, 2, after_ticks(901)), 949);
}

TEST(I8254, OneShotOfCounter2WaitsForTheGate) {
  I8254 pit;
  program(pit, 0xb2, 100);
  EXPECT_TRUE(pit.output(2, after_ticks(500)));
  pit.write(0x61, 0x01, after_ticks(500));
  EXPECT_FALSE(pit.output(2, after_ticks(599)));
  EXPECT_TRUE(pit.output(2, after_ticks(601)));
}

TEST(I8254, RefreshBitTogglesAndSpeakerBitIsKept) {
  I8254 pit;
  pit.write(0x61, 0x02, 0);
  EXPECT_EQ(pit.read(0x61, 0) & 0x13, 0x02);
  EXPECT_EQ(pit.read(0x61, 1 << 14) & 0x10, 0x10);
}

TEST(I8254, ShortPeriodsAreStretchedToWholeMultiples) {
  I8254 pit;
  program(pit, 0x34, 100);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(300));
  program(pit, 0x34, 1);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(239));
}

TEST(I8254, LoadedStateRestartsTheCounters) {
  I8254 pit;
  program(pit, 0x34, 1000);
  pit.write(0x61, 0x03, 0);
  I8254 other;
  other.set_state(pit.get_state(), 5000);
  EXPECT_EQ(other.next_deadline_ns(), 5000 + after_ticks(1000));
  EXPECT_EQ(other.read(0x61, 0) & 0x03, 0x03);
}

TEST(I8254, HostileStateCannotDivideByZero) {
  I8254 pit;
  kvm_pit_state2 state{};
  for (auto& channel : state.channels) channel.mode = 3, channel.gate = 1;
  state.channels[1].mode = 77;
  state.channels[2].count = UINT32_MAX;
  pit.set_state(state, 0);
  EXPECT_EQ(pit.next_deadline_ns(), after_ticks(65536));
  EXPECT_EQ(pit.get_state().channels[2].count, 65536u);
  EXPECT_EQ(pit.get_state().channels[1].mode, 0xff);
}

}  // namespace
}  // namespace lodge::engine::soft
