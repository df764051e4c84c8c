#include "devices/acpi_pm.hpp"

#include <gtest/gtest.h>

namespace lodge::devices {
namespace {

class Pm : public testing::Test {
 protected:
  uint16_t word(uint64_t offset) { return static_cast<uint16_t>(pm.read(offset, 2)); }
  void set_word(uint64_t offset, uint16_t value) { pm.write(offset, 2, value); }
  FakeClock clock;
  bool sci = false;
  int power_offs = 0;
  AcpiPm pm{IrqPin([this](bool level) { sci = level; }),
            clock,
            {.gpe0_block = 0x20, .soft_off_sleep = 5},
            {.power_off = [this] { ++power_offs; }, .changed = {}}};
};
constexpr uint64_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8, kGpeStatus = 0x20, kGpeEnable = 0x22;

TEST_F(Pm, AcpiModeIsAlwaysOn) {
  EXPECT_EQ(word(kControl) & 1, 1);
  set_word(kControl, 0);
  EXPECT_EQ(word(kControl) & 1, 1);
}

TEST_F(Pm, PowerButtonRaisesSciUntilStatusIsClearedByWritingOne) {
  pm.press_power_button();
  EXPECT_FALSE(sci) << "not enabled";
  EXPECT_EQ(word(kStatus), 0x100);
  set_word(kEnable, 0x100);
  EXPECT_TRUE(sci);
  set_word(kStatus, 0x001);
  EXPECT_TRUE(sci) << "another bit's clearing does not count";
  set_word(kStatus, 0x100);
  EXPECT_FALSE(sci);
  EXPECT_EQ(word(kStatus), 0);
}

TEST_F(Pm, SleepEnableWithTypeS5PowersOff) {
  set_word(kControl, 5 << 10);
  EXPECT_EQ(power_offs, 0);
  set_word(kControl, 5 << 10 | 1 << 13);
  EXPECT_EQ(power_offs, 1);
  EXPECT_EQ(word(kControl) & 1 << 13, 0) << "SLP_EN reads as zero";
}

TEST_F(Pm, OtherSleepTypesDoNothing) {
  for (uint16_t type : {0, 1, 2, 3, 4, 6, 7}) set_word(kControl, static_cast<uint16_t>(type << 10 | 1 << 13));
  EXPECT_EQ(power_offs, 0);
}

TEST_F(Pm, TimerCountsAt3579545Hertz) {
  const uint32_t before = pm.read(kTimer, 4);
  clock.advance(kSecondNs);
  EXPECT_EQ(pm.read(kTimer, 4) - before, 3579545u);
  clock.advance(3600 * kSecondNs);
  EXPECT_EQ(pm.read(kTimer, 4), static_cast<uint32_t>(uint64_t{3601} * 3579545));
}

TEST_F(Pm, TimerCarryRaisesStatusAndSciWhenEnabled) {
  set_word(kEnable, 1);
  const uint64_t at = pm.deadline();
  EXPECT_NEAR(static_cast<double>(at) / kSecondNs, 2147483648.0 / 3579545, 0.001);
  clock.advance(at - 1000);
  pm.on_deadline();
  EXPECT_FALSE(sci);
  clock.advance(1000);
  pm.on_deadline();
  EXPECT_TRUE(sci);
  EXPECT_EQ(word(kStatus), 1);
  EXPECT_EQ(pm.deadline(), kNever);
  set_word(kStatus, 1);
  EXPECT_FALSE(sci);
}

TEST_F(Pm, RtcEventNeedsItsEnableBit) {
  pm.rtc_interrupt();
  EXPECT_FALSE(sci);
  set_word(kEnable, 1 << 10);
  EXPECT_EQ(word(kEnable), 1 << 10);
  EXPECT_TRUE(sci);
}

TEST_F(Pm, GeneralPurposeEvents) {
  set_word(kGpeEnable, 1 << 9);
  pm.raise_gpe(9);
  pm.raise_gpe(2);
  EXPECT_EQ(word(kGpeStatus), 1 << 9 | 1 << 2);
  EXPECT_TRUE(sci);
  set_word(kGpeStatus, 1 << 9);
  EXPECT_FALSE(sci);
  EXPECT_EQ(word(kGpeStatus), 1 << 2);
}

}  // namespace
}  // namespace lodge::devices
