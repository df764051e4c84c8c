#include "devices/pci/host_bridge.hpp"

#include <gtest/gtest.h>

#include "devices/chipset_ports.hpp"
#include "devices/pci/test_board.hpp"

namespace lodge::devices::pci {
namespace {

using test::Board;

struct Card final : Function {
  Card(std::string name, std::vector<std::pair<unsigned, Bar>> bars) : Function({.vendor = 0x1234, .device = 0x5678}, std::move(name)) {
    for (const auto& [index, bar] : bars) add_bar(index, bar);
    add_interrupt_pin();
  }
  using Function::set_intx;
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned) override { return 0x1000000 * (index + 1) + offset; }
  void bar_write(unsigned index, uint64_t offset, unsigned, uint64_t value) override { writes.push_back({index, offset, value}); }
  void bar_moved(unsigned index, std::optional<uint64_t> address) override { moves.emplace_back(index, address); }
  struct Write {
    unsigned index;
    uint64_t offset, value;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> writes;
  std::vector<std::pair<unsigned, std::optional<uint64_t>>> moves;
};

constexpr Bar kMemory{.kind = BarKind::Memory32, .size = 0x1000};
constexpr uint64_t kNothing = 0xffffffff;

TEST(PciHostBridge, IsTheFirstFunctionOfItsBus) {
  Board board;
  EXPECT_EQ(board.read(0, 0x00, 2), 0x1b36u);
  EXPECT_EQ(board.read(0, 0x0a, 2), 0x0600u) << "class: host bridge";
  EXPECT_EQ(board.read(1, 0x00, 4), 0xffffffffu) << "an empty slot";
}

// PCI 3.0, 3.2.2.3.2.
TEST(PciHostBridge, ConfigAddressIsADwordRegister) {
  Board board;
  int resets = 0;
  ResetControl reset([&] { ++resets; });
  ASSERT_TRUE(board.beside.attach(0xcf9, 1, reset, "reset"));
  board.ports.write(0xcf8, 4, 0xffffffff);
  EXPECT_EQ(board.ports.read(0xcf8, 4), 0x80fffffcu) << "reserved bits read as zero";
  board.ports.write(0xcf8, 1, 0x55);
  board.ports.write(0xcfa, 2, 0x5555);
  EXPECT_EQ(board.ports.read(0xcf8, 4), 0x80fffffcu) << "other widths do not reach it";
  EXPECT_EQ(resets, 0);
  board.ports.write(0xcf9, 1, 0x06);
  EXPECT_EQ(resets, 1);
  board.ports.write(0xcf8, 4, 0x00000000);
  EXPECT_EQ(board.ports.read(0xcfc, 4), 0xffffffffu) << "the enable bit is off";
  board.select(0, 0, 0, 1);
  EXPECT_EQ(board.ports.read(0xcfc, 4), 0xffffffffu) << "another bus";
}

TEST(PciHostBridge, BothMechanismsReachTheSameRegisters) {
  Board board;
  Card card("card", {{0, kMemory}});
  ASSERT_TRUE(board.bridge->plug(card, 5));
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0), 4), 0x56781234u);
  board.memory.write(Board::ecam(5, 0x3c), 1, 0x2a);
  EXPECT_EQ(board.read(5, 0x3c, 1), 0x2au);
  board.write(5, 0x0d, 1, 0x77);
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0x0c), 4), 0x00007700u);
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0x3c), 8) & 0xff, 0x2au) << "a qword in two parts";
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0x03), 2), 0x0056u) << "across dwords in bytes";
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0x100), 4), kNothing) << "a conventional function has no extended space";
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0xfc), 8) >> 32, kNothing);
  EXPECT_EQ(board.memory.read(Board::ecam(6, 0), 4), kNothing);
  EXPECT_EQ(board.memory.read(Board::kEcam + HostBridge::kEcamBytes, 4), kNothing) << "bus 1";
}

TEST(PciHostBridge, MemoryMappedConfigurationMoves) {
  constexpr uint64_t kElsewhere = 0xb0000000;
  Board board;
  Card card("card", {{0, kMemory}});
  ASSERT_TRUE(board.bridge->plug(card, 5));
  board.bridge->show_ecam(Window{kElsewhere, 256 * HostBridge::kEcamBytes});
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0), 4), kNothing);
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0) - Board::kEcam + kElsewhere, 4), 0x56781234u);
  const uint64_t bus1 = Board::ecam(5, 0) - Board::kEcam + kElsewhere + HostBridge::kEcamBytes;
  EXPECT_EQ(board.memory.read(bus1, 4), kNothing);
  board.memory.write(bus1 + 0x3c, 1, 0x2a);
  EXPECT_EQ(board.read(5, 0x3c, 1), 0u) << "another bus";
  ASSERT_TRUE(board.bridge->ecam());
  EXPECT_EQ(board.bridge->ecam()->base, kElsewhere);
  board.bridge->show_ecam({});
  EXPECT_FALSE(board.bridge->ecam());
  EXPECT_EQ(board.memory.read(Board::ecam(5, 0) - Board::kEcam + kElsewhere, 4), kNothing);
}

TEST(PciHostBridge, PlacesAreTakenOnce) {
  Board board;
  Card a("a", {}), b("b", {});
  ASSERT_TRUE(board.bridge->plug(a, 3));
  EXPECT_FALSE(board.bridge->plug(b, 3));
  EXPECT_FALSE(board.bridge->plug(b, 32));
  EXPECT_FALSE(board.bridge->plug(b, 0)) << "the bridge itself";
  EXPECT_EQ(board.read(3, 0x0e, 1), 0u);
  ASSERT_TRUE(board.bridge->plug(b, 3, 1));
  EXPECT_EQ(board.read(3, 0x0e, 1), 0x80u) << "function 0 says that there are more";
  EXPECT_EQ(board.read(3, 0x00, 4, 1), 0x56781234u);
}

TEST(PciHostBridge, BarsAnswerWhereTheyAreMoved) {
  Board board;
  Card card("card", {{0, kMemory}, {1, {.kind = BarKind::Io, .size = 0x20}}});
  ASSERT_TRUE(board.bridge->plug(card, 1));
  board.write(1, 0x10, 4, 0xc0001000);
  board.write(1, 0x14, 4, 0x2000);
  EXPECT_EQ(board.memory.read(0xc0001010, 4), kNothing) << "decoding is off";
  board.write(1, 0x04, 2, 3);
  EXPECT_EQ(board.memory.read(0xc0001010, 4), 0x1000010u);
  EXPECT_EQ(board.ports.read(0x2004, 4), 0x2000004u);
  board.ports.write(0x201f, 1, 0xee);
  EXPECT_EQ(card.writes, (std::vector<Card::Write>{{1, 0x1f, 0xee}}));

  board.write(1, 0x10, 4, 0xd0000000);
  EXPECT_EQ(board.memory.read(0xc0001010, 4), kNothing);
  EXPECT_EQ(board.memory.read(0xd0000010, 4), 0x1000010u);
  board.write(1, 0x04, 2, 1);
  EXPECT_EQ(board.memory.read(0xd0000010, 4), kNothing);
  EXPECT_EQ(board.ports.read(0x2004, 4), 0x2000004u) << "ports have a bit of their own";

  const std::vector<std::pair<unsigned, std::optional<uint64_t>>> moves{{0, 0xc0001000}, {1, 0x2000}, {0, 0xd0000000}, {0, std::nullopt}};
  EXPECT_EQ(card.moves, moves);
}

TEST(PciHostBridge, LargeBarsAnswerAbove4GiB) {
  Board board;
  Card card("card", {{2, {.kind = BarKind::Memory64, .size = uint64_t{8} << 30}}});
  ASSERT_TRUE(board.bridge->plug(card, 1));
  ASSERT_TRUE(board.bridge->assign_resources());
  EXPECT_EQ(board.read(1, 0x18, 4), 0x00000004u);
  EXPECT_EQ(board.read(1, 0x1c, 4), 0x8u);
  EXPECT_EQ(board.memory.read(0x9ffffff00, 8), 0x3000000u + 0x1ffffff00u);
  board.write(1, 0x1c, 4, 0xa);
  EXPECT_EQ(board.memory.read(0x9ffffff00, 4), kNothing);
  EXPECT_EQ(board.memory.read(0xa00000000, 4), 0x3000000u);
}

// A guest that sizes a BAR with decoding on moves it to the end of the address space for a moment.
TEST(PciHostBridge, BarsOutsideTheWindowsDoNotAnswer) {
  Board board;
  Card card("card", {{0, kMemory}, {1, {.kind = BarKind::Io, .size = 0x20}}});
  ASSERT_TRUE(board.bridge->plug(card, 1));
  board.write(1, 0x04, 2, 3);
  for (uint32_t outside : {0xfffff000u, 0xfee00000u, 0x00001000u, 0xe0000000u, 0xbffff000u, 0u}) {
    board.write(1, 0x10, 4, outside);
    EXPECT_NE(board.memory.read(outside + 0x10, 4), 0x1000010u) << std::hex << outside;
  }
  board.write(1, 0x14, 4, 0x3e0);
  EXPECT_EQ(board.ports.read(0x3e0, 4), kNothing);
  EXPECT_TRUE(card.moves.empty());
  EXPECT_EQ(board.memory.read(Board::ecam(1, 0), 4), 0x56781234u) << "configuration is not hidden by a BAR";
}

TEST(PciHostBridge, OverlappingBarWaitsForTheOther) {
  Board board;
  Card a("a", {{0, kMemory}}), b("b", {{1, kMemory}});
  ASSERT_TRUE(board.bridge->plug(a, 1));
  ASSERT_TRUE(board.bridge->plug(b, 2));
  board.write(1, 0x10, 4, 0xc0000000);
  board.write(1, 0x04, 2, 2);
  board.write(2, 0x14, 4, 0xc0000000);
  board.write(2, 0x04, 2, 2);
  EXPECT_EQ(board.memory.read(0xc0000000, 4), 0x1000000u) << "who came first stays";
  board.write(1, 0x10, 4, 0xc0008000);
  EXPECT_EQ(board.memory.read(0xc0000000, 4), 0x2000000u);
  EXPECT_EQ(board.memory.read(0xc0008000, 4), 0x1000000u);
  EXPECT_EQ(b.moves.size(), 1u);
}

TEST(PciHostBridge, ResourcesAreAssignedWithoutOverlapAndAligned) {
  Board board;
  Card a("a", {{0, kMemory}, {1, {.kind = BarKind::Io, .size = 0x20}}, {2, {.kind = BarKind::Memory64, .size = 0x8000}}});
  Card b("b", {{0, {.kind = BarKind::Memory32, .size = 0x100000}}, {1, {.kind = BarKind::Io, .size = 0x100}}});
  ASSERT_TRUE(board.bridge->plug(a, 1));
  ASSERT_TRUE(board.bridge->plug(b, 6));
  ASSERT_TRUE(board.bridge->assign_resources());
  EXPECT_EQ(board.memory.read(b.decoded(0).value() + 0xffff0, 4), 0x1000000u + 0xffff0u);
  EXPECT_EQ(board.memory.read(a.decoded(0).value(), 4), 0x1000000u);
  EXPECT_EQ(board.memory.read(a.decoded(2).value() + 0x7ff8, 4), 0x3000000u + 0x7ff8u);
  EXPECT_LT(a.decoded(2).value(), uint64_t{1} << 32) << "small ones stay where any guest reaches them";
  EXPECT_EQ(board.ports.read(a.decoded(1).value(), 4), 0x2000000u);
  EXPECT_EQ(board.ports.read(b.decoded(1).value(), 4), 0x2000000u);
  EXPECT_EQ(board.read(1, 0x3c, 1), 11u) << "device 1's INTA# is at the second line";
  EXPECT_EQ(board.read(6, 0x3c, 1), 5u);
  EXPECT_EQ(board.read(1, 0x04, 2), 3u) << "decoding is on, bus mastering is the driver's to enable";
}

TEST(PciHostBridge, RangesThatDoNotFitAreAnError) {
  Board board;
  Card card("card", {{0, {.kind = BarKind::Memory32, .size = 0x40000000}}});
  ASSERT_TRUE(board.bridge->plug(card, 1));
  const auto assigned = board.bridge->assign_resources();
  ASSERT_FALSE(assigned);
  EXPECT_NE(assigned.error().message.find("card"), std::string::npos);
}

TEST(PciHostBridge, SharedLinesAreHeldByEither) {
  Board board;
  Card a("a", {}), b("b", {}), c("c", {});
  ASSERT_TRUE(board.bridge->plug(a, 1));
  ASSERT_TRUE(board.bridge->plug(b, 5));
  ASSERT_TRUE(board.bridge->plug(c, 2));
  a.set_intx(true);
  b.set_intx(true);
  EXPECT_EQ(board.lines, (std::array{false, true, false, false}));
  a.set_intx(false);
  EXPECT_TRUE(board.lines[1]);
  c.set_intx(true);
  EXPECT_TRUE(board.lines[2]);
  b.set_intx(false);
  EXPECT_EQ(board.lines, (std::array{false, false, true, false}));
  EXPECT_EQ(board.line_changes, 3u);
}

TEST(PciHostBridge, MessagesReachTheBoard) {
  Board board;
  struct Sender final : Function {
    Sender() : Function({}, "sender") {
      add_bar(0, kMemory);
      add_msix({.vectors = 1, .bar = 0, .table_offset = 0, .pending_offset = 0x800});
    }
    using Function::msix;
    uint64_t bar_read(unsigned, uint64_t, unsigned) override { return 0; }
    void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  } sender;
  ASSERT_TRUE(board.bridge->plug(sender, 4));
  ASSERT_TRUE(board.bridge->assign_resources());
  const uint64_t table = sender.decoded(0).value();
  board.memory.write(table, 8, 0xfee00000);
  board.memory.write(table + 8, 8, 0x0000000000000055);
  board.write(4, 0x42, 2, 0x8000);
  sender.msix()->signal(0);
  EXPECT_TRUE(board.messages.empty()) << "no bus mastering yet";
  board.write(4, 0x04, 2, 6);
  EXPECT_EQ(board.messages, (std::vector<std::pair<uint64_t, uint32_t>>{{0xfee00000, 0x55}}));
}

}  // namespace
}  // namespace lodge::devices::pci
