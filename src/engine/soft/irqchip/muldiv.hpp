// 64-bit scaling with a 128-bit product, without a library call.
#pragma once

#include <cstdint>

namespace lodge::engine::soft {

// floor(a * b / divisor), or UINT64_MAX where the quotient does not fit in 64 bits.
inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t divisor) {
  uint64_t low = 0;
  uint64_t high = 0;
  asm("mulq %3" : "=a"(low), "=d"(high) : "a"(a), "rm"(b) : "cc");
  if (high >= divisor) return UINT64_MAX;  // DIV would raise #DE
  asm("divq %2" : "+a"(low), "+d"(high) : "rm"(divisor) : "cc");
  return low;
}

// ceil(a * b / divisor), or UINT64_MAX where the quotient does not fit in 64 bits.
inline uint64_t mul_div_up(uint64_t a, uint64_t b, uint64_t divisor) {
  uint64_t low = 0;
  uint64_t high = 0;
  asm("mulq %3" : "=a"(low), "=d"(high) : "a"(a), "rm"(b) : "cc");
  if (high >= divisor) return UINT64_MAX;
  asm("divq %2" : "+a"(low), "+d"(high) : "rm"(divisor) : "cc");
  return (high != 0 && low != UINT64_MAX) ? low + 1 : low;
}

}  // namespace lodge::engine::soft
