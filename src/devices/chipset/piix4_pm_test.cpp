#include "devices/chipset/piix4_pm.hpp"

#include <gtest/gtest.h>

namespace lodge::devices::chipset {
namespace {

struct Offset final : BytePortDevice {
  uint8_t read_byte(uint64_t offset) override { return static_cast<uint8_t>(offset); }
  void write_byte(uint64_t, uint8_t) override {}
};

struct Power : testing::Test {
  PortBus ports;
  Offset block, other;
  std::optional<Piix4Pm> chip = std::make_optional<Piix4Pm>(ports, block);
};

TEST_F(Power, ItsPortsAnswerWhereAndWhenTheyAreWanted) {
  chip->write_config(0x40, 4, 0x600);
  EXPECT_EQ(chip->read_config(0x40, 4), 0x601u);
  EXPECT_EQ(ports.read(0x604, 1), 0xffu);
  chip->write_config(0x80, 1, 1);
  EXPECT_EQ(ports.read(0x604, 1), 4u);
  EXPECT_EQ(ports.read(0x63f, 1), 0x3fu);
  chip->write_config(0x40, 4, 0xb000);
  EXPECT_EQ(ports.read(0x604, 1), 0xffu);
  EXPECT_EQ(ports.read(0xb001, 1), 1u);
  chip->write_config(0x80, 1, 0);
  EXPECT_EQ(ports.read(0xb001, 1), 0xffu);
}

TEST_F(Power, APlaceThatIsTakenStaysTaken) {
  ASSERT_TRUE(ports.attach(0x608, 1, other, "other"));
  chip->write_config(0x80, 1, 1);
  chip->write_config(0x40, 4, 0x600);
  EXPECT_EQ(ports.read(0x604, 1), 0xffu);
  EXPECT_EQ(ports.read(0x608, 1), 0u);
  chip.reset();
  EXPECT_EQ(ports.read(0x608, 1), 0u);
}

TEST_F(Power, SaysThatSystemManagementIsSetUp) { EXPECT_EQ(chip->read_config(0x5b, 1), 2u); }

}  // namespace
}  // namespace lodge::devices::chipset
