// Zydis for the three modes, and the answer to "does the oracle test this instruction, and if not, why?".
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "layout.hpp"

namespace lodge::oracle {

struct Instruction {
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

  [[nodiscard]] std::span<const ZydisDecodedOperand> all() const { return {operands, info.operand_count}; }
  [[nodiscard]] std::span<const ZydisDecodedOperand> visible() const { return {operands, info.operand_count_visible}; }
  [[nodiscard]] std::string_view mnemonic() const { return ZydisMnemonicGetString(info.mnemonic); }
};

// The processor that the tests run on, and whose vendor the guest has.
[[nodiscard]] bool host_is_amd();

[[nodiscard]] bool decode(Mode mode, std::span<const uint8_t> bytes, Instruction& out);
[[nodiscard]] std::string disassemble(const Instruction& instruction, uint64_t address);

// Null when the instruction is tested, else the reason why not.
[[nodiscard]] const char* excluded(Mode mode, const Instruction& instruction);

// True for instructions of features that the engine never offers, whatever the host has: they give #UD.
[[nodiscard]] bool never_offered(const Instruction& instruction);

// Bytes that Zydis refuses are tried too (the processor's answer is #UD, or #GP for more than 15 bytes), but for those
// that might be a system call or an extension unknown to this Zydis.
[[nodiscard]] bool safe_undecodable(Mode mode, std::span<const uint8_t> bytes);

// One of the encodings that the decoder tells apart: mnemonic, map, opcode, widths, and kind, encoding and size of each operand.
[[nodiscard]] uint64_t form_key(Mode mode, const Instruction& instruction);

}  // namespace lodge::oracle
