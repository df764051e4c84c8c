// Makes the picture that a monitor would show: every dot that the sequencer clocks out, so that a mode with 320 pixels a line has 640 dots
// and one with 200 lines has 400.
//
// Deviations: no border (overscan), no interlace, no half lines; a mode whose numbers make no sense shows as black.
//
// Threads: one at a time.
#pragma once

#include <span>
#include <vector>

#include "devices/vga/state.hpp"
#include "display/picture.hpp"

namespace lodge::devices::vga {

// One bit a page of the memory; empty: all of it may have changed.
using DirtyPages = std::vector<uint64_t>;

class Renderer {
 public:
  struct Phase {
    bool cursor = true, blinking = true;  // shown now
  };
  // `memory`: a power of two of bytes, at least the four planes.
  void render(const State& state, std::span<const uint8_t> memory, const DirtyPages& dirty, Phase phase, display::Picture& picture,
              display::Damage& damage);

 private:
  void render_legacy(const State& state, std::span<const uint8_t> memory, Phase phase, display::Picture& picture, display::Damage& damage);
  void render_extended(const State& state, std::span<const uint8_t> memory, const DirtyPages& dirty, display::Picture& picture,
                       display::Damage& damage);
  void load_palettes(const State& state);

  std::vector<uint32_t> line_;
  std::array<uint32_t, 16> sixteen_{};  // through the attribute controller's palette
  std::array<uint32_t, 256> colors_{};
};

}  // namespace lodge::devices::vga
