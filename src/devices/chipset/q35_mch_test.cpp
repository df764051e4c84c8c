#include "devices/chipset/q35_mch.hpp"

#include <gtest/gtest.h>

#include <map>

namespace lodge::devices::chipset {
namespace {

struct Mch : testing::Test {
  Q35Mch chip{[this](const ShadowArea& area, ShadowState state) { areas[area.base] = state; },
              [this](std::optional<pci::Window> where) { ecam = where; }};
  std::map<uint32_t, ShadowState> areas;
  std::optional<pci::Window> ecam;
};

TEST_F(Mch, IsTheOneThatFirmwareKnows) {
  EXPECT_EQ(chip.read_config(0, 4), 0x29c08086u);
  EXPECT_EQ(chip.read_config(8, 4), 0x06000002u);
  EXPECT_EQ(chip.read_config(0x2c, 4), 0x11001af4u);
  EXPECT_EQ(chip.read_config(0x60, 4), 0xe0000000u);
  chip.write_config(0x9d, 1, 0x4a);
  EXPECT_EQ(chip.read_config(0x9d, 1), 2u) << "no SMRAM to be opened";
}

TEST_F(Mch, ShadowsAsItsForerunnersDid) {
  chip.write_config(0x90, 1, 0x3f);
  EXPECT_EQ(areas[0xf0000], (ShadowState{true, true}));
  EXPECT_EQ(chip.read_config(0x90, 1), 0x30u);
  chip.write_config(0x91, 2, 0x0021);
  EXPECT_EQ(areas[0xc0000], (ShadowState{true, false}));
  EXPECT_EQ(areas[0xc4000], (ShadowState{false, true}));
  EXPECT_EQ(areas.size(), 3u);
}

TEST_F(Mch, ConfigurationIsMemoryWhereAndWhileItIsWanted) {
  EXPECT_FALSE(chip.ecam());
  chip.write_config(0x60, 4, 0xb0000001);
  ASSERT_TRUE(ecam);
  EXPECT_EQ(ecam->base, 0xb0000000u);
  EXPECT_EQ(ecam->size, 256u << 20);
  chip.write_config(0x60, 4, 0xbc000003);  // 128 MiB: bit 26 does not count
  EXPECT_EQ(ecam->base, 0xb8000000u);
  EXPECT_EQ(ecam->size, 128u << 20);
  chip.write_config(0x60, 4, 0xbc000005);
  EXPECT_EQ(ecam->base, 0xbc000000u);
  EXPECT_EQ(ecam->size, 64u << 20);
  chip.write_config(0x64, 4, 0xffffff01);
  EXPECT_EQ(chip.read_config(0x64, 4), 1u);
  EXPECT_EQ(ecam->base, 0x1bc000000u);
  chip.write_config(0x60, 4, 0xb0000007);
  EXPECT_FALSE(ecam) << "a length that is none";
  chip.write_config(0x60, 4, 0xb0000001);
  chip.write_config(0x60, 4, 0xb0000000);
  EXPECT_FALSE(ecam);
}

}  // namespace
}  // namespace lodge::devices::chipset
