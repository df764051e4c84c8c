// Numbers in bytes, the least significant byte first: as this processor has them.
#pragma once

#include <cstdint>
#include <cstring>

namespace lodge {

// `size` bytes from there on, 0 to 8.
inline uint64_t load_little(const uint8_t* at, unsigned size) {
  uint64_t value = 0;
  std::memcpy(&value, at, size);
  return value;
}

}  // namespace lodge
