#include "engine/soft/translate/encoding.hpp"

#include <algorithm>

namespace lodge::engine::soft {

namespace {

bool vector_class(ZydisRegister reg) {
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_X87: return true;
    default: return false;
  }
}

}  // namespace

bool needs_operand_size_prefix(const Instruction& in) {
  if (in.decoded.operand_width != 16) return false;
  if (in.decoded.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && in.decoded.opcode >= 0xd8 && in.decoded.opcode <= 0xdf) return false;
  if (in.decoded.opcode_map == ZYDIS_OPCODE_MAP_0F && in.decoded.opcode == 0xae) return false;
  bool sized = false;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    if (in.operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && vector_class(in.operand[i].reg.value)) return false;
    sized = sized || in.operand[i].size == 16;
  }
  return sized;
}

bool has_mandatory(const Instruction& in, uint8_t value) {
  for (uint32_t i = 0; i < in.decoded.raw.prefix_count; ++i)
    if (in.decoded.raw.prefixes[i].value == value && in.decoded.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY) return true;
  return false;
}

HostForm host_form(const Instruction& in, uint8_t opcode, uint8_t reg, uint8_t rm) {
  const auto& immediate = in.decoded.raw.imm[0];
  return {.opcode = opcode,
          .reg = reg,
          .rm = rm,
          .modrm = (in.decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0,
          .immediate_from = static_cast<uint8_t>(immediate.size ? immediate.offset : in.length())};
}

bool to_code64(const Instruction& in, bool code64, HostForm& form) {
  if (in.decoded.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || in.decoded.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  if (!code64 && form.opcode >= 0x40 && form.opcode <= 0x4f) {  // INC and DEC whose encodings are REX in 64-bit code
    form.rm = form.opcode & 7;
    form.reg = form.opcode < 0x48 ? 0 : 1;
    form.opcode = 0xff;
    form.modrm = true;
  } else if (form.opcode >= 0xa0 && form.opcode <= 0xa3) {  // MOV with an absolute address
    form.opcode = static_cast<uint8_t>(form.opcode < 0xa2 ? 0x8a + (form.opcode & 1) : 0x88 + (form.opcode & 1));
    form.reg = kRax;
    form.modrm = true;
    form.immediate_from = static_cast<uint8_t>(in.length());
    return true;
  } else if (form.opcode == 0x82) {  // the alias of 80h, invalid in 64-bit code
    form.opcode = 0x80;
  }
  return false;
}

RegisterUse register_use(const Instruction& in) {
  RegisterUse use;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    const auto& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const int r = gpr_index(operand.reg.value);
    if (r < 0) continue;
    use.used |= 1u << r;
    if (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) use.written |= 1u << r;
  }
  return use;
}

bool names_general_register(const Instruction& in) {
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i)
    if (in.operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_index(in.operand[i].reg.value) >= 0) return true;
  return in.mnemonic() == ZYDIS_MNEMONIC_VMOVD || in.mnemonic() == ZYDIS_MNEMONIC_VCVTSI2SS || in.mnemonic() == ZYDIS_MNEMONIC_VCVTSI2SD;
}

bool needs_alignment(const Instruction& in, uint32_t bytes) {
  if (bytes != 16 && bytes != 32) return false;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA: return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM: return false;
    // SHA takes any alignment on AMD's processors.
    case ZYDIS_MNEMONIC_SHA1MSG1:
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2: return !host_is_amd();
    default: return in.decoded.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  }
}

bool has_prefix(const Instruction& in, uint8_t value) {
  return std::any_of(in.decoded.raw.prefixes, in.decoded.raw.prefixes + in.decoded.raw.prefix_count,
                     [&](const auto& prefix) { return prefix.value == value; });
}

int condition_of(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_JO: return 0;
    case ZYDIS_MNEMONIC_JNO: return 1;
    case ZYDIS_MNEMONIC_JB: return 2;
    case ZYDIS_MNEMONIC_JNB: return 3;
    case ZYDIS_MNEMONIC_JZ: return 4;
    case ZYDIS_MNEMONIC_JNZ: return 5;
    case ZYDIS_MNEMONIC_JBE: return 6;
    case ZYDIS_MNEMONIC_JNBE: return 7;
    case ZYDIS_MNEMONIC_JS: return 8;
    case ZYDIS_MNEMONIC_JNS: return 9;
    case ZYDIS_MNEMONIC_JP: return 10;
    case ZYDIS_MNEMONIC_JNP: return 11;
    case ZYDIS_MNEMONIC_JL: return 12;
    case ZYDIS_MNEMONIC_JNL: return 13;
    case ZYDIS_MNEMONIC_JLE: return 14;
    case ZYDIS_MNEMONIC_JNLE: return 15;
    default: return -1;
  }
}

}  // namespace lodge::engine::soft
