#include "devices/vga/edid.hpp"

#include <algorithm>
#include <numeric>
#include <string_view>

namespace lodge::devices::vga {

namespace {

constexpr unsigned kDotsPerInch = 96;
unsigned millimetres(unsigned dots) { return dots * 254 / (kDotsPerInch * 10); }

// A detailed timing (3.10.2), 18 bytes: blanking a quarter of the width and an eighth of the height, 60 frames a second.
void put_detailed_timing(uint8_t* at, unsigned width, unsigned height) {
  const unsigned h_blank = width / 4, v_blank = height / 8;
  const unsigned h_front = h_blank / 4, h_sync = h_blank / 4, v_front = 1, v_sync = 3;
  const unsigned clock = (width + h_blank) * (height + v_blank) * 60 / 10000;  // units of 10 kHz
  const unsigned h_size = millimetres(width), v_size = millimetres(height);
  const std::array<unsigned, 18> bytes{clock & 0xff,
                                       clock >> 8,
                                       width & 0xff,
                                       h_blank & 0xff,
                                       (width >> 8) << 4 | h_blank >> 8,
                                       height & 0xff,
                                       v_blank & 0xff,
                                       (height >> 8) << 4 | v_blank >> 8,
                                       h_front & 0xff,
                                       h_sync & 0xff,
                                       (v_front & 0xf) << 4 | (v_sync & 0xf),
                                       (h_front >> 8 & 3) << 6 | (h_sync >> 8 & 3) << 4,
                                       h_size & 0xff,
                                       v_size & 0xff,
                                       (h_size >> 8) << 4 | v_size >> 8,
                                       0,
                                       0,
                                       0x18};  // digital, separate sync
  for (unsigned i = 0; i < bytes.size(); ++i) at[i] = static_cast<uint8_t>(bytes[i]);
}

// A display descriptor (3.10.3): text ends with a line feed and is filled with blanks.
void put_text(uint8_t* at, uint8_t tag, std::string_view text) {
  constexpr unsigned kHeader = 5, kText = 13;
  at[3] = tag;
  for (unsigned i = 0; i < kText; ++i) at[kHeader + i] = static_cast<uint8_t>(i < text.size() ? text[i] : i == text.size() ? '\n' : ' ');
}

}  // namespace

std::array<uint8_t, kEdidBytes> make_edid(unsigned width, unsigned height) {
  constexpr unsigned kDescriptors = 54, kDescriptorBytes = 18;
  constexpr uint8_t kRangeLimits = 0xfd, kName = 0xfc, kDummy = 0x10;
  // Header, manufacturer "LDG" in five bits a letter, product 1; week 0 of 2024, EDID 1.4; digital with 8 bits a colour; size in cm; gamma
  // 2.2; RGB, sRGB, the first timing is the native one; the sRGB primaries (3.7).
  std::array<uint8_t, kEdidBytes> edid{0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x30, 0x87, 0x01, 0x00, 0x00,
                                       0x00, 0x00, 0x00, 0x00, 34,   1,    4,    0xa0, 0,    0,    120,  0x06, 0xee,
                                       0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54, 0x21, 0x08, 0x00};  // established: 640x480,
                                                                                                                 // 800x600 and 1024x768 at
                                                                                                                 // 60 Hz
  edid[21] = static_cast<uint8_t>(millimetres(width) / 10);
  edid[22] = static_cast<uint8_t>(millimetres(height) / 10);
  // Standard timings (3.9): columns / 8 - 31, aspect (0: 16:10, 1: 4:3, 2: 5:4, 3: 16:9) and rate - 60.
  struct Standard {
    unsigned width, aspect;
  };
  constexpr std::array<Standard, 8> kStandard{{{1024, 1}, {1280, 0}, {1280, 2}, {1440, 0}, {1600, 1}, {1680, 0}, {1920, 3}, {1920, 0}}};
  for (unsigned i = 0; i < kStandard.size(); ++i) {
    edid[38 + 2 * i] = static_cast<uint8_t>(kStandard[i].width / 8 - 31);
    edid[39 + 2 * i] = static_cast<uint8_t>(kStandard[i].aspect << 6);
  }
  put_detailed_timing(&edid[kDescriptors], width, height);
  uint8_t* range = &edid[kDescriptors + kDescriptorBytes];
  // 50 to 125 Hz, 30 to 160 kHz, 300 MHz, no further timing formula.
  const std::array<uint8_t, 8> limits{kRangeLimits, 0, 50, 125, 30, 160, 30, 1};
  std::ranges::copy(limits, range + 3);
  range[11] = '\n';
  std::fill_n(range + 12, 6, uint8_t{' '});
  put_text(&edid[kDescriptors + 2 * kDescriptorBytes], kName, "Lodge");
  edid[kDescriptors + 3 * kDescriptorBytes + 3] = kDummy;
  edid[kEdidBytes - 1] = static_cast<uint8_t>(-std::accumulate(edid.begin(), edid.end() - 1, 0u));
  return edid;
}

}  // namespace lodge::devices::vga
