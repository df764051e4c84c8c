#include "engine/soft/translate/instruction.hpp"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/soft/cpu/mode.hpp"

namespace lodge::engine::soft {

bool host_is_amd() {
  static const bool amd = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid(0, &eax, &ebx, &ecx, &edx);
    return ebx == 0x68747541 || ebx == 0x6f677948;  // "Auth"enticAMD, "Hygo"nGenuine
  }();
  return amd;
}

namespace {

ZydisDecoder make_decoder(ZydisMachineMode mode, ZydisStackWidth width) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, mode, width);
  // Encodings that only newer processors read as something else than a NOP or their older meaning.
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
  // 66h in front of a near branch in 64-bit code is ignored by Intel's processors and honoured by AMD's (APM vol. 3, 1.2.4); the guest's
  // vendor is the host's.
  if (mode == ZYDIS_MACHINE_MODE_LONG_64 && host_is_amd()) ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
  return decoder;
}

const ZydisDecoder& decoder_for(uint32_t k) {
  static const ZydisDecoder code64 = make_decoder(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  static const ZydisDecoder code32 = make_decoder(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  static const ZydisDecoder code16 = make_decoder(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  static const ZydisDecoder real = make_decoder(ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
  if (k & key::kCode64) return code64;
  if (k & key::kCode32) return code32;         // also between leaving protected mode and the far jump that follows
  return k & key::kProtected ? code16 : real;  // real and virtual-8086 mode have no VEX
}

constexpr std::array kOffered = {
    ZYDIS_ISA_SET_ADOX_ADCX,    ZYDIS_ISA_SET_AES,        ZYDIS_ISA_SET_AMD,         ZYDIS_ISA_SET_AVX,           ZYDIS_ISA_SET_AVX2,
    ZYDIS_ISA_SET_AVX2GATHER,   ZYDIS_ISA_SET_AVXAES,     ZYDIS_ISA_SET_AVX_GFNI,    ZYDIS_ISA_SET_BMI1,          ZYDIS_ISA_SET_BMI2,
    ZYDIS_ISA_SET_CLFLUSHOPT,   ZYDIS_ISA_SET_CLFSH,      ZYDIS_ISA_SET_CLWB,        ZYDIS_ISA_SET_CMOV,          ZYDIS_ISA_SET_CMPXCHG16B,
    ZYDIS_ISA_SET_F16C,         ZYDIS_ISA_SET_FAT_NOP,    ZYDIS_ISA_SET_FCMOV,       ZYDIS_ISA_SET_FMA,           ZYDIS_ISA_SET_FXSAVE,
    ZYDIS_ISA_SET_FXSAVE64,     ZYDIS_ISA_SET_GFNI,       ZYDIS_ISA_SET_I186,        ZYDIS_ISA_SET_I286PROTECTED, ZYDIS_ISA_SET_I286REAL,
    ZYDIS_ISA_SET_I386,         ZYDIS_ISA_SET_I486,       ZYDIS_ISA_SET_I486REAL,    ZYDIS_ISA_SET_I86,           ZYDIS_ISA_SET_INVPCID,
    ZYDIS_ISA_SET_LAHF,         ZYDIS_ISA_SET_LONGMODE,   ZYDIS_ISA_SET_LZCNT,       ZYDIS_ISA_SET_MOVBE,         ZYDIS_ISA_SET_PAUSE,
    ZYDIS_ISA_SET_PCLMULQDQ,    ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_PENTIUMREAL, ZYDIS_ISA_SET_POPCNT,        ZYDIS_ISA_SET_PPRO,
    ZYDIS_ISA_SET_PREFETCH_NOP, ZYDIS_ISA_SET_RDPID,      ZYDIS_ISA_SET_RDPMC,       ZYDIS_ISA_SET_RDRAND,        ZYDIS_ISA_SET_RDSEED,
    ZYDIS_ISA_SET_RDTSCP,       ZYDIS_ISA_SET_RDWRFSGS,   ZYDIS_ISA_SET_SHA,         ZYDIS_ISA_SET_SMAP,          ZYDIS_ISA_SET_SSE,
    ZYDIS_ISA_SET_SSE2,         ZYDIS_ISA_SET_SSE2MMX,    ZYDIS_ISA_SET_SSE3,        ZYDIS_ISA_SET_SSE3X87,       ZYDIS_ISA_SET_SSE4,
    ZYDIS_ISA_SET_SSE42,        ZYDIS_ISA_SET_SSE4A,      ZYDIS_ISA_SET_SSEMXCSR,    ZYDIS_ISA_SET_SSE_PREFETCH,  ZYDIS_ISA_SET_SSSE3,
    ZYDIS_ISA_SET_SSSE3MMX,     ZYDIS_ISA_SET_SVM,        ZYDIS_ISA_SET_VAES,        ZYDIS_ISA_SET_VPCLMULQDQ,    ZYDIS_ISA_SET_VTX,
    ZYDIS_ISA_SET_X87,          ZYDIS_ISA_SET_XSAVE,      ZYDIS_ISA_SET_XSAVEC,      ZYDIS_ISA_SET_XSAVEOPT,      ZYDIS_ISA_SET_XSAVES,
};

// SIB base 101 under mod 00 is no register but a displacement alone, whatever REX.B or VEX.B (SDM vol. 2, table 2-3). Zydis 4.0.0 reads it
// as R13 with 32-bit addresses.
void correct_absent_base(Instruction& in) {
  const auto& raw = in.decoded.raw;
  const bool absent = (in.decoded.attributes & ZYDIS_ATTRIB_HAS_MODRM) && in.decoded.address_width != 16 && raw.modrm.mod == 0 &&
                      raw.modrm.rm == 4 && raw.sib.base == 5;
  if (!absent) return;
  for (uint32_t i = 0; i < in.decoded.operand_count; ++i) {
    ZydisDecodedOperand& operand = in.operand[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) continue;
    operand.mem.base = ZYDIS_REGISTER_NONE;
    operand.mem.disp.has_displacement = ZYAN_TRUE;
    operand.mem.disp.value = raw.disp.value;
  }
}

// AMD's XOP instructions begin with the opcode of POP and a register field that POP does not have. Intel's processors know no more than
// that, so there the undefined POP is all that is fetched.
bool undefined_pop(const ZydisDecoder& decoder, const uint8_t* bytes, uint32_t room) {
  uint32_t at = 0;
  while (at < room && bytes[at] != 0x8f) ++at;
  if (at + 1 >= room || !(bytes[at + 1] & 0x38)) return false;
  uint8_t pop[ZYDIS_MAX_INSTRUCTION_LENGTH];
  std::memcpy(pop, bytes, room);
  pop[at + 1] &= 0xc7;
  ZydisDecodedInstruction decoded;
  return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, pop, room, &decoded)) && decoded.mnemonic == ZYDIS_MNEMONIC_POP &&
         decoded.opcode == 0x8f && decoded.raw.modrm.offset == at + 1;
}

// How long a VEX instruction is that means nothing, as Intel's processors fetch it: VEX and its like stand for the escape bytes of the
// legacy map that the two low bits of the map's number name, of which the opcode is then taken, whatever prefixes are before them (by
// experiment; SDM vol. 2, 2.3.2 to 2.3.4 only have such prefixes undefined). 0: there is none, or its end is not known.
uint32_t undefined_vex_length(uint32_t k, const uint8_t* bytes, uint32_t room) {
  const bool code64 = (k & key::kCode64) != 0;
  bool address_prefix = false;
  uint32_t at = 0;
  for (; at < room; ++at) {
    constexpr std::array<uint8_t, 10> kPrefixes{0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0xf0, 0xf2, 0xf3};
    address_prefix |= bytes[at] == 0x67;
    if (!(code64 && (bytes[at] & 0xf0) == 0x40) && bytes[at] != 0x67 && !std::ranges::binary_search(kPrefixes, bytes[at])) break;
  }
  if (at + 1 >= room || (bytes[at] != 0xc4 && bytes[at] != 0xc5) || (!code64 && bytes[at + 1] < 0xc0)) return 0;
  const uint32_t map = bytes[at] == 0xc5 ? 1 : bytes[at + 1] & 3;
  at += bytes[at] == 0xc5 ? 2 : 3;
  if (at >= room) return at + 1;
  const uint8_t opcode = bytes[at++];
  const auto among = [&](std::initializer_list<std::pair<int, int>> ranges) {
    return map == 1 && std::ranges::any_of(ranges, [&](const auto& range) { return opcode >= range.first && opcode <= range.second; });
  };
  uint32_t immediate = map == 3 || among({{0x70, 0x73}, {0xa4, 0xa4}, {0xac, 0xac}, {0xba, 0xba}, {0xc2, 0xc2}, {0xc4, 0xc6}}) ? 1 : 0;
  if (map == 0 || among({{0x05, 0x0b}, {0x30, 0x37}, {0x77, 0x77}, {0xa0, 0xa2}, {0xa8, 0xaa}, {0xc8, 0xcf}})) return at;
  if (among({{0x80, 0x8f}})) return at + 4;
  if (at >= room) return at + 1 + immediate;
  const uint8_t modrm = bytes[at++], mod = modrm >> 6, rm = modrm & 7;
  if (mod == 3) return at + immediate;
  if (!code64 && address_prefix == ((k & key::kCode32) != 0)) return at + (mod == 0 ? (rm == 6 ? 2 : 0) : mod) + immediate;
  uint8_t base = rm;
  if (rm == 4) {
    if (at >= room) return at + 1 + immediate;
    base = bytes[at++] & 7;
  }
  if (mod == 1) immediate += 1;
  if (mod == 2 || (mod == 0 && base == 5)) immediate += 4;
  return at + immediate;
}

}  // namespace

DecodeStatus decode(uint32_t k, const uint8_t* bytes, uint32_t available, Instruction& into) {
  const uint32_t room = std::min<uint32_t>(available, ZYDIS_MAX_INSTRUCTION_LENGTH);
  const ZyanStatus status = ZydisDecoderDecodeFull(&decoder_for(k), bytes, room, &into.decoded, into.operand);
  if (ZYAN_SUCCESS(status)) {
    std::memcpy(into.bytes, bytes, into.decoded.length);
    correct_absent_base(into);
    return DecodeStatus::Ok;
  }
  if (!host_is_amd() && undefined_pop(decoder_for(k), bytes, room)) return DecodeStatus::Invalid;
  if (status == ZYDIS_STATUS_NO_MORE_DATA) return room == ZYDIS_MAX_INSTRUCTION_LENGTH ? DecodeStatus::TooLong : DecodeStatus::MoreBytes;
  if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return DecodeStatus::TooLong;
  const uint32_t length = host_is_amd() ? 0 : undefined_vex_length(k, bytes, room);
  if (length > ZYDIS_MAX_INSTRUCTION_LENGTH) return DecodeStatus::TooLong;
  return length > room ? DecodeStatus::MoreBytes : DecodeStatus::Invalid;
}

bool offered(const Instruction& instruction) {
  static const auto known = [] {
    std::array<bool, ZYDIS_ISA_SET_MAX_VALUE + 1> sets{};
    for (const ZydisISASet set : kOffered) sets[set] = set != ZYDIS_ISA_SET_SSE4A || host_is_amd();
    return sets;
  }();
  return known[instruction.decoded.meta.isa_set];
}

bool is_x87(const Instruction& instruction) {
  return instruction.decoded.meta.isa_ext == ZYDIS_ISA_EXT_X87 || instruction.mnemonic() == ZYDIS_MNEMONIC_FISTTP;
}

namespace {

int find_gpr_index(ZydisRegister reg) {
  const ZydisRegisterClass family = ZydisRegisterGetClass(reg);
  switch (family) {
    case ZYDIS_REGCLASS_GPR8:
      if (is_high_byte(reg)) return reg - ZYDIS_REGISTER_AH;
      if (reg <= ZYDIS_REGISTER_BL) return reg - ZYDIS_REGISTER_AL;
      return 4 + (reg - ZYDIS_REGISTER_SPL);
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: return ZydisRegisterGetId(reg);
    default: return -1;
  }
}

}  // namespace

const std::array<int8_t, ZYDIS_REGISTER_MAX_VALUE + 1> kGprIndex = [] {
  std::array<int8_t, ZYDIS_REGISTER_MAX_VALUE + 1> table{};
  for (int reg = 0; reg <= ZYDIS_REGISTER_MAX_VALUE; ++reg)
    table[static_cast<size_t>(reg)] = static_cast<int8_t>(find_gpr_index(static_cast<ZydisRegister>(reg)));
  return table;
}();

SegmentIndex segment_index(ZydisRegister reg) {
  switch (reg) {
    case ZYDIS_REGISTER_ES: return kEs;
    case ZYDIS_REGISTER_CS: return kCs;
    case ZYDIS_REGISTER_SS: return kSs;
    case ZYDIS_REGISTER_FS: return kFs;
    case ZYDIS_REGISTER_GS: return kGs;
    default: return kDs;
  }
}

}  // namespace lodge::engine::soft
