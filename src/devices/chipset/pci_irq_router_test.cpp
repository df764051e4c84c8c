#include "devices/chipset/pci_irq_router.hpp"

#include <gtest/gtest.h>

#include "devices/chipset/piix3.hpp"

namespace lodge::devices::chipset {
namespace {

struct Router : testing::Test {
  std::array<IrqPin, PciIrqRouter::kIsaLines> pins() {
    std::array<IrqPin, PciIrqRouter::kIsaLines> all;
    for (unsigned i = 0; i < all.size(); ++i) all[i] = IrqPin([this, i](bool up) { level[i] = up; });
    return all;
  }
  std::array<bool, PciIrqRouter::kIsaLines> level{};
  Piix3 chip{pins()};
};

TEST_F(Router, IsAnIsaBridgeThatAlwaysAnswers) {
  EXPECT_EQ(chip.read_config(0, 4), 0x70008086u);
  EXPECT_EQ(chip.read_config(8, 4) >> 8, 0x060100u);
  chip.write_config(4, 2, 0);
  EXPECT_EQ(chip.read_config(4, 2) & 3, 3u);
}

TEST_F(Router, LeadsNowhereAtFirst) {
  EXPECT_EQ(chip.read_config(0x60, 4), 0x80808080u);
  chip.set_line(0, true);
  EXPECT_EQ(level, decltype(level){});
}

TEST_F(Router, LeadsWhereItsRegisterSays) {
  chip.write_config(0x60, 4, 0x0b0b0a0a);
  chip.set_line(0, true);
  EXPECT_TRUE(level[10]);
  chip.set_line(1, true);
  chip.set_line(0, false);
  EXPECT_TRUE(level[10]) << "the other line still holds it";
  chip.set_line(1, false);
  EXPECT_FALSE(level[10]);
}

TEST_F(Router, ALineThatIsUpMovesWithItsRoute) {
  chip.write_config(0x62, 1, 0x05);
  chip.set_line(2, true);
  EXPECT_TRUE(level[5]);
  chip.write_config(0x62, 1, 0x07);
  EXPECT_FALSE(level[5]);
  EXPECT_TRUE(level[7]);
  chip.write_config(0x62, 1, 0x87);
  EXPECT_FALSE(level[7]);
}

TEST_F(Router, ReservedInterruptsAreNone) {
  chip.set_line(3, true);
  for (const unsigned reserved : {0u, 1u, 2u, 8u, 13u}) {
    chip.write_config(0x63, 1, reserved);
    EXPECT_EQ(level, decltype(level){}) << reserved;
  }
}

}  // namespace
}  // namespace lodge::devices::chipset
