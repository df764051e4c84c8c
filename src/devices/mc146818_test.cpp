#include "devices/mc146818.hpp"

#include <gtest/gtest.h>

namespace lodge::devices {
namespace {

constexpr unsigned kSeconds = 0, kSecondsAlarm = 1, kMinutes = 2, kMinutesAlarm = 3, kHours = 4, kHoursAlarm = 5, kWeekday = 6, kDay = 7,
                   kMonth = 8, kYear = 9, kA = 10, kB = 11, kC = 12, kD = 13, kCentury = 0x32;
// 2024-02-29 23:59:57.5 UTC, a Thursday.
constexpr int64_t kLeapDay = 1709251197'500000000;

class Rtc : public testing::Test {
 protected:
  uint8_t get(unsigned index) {
    rtc.write(0, 1, index);
    return static_cast<uint8_t>(rtc.read(1, 1));
  }
  void set(unsigned index, uint8_t value) {
    rtc.write(0, 1, index);
    rtc.write(1, 1, value);
  }
  void advance(uint64_t ns) {
    clock.advance(ns);
    if (rtc.deadline() <= clock.monotonic_ns()) rtc.on_deadline();
  }
  FakeClock clock{kLeapDay};
  bool line = false;
  int rises = 0, told = 0;
  Mc146818 rtc{IrqPin([this](bool level) {
                 line = level;
                 rises += level;
               }),
               clock, [this] { ++told; }};
};

TEST_F(Rtc, ShowsTheHostsTimeInBcd) {
  EXPECT_EQ(get(kSeconds), 0x57);
  EXPECT_EQ(get(kMinutes), 0x59);
  EXPECT_EQ(get(kHours), 0x23);
  EXPECT_EQ(get(kWeekday), 5);
  EXPECT_EQ(get(kDay), 0x29);
  EXPECT_EQ(get(kMonth), 0x02);
  EXPECT_EQ(get(kYear), 0x24);
  EXPECT_EQ(get(kCentury), 0x20);
  EXPECT_EQ(get(kD), 0x80);
}

TEST_F(Rtc, KnowsTheFloppyDrives) {
  rtc.set_floppy_types(0x40);
  EXPECT_EQ(get(0x10), 0x40);
  EXPECT_EQ(get(0x14), 0x01);
  rtc.set_floppy_types(0x45);
  EXPECT_EQ(get(0x14), 0x41) << "two";
}

TEST_F(Rtc, RollsOverIntoMarch) {
  advance(3 * kSecondNs);
  EXPECT_EQ(get(kSeconds), 0);
  EXPECT_EQ(get(kHours), 0);
  EXPECT_EQ(get(kDay), 1);
  EXPECT_EQ(get(kMonth), 3);
}

TEST_F(Rtc, BinaryAndTwelveHourModes) {
  set(kB, 0x04);  // binary, 12 hours
  EXPECT_EQ(get(kSeconds), 57);
  EXPECT_EQ(get(kHours), 0x80 | 11);
  advance(3 * kSecondNs);
  EXPECT_EQ(get(kHours), 12) << "midnight is 12 AM";
}

TEST_F(Rtc, TimeSetUnderSetBitRunsOnFromThere) {
  set(kB, 0x82);
  set(kHours, 0x12);
  set(kMinutes, 0x34);
  set(kSeconds, 0x56);
  advance(10 * kSecondNs);
  EXPECT_EQ(get(kSeconds), 0x56) << "SET stops the updates";
  set(kB, 0x02);
  advance(5 * kSecondNs);
  EXPECT_EQ(get(kHours), 0x12);
  EXPECT_EQ(get(kMinutes), 0x35);
  EXPECT_EQ(get(kSeconds), 0x01);
}

TEST_F(Rtc, UpdateInProgressRises244MicrosecondsBeforeTheSecond) {
  advance(499'700'000);
  EXPECT_EQ(get(kA) & 0x80, 0);
  advance(100'000);
  EXPECT_EQ(get(kA) & 0x80, 0x80);
  advance(300'000);
  EXPECT_EQ(get(kA) & 0x80, 0);
}

TEST_F(Rtc, UpdateEndedInterruptEachSecondUntilRegisterCIsRead) {
  set(kB, 0x12);
  get(kC);
  EXPECT_EQ(rtc.deadline(), clock.monotonic_ns() + kSecondNs / 2);
  advance(kSecondNs / 2);
  EXPECT_TRUE(line);
  advance(kSecondNs);
  EXPECT_EQ(rises, 1) << "the pin stays until register C is read";
  EXPECT_EQ(get(kC) & 0xb0, 0x90) << "PF rises as well, at its own rate";
  EXPECT_FALSE(line);
  EXPECT_EQ(get(kC), 0);
  advance(kSecondNs);
  EXPECT_EQ(rises, 2);
}

TEST_F(Rtc, FlagsRiseWithoutTheirInterrupts) {
  get(kC);
  advance(kSecondNs);
  EXPECT_FALSE(line);
  EXPECT_EQ(get(kC) & 0x90, 0x10) << "UF without IRQF";
}

TEST_F(Rtc, PeriodicInterruptAtTheSelectedRate) {
  set(kA, 0x26);  // 1024 Hz
  get(kC);
  set(kB, 0x42);
  EXPECT_EQ(rtc.deadline(), clock.monotonic_ns() + 976'562);
  advance(976'562);
  EXPECT_TRUE(line);
  EXPECT_EQ(get(kC) & 0xc0, 0xc0);
  set(kA, 0x2f);  // 2 Hz
  EXPECT_EQ(rtc.deadline(), clock.monotonic_ns() + kSecondNs / 2);
  set(kA, 0x20);
  EXPECT_EQ(rtc.deadline(), kNever);
}

// Whoever waits for the deadline slept on since the flag rose: there was none to wait for.
TEST_F(Rtc, TheNextPeriodBeginsWhenRegisterCIsRead) {
  set(kA, 0x26);
  set(kB, 0x42);
  advance(kSecondNs / 1000);
  EXPECT_TRUE(line);
  EXPECT_EQ(rtc.deadline(), kNever);
  const int before = told;
  get(kC);
  EXPECT_NE(rtc.deadline(), kNever);
  EXPECT_GT(told, before) << "the deadline has moved, and nobody heard of it";
}

TEST_F(Rtc, AlarmMatchesTheTimeOfDay) {
  set(kHoursAlarm, 0x00);
  set(kMinutesAlarm, 0x00);
  set(kSecondsAlarm, 0x02);
  get(kC);
  set(kB, 0x22);
  for (int i = 0; i < 4; ++i) advance(kSecondNs);
  EXPECT_FALSE(line);
  advance(kSecondNs);
  EXPECT_TRUE(line);
  EXPECT_EQ(get(kC) & 0xa0, 0xa0);
}

TEST_F(Rtc, AlarmBytesOfC0AndMoreDoNotCare) {
  set(kHoursAlarm, 0xff);
  set(kMinutesAlarm, 0xc0);
  set(kSecondsAlarm, 0x59);
  get(kC);
  set(kB, 0x22);
  advance(2 * kSecondNs);
  EXPECT_TRUE(line);
}

TEST_F(Rtc, AlarmIsSeenWhenManySecondsPassAtOnce) {
  set(kHoursAlarm, 0x00);
  set(kMinutesAlarm, 0x30);
  set(kSecondsAlarm, 0x00);
  get(kC);
  advance(3600 * kSecondNs);
  EXPECT_EQ(get(kC) & 0x20, 0x20);
}

TEST_F(Rtc, MemorySizeBytes) {
  rtc.set_memory_size(uint64_t{3} << 30, uint64_t{5} << 30);
  EXPECT_EQ(get(0x15) | get(0x16) << 8, 640);
  EXPECT_EQ(get(0x17) | get(0x18) << 8, 0xffff);
  EXPECT_EQ(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
  EXPECT_EQ(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 << 14);
}

TEST_F(Rtc, PlainMemoryKeepsWhatIsWritten) {
  set(0x40, 0x77);
  EXPECT_EQ(get(0x40), 0x77);
  EXPECT_EQ(get(0xc0), 0x77) << "the index has seven bits";
}

}  // namespace
}  // namespace lodge::devices
