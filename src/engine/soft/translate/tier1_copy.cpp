// Instructions that run on the host as they are: registers loaded, memory operand redirected.
#include <algorithm>
#include <array>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier1.hpp"

namespace lodge::engine::soft {

namespace {

// A low host register that the instruction does not name. RBP does not serve as a plain base, RAX carries the flags. No copied
// instruction names more than four (CMPXCHG8B), and then not RSI, RDI or RBP.
Host choose(uint32_t& taken) {
  constexpr std::array kCandidates{hRsi, hRdi, hRbx, hRdx, hRcx};
  for (const Host h : kCandidates) {
    if (taken & 1u << h) continue;
    taken |= 1u << h;
    return h;
  }
  return hRbp;
}

}  // namespace

Tier1::MemoryUse Tier1::memory_use(const Instruction& in) const {
  MemoryUse use;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.mem.type != ZYDIS_MEMOP_TYPE_MEM) continue;
    use.operand = &operand;
    use.size = operand.size / 8u;
    use.read = operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    use.write = operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    // A conditional write (CMPXCHG) writes the old value back (SDM vol. 2A): always a write access, and a read.
    if (operand.actions & ZYDIS_OPERAND_ACTION_CONDWRITE) use.read = use.write = true;
  }
  if (!use.operand) return use;
  // Into a 16-bit register: Intel's processors read no more than that (SDM vol. 2B, MOVSXD).
  if (in.mnemonic() == ZYDIS_MNEMONIC_MOVSXD && in.decoded.operand_width == 16 && !host_is_amd()) use.size = 2;
  // With an unmasked exception x87 stores write nothing (SDM vol. 1, 8.5): the bounce buffer must hold what stays.
  if (slow_ && use.write && is_x87(in)) use.read = true;
  if (needs_alignment(in, use.size)) use.size |= kOperandAligned;
  use.size |= operand_flags(*use.operand);
  if (in.locked() || in.mnemonic() == ZYDIS_MNEMONIC_XCHG) use.size |= kOperandLocked;
  return use;
}

// Writes the instruction for the host: [memory] in place of its memory operand, `stack_alias` in place of the stack pointer.
void Tier1::copied_bytes(const Instruction& in, Host memory, Host stack_alias, bool has_memory, int bit_offset_register) {
  const auto& raw = in.decoded.raw;
  const bool vex = in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
  const bool long_guest = code64();

  // The register fields, renamed where they are the stack pointer in one of its widths (not AH to BH, which share the codes).
  uint8_t reg = raw.modrm.reg, rm = raw.modrm.rm, opcode = in.decoded.opcode;
  bool rex_w = false, rex_present = false, reg_high = false, index_high = false, base_high = false;
  uint8_t vvvv = 0;
  if (vex) {
    rex_w = raw.vex.W;
    vvvv = static_cast<uint8_t>(~raw.vex.vvvv & 15);
    if (long_guest) {
      reg_high = !raw.vex.R;
      index_high = !raw.vex.X;
      base_high = !raw.vex.B;
    } else {
      const ZydisMnemonic m = in.mnemonic();
      if (m == ZYDIS_MNEMONIC_VPEXTRD || m == ZYDIS_MNEMONIC_VPEXTRQ || m == ZYDIS_MNEMONIC_VPINSRD || m == ZYDIS_MNEMONIC_VPINSRQ)
        rex_w = false;  // ignored there, but not in the host's code
      vvvv &= 7;
    }
  } else if (in.decoded.attributes & ZYDIS_ATTRIB_HAS_REX) {
    rex_present = true;
    rex_w = raw.rex.W;
    reg_high = raw.rex.R;
    index_high = raw.rex.X;
    base_high = raw.rex.B;
  }
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const int r = gpr_index(operand.reg.value);
    const bool stack = r == kRsp && !is_high_byte(operand.reg.value);
    switch (operand.encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        if (stack) reg = stack_alias, reg_high = false;
        if (bit_offset_register >= 0) reg = static_cast<uint8_t>(bit_offset_register), reg_high = false;
        break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        if (stack) rm = stack_alias, base_high = false;
        break;
      case ZYDIS_OPERAND_ENCODING_OPCODE:
        if (stack) opcode = static_cast<uint8_t>((opcode & ~7) | stack_alias), base_high = false;
        break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD:
        if (stack) vvvv = stack_alias;
        break;
      default: break;
    }
  }
  if (has_memory) {
    rm = memory;
    base_high = index_high = false;
  }
  // Outside 64-bit code there are no 64-bit general registers, whatever VEX.W says.
  if (vex && !long_guest && names_general_register(in)) rex_w = false;

  HostForm form = host_form(in, opcode, reg, rm);
  if (to_code64(in, long_guest, form)) reg_high = false;  // REX.R means nothing there

  if (in.locked()) as_.byte(0xf0);
  if (vex) {
    as_.byte(0xc4);
    as_.byte(static_cast<uint8_t>((reg_high ? 0 : 0x80) | (index_high ? 0 : 0x40) | (base_high ? 0 : 0x20) | raw.vex.m_mmmm));
    as_.byte(static_cast<uint8_t>((rex_w ? 0x80 : 0) | (~vvvv & 15) << 3 | raw.vex.L << 2 | raw.vex.pp));
    as_.byte(form.opcode);
  } else {
    if (has_mandatory(in, 0x66) || needs_operand_size_prefix(in)) as_.byte(0x66);
    if (has_mandatory(in, 0xf2)) as_.byte(0xf2);
    if (has_mandatory(in, 0xf3)) as_.byte(0xf3);
    as_.rex(rex_w, reg_high ? 8 : 0, index_high ? 8 : 0, base_high ? 8 : 0, rex_present);
    switch (in.decoded.opcode_map) {
      case ZYDIS_OPCODE_MAP_0F: as_.byte(0x0f); break;
      case ZYDIS_OPCODE_MAP_0F38:
        as_.byte(0x0f);
        as_.byte(0x38);
        break;
      case ZYDIS_OPCODE_MAP_0F3A:
        as_.byte(0x0f);
        as_.byte(0x3a);
        break;
      default: break;
    }
    as_.byte(form.opcode);
  }
  if (form.modrm) as_.modrm(has_memory ? 0 : 3, form.reg, form.rm);
  if (form.immediate_from >= in.length()) return;
  // The register in an immediate (VBLENDVPS, VBLENDVPD, VPBLENDVB): outside 64-bit code its top bit is ignored.
  const bool register_in_immediate = vex && in.decoded.opcode_map == ZYDIS_OPCODE_MAP_0F3A && form.opcode >= 0x4a && form.opcode <= 0x4c;
  if (register_in_immediate && !long_guest)
    as_.byte(in.bytes[form.immediate_from] & 0x7f);
  else
    as_.bytes(in.bytes + form.immediate_from, in.length() - form.immediate_from);
}

// The operand's host address into `into`. The linear address is in RSI.
void Tier1::host_pointer(const MemoryUse& use, Host into) {
  if (key_ & key::kAlignmentCheck) {
    as_.store(offsetof(CpuState, operand), hRsi);
    as_.move_imm(hRdx, use.size);
    call(rt_check_alignment);
    as_.load(hRsi, offsetof(CpuState, operand));
  }
  as_.move_imm(hRdx, use.size);
  if (slow_) {
    as_.move_imm(hRcx, use.read);
    as_.move_imm(hR8, use.write);
    call(rt_slow_begin);
  } else if (use.write) {
    call(rt_write_pointer);
  } else {
    call(rt_read_pointer);
  }
  as_.move(into, hRax);
}

// With the memory operand found and `memory` pointing to it: registers, the instruction itself, results, commit.
void Tier1::execute(const Instruction& in, const MemoryUse& use, Host memory, uint32_t taken, int bit_offset_of) {
  RegisterUse registers = register_use(in);
  const Host stack_alias = registers.used & 1u << kRsp ? choose(taken) : hRsp;
  int bit_offset = -1;
  if (bit_offset_of >= 0) {
    bit_offset = choose(taken);
    registers.used = registers.written = 0;
    as_.load(static_cast<Host>(bit_offset), gpr_offset(bit_offset_of));
    as_.alu_imm8(4, static_cast<Host>(bit_offset), static_cast<int8_t>((use.size & kOperandSize) * 8 - 1));
  }
  uint32_t flags_used = 0, flags_written = 0;
  if (const ZydisAccessedFlags* flags = in.decoded.cpu_flags) {
    flags_written = (flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & eflags::kArithmetic;
    flags_used = (flags->tested & eflags::kArithmetic) | flags_written;
  }
  if (flags_used) load_flags();
  for (int r = 0; r < 16; ++r) {
    if (!(registers.used >> r & 1)) continue;
    as_.load(r == kRsp ? stack_alias : static_cast<Host>(r), gpr_offset(r));
  }
  copied_bytes(in, memory, stack_alias, use.operand != nullptr, bit_offset);
  for (int r = 0; r < 16; ++r) {
    if (registers.written >> r & 1) as_.store(gpr_offset(r), r == kRsp ? stack_alias : static_cast<Host>(r));
  }
  if (flags_written) store_flags();
  x87_pointers(in);
  if (slow_ && use.operand && use.write) call(rt_slow_commit);
  advance(in);
}

// BT, BTS, BTR, BTC with a register bit offset address a bit string: the offset's upper part moves the operand.
Tier1::Flow Tier1::bit_string(const Instruction& in) {
  const MemoryUse use = memory_use(in);
  const uint32_t bytes = use.size & kOperandSize;
  const int r = gpr_index(in.operand[1].reg.value);
  as_.load(hRcx, gpr_offset(r));
  if (bytes == 2) {  // movsx rcx, cx
    as_.byte(0x48), as_.byte(0x0f), as_.byte(0xbf), as_.byte(0xc9);
  } else if (bytes == 4) {  // movsxd rcx, ecx
    as_.byte(0x48), as_.byte(0x63), as_.byte(0xc9);
  }
  const uint8_t log_bits = bytes == 2 ? 4 : bytes == 4 ? 5 : 6;
  as_.shift_imm(7, hRcx, log_bits);
  as_.shift_imm(4, hRcx, static_cast<uint8_t>(log_bits - 3));
  effective_address(in, *use.operand);  // leaves RCX alone
  as_.add(hRsi, hRcx);
  if (in.decoded.address_width < 64) as_.zero_extend(hRsi, in.decoded.address_width / 8);
  linear_from_offset(*use.operand, use.size, use.write);
  uint32_t taken = 1u << hRsp;
  const Host memory = choose(taken);
  host_pointer(use, memory);
  execute(in, use, memory, taken, r);
  return Flow::Next;
}

Tier1::Flow Tier1::copy(const Instruction& in) {
  const MemoryUse use = memory_use(in);
  if (slow_) set_next_rip(in);
  const ZydisMnemonic m = in.mnemonic();
  if (use.operand && in.operand[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      (m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC))
    return bit_string(in);
  uint32_t taken = register_use(in).used | 1u << hRsp;
  Host memory = hRsi;
  if (use.operand) {
    memory = choose(taken);
    wait_for_x87(in);
    linear_address(in, *use.operand, use.size, use.write);
    host_pointer(use, memory);
  }
  execute(in, use, memory, taken, -1);
  return Flow::Next;
}

}  // namespace lodge::engine::soft
