// Kernels of the Multiboot Specification, version 0.6.96 (section numbers are its): where their parts go. The file is hostile: every
// offset is checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"

namespace lodge::machine {

struct MultibootImage {
  struct Segment {
    uint64_t address;
    std::span<const uint8_t> bytes;
    uint64_t memory_size;  // with the zeros behind them
  };
  uint32_t entry = 0;
  std::vector<Segment> segments;
  [[nodiscard]] uint64_t end() const;  // one past the last address used
};

// Whether there is a multiboot header where one must be (3.1.1).
[[nodiscard]] bool looks_like_multiboot(std::span<const uint8_t> file);
// The spans point into `file`. ErrorKind::Usage when it is damaged, below 1 MiB, or wants what cannot be given.
[[nodiscard]] Result<MultibootImage> parse_multiboot(std::span<const uint8_t> file);

}  // namespace lodge::machine
