// What both tiers ask of an instruction's encoding when they copy it.
#pragma once

#include "engine/soft/translate/instruction.hpp"

namespace lodge::engine::soft {

// Whether 66h in front of the copy means a 16-bit operand (and not a mandatory prefix, or nothing).
bool needs_operand_size_prefix(const Instruction& in);
bool has_mandatory(const Instruction& in, uint8_t value);
bool has_prefix(const Instruction& in, uint8_t value);

// The parts of an instruction that are another in 64-bit code, as they are to be written there.
struct HostForm {
  uint8_t opcode, reg, rm;
  bool modrm;              // it has a ModRM byte
  uint8_t immediate_from;  // where its immediate begins in the guest's bytes
};
// `opcode`, `reg` and `rm` with the registers renamed already. True: the register field is RAX's, whatever it was.
bool to_code64(const Instruction& in, bool code64, HostForm& form);
HostForm host_form(const Instruction& in, uint8_t opcode, uint8_t reg, uint8_t rm);

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
