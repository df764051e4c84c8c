// The slow path of the second tier's look-ups.
#pragma once

#include "engine/soft/cpu/state.hpp"
#include "engine/soft/translate/runtime.hpp"

namespace lodge::engine::soft {

// The access of a look-up, packed for its slow path: size with kOperandStack and so on in the low half; then how far the range
// that it answers for reaches before and behind the access's first byte.
struct ResolveForm {
  uint32_t size;
  uint16_t before, behind;  // bytes, from the access's first byte
  uint16_t at;              // of the instruction in its page
  bool write;
  // The flags stand above 28, the size below 16; between them the rest. kOperandChecked is of code with segment limits only.
  static constexpr uint32_t kSize = kOperandSize | kOperandStack | kOperandLocked | kOperandAligned;
  static_assert(kSize == 0xe000ffff);
  [[nodiscard]] uint64_t pack() const {
    return size | uint64_t{write} << 16 | static_cast<uint64_t>(at) << 17 | static_cast<uint64_t>(before) << 32 |
           static_cast<uint64_t>(behind) << 48;
  }
  static ResolveForm unpack(uint64_t v) {
    return {static_cast<uint32_t>(v) & kSize, static_cast<uint16_t>(v >> 32), static_cast<uint16_t>(v >> 48),
            static_cast<uint16_t>(v >> 17 & 0xfff), (v >> 16 & 1) != 0};
  }
};

extern "C" {
// What a missed look-up gets, in RAX and RDX. `ungrouped`: the range that it is to answer for does not lie in one piece of the host's
// memory; the block goes on from here in its form whose look-ups answer for one access each.
struct Resolved {
  uint64_t addend, ungrouped;
};
// Or no return. `form`: ResolveForm.
Resolved rt_resolve(CpuState* c, uint64_t linear, uint64_t form);
// Runs the instruction at RIP once in the first tier.
[[noreturn]] void rt_run_slow(CpuState* c);
}

}  // namespace lodge::engine::soft
