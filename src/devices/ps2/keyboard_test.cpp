#include "devices/ps2/keyboard.hpp"

#include <gtest/gtest.h>
#include <linux/input-event-codes.h>

#include <set>
#include <vector>

#include "devices/ps2/scan_codes.hpp"
#include "display/keys.hpp"

namespace lodge::devices::ps2 {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes all_of(PortDevice& device) {
  Bytes bytes;
  while (const auto byte = device.send()) bytes.push_back(*byte);
  return bytes;
}

TEST(Ps2Keyboard, SendsSet2) {
  Keyboard keyboard;
  keyboard.key(KEY_A, true);
  keyboard.key(KEY_A, false);
  EXPECT_EQ(all_of(keyboard), (Bytes{0x1c, 0xf0, 0x1c}));
  keyboard.key(KEY_F7, true);
  keyboard.key(KEY_RIGHTCTRL, false);
  EXPECT_EQ(all_of(keyboard), (Bytes{0x83, 0xe0, 0xf0, 0x14}));
}

TEST(Ps2Keyboard, SendsSet1WhenAsked) {
  Keyboard keyboard;
  keyboard.receive(0xf0);
  keyboard.receive(1);
  EXPECT_EQ(all_of(keyboard), (Bytes{0xfa, 0xfa}));
  keyboard.key(KEY_A, true);
  keyboard.key(KEY_DELETE, false);
  EXPECT_EQ(all_of(keyboard), (Bytes{0x1e, 0xe0, 0xd3}));
}

TEST(Ps2Keyboard, PauseHasNoRelease) {
  Keyboard keyboard;
  keyboard.key(KEY_PAUSE, true);
  keyboard.key(KEY_PAUSE, false);
  EXPECT_EQ(all_of(keyboard), (Bytes{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}));
}

TEST(Ps2Keyboard, DisabledItIsSilent) {
  Keyboard keyboard;
  keyboard.receive(0xf5);
  keyboard.key(KEY_A, true);
  EXPECT_EQ(all_of(keyboard), Bytes{0xfa});
  keyboard.receive(0xf4);
  keyboard.key(KEY_A, true);
  EXPECT_EQ(all_of(keyboard), (Bytes{0xfa, 0x1c}));
}

TEST(Ps2Keyboard, ResendsItsLastByte) {
  Keyboard keyboard;
  keyboard.key(KEY_A, true);
  EXPECT_EQ(all_of(keyboard), Bytes{0x1c});
  keyboard.receive(0xfe);
  EXPECT_EQ(all_of(keyboard), Bytes{0x1c});
  keyboard.receive(0x00);
  EXPECT_EQ(all_of(keyboard), Bytes{0xfe}) << "what it does not know it wants again";
}

TEST(Ps2Keyboard, CommandInPlaceOfAParameterCounts) {
  Keyboard keyboard;
  keyboard.receive(0xed);
  keyboard.receive(0xf2);
  EXPECT_EQ(all_of(keyboard), (Bytes{0xfa, 0xfa, 0xab, 0x83}));
}

TEST(Ps2Keyboard, AGuestThatDoesNotReadLosesKeysNotMemory) {
  Keyboard keyboard;
  for (int i = 0; i < 100000; ++i) keyboard.key(KEY_A, true);
  EXPECT_LT(all_of(keyboard).size(), 10000U);
}

TEST(Ps2ScanCodes, EveryKeyIsFoundAgainByBothSets) {
  std::set<std::pair<uint8_t, bool>> seen;
  for (display::Key key = 1; key < 256; ++key) {
    const auto code = display::scan_code_of(key);
    if (!code) continue;
    EXPECT_EQ(display::key_of(*code), key);
    EXPECT_TRUE(seen.insert({code->code, code->extended}).second) << key;
    EXPECT_EQ(set1_of_set2(set2_of_set1(code->code)), code->code) << key;
  }
  EXPECT_GT(seen.size(), 100U);
}

}  // namespace
}  // namespace lodge::devices::ps2
