// What the monitor says of itself (VESA E-EDID 1.4): one block, with a preferred size.
#pragma once

#include <array>
#include <cstdint>

namespace lodge::devices::vga {

constexpr unsigned kEdidBytes = 128;
// Width and height in pixels: at most 4095.
[[nodiscard]] std::array<uint8_t, kEdidBytes> make_edid(unsigned width, unsigned height);

}  // namespace lodge::devices::vga
