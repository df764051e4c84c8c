// One decoded guest instruction, and what the translator may do with it.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

struct Instruction {
  ZydisDecodedInstruction decoded;
  ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
  uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];

  [[nodiscard]] uint32_t length() const { return decoded.length; }
  [[nodiscard]] ZydisMnemonic mnemonic() const { return decoded.mnemonic; }
  [[nodiscard]] bool locked() const { return decoded.attributes & ZYDIS_ATTRIB_HAS_LOCK; }
  // Operand size of integer instructions, in bytes.
  [[nodiscard]] uint32_t operand_bytes() const { return decoded.operand_width / 8; }
};

enum class DecodeStatus {
  Ok,
  MoreBytes,  // the instruction goes on beyond `available`
  Invalid,    // #UD
  TooLong,    // #GP(0): more than 15 bytes
};

// Decodes at `bytes` for the code size of the translation key.
DecodeStatus decode(uint32_t key, const uint8_t* bytes, uint32_t available, Instruction& into);

// Whether the guest's CPUID offers what the instruction belongs to (cpuid/): what is not offered is #UD, even where the host has it.
bool offered(const Instruction& instruction);

// x87 instructions, FISTTP (which came with SSE3) among them.
bool is_x87(const Instruction& instruction);

// The vendor of the host's processor, which is also the guest's.
bool host_is_amd();

// Number of a general register (0-15) in any of its widths, -1 for other registers; AH to BH count as 0 to 3.
extern const std::array<int8_t, ZYDIS_REGISTER_MAX_VALUE + 1> kGprIndex;
inline int gpr_index(ZydisRegister reg) { return kGprIndex[reg]; }
inline bool is_high_byte(ZydisRegister reg) { return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH; }
SegmentIndex segment_index(ZydisRegister reg);

}  // namespace lodge::engine::soft
