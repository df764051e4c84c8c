// The 256 bytes of a function's configuration space: which bits are there, and which of them software may change.
//
// The chip alone: what a register does is the function's business (function.hpp). Threads: none of its own; the host bridge serialises all
// accesses.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "devices/pci/registers.hpp"

namespace lodge::devices::pci {

class ConfigSpace {
 public:
  static constexpr unsigned kBytes = 256;

  // Software's accesses; the range lies within the space. Bits that are not writable keep their value.
  [[nodiscard]] uint32_t read(unsigned offset, unsigned size) const;
  void write(unsigned offset, unsigned size, uint32_t value);

  // The function's own, past the masks. 1, 2 or 4 bytes.
  void set(unsigned offset, unsigned size, uint32_t value);
  void allow(unsigned offset, unsigned size, uint32_t writable_bits);
  void define(unsigned offset, unsigned size, uint32_t value, uint32_t writable_bits) {
    set(offset, size, value);
    allow(offset, size, writable_bits);
  }

  // Puts a capability in front of the list (6.7): its ID, the link and `body`. Its offset, dword-aligned as 6.7 asks; there must be room.
  unsigned add_capability(Capability id, std::span<const uint8_t> body);

 private:
  std::array<uint8_t, kBytes> bytes_{};
  std::array<uint8_t, kBytes> writable_{};
  unsigned next_capability_ = kHeaderEnd;
};

}  // namespace lodge::devices::pci
