// Registers of 32 bits behind a BAR, for functions that have no others.
#pragma once

#include <cstdint>
#include <functional>

namespace lodge::devices::pci {

// A narrow read takes a part of one; a qword is two of them.
[[nodiscard]] inline uint64_t read_dwords(uint64_t offset, unsigned size, const std::function<uint32_t(uint64_t offset)>& read) {
  const uint64_t at = offset & ~uint64_t{3};
  if (size == 8) return read(at) | uint64_t{read(at + 4)} << 32;
  return read(at) >> (8 * (offset & 3));
}

// Only whole ones are written.
inline void write_dwords(uint64_t offset, unsigned size, uint64_t value,
                         const std::function<void(uint64_t offset, uint32_t value)>& write) {
  if (size < 4 || (offset & 3) != 0) return;
  write(offset, static_cast<uint32_t>(value));
  if (size == 8) write(offset + 4, static_cast<uint32_t>(value >> 32));
}

// The halves of a number of 64 bits that stands in two registers.
constexpr uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }
constexpr uint64_t with_low(uint64_t value, uint32_t part) { return (value & ~uint64_t{0xffffffff}) | part; }
constexpr uint64_t with_high(uint64_t value, uint32_t part) { return low(value) | uint64_t{part} << 32; }

}  // namespace lodge::devices::pci
