#include "devices/ps2/mouse.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace lodge::devices::ps2 {
namespace {

using Bytes = std::vector<uint8_t>;

class Ps2Mouse : public testing::Test {
 protected:
  Bytes say(std::initializer_list<uint8_t> bytes) {
    for (const uint8_t byte : bytes) mouse.receive(byte);
    return all();
  }
  Bytes all() {
    Bytes bytes;
    while (const auto byte = mouse.send()) bytes.push_back(*byte);
    return bytes;
  }
  Mouse mouse;
};

TEST_F(Ps2Mouse, ResetTellsItsType) { EXPECT_EQ(say({0xff}), (Bytes{0xfa, 0xaa, 0x00})); }

TEST_F(Ps2Mouse, SaysNothingUntilItIsEnabled) {
  mouse.move(10, 0, 0, 0);
  EXPECT_EQ(all(), Bytes{});
  EXPECT_EQ(say({0xf4}), Bytes{0xfa});
  mouse.move(1, 0, 0, 0);
  EXPECT_EQ(all(), (Bytes{0x08, 1, 0}));
}

TEST_F(Ps2Mouse, TheKnockTurnsTheWheelOn) {
  say({0xf3, 200});
  say({0xf3, 100});
  say({0xf3, 80});
  EXPECT_EQ(say({0xf2}), (Bytes{0xfa, 0x03}));
  say({0xf4});
  mouse.move(0, 0, -1, 0);
  EXPECT_EQ(all(), (Bytes{0x08, 0, 0, 0xff}));
}

TEST_F(Ps2Mouse, LongWaysTakeSeveralPackets) {
  say({0xf4});
  mouse.move(-300, 0, 0, 0);
  EXPECT_EQ(all(), (Bytes{0x18, 0x01, 0, 0x18, 0xd3, 0})) << "-255, -45";
}

TEST_F(Ps2Mouse, QuickClicksAreAllTold) {
  say({0xf4});
  mouse.move(0, 0, 0, 1);
  mouse.move(0, 0, 0, 0);
  EXPECT_EQ(all(), (Bytes{0x09, 0, 0, 0x08, 0, 0}));
}

TEST_F(Ps2Mouse, StatusShowsItsSettings) {
  say({0xe8, 3});
  say({0xf3, 40});
  say({0xe7});
  say({0xf4});
  EXPECT_EQ(say({0xe9}), (Bytes{0xfa, 0x30, 3, 40}));
}

TEST_F(Ps2Mouse, RemoteModeAnswersWhenAsked) {
  say({0xf0});
  say({0xf4});
  mouse.move(2, -2, 0, 0);
  EXPECT_EQ(all(), Bytes{});
  EXPECT_EQ(say({0xeb}), (Bytes{0xfa, 0x08, 2, 2}));
}

TEST_F(Ps2Mouse, WrapModeEchoes) {
  say({0xee});
  EXPECT_EQ(say({0x12, 0xf4}), (Bytes{0x12, 0xf4}));
  EXPECT_EQ(say({0xec}), Bytes{0xfa});
}

}  // namespace
}  // namespace lodge::devices::ps2
