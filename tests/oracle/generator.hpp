// Test cases out of a seed: an instruction, the state before it, and memory.
//
// Half of the instructions start from one of the decoder's forms, so that rare ones appear as often as common ones; the
// other half are random bytes. Registers are then chosen so that the memory operands' addresses mostly hit test pages:
// aligned, unaligned, across a page's end, read-only, not mapped, not canonical.
#pragma once

#include <optional>
#include <string>

#include "decoder.hpp"
#include "forms.hpp"
#include "random.hpp"
#include "state.hpp"

namespace lodge::oracle {

// `fixed`, when not empty, is the instruction to use instead of a random one; nothing when it does not decode.
[[nodiscard]] std::optional<Case> generate(Mode mode, uint64_t seed, const Forms& forms, std::span<const uint8_t> fixed = {});

}  // namespace lodge::oracle
