#include "devices/usb/keyboard.hpp"

#include <gtest/gtest.h>
#include <linux/input-event-codes.h>

namespace lodge::devices::usb {
namespace {

using Bytes = std::vector<uint8_t>;

class UsbKeyboard : public testing::Test {
 protected:
  UsbKeyboard() {
    keyboard.set_wake([this](unsigned endpoint) { woken = endpoint; });
  }
  void configure() { EXPECT_TRUE(keyboard.control_out({0, 9, 1, 0, 0}, {})); }
  void press(display::Key key) { keyboard.key(key, true); }
  void release(display::Key key) { keyboard.key(key, false); }
  Bytes next() { return keyboard.interrupt_in(1).value_or(Bytes{}); }
  Keyboard keyboard;
  unsigned woken = 0;
};

TEST_F(UsbKeyboard, IsOneForFirmwareToo) {
  const auto device = keyboard.control_in({0x80, 6, 0x0100, 0, 64});
  ASSERT_TRUE(device);
  EXPECT_EQ(device->size(), 18u);
  const auto configuration = keyboard.control_in({0x80, 6, 0x0200, 0, 255});
  ASSERT_TRUE(configuration);
  EXPECT_EQ(configuration->size(), 34u);
  EXPECT_EQ(Bytes(configuration->begin() + 14, configuration->begin() + 17), (Bytes{3, 1, 1})) << "HID, boot, keyboard";
  const auto report = keyboard.control_in({0x81, 6, 0x2200, 0, 255});
  ASSERT_TRUE(report);
  EXPECT_EQ(report->size(), (*configuration)[18 + 7]);
  EXPECT_EQ(keyboard.control_in({0x81, 6, 0x2100, 0, 9})->at(1), 0x21);
  EXPECT_TRUE(keyboard.control_out({0x21, 9, 0x0200, 0, 1}, Bytes{7})) << "lights";
}

TEST_F(UsbKeyboard, SaysWhatIsDown) {
  press(KEY_A);
  EXPECT_EQ(next(), Bytes{}) << "nobody has configured it";
  configure();
  press(KEY_LEFTSHIFT);
  EXPECT_EQ(woken, 1u);
  press(KEY_A);
  press(KEY_A);  // the person's keyboard repeats it; the guest does so itself
  press(KEY_1);
  release(KEY_A);
  release(KEY_LEFTSHIFT);
  EXPECT_EQ(next(), (Bytes{2, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(next(), (Bytes{2, 0, 4, 0, 0, 0, 0, 0}));
  EXPECT_EQ(next(), (Bytes{2, 0, 4, 0x1e, 0, 0, 0, 0}));
  EXPECT_EQ(next(), (Bytes{2, 0, 0x1e, 0, 0, 0, 0, 0}));
  EXPECT_EQ(next(), (Bytes{0, 0, 0x1e, 0, 0, 0, 0, 0}));
  EXPECT_EQ(next(), Bytes{});
  EXPECT_EQ(*keyboard.control_in({0xa1, 1, 0x0100, 0, 8}), (Bytes{0, 0, 0x1e, 0, 0, 0, 0, 0})) << "GET_REPORT repeats it";
}

TEST_F(UsbKeyboard, TooManyKeysAreTooMany) {
  configure();
  for (const display::Key key : {KEY_Q, KEY_W, KEY_E, KEY_R, KEY_T, KEY_Y, KEY_U}) press(key);
  Bytes last;
  for (Bytes one = next(); !one.empty(); one = next()) last = one;
  EXPECT_EQ(last, (Bytes{0, 0, 1, 1, 1, 1, 1, 1}));
  release(KEY_Q);
  EXPECT_EQ(next(), (Bytes{0, 0, 0x1a, 0x08, 0x15, 0x17, 0x1c, 0x18}));
}

TEST_F(UsbKeyboard, OtherKeysAreNone) {
  configure();
  press(KEY_WLAN);
  release(KEY_B);  // that is not down
  EXPECT_EQ(next(), Bytes{});
}

TEST_F(UsbKeyboard, AResetForgets) {
  configure();
  press(KEY_LEFTCTRL);
  press(KEY_C);
  static_cast<void>(next());
  keyboard.reset();
  EXPECT_FALSE(keyboard.configured());
  configure();
  EXPECT_EQ(next(), Bytes{});
  press(KEY_D);
  EXPECT_EQ(next(), (Bytes{0, 0, 7, 0, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace lodge::devices::usb
