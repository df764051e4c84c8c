// All that decides what a VGA shows, beside its memory.
//
// Memory: byte 4 * offset + plane of it is the byte at that offset in that plane, so that the four planes of an address lie in one dword.
// In chain-4 modes and in those of the Bochs extensions memory is linear: address a is byte a. (IBM's chip scatters chain-4's addresses
// over every fourth offset instead, and shows every fourth in doubleword mode: the same picture.)
#pragma once

#include <array>
#include <cstdint>

#include "devices/vga/registers.hpp"

namespace lodge::devices::vga {

constexpr uint32_t kPlaneBytes = 0x10000;

struct State {
  uint8_t misc = 0, feature = 0;
  uint8_t sequencer_index = 0, graphics_index = 0, crtc_index = 0, attribute_index = 0;
  bool attribute_wants_data = false;
  std::array<uint8_t, kSequencerRegisters> sequencer{};
  std::array<uint8_t, kGraphicsRegisters> graphics{};
  std::array<uint8_t, kCrtcRegisters> crtc{};
  std::array<uint8_t, kAttributeRegisters> attribute{};
  // The DAC: three bytes a colour, of six bits each, or eight if the extension says so.
  std::array<uint8_t, 256 * 3> colors{};
  uint8_t pixel_mask = 0xff;
  std::array<uint16_t, kDispiRegisters> dispi{};

  [[nodiscard]] bool extended() const { return (dispi[kDispiEnable] & kDispiEnabled) != 0; }
  [[nodiscard]] bool planar_extended() const { return extended() && dispi[kDispiBpp] == 4; }
  [[nodiscard]] bool linear() const { return extended() ? dispi[kDispiBpp] != 4 : (sequencer[kMemoryMode] & kChain4) != 0; }
  [[nodiscard]] uint32_t stride() const {  // bytes from row to row of the extended modes; of each plane with 4 bits a pixel
    const uint32_t bits = dispi[kDispiBpp] == 15 ? 16 : dispi[kDispiBpp];
    return dispi[kDispiBpp] == 4 ? dispi[kDispiVirtualWidth] / 8u : dispi[kDispiVirtualWidth] * bits / 8;
  }
  [[nodiscard]] uint32_t color(uint8_t index) const {
    const uint8_t* rgb = &colors[index * 3u];
    const auto wide = [&](uint8_t value) -> uint32_t {
      if (dispi[kDispiEnable] & kDispi8BitDac) return value;
      const uint32_t six = value & 0x3fu;
      return six << 2 | six >> 4;
    };
    return wide(rgb[0]) << 16 | wide(rgb[1]) << 8 | wide(rgb[2]);
  }
};

}  // namespace lodge::devices::vga
