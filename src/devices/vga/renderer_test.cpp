#include "devices/vga/renderer.hpp"

#include <gtest/gtest.h>

namespace lodge::devices::vga {
namespace {

using display::Damage;
using display::Picture;
using display::Rectangle;

// Colour i of 16 is DAC entry i, which is grey i + 1 (of 63, as eight bits).
constexpr uint32_t grey(unsigned index) {
  const uint32_t six = index + 1, eight = six << 2 | six >> 4;
  return eight << 16 | eight << 8 | eight;
}

class VgaRenderer : public testing::Test {
 protected:
  VgaRenderer() {
    for (unsigned i = 0; i < 63; ++i)
      for (unsigned part = 0; part < 3; ++part) state.colors[3 * i + part] = static_cast<uint8_t>(i + 1);
    for (uint8_t i = 0; i < 16; ++i) state.attribute[i] = i;
    state.attribute[kPlaneEnable] = 0x0f;
    state.attribute_index = kPaletteAddressSource;
    state.crtc[kCrtcMode] = 0xe3;
    state.crtc[kLineCompare] = 0xff;
    state.crtc[kOverflow] = kOverflowLineCompare;
    state.crtc[kMaximumScanLine] = kScanLineLineCompare;
  }
  void display_lines(unsigned lines) {
    state.crtc[kVerticalDisplayEnd] = static_cast<uint8_t>(lines - 1);
    state.crtc[kOverflow] =
        static_cast<uint8_t>((state.crtc[kOverflow] & ~0x42) | ((lines - 1) >> 8 & 1) << 1 | ((lines - 1) >> 9 & 1) << 6);
  }
  // 80 columns of text, 9 dots wide and 16 high.
  void text() {
    state.graphics[kMiscellaneous] = 0x0e;
    state.sequencer[kMemoryMode] = 0x02;
    state.crtc[kHorizontalDisplayEnd] = 79;
    state.crtc[kOffset] = 40;
    state.crtc[kMaximumScanLine] |= 15;
    state.crtc[kCrtcMode] = 0xa3;
    state.crtc[kCursorStart] = kCursorOff;
    state.attribute[kPelPanning] = 8;  // none, with nine dots
    display_lines(400);
  }
  void graphics(unsigned columns, unsigned lines) {
    state.graphics[kMiscellaneous] = 0x05;
    state.sequencer[kClockingMode] = kEightDots;
    state.sequencer[kMemoryMode] = 0x06;
    state.crtc[kHorizontalDisplayEnd] = static_cast<uint8_t>(columns - 1);
    state.crtc[kOffset] = static_cast<uint8_t>(columns / 2);
    display_lines(lines);
  }
  void put_cell(unsigned column, unsigned row, uint8_t character, uint8_t attribute) {
    memory[4 * (2 * (80 * row + column))] = character;
    memory[4 * (2 * (80 * row + column)) + 1] = attribute;
  }
  void put_glyph_row(uint8_t character, unsigned scan, uint8_t bits, uint32_t font = 0) {
    memory[4 * (font + 32 * character + scan) + 2] = bits;
  }
  void extended(uint16_t width, uint16_t height, uint16_t bpp) {
    state.dispi[kDispiWidth] = state.dispi[kDispiVirtualWidth] = width;
    state.dispi[kDispiHeight] = height;
    state.dispi[kDispiBpp] = bpp;
    state.dispi[kDispiEnable] = kDispiEnabled;
  }
  void render(const DirtyPages& dirty = {}) {
    damage.clear();
    renderer.render(state, memory, dirty, phase, picture, damage);
  }
  uint32_t at(unsigned x, unsigned y) const { return picture.row(y)[x]; }

  State state;
  std::vector<uint8_t> memory = std::vector<uint8_t>(1 << 20);
  Renderer renderer;
  Renderer::Phase phase;
  Picture picture;
  Damage damage;
};

TEST_F(VgaRenderer, TextHasNineDots) {
  text();
  put_cell(1, 1, 'A', 0x1e);
  put_glyph_row('A', 2, 0x81);
  render();
  ASSERT_TRUE(picture.has_size(720, 400));
  EXPECT_EQ(at(9, 18), grey(14));
  EXPECT_EQ(at(10, 18), grey(1));
  EXPECT_EQ(at(16, 18), grey(14));
  EXPECT_EQ(at(17, 18), grey(1)) << "the ninth dot is paper";
  EXPECT_EQ(at(18, 18), grey(0));
}

TEST_F(VgaRenderer, LineDrawingsReachTheNinthDot) {
  text();
  state.attribute[kAttributeMode] = kLineGraphics;
  put_cell(0, 0, 0xc4, 0x07);
  put_cell(1, 0, 0xb0, 0x07);
  for (const uint8_t character : {0xc4, 0xb0}) put_glyph_row(character, 0, 0xff);
  render();
  EXPECT_EQ(at(8, 0), grey(7));
  EXPECT_EQ(at(17, 0), grey(0)) << "B0 is none of them";
}

TEST_F(VgaRenderer, BlinkingHidesTheCharacterHalfOfTheTime) {
  text();
  state.attribute[kAttributeMode] = kBlink;
  put_cell(0, 0, 'A', 0x94);
  put_glyph_row('A', 0, 0xff);
  render();
  EXPECT_EQ(at(0, 0), grey(4));
  phase.blinking = false;
  render();
  EXPECT_EQ(at(0, 0), grey(1)) << "and the background has three bits";
  state.attribute[kAttributeMode] = 0;
  render();
  EXPECT_EQ(at(0, 0), grey(4)) << "without blinking the bit is the background's";
  EXPECT_EQ(at(8, 0), grey(9));
}

TEST_F(VgaRenderer, CursorCoversItsLines) {
  text();
  state.crtc[kCursorStart] = 13;
  state.crtc[kCursorEnd] = 14;
  state.crtc[kCursorLow] = 82;  // row 1, column 2
  put_cell(2, 1, ' ', 0x07);
  render();
  EXPECT_EQ(at(18, 16 + 12), grey(0));
  EXPECT_EQ(at(18, 16 + 13), grey(7));
  EXPECT_EQ(at(26, 16 + 14), grey(7));
  EXPECT_EQ(at(18, 16 + 15), grey(0));
  phase.cursor = false;
  render();
  EXPECT_EQ(at(18, 16 + 13), grey(0));
}

TEST_F(VgaRenderer, SecondFontIsChosenByTheAttribute) {
  text();
  state.sequencer[kCharacterMaps] = 0x04;  // set: map 1, clear: map 0
  put_cell(0, 0, 'A', 0x08);
  put_cell(1, 0, 'A', 0x07);
  put_glyph_row('A', 0, 0xff, 0x4000);
  render();
  EXPECT_EQ(at(0, 0), grey(8));
  EXPECT_EQ(at(9, 0), grey(0));
}

TEST_F(VgaRenderer, StartAddressScrolls) {
  text();
  put_cell(0, 3, 'A', 0x07);
  put_glyph_row('A', 0, 0xff);
  state.crtc[kStartLow] = 80;
  render();
  EXPECT_EQ(at(0, 32), grey(7));
}

TEST_F(VgaRenderer, OnlyWhatChangesIsDamaged) {
  text();
  render();
  render();
  EXPECT_TRUE(damage.empty());
  put_glyph_row('A', 0, 0x80);
  put_glyph_row('A', 1, 0xff);
  put_cell(2, 1, 'A', 0x07);
  render();
  EXPECT_EQ(damage.areas(), (std::vector<Rectangle>{{18, 16, 8, 2}}));
}

TEST_F(VgaRenderer, PlanarModesHaveABitOfEachPlane) {
  graphics(80, 480);
  memory[4 * 81 + 0] = 0x80;
  memory[4 * 81 + 3] = 0xc0;
  render();
  ASSERT_TRUE(picture.has_size(640, 480));
  EXPECT_EQ(at(8, 1), grey(9));
  EXPECT_EQ(at(9, 1), grey(8));
  EXPECT_EQ(at(10, 1), grey(0));
}

TEST_F(VgaRenderer, SplitScreenShowsTheBeginningBelow) {
  graphics(80, 400);
  state.crtc[kStartHigh] = 0x80;
  memory[0] = 0x80;
  memory[size_t{4} * 0x8000] = 0x80;
  state.crtc[kLineCompare] = 99;
  state.crtc[kOverflow] &= static_cast<uint8_t>(~kOverflowLineCompare);
  state.crtc[kMaximumScanLine] = 0;
  render();
  EXPECT_EQ(at(0, 0), grey(1));
  EXPECT_EQ(at(0, 99), grey(0));
  EXPECT_EQ(at(0, 100), grey(1));
}

TEST_F(VgaRenderer, PanningShiftsByDots) {
  graphics(80, 400);
  memory[0] = 0x08;
  memory[4 * 80] = 0x80;  // of the next line: not seen at the end of the first one but for panning
  state.attribute[kPelPanning] = 3;
  render();
  EXPECT_EQ(at(1, 0), grey(1));
  EXPECT_EQ(at(637, 0), grey(1));
}

TEST_F(VgaRenderer, Mode13hDoublesDotsAndLines) {
  graphics(80, 400);
  state.graphics[kMode] = kShift256;
  state.sequencer[kMemoryMode] = 0x0e;
  state.crtc[kOffset] = 40;
  state.crtc[kMaximumScanLine] |= 1;
  state.crtc[kUnderline] = kDoubleword;
  state.crtc[kCrtcMode] = 0xa3;
  memory[320 * 2 + 5] = 20;
  render();
  ASSERT_TRUE(picture.has_size(640, 400));
  for (const unsigned y : {4, 5})
    for (const unsigned x : {10, 11}) EXPECT_EQ(at(x, y), grey(20));
  EXPECT_EQ(at(12, 4), grey(0));
  EXPECT_EQ(at(10, 6), grey(0));
}

TEST_F(VgaRenderer, CgaColorsAreInterleaved) {
  graphics(40, 400);
  state.graphics[kMode] = kShiftInterleaved;
  state.sequencer[kClockingMode] |= kHalfClock;
  state.crtc[kOffset] = 20;
  state.crtc[kMaximumScanLine] |= kDoubleScan | 1;
  state.crtc[kCrtcMode] = 0xa2;           // row scan bit 0 is address bit 13
  memory[0] = 0x1b;                       // colours 0 1 2 3
  memory[size_t{4} * 0x2000 + 1] = 0xe4;  // second line, pixels 4 to 7: 3 2 1 0
  render();
  ASSERT_TRUE(picture.has_size(640, 400));
  EXPECT_EQ(at(2, 0), grey(1));
  EXPECT_EQ(at(4, 0), grey(2));
  EXPECT_EQ(at(6, 1), grey(3));
  EXPECT_EQ(at(8, 2), grey(3));
  EXPECT_EQ(at(10, 3), grey(2));
}

TEST_F(VgaRenderer, ScreenOffIsBlack) {
  text();
  put_cell(0, 0, 'A', 0x70);
  render();
  EXPECT_EQ(at(0, 0), grey(7));
  state.attribute_index = 0;
  render();
  EXPECT_EQ(at(0, 0), 0U);
  EXPECT_EQ(damage.areas().size(), 1U);
}

TEST_F(VgaRenderer, LinearModesOfEveryDepth) {
  struct Case {
    uint16_t bpp;
    std::vector<uint8_t> bytes;
    uint32_t color;
  };
  const std::array<Case, 5> cases{{{8, {30}, grey(30)},
                                   {15, {0x1f, 0x7c}, 0xff00ff},
                                   {16, {0xe0, 0x07}, 0x00ff00},
                                   {24, {0x33, 0x22, 0x11}, 0x112233},
                                   {32, {0x66, 0x55, 0x44, 0xff}, 0x445566}}};
  for (const Case& c : cases) {
    std::ranges::fill(memory, 0);
    extended(320, 200, c.bpp);
    const size_t pixel = c.bytes.size();
    std::ranges::copy(c.bytes, memory.begin() + static_cast<std::ptrdiff_t>((320 * 3 + 7) * pixel));
    render();
    ASSERT_TRUE(picture.has_size(320, 200));
    EXPECT_EQ(at(7, 3), c.color) << c.bpp;
  }
}

TEST_F(VgaRenderer, OffsetsMoveTheViewAndMemoryWrapsAround) {
  extended(640, 480, 32);
  state.dispi[kDispiXOffset] = 2;
  state.dispi[kDispiYOffset] = 1;
  memory[4 * (640 + 2)] = 9;
  render();
  EXPECT_EQ(at(0, 0), 9U);
  state.dispi[kDispiYOffset] = 0xffff;
  render();  // far beyond the memory: whatever is shown, it is memory's
  EXPECT_TRUE(picture.has_size(640, 480));
}

TEST_F(VgaRenderer, OnlyRowsOfDirtyPagesAreLookedAt) {
  extended(512, 100, 32);  // a row is half a page
  DirtyPages dirty(4);
  render();
  memory[4 * 512 * 10] = 1;
  memory[4 * 512 * 20] = 1;
  dirty[0] = uint64_t{1} << 5;  // rows 10 and 11
  render(dirty);
  EXPECT_EQ(damage.areas(), (std::vector<Rectangle>{{0, 10, 1, 1}}));
  render();
  EXPECT_EQ(damage.areas(), (std::vector<Rectangle>{{0, 20, 1, 1}}));
}

TEST_F(VgaRenderer, NonsenseNumbersDrawSomething) {
  for (unsigned seed = 1; seed < 3000; ++seed) {
    uint32_t random = seed * 2654435761U;
    const auto next = [&] { return static_cast<uint8_t>((random = random * 1664525 + 1013904223) >> 24); };
    for (auto& value : state.crtc) value = next();
    for (auto& value : state.graphics) value = next();
    for (auto& value : state.sequencer) value = next();
    for (auto& value : state.attribute) value = next();
    state.attribute_index = next();
    state.dispi[kDispiEnable] = 0;
    render();
    ASSERT_GT(picture.width, 0U);
  }
}

}  // namespace
}  // namespace lodge::devices::vga
