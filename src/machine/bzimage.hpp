// The Linux/x86 bzImage file (Linux Documentation/arch/x86/boot.rst, protocol 2.06 and later).
#pragma once

#include <asm/bootparam.h>

#include <cstdint>
#include <span>

#include "base/error.hpp"

namespace lodge::machine {

struct BzImage {
  setup_header header;                      // fields that the file is too old for are 0
  std::span<const uint8_t> protected_mode;  // what goes to code32_start
  std::span<const uint8_t> payload;         // the compressed kernel; empty before protocol 2.08
  [[nodiscard]] bool has_64bit_entry() const;
  // One past the memory that it needs while it unpacks itself.
  [[nodiscard]] uint64_t end() const;
};

[[nodiscard]] bool looks_like_bzimage(std::span<const uint8_t> file);
// How much of what looks like one is its real-mode part (boot protocol, setup_sects); it may be cut short before that.
[[nodiscard]] size_t setup_bytes(std::span<const uint8_t> file);

// The spans point into `file`. ErrorKind::Usage when it is damaged, cut short or too old.
[[nodiscard]] Result<BzImage> parse_bzimage(std::span<const uint8_t> file);

}  // namespace lodge::machine
