// ELF executables for x86, 32 and 64 bit, as kernels use them. The file is hostile: every offset is checked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/error.hpp"

namespace lodge::machine {

struct ElfImage {
  struct Segment {
    uint64_t physical;  // p_paddr
    std::span<const uint8_t> bytes;
    uint64_t memory_size;  // p_memsz, at least bytes.size()
  };
  bool is_64bit = false;
  uint64_t entry = 0;
  std::vector<Segment> segments;          // PT_LOAD, not empty ones
  std::optional<uint32_t> pvh_entry;      // XEN_ELFNOTE_PHYS32_ENTRY
  [[nodiscard]] uint64_t lowest() const;  // first physical address used
  [[nodiscard]] uint64_t end() const;     // one past the last
};

// The spans point into `file`. ErrorKind::Usage when it is no x86 ELF executable or damaged.
[[nodiscard]] Result<ElfImage> parse_elf(std::span<const uint8_t> file);

}  // namespace lodge::machine
