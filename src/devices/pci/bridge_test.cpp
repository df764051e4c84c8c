#include "devices/pci/bridge.hpp"

#include <gtest/gtest.h>

#include "devices/pci/test_board.hpp"

namespace lodge::devices::pci {
namespace {

struct Card final : Function {
  explicit Card(const std::vector<Bar>& bars) : Function({.vendor = 0x1234, .device = 0x5678}, "card") {
    for (unsigned i = 0; i < bars.size(); ++i)
      if (bars[i].kind != BarKind::None) add_bar(i, bars[i]);
    add_interrupt_pin();
    add_express_endpoint();
  }
  using Function::set_intx;
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned) override { return 0x1000 * (index + 1) + offset; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
};

constexpr unsigned kDevice = 28;
constexpr uint64_t kNothing = 0xffffffff;

// A root port as 1c.1 with a card behind it; bus 3 is the one between.
class RootPortTest : public testing::Test {
 protected:
  RootPortTest() {
    EXPECT_TRUE(board.bridge->plug_bridge(first, kDevice, 0));
    EXPECT_TRUE(board.bridge->plug_bridge(port, kDevice, 1));
    EXPECT_TRUE(board.bridge->plug_behind(port, card));
  }
  void number_buses() { set(kPrimaryBus, 3, 0x050300); }
  void set(unsigned offset, unsigned size, uint32_t value) {
    for (unsigned i = 0; i < size; ++i) board.write(kDevice, offset + i, 1, value >> (8 * i) & 0xff, 1);
  }
  uint32_t card_read(unsigned offset, unsigned size, unsigned device = 0, unsigned bus = 3) {
    board.select(device, 0, offset, bus);
    return board.ports.read(0xcfc + (offset & 3), size);
  }
  void card_write(unsigned offset, unsigned size, uint32_t value) {
    board.select(0, 0, offset, 3);
    board.ports.write(0xcfc + (offset & 3), size, value);
  }

  test::Board board;
  RootPort first{1}, port{2};
  Card card{{{.kind = BarKind::Memory32, .size = 0x1000},
             {.kind = BarKind::Io, .size = 32},
             {.kind = BarKind::Memory64, .size = 0x4000, .prefetchable = true}}};
};

TEST_F(RootPortTest, IsABridgeOfPciExpress) {
  EXPECT_EQ(board.read(kDevice, 0, 4, 1), 0x29428086u);
  EXPECT_EQ(board.read(kDevice, 0x0a, 2, 1), 0x0604u);
  EXPECT_EQ(board.read(kDevice, 0x0e, 1, 1), 0x01u);
  EXPECT_EQ(board.read(kDevice, 0x0e, 1, 0), 0x81u) << "several functions";
  EXPECT_EQ(board.read(kDevice, 0x3d, 1, 1), 2u) << "INTB#";
  EXPECT_EQ(board.read(kDevice, 0x2c, 4, 1), 0u);
  unsigned at = board.read(kDevice, 0x34, 1, 1), express = 0;
  for (; at != 0; at = board.read(kDevice, at + 1, 1, 1))
    if (board.read(kDevice, at, 1, 1) == 0x10) express = at;
  ASSERT_NE(express, 0u);
  EXPECT_EQ(board.read(kDevice, express + 2, 2, 1), 0x0142u) << "version 2, root port, a slot";
  EXPECT_EQ(board.read(kDevice, express + 0x0c, 4, 1) >> 24, 2u) << "port 2";
  EXPECT_EQ(board.read(kDevice, express + 0x12, 2, 1), 0x2011u) << "the link is there";
  EXPECT_EQ(board.read(kDevice, express + 0x1a, 2, 1) & 0x40, 0x40u) << "and a card";
}

TEST_F(RootPortTest, TheBusBehindIsReachedByItsNumber) {
  EXPECT_EQ(card_read(0, 4), kNothing) << "buses have no numbers yet";
  number_buses();
  EXPECT_EQ(board.read(kDevice, kPrimaryBus, 4, 1), 0x00050300u);
  EXPECT_EQ(card_read(0, 4), 0x56781234u);
  EXPECT_EQ(card_read(0, 4, 1), kNothing) << "one device";
  EXPECT_EQ(card_read(0, 4, 0, 4), kNothing) << "another bus";
  EXPECT_EQ(board.read(0, 0, 2), 0x1b36u) << "bus 0 is what it was";
  set(kSecondaryBus, 1, 7);
  EXPECT_EQ(card_read(0, 4), kNothing);
  EXPECT_EQ(card_read(0, 4, 0, 7), 0x56781234u);
}

TEST_F(RootPortTest, ConfigurationInMemoryHasABusForEachMegabyte) {
  board.bridge->show_ecam(Window{test::Board::kEcam, 8 * HostBridge::kEcamBytes});
  number_buses();
  EXPECT_EQ(board.memory.read(test::Board::kEcam + (3 << 20), 4), 0x56781234u);
  EXPECT_EQ(board.memory.read(test::Board::kEcam + (3 << 20) + 0x100, 4), 0u) << "no extended capabilities";
  EXPECT_EQ(board.memory.read(test::Board::ecam(kDevice, 0x100, 1), 4), 0u);
  EXPECT_EQ(board.memory.read(test::Board::kEcam + (4 << 20), 4), kNothing);
  EXPECT_EQ(board.memory.read(test::Board::ecam(0, 0x100), 4), kNothing) << "the host bridge is a conventional function";
}

TEST_F(RootPortTest, AddressesPassByTheWindows) {
  number_buses();
  card_write(0x10, 4, 0xc0101000);
  card_write(0x14, 4, 0x4020);
  card_write(0x18, 4, 0x00200000);
  card_write(0x1c, 4, 0x9);
  card_write(0x04, 2, 3);
  EXPECT_EQ(board.memory.read(0xc0101010, 4), kNothing);
  // Memory from C0100000 to C01FFFFF.
  set(kMemoryBase, 2, 0xc010);
  set(kMemoryLimit, 2, 0xc010);
  EXPECT_EQ(board.memory.read(0xc0101010, 4), kNothing) << "the bridge does not answer yet";
  set(kCommand, 2, 3);
  EXPECT_EQ(board.memory.read(0xc0101010, 4), 0x1010u);
  set(kMemoryBase, 2, 0xc020);
  EXPECT_EQ(board.memory.read(0xc0101010, 4), kNothing) << "a closed window: its base is above its limit";
  // Ports from 4000 to 4FFF.
  EXPECT_EQ(board.ports.read(0x4024, 4), kNothing);
  set(kIoBase, 2, 0x4040);
  EXPECT_EQ(board.ports.read(0x4024, 4), 0x2004u);
  // Prefetchable memory, above 4 GiB.
  EXPECT_EQ(board.memory.read(0x900200000, 4), kNothing);
  set(kPrefetchableBase, 4, 0x00300020);
  set(kPrefetchableBaseHigh, 4, 9);
  EXPECT_EQ(board.memory.read(0x900200000, 4), kNothing);
  set(kPrefetchableLimitHigh, 4, 9);
  EXPECT_EQ(board.memory.read(0x900200000, 4), 0x3000u);
  set(kCommand, 2, 0);
  EXPECT_EQ(board.memory.read(0x900200000, 4), kNothing);
  EXPECT_EQ(board.ports.read(0x4024, 4), kNothing);
}

TEST_F(RootPortTest, PinsAreTheBridgesOwn) {
  // Device 28 by the usual wiring: INTA# of what is behind it is its own INTA#, line 0.
  card.set_intx(true);
  EXPECT_EQ(board.lines, (std::array<bool, 4>{true, false, false, false}));
  card.set_intx(false);
  EXPECT_EQ(board.line_changes, 2u);
}

TEST_F(RootPortTest, ThereIsOneDeviceBehindIt) {
  Card other({});
  EXPECT_FALSE(board.bridge->plug_behind(port, other));
  RootPort nowhere(3);
  EXPECT_FALSE(board.bridge->plug_behind(nowhere, other));
}

}  // namespace
}  // namespace lodge::devices::pci
