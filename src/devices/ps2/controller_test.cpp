#include "devices/ps2/controller.hpp"

#include <gtest/gtest.h>

namespace lodge::devices::ps2 {
namespace {

class Ps2Controller : public testing::Test {
 protected:
  void command(uint8_t value) { chip.command_port().write(0, 1, value); }
  void data(uint8_t value) { chip.data_port().write(0, 1, value); }
  uint8_t status() { return static_cast<uint8_t>(chip.command_port().read(0, 1)); }
  uint8_t take() {
    EXPECT_TRUE(status() & 1) << "no byte waits";
    return static_cast<uint8_t>(chip.data_port().read(0, 1));
  }
  static constexpr bool kHasMouse = true;
  explicit Ps2Controller(bool has_mouse = kHasMouse)
      : chip({.keyboard = IrqPin([this](bool level) { edges += level; }),
              .mouse = IrqPin([this](bool level) { mouse_edges += level; }),
              .has_mouse = has_mouse,
              .reset = [this] { ++resets; },
              .a20 = [this](bool open) { gate += open ? '1' : '0'; }}) {}
  int resets = 0, edges = 0, mouse_edges = 0;
  std::string gate;
  Controller chip;
};

TEST_F(Ps2Controller, PulseOfBit0Resets) {
  command(0xfe);
  EXPECT_EQ(resets, 1);
  command(0xff);  // pulls nothing
  EXPECT_EQ(resets, 1);
}

TEST_F(Ps2Controller, TheGateOfA20IsTheOutputPortsBit1) {
  command(0xd1);
  data(0xdd);
  command(0xd0);
  EXPECT_EQ(take(), 0xdd);
  command(0xd1);
  data(0xdf);
  command(0xdd);  // the commands of later controllers
  command(0xdf);
  EXPECT_EQ(gate, "0101");
  EXPECT_EQ(resets, 0);
}

TEST_F(Ps2Controller, OutputPortBit0LowResets) {
  command(0xd1);
  data(0xdf);
  EXPECT_EQ(resets, 0);
  command(0xd0);
  EXPECT_EQ(take(), 0xdf);
  command(0xd1);
  data(0xde);
  EXPECT_EQ(resets, 1);
}

TEST_F(Ps2Controller, SelfTestAndInterfaceTest) {
  command(0xaa);
  EXPECT_EQ(take(), 0x55);
  command(0xab);
  EXPECT_EQ(take(), 0x00);
  EXPECT_EQ(status() & 1, 0);
}

TEST_F(Ps2Controller, CommandByteIsReadBack) {
  command(0x60);
  data(0x74);
  command(0x20);
  EXPECT_EQ(take(), 0x74);
  EXPECT_EQ(status() & 0x08, 0x08) << "the last write was a command";
}

class Ps2ControllerAlone : public Ps2Controller {
 protected:
  Ps2ControllerAlone() : Ps2Controller(false) {}
};

TEST_F(Ps2ControllerAlone, AuxiliaryProbeEndsAtOnce) {
  command(0xd3);
  data(0x5a);
  EXPECT_EQ(status() & 0x21, 0x01) << "the loop's byte does not come from the auxiliary port";
  EXPECT_EQ(take(), 0x5a);
  command(0xa9);
  EXPECT_NE(take(), 0x00) << "the test fails: nothing is attached";
}

TEST_F(Ps2Controller, KeyboardResetsAndIdentifies) {
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

TEST_F(Ps2Controller, CommandsWithParameterAcknowledgeBoth) {
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

TEST_F(Ps2Controller, EachByteIsAnEdgeOfTheInterrupt) {
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

TEST_F(Ps2Controller, NoInterruptWhenDisabled) {
  command(0x60);
  data(0x00);
  data(0xf2);
  EXPECT_EQ(edges, 0);
  EXPECT_EQ(take(), 0xfa);
}

TEST_F(Ps2Controller, OutputDoesNotGrowWithoutEnd) {
  for (int i = 0; i < 100000; ++i) data(0xf2);
  int waiting = 0;
  while (status() & 1) {
    take();
    ASSERT_LT(++waiting, 1000);
  }
}

TEST_F(Ps2Controller, AuxiliaryLoopComesBack) {
  command(0xd3);
  data(0x5a);
  EXPECT_EQ(status() & 0x21, 0x21);
  EXPECT_EQ(take(), 0x5a);
  command(0xa9);
  EXPECT_EQ(take(), 0x00) << "the second port works";
}

TEST_F(Ps2Controller, KeysAreTranslatedToSet1) {
  command(0x60);
  data(0x41);
  chip.key(30, true);  // A
  EXPECT_EQ(edges, 1);
  EXPECT_EQ(take(), 0x1e);
  chip.key(30, false);
  EXPECT_EQ(take(), 0x9e);
  chip.key(103, true);  // Up
  EXPECT_EQ(take(), 0xe0);
  EXPECT_EQ(take(), 0x48);
  chip.key(103, false);
  EXPECT_EQ(take(), 0xe0);
  EXPECT_EQ(take(), 0xc8);
}

TEST_F(Ps2Controller, KeysWaitWhileTheKeyboardIsDisabled) {
  command(0xad);
  chip.key(30, true);
  EXPECT_EQ(status() & 1, 0);
  command(0xae);
  EXPECT_EQ(take(), 0x1c) << "set 2, untranslated";
}

TEST_F(Ps2Controller, MouseAnswersThroughTheSecondPort) {
  command(0x60);
  data(0x03);
  command(0xd4);
  data(0xf2);
  EXPECT_EQ(status() & 0x21, 0x21);
  EXPECT_EQ(mouse_edges, 1);
  EXPECT_EQ(edges, 0);
  EXPECT_EQ(take(), 0xfa);
  EXPECT_EQ(take(), 0x00);
}

TEST_F(Ps2Controller, MouseReportsMovement) {
  command(0xd4);
  data(0xf4);
  EXPECT_EQ(take(), 0xfa);
  chip.move(5, 3, 0, display::kLeft);
  EXPECT_EQ(take(), 0x29) << "left button; up is positive, so this is down";
  EXPECT_EQ(take(), 5);
  EXPECT_EQ(take(), 0xfd);
  EXPECT_EQ(status() & 1, 0);
}

}  // namespace
}  // namespace lodge::devices::ps2
