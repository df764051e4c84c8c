#include "devices/chipset/i440fx.hpp"

#include <gtest/gtest.h>

#include <map>

namespace lodge::devices::chipset {
namespace {

struct HostBridge : testing::Test {
  I440Fx chip{[this](const ShadowArea& area, ShadowState state) {
    areas[area.base] = {area.size, state};
    ++changes;
  }};
  std::map<uint32_t, std::pair<uint32_t, ShadowState>> areas;
  unsigned changes = 0;
};

TEST_F(HostBridge, IsTheOneThatFirmwareKnows) {
  EXPECT_EQ(chip.read_config(0, 4), 0x12378086u);
  EXPECT_EQ(chip.read_config(8, 4), 0x06000002u);
  EXPECT_EQ(chip.read_config(0x2c, 4), 0x11001af4u);
  EXPECT_EQ(chip.read_config(0x72, 1), 2u);
  EXPECT_EQ(chip.read_config(4, 2) & 7, 6u);
}

TEST_F(HostBridge, ShadowsTheUpperSixtyFourKibAtOnce) {
  chip.write_config(0x59, 1, 0x30);
  ASSERT_EQ(areas.size(), 1u);
  EXPECT_EQ(areas[0xf0000], std::pair(0x10000u, (ShadowState{true, true})));
  chip.write_config(0x59, 1, 0x10);
  EXPECT_EQ(areas[0xf0000].second, (ShadowState{true, false}));
  chip.write_config(0x59, 1, 0x1f);  // its lower half is no area
  EXPECT_EQ(chip.read_config(0x59, 1), 0x10u);
  EXPECT_EQ(changes, 2u);
}

TEST_F(HostBridge, ShadowsTheRestInTwelveAreas) {
  chip.write_config(0x5a, 4, 0x33333321);
  EXPECT_EQ(areas[0xc0000], std::pair(0x4000u, (ShadowState{true, false})));
  EXPECT_EQ(areas[0xc4000].second, (ShadowState{false, true}));
  EXPECT_EQ(areas[0xdc000].second, (ShadowState{true, true}));
  EXPECT_EQ(areas.size(), 8u);
  chip.write_config(0x5e, 2, 0x2211);
  EXPECT_EQ(areas[0xe0000].second, (ShadowState{true, false}));
  EXPECT_EQ(areas[0xec000].second, (ShadowState{false, true}));
  EXPECT_EQ(areas.size(), 12u);
  chip.write_config(0x5a, 1, 0x65);  // cacheability changes nothing
  EXPECT_EQ(changes, 12u);
}

}  // namespace
}  // namespace lodge::devices::chipset
