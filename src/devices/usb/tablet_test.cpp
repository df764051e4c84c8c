#include "devices/usb/tablet.hpp"

#include <gtest/gtest.h>

namespace lodge::devices::usb {
namespace {

using Bytes = std::vector<uint8_t>;

class UsbTablet : public testing::Test {
 protected:
  UsbTablet() {
    tablet.set_wake([this](unsigned endpoint) { woken = endpoint; });
  }
  void configure() { EXPECT_TRUE(tablet.control_out({0, 9, 1, 0, 0}, {})); }
  Tablet tablet;
  unsigned woken = 0;
};

TEST_F(UsbTablet, DescribesItself) {
  const auto device = tablet.control_in({0x80, 6, 0x0100, 0, 64});
  ASSERT_TRUE(device);
  EXPECT_EQ(device->size(), 18U);
  EXPECT_EQ((*device)[0], 18);
  const auto configuration = tablet.control_in({0x80, 6, 0x0200, 0, 255});
  ASSERT_TRUE(configuration);
  EXPECT_EQ((*configuration)[2] | (*configuration)[3] << 8, configuration->size());
  size_t at = 0;
  while (at < configuration->size()) at += (*configuration)[at];
  EXPECT_EQ(at, configuration->size()) << "its parts fill it";
  const auto report = tablet.control_in({0x81, 6, 0x2200, 0, 255});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->size(), (*configuration)[18 + 7]) << "as long as the HID descriptor says";
  EXPECT_EQ(tablet.control_in({0x80, 6, 0x0302, 0x409, 255})->at(0), 2 + 2 * 10);
  EXPECT_FALSE(tablet.control_in({0x80, 6, 0x0309, 0, 255})) << "a stall";
  EXPECT_FALSE(tablet.control_in({0xc0, 1, 0, 0, 1})) << "a vendor's request";
}

TEST_F(UsbTablet, SaysWhereThePointerIs) {
  tablet.point(100, 200, 0, 0);
  EXPECT_FALSE(tablet.interrupt_in(1)) << "nobody has configured it";
  configure();
  EXPECT_TRUE(tablet.in_use());
  tablet.point(0x1234, 0x7fff, -1, display::kRight);
  EXPECT_EQ(woken, 1U);
  EXPECT_EQ(tablet.interrupt_in(1), (Bytes{2, 0x34, 0x12, 0xff, 0x7f, 1}));
  EXPECT_FALSE(tablet.interrupt_in(1));
  EXPECT_EQ(tablet.control_in({0xa1, 1, 0x0100, 0, 6})->at(1), 0x34) << "GET_REPORT repeats it";
}

TEST_F(UsbTablet, MovementsRunTogetherAndClicksDoNot) {
  configure();
  tablet.point(1, 1, 0, 0);
  tablet.point(2, 2, 0, 0);
  tablet.point(2, 2, 0, 1);
  tablet.point(2, 2, 0, 0);
  EXPECT_EQ(tablet.interrupt_in(1)->at(1), 2);
  EXPECT_EQ(tablet.interrupt_in(1)->at(0), 1);
  EXPECT_EQ(tablet.interrupt_in(1)->at(0), 0);
  EXPECT_FALSE(tablet.interrupt_in(1));
}

TEST_F(UsbTablet, AGuestThatDoesNotListenLosesClicksNotMemory) {
  configure();
  for (unsigned i = 0; i < 100000; ++i) tablet.point(i, 0, 0, i & 1);
  unsigned waiting = 0;
  while (tablet.interrupt_in(1)) ASSERT_LT(++waiting, 100U);
}

TEST_F(UsbTablet, ResetEndsIt) {
  configure();
  tablet.point(1, 1, 0, 0);
  tablet.reset();
  EXPECT_FALSE(tablet.in_use());
  EXPECT_FALSE(tablet.interrupt_in(1));
}

}  // namespace
}  // namespace lodge::devices::usb
