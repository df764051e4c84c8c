// What both tiers ask of an instruction's encoding when they copy it.
#pragma once

#include "engine/soft/translate/instruction.hpp"

namespace lodge::engine::soft {

// Whether 66h in front of the copy means a 16-bit operand (and not a mandatory prefix, or nothing).
bool needs_operand_size_prefix(const Instruction& in);
bool has_mandatory(const Instruction& in, uint8_t value);
bool has_prefix(const Instruction& in, uint8_t value);

struct RegisterUse {
  uint32_t used = 0;     // bits: loaded before
  uint32_t written = 0;  // bits: stored after
};
RegisterUse register_use(const Instruction& in);

// In an operand (hidden ones of PCMPESTRI included), or in its place a memory operand of the same width.
bool names_general_register(const Instruction& in);
// Memory operands that must be aligned to their size (SDM vol. 2, exception types 1, 2 and 4; CMPXCHG16B).
bool needs_alignment(const Instruction& in, uint32_t bytes);

// The condition code of a Jcc, -1 for others.
int condition_of(ZydisMnemonic m);

}  // namespace lodge::engine::soft
