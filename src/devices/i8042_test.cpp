#include "devices/i8042.hpp"

#include <gtest/gtest.h>

namespace lodge::devices {
namespace {

class Keyboard : public testing::Test {
 protected:
  void command(uint8_t value) { chip.command_port().write(0, 1, value); }
  void data(uint8_t value) { chip.data_port().write(0, 1, value); }
  uint8_t status() { return static_cast<uint8_t>(chip.command_port().read(0, 1)); }
  uint8_t take() {
    EXPECT_TRUE(status() & 1) << "no byte waits";
    return static_cast<uint8_t>(chip.data_port().read(0, 1));
  }
  int resets = 0, edges = 0;
  I8042 chip{IrqPin([this](bool level) { edges += level; }), [this] { ++resets; }};
};

TEST_F(Keyboard, PulseOfBit0Resets) {
  command(0xfe);
  EXPECT_EQ(resets, 1);
  command(0xff);  // pulls nothing
  EXPECT_EQ(resets, 1);
}

TEST_F(Keyboard, OutputPortBit0LowResets) {
  command(0xd1);
  data(0xdf);
  EXPECT_EQ(resets, 0);
  command(0xd0);
  EXPECT_EQ(take(), 0xdf);
  command(0xd1);
  data(0xde);
  EXPECT_EQ(resets, 1);
}

TEST_F(Keyboard, SelfTestAndInterfaceTest) {
  command(0xaa);
  EXPECT_EQ(take(), 0x55);
  command(0xab);
  EXPECT_EQ(take(), 0x00);
  EXPECT_EQ(status() & 1, 0);
}

TEST_F(Keyboard, CommandByteIsReadBack) {
  command(0x60);
  data(0x74);
  command(0x20);
  EXPECT_EQ(take(), 0x74);
  EXPECT_EQ(status() & 0x08, 0x08) << "the last write was a command";
}

TEST_F(Keyboard, AuxiliaryProbeEndsAtOnce) {
  command(0xd3);
  data(0x5a);
  EXPECT_EQ(status() & 0x21, 0x01) << "the loop's byte does not come from the auxiliary port";
  EXPECT_EQ(take(), 0x5a);
  command(0xa9);
  EXPECT_NE(take(), 0x00) << "the test fails: nothing is attached";
}

TEST_F(Keyboard, KeyboardResetsAndIdentifies) {
  data(0xff);
  EXPECT_EQ(take(), 0xfa);
  EXPECT_EQ(take(), 0xaa);
  data(0xf2);
  EXPECT_EQ(take(), 0xfa);
  EXPECT_EQ(take(), 0xab);
  EXPECT_EQ(take(), 0x83);
  data(0xee);
  EXPECT_EQ(take(), 0xee);
}

TEST_F(Keyboard, CommandsWithParameterAcknowledgeBoth) {
  data(0xed);
  EXPECT_EQ(take(), 0xfa);
  data(0x07);
  EXPECT_EQ(take(), 0xfa);
  data(0xf0);
  EXPECT_EQ(take(), 0xfa);
  data(0x00);
  EXPECT_EQ(take(), 0xfa);
  EXPECT_EQ(take(), 0x02);
}

TEST_F(Keyboard, EachByteIsAnEdgeOfTheInterrupt) {
  command(0x60);
  data(0x01);
  data(0xf2);
  EXPECT_EQ(edges, 1);
  take();
  EXPECT_EQ(edges, 2);
  take();
  take();
  EXPECT_EQ(edges, 3);
}

TEST_F(Keyboard, NoInterruptWhenDisabled) {
  command(0x60);
  data(0x00);
  data(0xf2);
  EXPECT_EQ(edges, 0);
  EXPECT_EQ(take(), 0xfa);
}

TEST_F(Keyboard, OutputDoesNotGrowWithoutEnd) {
  for (int i = 0; i < 100000; ++i) data(0xf2);
  int waiting = 0;
  while (status() & 1) {
    take();
    ASSERT_LT(++waiting, 1000);
  }
}

}  // namespace
}  // namespace lodge::devices
