#include "devices/vga/vga.hpp"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

namespace lodge::devices::vga {
namespace {

class VgaRegisters : public testing::Test {
 protected:
  void out(uint16_t port, uint8_t value) { chip.ports().write(port - kPorts, 1, value); }
  uint8_t in(uint16_t port) { return static_cast<uint8_t>(chip.ports().read(port - kPorts, 1)); }
  void set(uint16_t index_port, uint8_t index, uint8_t value) {
    chip.ports().write(index_port - kPorts, 2, static_cast<uint32_t>(value << 8 | index));
  }
  void poke(uint32_t offset, uint8_t value) { chip.window().write(offset, 1, value); }
  uint8_t peek(uint32_t offset) { return static_cast<uint8_t>(chip.window().read(offset, 1)); }
  uint8_t plane(unsigned which, uint32_t offset) const { return memory[4 * offset + which]; }
  void dispi(uint16_t index, uint16_t value) {
    chip.dispi_ports().write(0, 2, index);
    chip.dispi_ports().write(1, 2, value);
  }
  uint16_t dispi(uint16_t index) {
    chip.dispi_ports().write(0, 2, index);
    return static_cast<uint16_t>(chip.dispi_ports().read(1, 2));
  }
  // A planar mode with 64 KiB at A0000, all planes written and all bits taken.
  void planar() {
    set(kSequencerIndex, kMemoryMode, 0x06);
    set(kSequencerIndex, kMapMask, 0x0f);
    set(kGraphicsIndex, kMiscellaneous, 0x05);
    set(kGraphicsIndex, kBitMask, 0xff);
    set(kGraphicsIndex, kMode, 0);
    set(kGraphicsIndex, kDataRotate, 0);
    set(kGraphicsIndex, kEnableSetReset, 0);
  }

  std::vector<uint8_t> memory = std::vector<uint8_t>(1 << 20);
  FakeClock clock;
  Vga chip{memory, clock};
};

TEST_F(VgaRegisters, IndexedRegistersKeepTheBitsTheyHave) {
  set(kSequencerIndex, kMemoryMode, 0xff);
  out(kSequencerIndex, kMemoryMode);
  EXPECT_EQ(in(kSequencerData), 0x0e);
  set(kGraphicsIndex, kReadMap, 0xff);
  out(kGraphicsIndex, kReadMap);
  EXPECT_EQ(in(kGraphicsData), 0x03);
}

TEST_F(VgaRegisters, AttributeIndexAndDataTakeTurns) {
  in(kColorStatus1);
  out(kAttributeIndex, 0x03);
  out(kAttributeIndex, 0x2a);
  out(kAttributeIndex, 0x03);
  EXPECT_EQ(in(kAttributeData), 0x2a);
  in(kColorStatus1);  // begins anew with the index
  out(kAttributeIndex, 0x20 | kAttributeMode);
  out(kAttributeIndex, 0x0c);
  in(kColorStatus1);
  out(kAttributeIndex, 0x20 | kAttributeMode);
  EXPECT_EQ(in(kAttributeData), 0x0c);
}

TEST_F(VgaRegisters, CrtcIsWhereTheMiscRegisterSays) {
  EXPECT_EQ(in(kMiscRead) & 1, 1);
  set(kColorCrtcIndex, kOffset, 40);
  EXPECT_EQ(in(kColorCrtcData), 40);
  EXPECT_EQ(in(kMonoCrtcData), 0xff);
  out(kMiscWrite, 0x66);
  EXPECT_EQ(in(kColorCrtcData), 0xff);
  EXPECT_EQ(in(kMonoCrtcData), 40);
}

TEST_F(VgaRegisters, ProtectionCoversTheFirstEightCrtcRegisters) {
  set(kColorCrtcIndex, kHorizontalTotal, 0x5f);
  set(kColorCrtcIndex, kOverflow, 0x0f);
  set(kColorCrtcIndex, kVerticalRetraceEnd, 0x8e);
  set(kColorCrtcIndex, kHorizontalTotal, 0x11);
  set(kColorCrtcIndex, kOverflow, 0xf0);
  out(kColorCrtcIndex, kHorizontalTotal);
  EXPECT_EQ(in(kColorCrtcData), 0x5f);
  out(kColorCrtcIndex, kOverflow);
  EXPECT_EQ(in(kColorCrtcData), 0x1f) << "only line compare's bit changes";
  set(kColorCrtcIndex, kStartLow, 7);
  out(kColorCrtcIndex, kStartLow);
  EXPECT_EQ(in(kColorCrtcData), 7);
}

TEST_F(VgaRegisters, ColorsAreWrittenAndReadByThrees) {
  out(kDacWriteIndex, 5);
  for (const uint8_t value : {1, 2, 3, 4, 5, 6}) out(kDacData, value);
  out(kDacReadIndex, 5);
  EXPECT_EQ(in(kDacReadIndex), 3) << "the state: it reads";
  for (const uint8_t value : {1, 2, 3, 4, 5, 6}) EXPECT_EQ(in(kDacData), value);
  const State state = chip.take_snapshot().state;
  EXPECT_EQ(state.color(5), 0x04080cU) << "six bits a colour";
}

TEST_F(VgaRegisters, RetraceFollowsTheClock) {
  bool shown = false, retrace = false;
  for (int i = 0; i < 200; ++i) {
    const uint8_t status = in(kColorStatus1);
    shown |= (status & 0x09) == 0;
    retrace |= (status & 0x09) == 0x09;
    clock.advance(kSecondNs / 70 / 97);
  }
  EXPECT_TRUE(shown);
  EXPECT_TRUE(retrace);
}

TEST_F(VgaRegisters, WindowLiesWhereTheMapSays) {
  planar();
  poke(0x10, 0x5a);
  EXPECT_EQ(plane(0, 0x10), 0x5a);
  EXPECT_EQ(peek(0x18000), 0xff) << "B8000 is not decoded";
  set(kGraphicsIndex, kMiscellaneous, 0x0c);
  EXPECT_EQ(peek(0x10), 0xff);
  poke(0x18020, 0x77);
  EXPECT_EQ(plane(0, 0x20), 0x77);
  out(kMiscWrite, 0x65);  // RAM off
  EXPECT_EQ(peek(0x18020), 0xff);
}

TEST_F(VgaRegisters, OddAndEvenAddressesAreTwoPlanes) {
  set(kSequencerIndex, kMemoryMode, 0x02);
  set(kSequencerIndex, kMapMask, 0x03);
  set(kGraphicsIndex, kMode, kHostOddEven);
  set(kGraphicsIndex, kMiscellaneous, 0x0e);
  set(kGraphicsIndex, kBitMask, 0xff);
  chip.window().write(0x18000 + 160, 2, 0x1f41);
  EXPECT_EQ(plane(0, 160), 0x41);
  EXPECT_EQ(plane(1, 160), 0x1f);
  EXPECT_EQ(plane(2, 160), 0);
  EXPECT_EQ(chip.window().read(0x18000 + 160, 2), 0x1f41U);
}

TEST_F(VgaRegisters, WriteModeZeroMasksRotatesAndCombines) {
  planar();
  poke(0, 0xf0);
  peek(0);
  set(kGraphicsIndex, kBitMask, 0x0f);
  set(kGraphicsIndex, kDataRotate, 4);
  poke(0, 0xa0);
  EXPECT_EQ(plane(3, 0), 0xfa);
  set(kGraphicsIndex, kBitMask, 0xff);
  set(kGraphicsIndex, kDataRotate, 0x18);  // XOR
  peek(0);
  poke(0, 0xff);
  EXPECT_EQ(plane(0, 0), 0x05);
  set(kGraphicsIndex, kDataRotate, 0);
  set(kGraphicsIndex, kEnableSetReset, 0x03);
  set(kGraphicsIndex, kSetReset, 0x01);
  poke(0, 0x33);
  EXPECT_EQ(plane(0, 0), 0xff);
  EXPECT_EQ(plane(1, 0), 0x00);
  EXPECT_EQ(plane(2, 0), 0x33);
}

TEST_F(VgaRegisters, WriteModeOneCopiesTheLatches) {
  planar();
  for (unsigned i = 0; i < 4; ++i) {
    set(kSequencerIndex, kMapMask, static_cast<uint8_t>(1 << i));
    poke(8, static_cast<uint8_t>(0x10 + i));
  }
  set(kSequencerIndex, kMapMask, 0x0f);
  set(kGraphicsIndex, kMode, 1);
  peek(8);
  poke(9, 0xee);
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(plane(i, 9), 0x10 + i);
}

TEST_F(VgaRegisters, WriteModeTwoTakesAColor) {
  planar();
  set(kGraphicsIndex, kMode, 2);
  set(kGraphicsIndex, kBitMask, 0x81);
  peek(0);
  poke(0, 0x05);
  EXPECT_EQ(plane(0, 0), 0x81);
  EXPECT_EQ(plane(1, 0), 0x00);
  EXPECT_EQ(plane(2, 0), 0x81);
}

TEST_F(VgaRegisters, WriteModeThreeMasksWithTheData) {
  planar();
  set(kGraphicsIndex, kMode, 3);
  set(kGraphicsIndex, kSetReset, 0x02);
  poke(0, 0x3c);
  EXPECT_EQ(plane(1, 0), 0x3c);
  EXPECT_EQ(plane(0, 0), 0x00);
}

TEST_F(VgaRegisters, ReadModeOneComparesColors) {
  planar();
  set(kGraphicsIndex, kMode, 2);
  poke(0, 0x05);
  set(kGraphicsIndex, kMode, 2 | kReadMode1);
  set(kGraphicsIndex, kColorCompare, 0x05);
  set(kGraphicsIndex, kColorDontCare, 0x0f);
  EXPECT_EQ(peek(0), 0xff);
  set(kGraphicsIndex, kColorCompare, 0x04);
  EXPECT_EQ(peek(0), 0x00);
  set(kGraphicsIndex, kColorDontCare, 0x0e);
  EXPECT_EQ(peek(0), 0xff) << "plane 0 does not count";
}

TEST_F(VgaRegisters, Chain4IsLinearUnderTheMapMask) {
  planar();
  set(kSequencerIndex, kMemoryMode, 0x0e);
  chip.window().write(0x100, 4, 0x44332211);
  EXPECT_EQ(memory[0x100], 0x11);
  EXPECT_EQ(memory[0x103], 0x44);
  set(kSequencerIndex, kMapMask, 0x02);
  chip.window().write(0x100, 4, 0xffffffff);
  EXPECT_EQ(chip.window().read(0x100, 4), 0x4433ff11U);
}

TEST_F(VgaRegisters, ExtendedModeIsSetWhileItIsOff) {
  EXPECT_EQ(dispi(kDispiId), kDispiVersion);
  EXPECT_EQ(dispi(kDispiMemory64K), memory.size() >> 16);
  dispi(kDispiWidth, 640);
  dispi(kDispiHeight, 480);
  dispi(kDispiBpp, 8);
  memory[100] = 7;
  dispi(kDispiEnable, kDispiEnabled | kDispiLinear);
  EXPECT_EQ(memory[100], 0) << "the mode begins black";
  EXPECT_EQ(dispi(kDispiVirtualWidth), 640);
  EXPECT_EQ(dispi(kDispiVirtualHeight), memory.size() / 640);
  dispi(kDispiWidth, 800);
  EXPECT_EQ(dispi(kDispiWidth), 640);
  dispi(kDispiEnable, kDispiEnabled | kDispiGetCapabilities);
  EXPECT_EQ(dispi(kDispiWidth), kMaximumWidth);
}

TEST_F(VgaRegisters, ModesThatCannotBeAreRefused) {
  dispi(kDispiWidth, kMaximumWidth + 8);
  dispi(kDispiHeight, 0);
  dispi(kDispiBpp, 17);
  dispi(kDispiEnable, kDispiEnabled);
  EXPECT_EQ(dispi(kDispiEnable), 0) << "there is no mode to enable";
  EXPECT_EQ(dispi(999), 0);
  dispi(999, 5);
}

TEST_F(VgaRegisters, BanksReachAllMemoryOfAnExtendedMode) {
  set(kGraphicsIndex, kMiscellaneous, 0x05);
  dispi(kDispiWidth, 640);
  dispi(kDispiHeight, 480);
  dispi(kDispiBpp, 8);
  dispi(kDispiEnable, kDispiEnabled);
  dispi(kDispiBank, 3);
  poke(5, 0x42);
  EXPECT_EQ(memory[0x30005], 0x42);
  dispi(kDispiBank, 0xffff);
  poke(5, 0x43);
  EXPECT_EQ(memory[0xf0005], 0x43) << "the bank stays within memory";
}

TEST_F(VgaRegisters, EveryChangeIsSeenOnce) {
  static_cast<void>(chip.take_snapshot());
  EXPECT_FALSE(chip.take_snapshot().changed);
  in(kMiscRead);
  EXPECT_FALSE(chip.take_snapshot().changed);
  set(kColorCrtcIndex, kStartLow, 1);
  EXPECT_TRUE(chip.take_snapshot().changed);
  planar();
  static_cast<void>(chip.take_snapshot());
  poke(0, 1);
  EXPECT_TRUE(chip.take_snapshot().changed);
  EXPECT_FALSE(chip.take_snapshot().changed);
}

// --- Cells in memory of their own

class FakeCells final : public CellWindow {
 public:
  std::span<uint8_t> cells() override { return bytes; }
  void show_cells(bool show) override {
    shown = show;
    ++changes;
  }
  bool take_cells_written() override { return std::exchange(written, false); }

  std::vector<uint8_t> bytes = std::vector<uint8_t>(kBytes);
  bool shown = false, written = false;
  int changes = 0;
};

class VgaCells : public VgaRegisters {
 protected:
  void out(uint16_t port, uint8_t value) { with_cells.ports().write(port - kPorts, 1, value); }
  void set(uint16_t index_port, uint8_t index, uint8_t value) {
    with_cells.ports().write(index_port - kPorts, 2, static_cast<uint32_t>(value << 8 | index));
  }
  void text() {
    set(kSequencerIndex, kMemoryMode, 0x02);
    set(kSequencerIndex, kMapMask, 0x03);
    set(kGraphicsIndex, kMode, kHostOddEven);
    set(kGraphicsIndex, kBitMask, 0xff);
    set(kGraphicsIndex, kMiscellaneous, 0x0e);
  }
  FakeCells cells;
  Vga with_cells{memory, clock, &cells};
};

TEST_F(VgaCells, AreShownInTextModesOnly) {
  memory[4 * 160] = 'A';
  memory[4 * 160 + 1] = 0x1f;
  text();
  EXPECT_TRUE(cells.shown);
  EXPECT_EQ(cells.bytes[160], 'A') << "what was there before";
  EXPECT_EQ(cells.bytes[161], 0x1f);
  for (const auto& [port, index, value] : std::vector<std::array<uint16_t, 3>>{{kSequencerIndex, kMapMask, 0x04},
                                                                               {kSequencerIndex, kMemoryMode, 0x06},
                                                                               {kGraphicsIndex, kMode, 0x01},
                                                                               {kGraphicsIndex, kBitMask, 0x0f},
                                                                               {kGraphicsIndex, kMiscellaneous, 0x05},
                                                                               {kGraphicsIndex, kEnableSetReset, 0x01},
                                                                               {kGraphicsIndex, kReadMap, 0x02}}) {
    set(port, static_cast<uint8_t>(index), static_cast<uint8_t>(value));
    EXPECT_FALSE(cells.shown) << port << " " << index;
    set(kGraphicsIndex, kEnableSetReset, 0);
    set(kGraphicsIndex, kReadMap, 0);
    text();
    EXPECT_TRUE(cells.shown) << port << " " << index;
  }
  out(kMiscWrite, 0x65);  // RAM off
  EXPECT_FALSE(cells.shown);
}

TEST_F(VgaCells, ReachThePlanesWhenTheyAreHidden) {
  text();
  cells.bytes[4000] = 'Z';
  cells.bytes[4001] = 0x70;
  set(kGraphicsIndex, kMiscellaneous, 0x05);
  EXPECT_EQ(plane(0, 4000), 'Z');
  EXPECT_EQ(plane(1, 4000), 0x70);
  EXPECT_EQ(plane(0, 4001), 0);
}

TEST_F(VgaCells, ReachThePlanesWhenSomebodyLooks) {
  text();
  static_cast<void>(with_cells.take_snapshot());
  cells.bytes[0] = 'X';
  EXPECT_FALSE(with_cells.take_snapshot().changed) << "nothing was written, as far as is known";
  cells.written = true;
  EXPECT_TRUE(with_cells.take_snapshot().changed);
  EXPECT_EQ(plane(0, 0), 'X');
}

TEST_F(VgaCells, AnAccessThatCameLateFindsThem) {
  text();
  with_cells.window().write(0x18000 + 10, 2, 0x0742);
  EXPECT_EQ(cells.bytes[10], 0x42);
  EXPECT_EQ(cells.bytes[11], 0x07);
  cells.bytes[12] = 9;
  EXPECT_EQ(with_cells.window().read(0x18000 + 12, 1), 9U);
}

TEST_F(VgaCells, OtherChangesLeaveThemAlone) {
  text();
  const int before = cells.changes;
  set(kColorCrtcIndex, kCursorLow, 5);
  out(kDacWriteIndex, 1);
  EXPECT_EQ(cells.changes, before);
}

}  // namespace
}  // namespace lodge::devices::vga
