#include "devices/vga/card.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "devices/pci/test_board.hpp"

namespace lodge::devices::vga {
namespace {

class FakeMemory final : public LinearMemory {
 public:
  std::span<uint8_t> bytes() override { return memory; }
  void show(std::optional<uint64_t> address) override { shown = address; }
  DirtyPages take_dirty() override { return std::exchange(dirty, DirtyPages(64)); }

  std::vector<uint8_t> memory = std::vector<uint8_t>(16 << 20);
  std::optional<uint64_t> shown;
  DirtyPages dirty = DirtyPages(64);
};

class VgaCard : public testing::Test {
 protected:
  VgaCard() {
    EXPECT_TRUE(board.bridge->plug(card, 2));
    EXPECT_TRUE(card.attach(board.ports, board.memory));
  }
  void place(unsigned bar, uint32_t address) {
    board.write(2, pci::kBar0 + 4 * bar, 4, address);
    board.write(2, pci::kCommand, 2, pci::kMemorySpace | pci::kIoSpace);
  }
  void registers(uint64_t offset, unsigned size, uint64_t value) { board.memory.write(kRegisters + offset, size, value); }
  uint64_t registers(uint64_t offset, unsigned size) { return board.memory.read(kRegisters + offset, size); }

  static constexpr uint32_t kMemory = 0xc1000000, kRegisters = 0xc2000000;
  const std::vector<uint8_t> rom = std::vector<uint8_t>(3000, 0x55);
  FakeMemory memory;
  FakeClock clock;
  pci::test::Board board;
  Card card{memory, nullptr, rom, clock};
};

TEST_F(VgaCard, MemoryIsShownWhereItsBarIs) {
  EXPECT_FALSE(memory.shown);
  place(0, kMemory);
  EXPECT_EQ(memory.shown, kMemory);
  board.write(2, pci::kCommand, 2, 0);
  EXPECT_FALSE(memory.shown);
}

TEST_F(VgaCard, RomIsFilledUpAndAnswersWhenEnabled) {
  board.write(2, pci::kExpansionRom, 4, 0xffffffff);
  EXPECT_EQ(board.read(2, pci::kExpansionRom, 4), 0xfffff001U) << "4 KiB";
  board.write(2, pci::kExpansionRom, 4, 0xc3000000);
  board.write(2, pci::kCommand, 2, pci::kMemorySpace);
  EXPECT_EQ(board.memory.read(0xc3000000, 4), 0xffffffffU) << "not enabled";
  board.write(2, pci::kExpansionRom, 4, 0xc3000001);
  EXPECT_EQ(board.memory.read(0xc3000000, 4), 0x55555555U);
  EXPECT_EQ(board.memory.read(0xc3000000 + 3000, 2), 0xffffU);
  board.memory.write(0xc3000000, 4, 0);
  EXPECT_EQ(board.memory.read(0xc3000000, 1), 0x55U);
}

TEST_F(VgaCard, RegistersAnswerInTheirBar) {
  place(2, kRegisters);
  EXPECT_EQ(registers(0x500, 2), kDispiVersion);
  registers(0x502, 2, 640);
  registers(0x504, 2, 480);
  registers(0x506, 2, 32);
  registers(0x508, 2, kDispiEnabled);
  EXPECT_EQ(registers(0x500 + 2 * kDispiVirtualWidth, 2), 640U);
  EXPECT_EQ(registers(0x600, 4), 8U);
  EXPECT_EQ(registers(0x604, 4), 0x1e1e1e1eU);
  registers(0x400 + 2, 1, 0x67);  // port 3C2
  EXPECT_EQ(registers(0x400 + 0xc, 1), 0x67U);
}

TEST_F(VgaCard, MonitorDescribesItself) {
  place(2, kRegisters);
  EXPECT_EQ(registers(0, 8), 0x00ffffffffffff00U);
  unsigned sum = 0;
  for (unsigned i = 0; i < kEdidBytes; ++i) sum += static_cast<unsigned>(registers(i, 1));
  EXPECT_EQ(sum % 256, 0U);
  const auto at = [&](unsigned i) { return static_cast<unsigned>(registers(i, 1)); };
  EXPECT_EQ(at(54 + 2) | (at(54 + 4) & 0xf0) << 4, Card::kPreferredWidth);
  EXPECT_EQ(at(54 + 5) | (at(54 + 7) & 0xf0) << 4, Card::kPreferredHeight);
}

TEST_F(VgaCard, UnchangedScreenIsLeftAlone) {
  place(2, kRegisters);
  registers(0x502, 2, 640);
  registers(0x504, 2, 480);
  registers(0x506, 2, 32);
  registers(0x508, 2, kDispiEnabled);
  display::Picture picture;
  display::Damage damage;
  card.refresh(picture, damage, 0, true);
  ASSERT_TRUE(picture.has_size(640, 480));
  memory.memory[0] = 1;  // behind the log's back
  damage.clear();
  card.refresh(picture, damage, 0, false);
  EXPECT_TRUE(damage.empty());
  memory.dirty[0] = 1;
  card.refresh(picture, damage, 0, false);
  EXPECT_EQ(damage.areas().size(), 1U);
}

}  // namespace
}  // namespace lodge::devices::vga
