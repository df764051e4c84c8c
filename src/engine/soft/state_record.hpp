#pragma once

#include <cstdint>

namespace lodge::engine::soft {

// The processor between two instructions, for comparing two runs (tools/lockstep.py). Little-endian, without gaps.
struct StateRecord {
  uint64_t instructions, rip, gpr[16], rflags, cr[5], efer, base[6], selectors, vector;  // the last two: hashes
};

}  // namespace lodge::engine::soft
