#include "devices/hpet.hpp"

#include <gtest/gtest.h>

#include <string>

namespace lodge::devices {
namespace {

constexpr uint64_t kConfiguration = 0x10, kStatus = 0x20, kCounter = 0xf0, kTimer0 = 0x100, kTimer1 = 0x120, kTimer2 = 0x140,
                   kComparator = 8;
constexpr uint64_t kEnable = 1, kLegacy = 2;
constexpr uint64_t kLevel = 2, kInterrupts = 4, kPeriodic = 8, kSetValue = 0x40, kAs32Bits = 0x100;
constexpr uint64_t route(uint64_t input) { return input << 9; }

class HpetTest : public testing::Test {
 protected:
  uint64_t get(uint64_t offset, unsigned size = 8) { return hpet.read(offset, size); }
  void put(uint64_t offset, uint64_t value, unsigned size = 8) { hpet.write(offset, size, value); }
  // Time goes on, and the loop does what is due.
  void pass(uint64_t ticks) {
    const uint64_t end = clock.monotonic_ns() + ticks * Hpet::kTickNs;
    while (hpet.deadline() <= end) {
      clock.advance(hpet.deadline() - clock.monotonic_ns());
      hpet.on_deadline();
    }
    clock.advance(end - clock.monotonic_ns());
  }
  std::string taken() { return std::exchange(events, {}); }
  IrqPin pin(char name) {
    return IrqPin([this, name](bool level) { events += level ? name : static_cast<char>(name - 'A' + 'a'); });
  }

  std::string events;  // a letter a pin: upper case rises, lower case falls
  int changes = 0;
  FakeClock clock;
  Hpet hpet{[this] {
              Hpet::Board board{.irq0 = pin('A'),
                                .irq8 = pin('B'),
                                .inputs = {},
                                .possible = 1 << 20 | 1 << 21,
                                .legacy = [this](bool on) { events += on ? 'L' : 'l'; },
                                .changed = [this] { ++changes; }};
              board.inputs[20] = pin('C');
              board.inputs[21] = pin('D');
              return board;
            }(),
            clock};
};

TEST_F(HpetTest, SaysWhatItIs) {
  EXPECT_EQ(get(0), uint64_t{10'000'000} << 32 | 0x8086a201);
  EXPECT_EQ(get(0, 4), 0x8086a201u);
  EXPECT_EQ(get(4, 4), 10'000'000u);
  EXPECT_EQ(get(kTimer0), uint64_t{0x00300000} << 32 | 0x30);
  EXPECT_EQ(get(kTimer2 + kComparator), ~uint64_t{0});
  EXPECT_EQ(get(0x160), 0u) << "no fourth timer";
  EXPECT_EQ(get(0x3f8), 0u);
  put(0, 0);
  EXPECT_EQ(get(0, 4), 0x8086a201u);
  EXPECT_EQ(hpet.deadline(), kNever);
}

TEST_F(HpetTest, TheCounterRunsWhileItIsEnabled) {
  pass(5);
  EXPECT_EQ(get(kCounter), 0u);
  put(kCounter, 0xfffffffe);
  put(kConfiguration, kEnable);
  pass(5);
  EXPECT_EQ(get(kCounter), 0x100000003u);
  EXPECT_EQ(get(kCounter, 4), 3u);
  EXPECT_EQ(get(kCounter + 4, 4), 1u);
  put(kConfiguration, 0);
  pass(5);
  EXPECT_EQ(get(kCounter), 0x100000003u);
  put(kCounter + 4, 7, 4);
  EXPECT_EQ(get(kCounter), 0x700000003u);
  EXPECT_EQ(taken(), "");
}

TEST_F(HpetTest, ATimerInterruptsOnce) {
  put(kConfiguration, kEnable);
  put(kTimer2, kInterrupts | route(20));
  put(kTimer2 + kComparator, 100);
  EXPECT_GT(changes, 0);
  pass(99);
  EXPECT_EQ(taken(), "");
  pass(1);
  EXPECT_EQ(taken(), "Cc");
  pass(100000);
  EXPECT_EQ(taken(), "");
  EXPECT_EQ(get(kStatus), 0u) << "of level-triggered timers only";
}

TEST_F(HpetTest, WhatHasPassedIsDueAtOnce) {
  put(kConfiguration, kEnable);
  pass(1000);
  put(kTimer0, kInterrupts | route(21));
  put(kTimer0 + kComparator, 990);
  pass(0);
  EXPECT_EQ(taken(), "Dd");
}

TEST_F(HpetTest, ATimerOf32BitsComesBackWithTheCounter) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | kAs32Bits | route(20));
  put(kTimer0 + kComparator, 50, 4);
  EXPECT_EQ(get(kTimer0 + kComparator), 50u);
  pass(50);
  EXPECT_EQ(taken(), "Cc");
  pass((uint64_t{1} << 32) - 1);
  EXPECT_EQ(taken(), "");
  pass(1);
  EXPECT_EQ(taken(), "Cc");
}

// As Linux programs it: the comparator first, by the bit that lets it, then the period.
TEST_F(HpetTest, PeriodsFollowOneAnother) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | kPeriodic | kSetValue | route(20));
  put(kTimer0 + kComparator, 100000);
  EXPECT_EQ(get(kTimer0) & kSetValue, 0u) << "the bit clears itself";
  put(kTimer0 + kComparator, 10000);
  EXPECT_EQ(get(kTimer0 + kComparator), 100000u);
  pass(99999);
  EXPECT_EQ(taken(), "");
  pass(1);
  EXPECT_EQ(taken(), "Cc");
  EXPECT_EQ(get(kTimer0 + kComparator), 110000u);
  pass(29999);
  EXPECT_EQ(taken(), "CcCc");
}

// 10 ns are no period that a host's loop could keep.
TEST_F(HpetTest, ShortPeriodsDoNotTakeTheHostsTime) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | kPeriodic | kSetValue | route(20));
  put(kTimer0 + kComparator, 1);
  pass(1'000'000);  // 10 ms
  EXPECT_LE(taken().size() / 2, 201u);
}

TEST_F(HpetTest, MissedPeriodsAreOneInterrupt) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | kPeriodic | kSetValue | route(20));
  put(kTimer0 + kComparator, 10);
  clock.advance(105 * Hpet::kTickNs);
  hpet.on_deadline();
  EXPECT_EQ(taken(), "Cc");
  EXPECT_EQ(get(kTimer0 + kComparator), 110u);
}

TEST_F(HpetTest, LevelsStayUntilTheirStatusIsCleared) {
  put(kConfiguration, kEnable);
  put(kTimer1, kInterrupts | kLevel | route(21));
  put(kTimer1 + kComparator, 10);
  pass(20);
  EXPECT_EQ(taken(), "D");
  EXPECT_EQ(get(kStatus), 2u);
  put(kStatus, 5);
  EXPECT_EQ(taken(), "") << "others' bits";
  put(kStatus, 2);
  EXPECT_EQ(taken(), "d");
  put(kTimer1 + kComparator, 10000);
  pass(10000);
  EXPECT_EQ(taken(), "D");
  put(kTimer1, kLevel | route(21));
  EXPECT_EQ(taken(), "d") << "not enabled any more";
  EXPECT_EQ(get(kStatus), 2u);
}

TEST_F(HpetTest, InThePlaceOfOlderTimers) {
  put(kConfiguration, kEnable | kLegacy);
  EXPECT_EQ(taken(), "L");
  for (const uint64_t timer : {kTimer0, kTimer1, kTimer2}) {
    put(timer, kInterrupts | route(20));
    put(timer + kComparator, 10 + timer - kTimer0);
  }
  pass(100000);
  EXPECT_EQ(taken(), "AaBbCc");
  put(kConfiguration, kEnable);
  EXPECT_EQ(taken(), "l");
}

TEST_F(HpetTest, InputsThatAreNotPossibleLeadNowhere) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | route(9));
  put(kTimer0 + kComparator, 10);
  pass(100);
  EXPECT_EQ(taken(), "");
}

TEST_F(HpetTest, NothingIsDueWhileItStandsStill) {
  put(kTimer0, kInterrupts | route(20));
  put(kTimer0 + kComparator, 10);
  EXPECT_EQ(hpet.deadline(), kNever);
  pass(100);
  EXPECT_EQ(taken(), "");
  put(kConfiguration, kEnable);
  pass(10);
  EXPECT_EQ(taken(), "Cc");
}

TEST_F(HpetTest, PeriodsOfNothingDoNoHarm) {
  put(kConfiguration, kEnable);
  put(kTimer0, kInterrupts | kPeriodic | kSetValue | route(20));
  put(kTimer0 + kComparator, 0);
  hpet.on_deadline();
  put(kTimer0, kInterrupts | kPeriodic | kSetValue | kAs32Bits | route(20));
  put(kTimer0 + kComparator, ~uint64_t{0});
  put(kCounter, ~uint64_t{0});
  clock.advance(1000);
  hpet.on_deadline();
  EXPECT_NE(get(kCounter), ~uint64_t{0});
}

}  // namespace
}  // namespace lodge::devices
