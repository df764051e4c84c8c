#include "devices/vga/renderer.hpp"

#include <cstring>

namespace lodge::devices::vga {

namespace {

using display::Damage;
using display::Picture;

constexpr unsigned kPageShift = 12;

// Where the parts of numbers of more than eight bits lie.
unsigned vertical_display_end(const State& state) {
  const uint8_t overflow = state.crtc[kOverflow];
  return state.crtc[kVerticalDisplayEnd] | (overflow & 0x02u) << 7 | (overflow & 0x40u) << 3;
}
unsigned line_compare(const State& state) {
  return state.crtc[kLineCompare] | (state.crtc[kOverflow] & kOverflowLineCompare) << 4u |
         (state.crtc[kMaximumScanLine] & kScanLineLineCompare) << 3u;
}

// What one character clock shows, as far as it is the same for all lines.
struct Mode {
  bool text, mono, blink, line_graphics, nine_dots, doubled, shift256, interleaved;
  unsigned columns, dots, rows_scanned, scan_doubling;
  uint8_t planes;

  explicit Mode(const State& s)
      : text(!(s.graphics[kMiscellaneous] & kGraphicsMode)),
        mono((s.attribute[kAttributeMode] & kMonochrome) != 0),
        blink((s.attribute[kAttributeMode] & kBlink) != 0),
        line_graphics((s.attribute[kAttributeMode] & kLineGraphics) != 0),
        nine_dots(text && !(s.sequencer[kClockingMode] & kEightDots)),
        doubled((s.sequencer[kClockingMode] & kHalfClock) != 0),
        shift256(!text && (s.graphics[vga::kMode] & kShift256)),
        interleaved(!text && !shift256 && (s.graphics[vga::kMode] & kShiftInterleaved)),
        columns(s.crtc[kHorizontalDisplayEnd] + 1u),
        dots(nine_dots ? 9 : 8),
        rows_scanned((s.crtc[kMaximumScanLine] & 0x1fu) + 1),
        scan_doubling(s.crtc[kMaximumScanLine] & kDoubleScan ? 1 : 0),
        planes(s.attribute[kPlaneEnable] & 0xf) {}
};

// The address counter as it reaches the planes.
uint32_t plane_address(const State& s, uint32_t counter, unsigned row_scan) {
  const uint8_t mode = s.crtc[kCrtcMode];
  uint32_t address = counter;
  if (!(s.crtc[kUnderline] & kDoubleword) && !(mode & kByteMode)) address = counter << 1 | (counter >> (mode & kWrapAt64K ? 15 : 13) & 1);
  if (!(mode & kRowBit0IsA13)) address = (address & ~0x2000u) | (row_scan & 1) << 13;
  if (!(mode & kRowBit1IsA14)) address = (address & ~0x4000u) | (row_scan >> 1 & 1) << 14;
  return address & (kPlaneBytes - 1);
}

struct Fonts {
  uint32_t when_clear, when_set;  // attribute bit 3
  explicit Fonts(uint8_t maps) {
    constexpr std::array<uint32_t, 8> kPlaces{0x0000, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000};
    when_clear = kPlaces[(maps & 3u) | (maps >> 2 & 4u)];
    when_set = kPlaces[(maps >> 2 & 3u) | (maps >> 3 & 4u)];
  }
};

struct Cursor {
  uint32_t counter = 0;
  unsigned first = 1, last = 0;  // scan lines of the row; nothing when first > last
  Cursor(const State& s, bool shown) {
    if (!shown || (s.crtc[kCursorStart] & kCursorOff)) return;
    counter = s.crtc[kCursorHigh] << 8u | s.crtc[kCursorLow];
    first = s.crtc[kCursorStart] & 0x1f;
    last = s.crtc[kCursorEnd] & 0x1f;
  }
};

class LineMaker {
 public:
  LineMaker(const State& state, const Mode& mode, std::span<const uint8_t> memory, std::span<const uint32_t, 16> sixteen,
            std::span<const uint32_t, 256> colors, Renderer::Phase phase)
      : state_(state),
        mode_(mode),
        memory_(memory),
        sixteen_(sixteen),
        colors_(colors),
        fonts_(state.sequencer[kCharacterMaps]),
        cursor_(state, phase.cursor),
        phase_(phase) {}

  // All dots of one character clock, from `out` on; without doubling.
  void put(uint32_t counter, unsigned row_scan, uint32_t* out) const {
    const uint8_t* bytes = &memory_[size_t{4} * plane_address(state_, counter, row_scan)];
    if (mode_.text)
      put_text(bytes[0], bytes[1], counter, row_scan, out);
    else if (mode_.shift256)
      for (unsigned i = 0; i < 8; ++i) out[i] = colors_[bytes[i / 2] & state_.pixel_mask];
    else if (mode_.interleaved)
      for (unsigned i = 0; i < 8; ++i) {
        const unsigned shift = 6 - 2 * (i % 4), pair = i / 4;
        const unsigned value = (bytes[pair] >> shift & 3u) | (bytes[pair + 2] >> shift & 3u) << 2;
        out[i] = sixteen_[value & mode_.planes];
      }
    else
      for (unsigned i = 0; i < 8; ++i) {
        unsigned value = 0;
        for (unsigned plane = 0; plane < 4; ++plane) value |= (bytes[plane] >> (7 - i) & 1u) << plane;
        out[i] = sixteen_[value & mode_.planes];
      }
  }

 private:
  void put_text(uint8_t character, uint8_t attribute, uint32_t counter, unsigned row_scan, uint32_t* out) const {
    const uint32_t font = attribute & 0x08 ? fonts_.when_set : fonts_.when_clear;
    unsigned shape = memory_[size_t{4} * (font + character * 32u + row_scan) + 2];
    unsigned background = attribute >> 4;
    if (mode_.blink) {
      background &= 7;
      if ((attribute & 0x80) && !phase_.blinking) shape = 0;
    }
    if (mode_.mono && (attribute & 7) == 1 && row_scan == (state_.crtc[kUnderline] & 0x1fu)) shape = 0xff;
    unsigned ninth = mode_.line_graphics && character >= 0xc0 && character <= 0xdf ? shape & 1 : 0;
    if (counter == cursor_.counter && row_scan >= cursor_.first && row_scan <= cursor_.last) {
      shape = 0xff;
      ninth = 1;
    }
    const uint32_t ink = sixteen_[attribute & mode_.planes], paper = sixteen_[background & mode_.planes];
    for (unsigned i = 0; i < 8; ++i) out[i] = shape & (0x80u >> i) ? ink : paper;
    if (mode_.nine_dots) out[8] = ninth ? ink : paper;
  }

  const State& state_;
  const Mode& mode_;
  const std::span<const uint8_t> memory_;
  const std::span<const uint32_t, 16> sixteen_;
  const std::span<const uint32_t, 256> colors_;
  const Fonts fonts_;
  const Cursor cursor_;
  const Renderer::Phase phase_;
};

// How many dots to the left the line is shifted.
unsigned panning_dots(const State& s, const Mode& mode) {
  const unsigned value = s.attribute[kPelPanning] & 0xf;
  if (mode.shift256) return value & 7;
  if (mode.nine_dots) return value >= 8 ? 0 : value + 1;
  return value & 7;
}

void black(Picture& picture, unsigned width, unsigned height, Damage& damage) {
  if (!picture.has_size(width, height)) picture.resize(width, height);
  const std::vector<uint32_t> line(width, 0);
  for (unsigned y = 0; y < height; ++y) display::update_row(picture, y, line, damage);
}

// --- Extended modes

uint32_t from565(uint32_t v) {
  const uint32_t r = v >> 11 & 0x1f, g = v >> 5 & 0x3f, b = v & 0x1f;
  return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}
uint32_t from555(uint32_t v) {
  const uint32_t r = v >> 10 & 0x1f, g = v >> 5 & 0x1f, b = v & 0x1f;
  return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

bool touched(const DirtyPages& dirty, uint64_t begin, uint64_t bytes) {
  if (dirty.empty()) return true;
  for (uint64_t page = begin >> kPageShift; page <= (begin + bytes - 1) >> kPageShift; ++page)
    if (page / 64 < dirty.size() && (dirty[page / 64] >> (page % 64) & 1)) return true;
  return false;
}

}  // namespace

// 16 colours go through the attribute controller; 256 and more do not ("Color Select register").
void Renderer::load_palettes(const State& state) {
  for (unsigned i = 0; i < 256; ++i) colors_[i] = state.color(static_cast<uint8_t>(i));
  for (unsigned i = 0; i < 16; ++i) {
    unsigned index = state.attribute[kPalette + i] & 0x3fu;
    const uint8_t select = state.attribute[kColorSelect];
    if (state.attribute[kAttributeMode] & kColorSelect54) index = (index & 0xf) | (select & 3u) << 4;
    index |= (select & 0xcu) << 4;
    sixteen_[i] = colors_[index & state.pixel_mask];
  }
}

void Renderer::render(const State& state, std::span<const uint8_t> memory, const DirtyPages& dirty, Phase phase, Picture& picture,
                      Damage& damage) {
  load_palettes(state);
  if (state.extended()) return render_extended(state, memory, dirty, picture, damage);
  render_legacy(state, memory, phase, picture, damage);
}

void Renderer::render_legacy(const State& state, std::span<const uint8_t> memory, Phase phase, Picture& picture, Damage& damage) {
  const Mode mode(state);
  const unsigned scale = mode.doubled ? 2 : 1;
  const unsigned width = mode.columns * mode.dots * scale, height = vertical_display_end(state) + 1;
  // Before any mode is set, and while none can be seen.
  constexpr unsigned kLeast = 64, kStandardWidth = 640, kStandardHeight = 400;
  if (width < kLeast || height < kLeast) return black(picture, kStandardWidth, kStandardHeight, damage);
  if (!(state.attribute_index & kPaletteAddressSource) || (state.sequencer[kClockingMode] & kScreenOff))
    return black(picture, width, height, damage);
  if (!picture.has_size(width, height)) picture.resize(width, height);

  const LineMaker maker(state, mode, memory, sixteen_, colors_, phase);
  const unsigned split = line_compare(state), pitch = state.crtc[kOffset] * 2u;
  uint32_t start = (state.crtc[kStartHigh] << 8u | state.crtc[kStartLow]) + (state.crtc[kPresetRowScan] >> 5 & 3u);
  unsigned row_scan = state.crtc[kPresetRowScan] & 0x1f, panning = panning_dots(state, mode);
  // One character more than is shown: panning brings it in.
  std::vector<uint32_t> dots(size_t{mode.columns + 1} * mode.dots);
  line_.resize(width);
  unsigned drawn_row_scan = ~0u;
  uint32_t drawn_start = ~0u;
  for (unsigned y = 0; y < height; ++y) {
    // The same line twice costs nothing: scan doubling.
    if (row_scan != drawn_row_scan || start != drawn_start) {
      for (unsigned c = 0; c <= mode.columns; ++c) maker.put(start + c, row_scan, &dots[size_t{c} * mode.dots]);
      for (unsigned x = 0; x < width; ++x) line_[x] = dots[panning + x / scale];
      drawn_row_scan = row_scan;
      drawn_start = start;
    }
    display::update_row(picture, y, line_, damage);
    if (y == split) {
      start = 0;
      row_scan = 0;
      if (state.attribute[kAttributeMode] & kPanningTopOnly) panning = 0;
      drawn_start = ~0u;
      continue;
    }
    if (mode.scan_doubling && y % 2 == 0) continue;
    if (++row_scan >= mode.rows_scanned) {
      row_scan = 0;
      start += pitch;
    }
  }
}

void Renderer::render_extended(const State& state, std::span<const uint8_t> memory, const DirtyPages& dirty, Picture& picture,
                               Damage& damage) {
  const unsigned width = state.dispi[kDispiWidth], height = state.dispi[kDispiHeight], bpp = state.dispi[kDispiBpp];
  const bool fresh = !picture.has_size(width, height);
  if (fresh) picture.resize(width, height);
  static const DirtyPages kAll;
  const DirtyPages& pages = fresh ? kAll : dirty;
  const size_t mask = memory.size() - 1;
  const uint64_t stride = state.stride(), x_offset = state.dispi[kDispiXOffset], y_offset = state.dispi[kDispiYOffset];
  const unsigned bytes = bpp == 4 ? 0 : (bpp + 7) / 8;
  line_.resize(width);
  for (unsigned y = 0; y < height; ++y) {
    const uint64_t begin = (y_offset + y) * stride + (bpp == 4 ? x_offset / 8 : x_offset * bytes);
    const uint64_t row_bytes = bpp == 4 ? width / 8 : uint64_t{width} * bytes;
    const uint64_t place = bpp == 4 ? 4 * begin : begin, length = bpp == 4 ? 4 * row_bytes : row_bytes;
    if (!touched(pages, place & mask, length)) continue;
    if (bpp == 32 && (place & mask) + length <= memory.size()) {
      std::memcpy(line_.data(), &memory[place & mask], length);
      for (uint32_t& pixel : line_) pixel &= 0xffffff;
    } else if (bpp == 4) {
      for (unsigned x = 0; x < width; ++x) {
        unsigned value = 0;
        for (unsigned plane = 0; plane < 4; ++plane) value |= (memory[(place + 4 * (x / 8) + plane) & mask] >> (7 - x % 8) & 1u) << plane;
        line_[x] = sixteen_[value & state.attribute[kPlaneEnable] & 0xf];
      }
    } else {
      for (unsigned x = 0; x < width; ++x) {
        uint32_t value = 0;
        for (unsigned i = 0; i < bytes; ++i) value |= uint32_t{memory[(place + size_t{x} * bytes + i) & mask]} << (8 * i);
        switch (bpp) {
          case 8: line_[x] = colors_[value & state.pixel_mask]; break;
          case 15: line_[x] = from555(value); break;
          case 16: line_[x] = from565(value); break;
          default: line_[x] = value & 0xffffff; break;
        }
      }
    }
    display::update_row(picture, y, line_, damage);
  }
}

}  // namespace lodge::devices::vga
