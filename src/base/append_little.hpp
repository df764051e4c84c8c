// Numbers put behind some bytes, the least significant byte first.
#pragma once

#include <cstdint>
#include <vector>

namespace lodge {

inline void append_little(std::vector<uint8_t>& out, uint64_t value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; ++i, value >>= 8) out.push_back(static_cast<uint8_t>(value));
}

}  // namespace lodge
