#include "decoder.hpp"

#include <cpuid.h>

#include <array>

namespace lodge::oracle {
namespace {

ZydisDecoder make_decoder(Mode mode) {
  ZydisDecoder decoder;
  constexpr ZydisMachineMode kModes[] = {ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_MACHINE_MODE_LONG_64};
  constexpr ZydisStackWidth kStacks[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32, ZYDIS_STACK_WIDTH_64};
  ZydisDecoderInit(&decoder, kModes[size_t(mode)], kStacks[size_t(mode)]);
  // What the processor does not offer is another instruction to it: BNDxxx and CLDEMOTE are NOPs.
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, false);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, false);
  // AMD's processors honour an operand-size prefix in front of a near branch in 64-bit code (APM vol. 3, 1.2.4).
  if (mode == Mode::Code64 && host_is_amd()) ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, true);
  return decoder;
}

const char* excluded_extension(const ZydisDecodedInstruction& info) {
  switch (info.meta.isa_set) {
    case ZYDIS_ISA_SET_SSE4A:
    case ZYDIS_ISA_SET_AMD3DNOW: return host_is_amd() ? nullptr : "an extension that only AMD's processors know";
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_AMD:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX_GFNI:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_CET:
    case ZYDIS_ISA_SET_CLFLUSHOPT:
    case ZYDIS_ISA_SET_CLFSH:
    case ZYDIS_ISA_SET_CLWB:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_GFNI:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_PREFETCHWT1:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_RDWRFSGS:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_SMAP:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_XOP:
    case ZYDIS_ISA_SET_TBM:
    case ZYDIS_ISA_SET_FMA4:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT:
    case ZYDIS_ISA_SET_XSAVES:
    case ZYDIS_ISA_SET_INVPCID: return nullptr;
    default: return "a system extension (SVM, VMX, SGX, ...)";
  }
}

const char* excluded_mnemonic(const ZydisDecodedInstruction& info) {
  switch (info.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC: return "reads a clock or a counter: differs from run to run";
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED: return "random by its nature";
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_RDPID: return "the guest's processor is another one";
    case ZYDIS_MNEMONIC_INT1: return "where the host is itself a guest, its hypervisor reports this trap as a fault";
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SYSRET: return "enters the host's kernel, or depends on the vendor there";
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_STR: return "the host's kernel has UMIP and emulates it";
    default: return nullptr;
  }
}

const char* excluded_form(Mode mode, const Instruction& i) {
  if (i.info.mnemonic == ZYDIS_MNEMONIC_INT && (i.operands[0].imm.value.u & 0xff) == 0x80) return "INT 80h is a system call of the host's";
  const ZydisInstructionAttributes a = i.info.attributes;
  const bool is_loop = i.info.mnemonic == ZYDIS_MNEMONIC_LOOPE || i.info.mnemonic == ZYDIS_MNEMONIC_LOOPNE;
  for (size_t k = 0; is_loop && k < i.info.raw.prefix_count; ++k) {
    // An AMD one takes F2 before LOOPE for LOOPNE, and the other way round.
    if ((i.info.raw.prefixes[k].value & 0xfe) == 0xf2) return "a REP prefix on LOOPE or LOOPNE is reserved";
  }
  if (mode == Mode::Code64 && i.info.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE && (a & ZYDIS_ATTRIB_HAS_OPERANDSIZE) && !host_is_amd()) {
    return "a near branch with an operand-size prefix in 64-bit code, on a host that is not AMD's";
  }
  return nullptr;
}

bool never_offered_set(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_SSE4A:
    case ZYDIS_ISA_SET_AMD3DNOW: return !host_is_amd();
    case ZYDIS_ISA_SET_AMX_BF16:
    case ZYDIS_ISA_SET_AMX_INT8:
    case ZYDIS_ISA_SET_AMX_TILE:
    case ZYDIS_ISA_SET_AVX_VNNI:
    case ZYDIS_ISA_SET_CLZERO:
    case ZYDIS_ISA_SET_ENQCMD:
    case ZYDIS_ISA_SET_HRESET:
    case ZYDIS_ISA_SET_KEYLOCKER:
    case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
    case ZYDIS_ISA_SET_MCOMMIT:
    case ZYDIS_ISA_SET_MONITORX:
    case ZYDIS_ISA_SET_MOVDIR:
    case ZYDIS_ISA_SET_PADLOCK_ACE:
    case ZYDIS_ISA_SET_PADLOCK_PHE:
    case ZYDIS_ISA_SET_PADLOCK_PMM:
    case ZYDIS_ISA_SET_PADLOCK_RNG:
    case ZYDIS_ISA_SET_PKU:
    case ZYDIS_ISA_SET_PT:
    case ZYDIS_ISA_SET_RDPRU:
    case ZYDIS_ISA_SET_RTM:
    case ZYDIS_ISA_SET_SERIALIZE:
    case ZYDIS_ISA_SET_TSX_LDTRK:
    case ZYDIS_ISA_SET_UINTR:
    case ZYDIS_ISA_SET_WAITPKG: return true;
    default: return set >= ZYDIS_ISA_SET_AVX512BW_128 && set <= ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512;
  }
}

uint8_t prefix_free(Mode mode, std::span<const uint8_t> bytes, size_t& at) {
  for (at = 0; at < bytes.size(); ++at) {
    const uint8_t b = bytes[at];
    const bool legacy = b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x26 ||
                        b == 0x64 || b == 0x65;
    const bool rex = mode == Mode::Code64 && (b & 0xf0) == 0x40;
    if (!legacy && !rex) return b;
  }
  return 0;
}

}  // namespace

// SIB base 101 under mod 00 is a displacement alone, whatever REX.B or VEX.B (SDM vol. 2, table 2-3): Zydis 4.0.0 takes it for R13
// with 32-bit addresses.
static void correct_absent_base(Instruction& i) {
  const auto& raw = i.info.raw;
  if (!(i.info.attributes & ZYDIS_ATTRIB_HAS_MODRM) || i.info.address_width == 16 || raw.modrm.mod != 0 || raw.modrm.rm != 4 ||
      raw.sib.base != 5)
    return;
  for (ZydisDecodedOperand& op : i.operands) {
    if (op.type != ZYDIS_OPERAND_TYPE_MEMORY || op.encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) continue;
    op.mem.base = ZYDIS_REGISTER_NONE;
    op.mem.disp.has_displacement = true;
    op.mem.disp.value = raw.disp.value;
  }
}

bool decode(Mode mode, std::span<const uint8_t> bytes, Instruction& out) {
  static const std::array<ZydisDecoder, 3> decoders = {make_decoder(Mode::Code16), make_decoder(Mode::Code32), make_decoder(Mode::Code64)};
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[size_t(mode)], bytes.data(), bytes.size(), &out.info, out.operands))) return false;
  correct_absent_base(out);
  return true;
}

std::string disassemble(const Instruction& instruction, uint64_t address) {
  static const ZydisFormatter formatter = [] {
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    return f;
  }();
  char text[160];
  const auto status = ZydisFormatterFormatInstruction(&formatter, &instruction.info, instruction.operands,
                                                      instruction.info.operand_count_visible, text, sizeof text, address, nullptr);
  return ZYAN_SUCCESS(status) ? text : "?";
}

const char* excluded(Mode mode, const Instruction& i) {
  if (const char* why = excluded_mnemonic(i.info)) return why;
  if (const char* why = excluded_extension(i.info)) return why;
  return excluded_form(mode, i);
}

bool never_offered(const Instruction& instruction) { return never_offered_set(instruction.info.meta.isa_set); }

bool safe_undecodable(Mode mode, std::span<const uint8_t> bytes) {
  size_t at = 0;
  const uint8_t opcode = prefix_free(mode, bytes, at);
  const uint8_t second = at + 1 < bytes.size() ? bytes[at + 1] : 0;
  if (opcode == 0xcd || opcode == 0x62) return false;  // INT n; EVEX of a newer extension
  if ((opcode == 0xc4 || opcode == 0xc5) && (mode == Mode::Code64 || second >= 0xc0)) {
    // AVX-512's mask instructions are VEX-encoded, and Zydis is stricter with them than processors are.
    const size_t opcode_at = at + (opcode == 0xc4 ? 3 : 2);
    const uint8_t vex = opcode_at < bytes.size() ? bytes[opcode_at] : 0;
    // VPERMQ and VPERMPD with VEX.W clear, which the manuals do not have, run on AMD's processors.
    if (opcode == 0xc4 && (second & 0x1f) == 3 && vex <= 1) return false;
    return !((vex >= 0x30 && vex < 0x34) || (vex & 0xf0) == 0x40 || (vex & 0xf0) == 0x90);
  }
  // LOCK VERW, which must be #UD (SDM vol. 2A, LOCK), runs where the microcode has made VERW clear the processor's buffers.
  const bool verw = opcode == 0x0f && second == 0x00 && at + 2 < bytes.size() && (bytes[at + 2] >> 3 & 7) == 5;
  if (verw) return false;
  // SYSCALL and kin, system instructions of group 7, MOV to control and debug registers, and what is above SSE4 in these maps.
  if (opcode == 0x0f && (second & 0xfc) == 0x20) return false;  // AMD's LOCK MOV CR0 is MOV CR8 (APM vol. 3, MOV CRn)
  if (opcode == 0x0f) return second != 0x05 && second != 0x07 && second != 0x34 && second != 0x35 && second != 0x01 && second != 0xc7;
  return opcode != 0xca && opcode != 0xcb && opcode != 0xcf && opcode != 0xea && opcode != 0x9a && opcode != 0xff;
}

uint64_t form_key(Mode mode, const Instruction& i) {
  uint64_t key = uint64_t(mode);
  const auto mix = [&key](uint64_t value) { key = (key ^ value) * 0x100000001b3 ^ key >> 29; };
  mix(i.info.mnemonic);
  mix(i.info.encoding);
  mix(i.info.opcode_map);
  mix(i.info.opcode);
  mix(i.info.operand_width);
  mix(i.info.avx.vector_length);
  for (const ZydisDecodedOperand& op : i.all()) {
    mix(op.type);
    mix(op.encoding);
    mix(op.size);
  }
  return key;
}

bool host_is_amd() {
  static const bool amd = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && (ebx == signature_AMD_ebx || ebx == 0x6f677948 /* Hygon */);
  }();
  return amd;
}

}  // namespace lodge::oracle
