#include "devices/chipset/ich9_lpc.hpp"

#include <gtest/gtest.h>

namespace lodge::devices::chipset {
namespace {

struct Lpc : testing::Test {
  Lpc() {
    Ich9Lpc::Board board{.ports = ports, .memory = memory, .power = power, .isa = {}, .apic = {}};
    for (unsigned i = 0; i < board.isa.size(); ++i) board.isa[i] = IrqPin([this, i](bool up) { isa[i] = up; });
    for (unsigned i = 0; i < board.apic.size(); ++i) board.apic[i] = IrqPin([this, i](bool up) { apic[i] = up; });
    chip.emplace(std::move(board));
  }
  PortBus ports;
  MmioBus memory;
  FakeClock clock;
  unsigned offs = 0;
  AcpiPm power{IrqPin(), clock, {.gpe0_block = 0x20, .soft_off_sleep = 0}, {.power_off = [this] { ++offs; }, .changed = [] {}}};
  std::array<bool, PciIrqRouter::kIsaLines> isa{};
  std::array<bool, Ich9Lpc::kLines> apic{};
  std::optional<Ich9Lpc> chip;
};

TEST_F(Lpc, IsTheOneThatFirmwareKnows) {
  EXPECT_EQ(chip->read_config(0, 4), 0x29188086u);
  EXPECT_EQ(chip->read_config(8, 4), 0x06010002u);
  chip->write_config(4, 2, 0);
  EXPECT_EQ(chip->read_config(4, 2) & 3, 3u);
}

TEST_F(Lpc, PowerManagementAnswersWhereAndWhileItIsWanted) {
  chip->write_config(0x40, 4, 0x600);
  EXPECT_EQ(chip->read_config(0x40, 4), 0x601u);
  EXPECT_EQ(ports.read(0x604, 2), 0xffffu);
  chip->write_config(0x44, 1, 0x80);
  EXPECT_EQ(ports.read(0x604, 2), 1u) << "SCI_EN";
  EXPECT_EQ(ports.read(0x630, 4), 0x20u) << "system management is set up";
  EXPECT_EQ(ports.read(0x660, 2), 0u) << "no watchdog";
  EXPECT_EQ(chip->power_base(), 0x600);
  ports.write(0x622, 1, 0xff);
  EXPECT_EQ(ports.read(0x622, 1), 0xffu) << "GPE0's enable register";
  ports.write(0x604, 2, 0x2000);
  EXPECT_EQ(offs, 1u);
  chip->write_config(0x40, 4, 0xb000);
  EXPECT_EQ(ports.read(0x604, 2), 0xffffu);
  EXPECT_EQ(ports.read(0xb004, 2), 1u);
  chip->write_config(0x44, 1, 0);
  EXPECT_EQ(ports.read(0xb004, 2), 0xffffu);
}

TEST_F(Lpc, ALineReachesBothInterruptControllers) {
  chip->set_line(5, true);
  EXPECT_TRUE(apic[5]);
  chip->write_config(0x69, 1, 11);
  EXPECT_TRUE(isa[11]);
  chip->set_line(0, true);
  chip->write_config(0x60, 1, 11);
  chip->set_line(5, false);
  EXPECT_FALSE(apic[5]);
  EXPECT_TRUE(isa[11]) << "PIRQA shares it";
  chip->write_config(0x60, 1, 0x80);
  EXPECT_FALSE(isa[11]);
  EXPECT_TRUE(apic[0]);
}

TEST_F(Lpc, TheWatchdogIsStrappedOff) {
  chip->write_config(0xf0, 4, 0xfed1c001);
  EXPECT_EQ(memory.read(0xfed1f410, 4), 0x20u);
  EXPECT_EQ(memory.read(0xfed1f408, 8), 0u);
  EXPECT_EQ(memory.read(0xfed1f40c, 8) >> 32, 0x20u);
  memory.write(0xfed1f410, 4, 0);
  EXPECT_EQ(memory.read(0xfed1f410, 4), 0x20u);
  chip->write_config(0xf0, 4, 0);
  EXPECT_EQ(memory.read(0xfed1f410, 4), 0xffffffffu);
}

}  // namespace
}  // namespace lodge::devices::chipset
