#include "generator.hpp"

#include <algorithm>
#include <cstring>

namespace lodge::oracle {
namespace {

constexpr uint64_t kCf = 1 << 0, kPf = 1 << 2, kAf = 1 << 4, kZf = 1 << 6, kSf = 1 << 7, kTf = 1 << 8, kIf = 1 << 9, kDf = 1 << 10,
                   kOf = 1 << 11, kNt = 1 << 14, kAc = 1 << 18, kId = 1 << 21;

// Selectors worth loading: null, the user segments with each RPL, kernel ones, local ones, and some beyond the tables.
constexpr uint16_t kSelectors[] = {0,    3,    0x2b, 0x2b, 0x2b, 0x28, 0x33, 0x23, 0x10, 0x1b, 0x18, 0x40, 0x53, 0x3b, 0x07, 0x0f, 0x0f,
                                   0x17, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x57, 0x5f, 0x0c, 0x14, 0x80, 0x83, 0xff, 0xfffc};

// For far transfers: the three user code segments, others that are code, and what is not.
constexpr uint16_t kCodeSelectors[] = {0x23, 0x23, 0x33, 0x33, 0x07, 0x07, 0x4f, 0x47, 0x20, 0x10, 0x2b, 0x0f, 0x3f, 0, 0x40, 0xfffc};

uint64_t mask_of(unsigned width) { return width >= 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1; }

// --- Instruction bytes ------------------------------------------------------------------------------------------------

using Bytes = std::array<uint8_t, 16>;

uint8_t random_modrm(Random& r) {
  const uint8_t modrm = uint8_t(r.next());
  return r.chance(40) ? modrm | 0xc0 : modrm;
}

size_t put_prefixes(Random& r, Bytes& b, unsigned percent) {
  static constexpr uint8_t kPrefixes[] = {0x66, 0x66, 0x67, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
  size_t n = 0;
  while (n < 4 && r.chance(percent)) b[n++] = r.pick(kPrefixes);
  return n;
}

Bytes random_bytes(Random& r, Mode mode) {
  Bytes b;
  for (auto& byte : b) byte = uint8_t(r.next());
  size_t n = put_prefixes(r, b, 25);
  const uint64_t kind = r.below(100);
  if (kind >= 98) {  // EVEX: the engine must refuse it
    b[n++] = 0x62;
    b[n] = uint8_t((b[n] & 0xf0) | (1 + r.below(3)) | (mode != Mode::Code64 ? 0xc0 : 0));
    b[n + 1] |= 0x04;
    b[n + 4] = random_modrm(r);
    return b;
  }
  if (kind >= 85) {  // VEX
    if (r.chance(40)) {
      b[n++] = 0xc5;
      b[n++] |= uint8_t(r.chance(50) ? 0x80 : 0xf8);
    } else {
      b[n++] = 0xc4;
      b[n] = uint8_t((b[n] & 0xe0) | (1 + r.below(3)) | (mode != Mode::Code64 ? 0xc0 : 0));
      ++n;
      if (r.chance(40)) b[n] |= 0x78;
      ++n;
    }
    ++n;  // opcode
    b[n] = random_modrm(r);
    return b;
  }
  if (mode == Mode::Code64 && r.chance(50)) b[n++] = uint8_t(0x40 | (r.next() & 0xf));
  if (kind >= 45) b[n++] = 0x0f;
  if (kind >= 70) b[n++] = kind >= 79 ? 0x3a : 0x38;
  ++n;
  b[n] = random_modrm(r);
  return b;
}

// One of the decoder's forms with other registers, addressing, prefixes and immediates.
Bytes form_bytes(Random& r, Mode mode, const Forms& forms) {
  const Form& form = forms.tested()[r.below(forms.tested().size())];
  Bytes b;
  for (auto& byte : b) byte = uint8_t(r.next());
  // More prefixes, in front of those that the form needs.
  static constexpr uint8_t kHarmless[] = {0x67, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
  size_t n = 0;
  if (r.chance(25)) b[n++] = r.pick(kHarmless);
  if (r.chance(3)) b[n++] = 0xf0;
  const size_t opcode_end = form.modrm_at ? form.modrm_at : form.length;
  if (n + opcode_end + 1 > b.size()) return b;
  std::memcpy(&b[n], form.bytes.data(), opcode_end);
  if (!form.modrm_at) {
    // The immediate, if any, is random: keep prefixes and opcode, which are at most 6 bytes and the form's first.
    Instruction i;
    if (decode(mode, {form.bytes.data(), form.length}, i)) {
      for (const auto& imm : i.info.raw.imm) {
        for (size_t k = 0; imm.size && k < imm.size / 8u; ++k) b[n + imm.offset + k] = uint8_t(r.next());
      }
      for (size_t k = 0; i.info.raw.disp.size && k < i.info.raw.disp.size / 8u; ++k) b[n + i.info.raw.disp.offset + k] = uint8_t(r.next());
    }
    return b;
  }
  const uint8_t old = form.bytes[form.modrm_at];
  uint8_t modrm = uint8_t(r.next());
  modrm = old >= 0xc0 ? modrm | 0xc0 : modrm;
  if (old < 0xc0 && modrm >= 0xc0) modrm &= 0x7f;
  if (r.chance(60)) modrm = uint8_t((modrm & ~0x38) | (old & 0x38));
  if (old >= 0xc0 && r.chance(30)) modrm = old;  // x87 and group opcodes in the register form
  if (old < 0xc0 && (old & 7) == 4) modrm = uint8_t((modrm & ~7) | 4);
  b[n + form.modrm_at] = modrm;
  if (mode == Mode::Code64) {
    if (form.bytes[0] == 0xc4) {
      b[n + 1] ^= uint8_t(r.next() & 0xe0);
      if (r.chance(50) && (form.bytes[2] & 0x78) != 0x78) b[n + 2] ^= uint8_t(r.next() & 0x78);
    }
  } else if (form.bytes[0] == 0xc4) {
    b[n + 1] |= 0xc0;
    if ((form.bytes[2] & 0x78) != 0x78) b[n + 2] ^= uint8_t(r.next() & 0x38);
  }
  return b;
}

// REX.R, X and B for the legacy forms of 64-bit code: a REX prefix directly before the opcode.
void add_rex(Random& r, Bytes& b, const Instruction& i) {
  if (i.info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || i.info.length >= 15) return;
  size_t at = 0;
  for (size_t k = 0; k < i.info.raw.prefix_count; ++k) {
    if ((b[k] & 0xf0) == 0x40) {
      b[k] |= uint8_t(r.next() & 7);
      return;
    }
    at = k + 1;
  }
  std::memmove(&b[at + 1], &b[at], b.size() - at - 1);
  b[at] = uint8_t(0x40 | (r.next() & 7));
}

// --- Values ---------------------------------------------------------------------------------------------------------

uint64_t interesting(Random& r) {
  static constexpr uint64_t kEdges[] = {
      0,           1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, uint64_t{1} << 63,
      ~uint64_t{0}};
  switch (r.below(6)) {
    case 0: return r.below(256);
    case 1: return ~r.below(256);
    case 2: return r.pick(kEdges);
    case 3: return uint64_t{1} << r.below(64);
    default: return r.next();
  }
}

uint32_t interesting_float(Random& r) {
  static constexpr uint32_t kEdges[] = {0,          0x80000000, 1,          0x807fffff, 0x00800000, 0x3f800000, 0xbf800000,
                                        0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0x4effffff,
                                        0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000, 0x40200000};
  if (r.chance(40)) return r.pick(kEdges);
  return uint32_t(r.next() & 0x807fffff) | uint32_t(0x3f800000 + int32_t(r.below(64) << 23) - (32 << 23));
}

uint64_t interesting_double(Random& r) {
  static constexpr uint64_t kEdges[] = {0,
                                        0x8000000000000000,
                                        1,
                                        0x800fffffffffffff,
                                        0x0010000000000000,
                                        0x3ff0000000000000,
                                        0xbff0000000000000,
                                        0x7fefffffffffffff,
                                        0x7ff0000000000000,
                                        0xfff0000000000000,
                                        0x7ff8000000000000,
                                        0x7ff0000000000001,
                                        0x41dfffffffc00000,
                                        0xc1e0000000000000,
                                        0x43e0000000000000,
                                        0x3fe0000000000000,
                                        0x36a0000000000000,
                                        0x47efffffe0000000};
  if (r.chance(40)) return r.pick(kEdges);
  return (r.next() & 0x800fffffffffffff) | ((0x3ff + r.below(64) - 32) << 52);
}

void fill_vector(Random& r, uint8_t* at, size_t size) {
  const uint64_t kind = r.below(6);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t value = r.next();
    if (kind == 0) value = interesting_float(r) | uint64_t{interesting_float(r)} << 32;
    if (kind == 1) value = interesting_double(r);
    if (kind == 2) value = interesting(r);
    if (kind == 3) value &= 0x0f0f0f0f0f0f0f0f;
    if (kind == 4) value = (r.next() & 0xff) * 0x0101010101010101;
    std::memcpy(at + i, &value, std::min<size_t>(8, size - i));
  }
}

void fill_x87(Random& r, uint8_t* st) {
  static constexpr uint16_t kExponents[] = {0, 0x3fff, 0x7fff, 0x3fff + 62, 0x3fff + 63, 0x3ffe, 1, 0x7ffe, 0x3fff - 16383 + 1};
  uint64_t mantissa = r.next() | uint64_t{1} << 63;
  uint16_t exponent = uint16_t(0x3fff - 40 + r.below(80));
  switch (r.below(8)) {
    case 0: mantissa = uint64_t{1} << 63; break;
    case 1: exponent = r.pick(kExponents); break;
    case 2:
      exponent = r.pick(kExponents);
      mantissa = r.chance(50) ? 0 : r.next() >> 1;  // zero, denormal, unnormal, pseudo-infinity
      break;
    case 3:
      mantissa = r.next();
      exponent = 0xffff;
      break;  // as MMX leaves it
    case 4:
      exponent = 0x7fff;
      mantissa = r.chance(50) ? uint64_t{1} << 63 : uint64_t{3} << 62;
      break;
    default: break;
  }
  if (r.chance(30)) exponent |= 0x8000;
  std::memcpy(st, &mantissa, 8);
  std::memcpy(st + 8, &exponent, 2);
}

void random_vectors(Random& r, Vectors& v) {
  v = {};
  v.fcw = 0x37f;
  if (r.chance(30)) v.fcw = uint16_t(0x7f | r.below(16) << 8);
  if (r.chance(10)) v.fcw = uint16_t((v.fcw & ~0x3f) | r.below(0x40));
  v.fsw = uint16_t(r.below(8) << 11);
  if (r.chance(40)) v.fsw |= uint16_t(r.next() & 0x477f);
  if (v.fsw & ~v.fcw & 0x3f) {
    v.fsw |= 0x8080;  // an unmasked exception is pending: ES and B
    if (r.chance(80)) v.fsw &= uint16_t(~0x80bf);
  }
  v.ftw = r.chance(60) ? 0xff : r.chance(50) ? 0 : uint8_t(r.next());
  if (r.chance(30)) {
    v.fop = uint16_t(r.next() & 0x7ff);
    v.fip = r.next() & 0x7fffffffffff;
    v.fdp = r.next() & 0x7fffffffffff;
  }
  v.mxcsr = 0x1f80;
  if (r.chance(30)) v.mxcsr = uint32_t(r.next() & 0xffff) | 0x1f80;
  if (r.chance(8)) v.mxcsr = uint32_t(r.next() & 0xffff);
  v.mxcsr_mask = 0xffff;
  for (auto& st : v.st) fill_x87(r, st);
  for (auto& xmm : v.xmm) fill_vector(r, xmm, 16);
  for (auto& ymm : v.ymm_high) fill_vector(r, ymm, 16);
  v.xstate_bv = 7;
}

void random_segments(Random& r, Mode mode, State& s) {
  s.ss = kSelUserData;
  if (mode == Mode::Code64) {
    s.cs = kSelUserCode64;
    s.ds = r.chance(50) ? kSelUserData : 0;
    s.es = r.chance(50) ? kSelUserData : 0;
    static constexpr uint64_t kBases[] = {0, kData, kData - 0x100, kHigh, 0x1000, 0xfffffffffffff000};
    s.fs_base = r.pick(kBases);
    s.gs_base = r.pick(kBases);
    return;
  }
  static constexpr uint16_t kSegments32[] = {0, kSelUserData, 0x27, 0x2f, 0x37, 0x47, 0x4f, 0x1f};
  const auto choose = [&](uint16_t usual) { return r.chance(75) ? usual : r.pick(kSegments32); };
  if (mode == Mode::Code32) {
    s.cs = kSelUserCode32;
    s.ds = choose(kSelUserData);
    s.es = choose(kSelUserData);
    s.fs = choose(kSelUserData);
    s.gs = choose(0x27);
  } else {
    s.cs = kSelCode16;
    s.ss = kSelStack16;
    s.ds = choose(kSelData16);
    s.es = choose(kSelExtra16);
    s.fs = choose(kSelUserData);
    s.gs = choose(kSelData16);
  }
  // The processor refuses an execute-only or absent segment in a data register when it is loaded, so those never stand here.
  for (uint16_t* sel : {&s.ds, &s.es, &s.fs, &s.gs}) {
    if (*sel == 0x3f || *sel == 0x47) *sel = kSelUserData;
  }
  s.fs_base = s.fs ? descriptor_base(descriptor_of(s.fs)) : 0;
  s.gs_base = s.gs ? descriptor_base(descriptor_of(s.gs)) : 0;
}

bool is_xsave_family(const ZydisDecodedInstruction& info) {
  return info.meta.isa_set == ZYDIS_ISA_SET_XSAVE || info.meta.isa_set == ZYDIS_ISA_SET_XSAVEC ||
         info.meta.isa_set == ZYDIS_ISA_SET_XSAVEOPT || info.meta.isa_set == ZYDIS_ISA_SET_XSAVES;
}

// --- The case -------------------------------------------------------------------------------------------------------

class Builder {
 public:
  Builder(Random& r, Case& c, Instruction& i) : r_(r), c_(c), i_(i), s_(c.initial) {}

  void build();

 private:
  [[nodiscard]] uint64_t code_base() const { return c_.mode == Mode::Code16 ? kCode16Base : 0; }
  [[nodiscard]] bool is_64() const { return c_.mode == Mode::Code64; }

  void place_code();
  void random_registers();
  void shape_registers();
  void solve_memory();
  void solve(const ZydisDecodedOperand& op);
  void solve_vsib(const ZydisDecodedOperand& op);
  void solve_stack(const ZydisDecodedOperand& op);
  void shape_memory_value(const ZydisDecodedOperand& op, uint64_t linear);
  void aim_branch();
  void aim_far_branch();
  void aim_iret();
  [[nodiscard]] uint64_t stack_top() const;
  [[nodiscard]] uint64_t effective_address(const ZydisDecodedOperand& op);
  void patch_instruction();

  [[nodiscard]] uint64_t pick_target(size_t size);
  [[nodiscard]] uint64_t pick_xsave_target();
  [[nodiscard]] uint64_t pick_branch_target();
  [[nodiscard]] uint64_t segment_base(ZydisRegister segment) const;
  [[nodiscard]] uint64_t* gpr(ZydisRegister reg);
  [[nodiscard]] uint64_t value(ZydisRegister reg);
  void set(ZydisRegister reg, uint64_t v);
  void set_displacement(uint64_t v);
  void patch(uint64_t linear, const void* data, size_t size);
  [[nodiscard]] bool is(ZydisMnemonic m) const { return i_.info.mnemonic == m; }

  Random& r_;
  Case& c_;
  Instruction& i_;
  State& s_;
};

// Data never goes where code is: behind the instruction stands INT3, not something random.
void Builder::patch(uint64_t linear, const void* data, size_t size) {
  if (linear + size > kCode && linear < kCode + 2 * kPage) return;
  Patch p = {linear, uint8_t(std::min(size, sizeof p.data)), {}};
  std::memcpy(p.data.data(), data, p.length);
  c_.patches.push_back(p);
}

uint64_t* Builder::gpr(ZydisRegister reg) {
  const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  if (ZydisRegisterGetClass(full) != ZYDIS_REGCLASS_GPR64) return nullptr;
  return &s_.gpr[size_t(ZydisRegisterGetId(full))];
}

uint64_t Builder::value(ZydisRegister reg) {
  const uint64_t* full = gpr(reg);
  if (!full) return 0;
  if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) return *full >> 8 & 0xff;
  return *full & mask_of(ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

// Sets the register and keeps what lies above its width.
void Builder::set(ZydisRegister reg, uint64_t v) {
  uint64_t* full = gpr(reg);
  if (!full) return;
  const bool high_byte = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
  const unsigned shift = high_byte ? 8 : 0;
  const uint64_t mask = mask_of(ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg)) << shift;
  *full = (*full & ~mask) | (v << shift & mask);
}

void Builder::set_displacement(uint64_t v) {
  const auto& disp = i_.info.raw.disp;
  if (disp.size) std::memcpy(&c_.bytes[disp.offset], &v, disp.size / 8);
}

uint64_t Builder::segment_base(ZydisRegister segment) const {
  if (segment == ZYDIS_REGISTER_FS) return s_.fs_base;
  if (segment == ZYDIS_REGISTER_GS) return s_.gs_base;
  if (is_64()) return 0;
  const uint16_t selector = segment == ZYDIS_REGISTER_CS   ? s_.cs
                            : segment == ZYDIS_REGISTER_SS ? s_.ss
                            : segment == ZYDIS_REGISTER_ES ? s_.es
                                                           : s_.ds;
  return selector > 3 ? descriptor_base(descriptor_of(selector)) : 0;
}

void Builder::place_code() {
  const uint64_t end = kCode + 2 * kPage;
  uint64_t at = kCode + 64 + r_.below(2 * kPage - 128);
  // Processors differ in how much of these they fetch.
  const bool no_fetch_fault = c_.never_offered || c_.undecodable || is(ZYDIS_MNEMONIC_UD0) || is(ZYDIS_MNEMONIC_UD1);
  switch (r_.below(16)) {
    case 0: at = kCode + kPage - r_.below(c_.length + 1u); break;  // across the two pages
    case 1: at = end - c_.length; break;                           // the next instruction's fetch faults
    case 2:
      if (r_.chance(25) && !no_fetch_fault) at = end - r_.below(c_.length + 1u);  // its own fetch faults
      break;
    default: break;
  }
  s_.rip = at - code_base();
}

uint64_t Builder::pick_target(size_t size) {
  size = std::max<size_t>(size, 1);
  const uint64_t before = r_.below(size);  // bytes of the operand in front of a boundary
  const uint64_t choice = r_.below(100);
  if (choice < 45) return kData + r_.below(2 * kPage / 64) * 64;
  if (choice < 70) return kData + r_.below(2 * kPage - 512);
  if (choice < 80) return kData + kPage - before;
  if (choice < 84) return kData + 2 * kPage - before;
  if (choice < 87) return kData + 2 * kPage + (r_.below(kPage - 64) & ~uint64_t{r_.chance(50) ? 63u : 0u});
  if (choice < 90) return kData + 3 * kPage - before;
  if (choice < 92) return kData + 3 * kPage + r_.below(kPage);
  if (choice < 94) return kData + 4 * kPage - before;
  if (choice < 95) return kCode + r_.below(2 * kPage);
  if (is_64()) {
    if (choice < 98) return kHigh + r_.below(2 * kPage - 64);
    static constexpr uint64_t kEdges[] = {0x7ffffffff000, 0x800000000000, 0xffff7fffffffffff, 0x1000000000000000, 0xfffffffffffffff8};
    return r_.pick(kEdges) - (r_.chance(50) ? before : 0);
  }
  if (choice < 97) return kStack + r_.below(2 * kPage - 64);
  return r_.chance(50) ? 0xffffffff - before : r_.next() & 0xffffffff;
}

// How much of an XSAVE area is written before a fault in its second page is the processor's choice: areas that cross into
// a page which faults are left out.
uint64_t Builder::pick_xsave_target() {
  const uint64_t inside = kData + r_.below((2 * kPage - 1024) / 64) * 64;
  switch (r_.below(12)) {
    case 0: return inside + r_.below(64);
    case 1: return kData + 2 * kPage + r_.below(32) * 64;
    case 2: return kData + 3 * kPage + r_.below(32) * 64;
    case 3: return is_64() ? 0x800000000000 + r_.below(16) * 64 : inside;
    default: return inside;
  }
}

void Builder::random_registers() {
  for (auto& g : s_.gpr) g = interesting(r_);
  s_.gpr[kRsp] = kStack + 0x800 + r_.below(0x1000);
  if (r_.chance(90)) s_.gpr[kRsp] &= ~uint64_t{15};
  if (c_.mode == Mode::Code16) s_.gpr[kRsp] = kEspHigh16 | ((s_.gpr[kRsp] - kStack16Base) & 0xffff);
  if (!is_64()) {
    for (size_t g = 0; g < 16; ++g) s_.gpr[g] = g < 8 ? s_.gpr[g] & 0xffffffff : 0;
  }
  s_.rflags = 2 | kIf | (r_.next() & (kCf | kPf | kAf | kZf | kSf | kOf | kId));
  if (r_.chance(20)) s_.rflags |= kDf;
  if (r_.chance(4)) s_.rflags |= kAc;
  if (r_.chance(4)) s_.rflags |= kNt;
}

// Small counts, divisions that do not always overflow, accumulators that match: what random values never do.
void Builder::shape_registers() {
  const auto attributes = i_.info.attributes;
  if (attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
    set(i_.info.address_width == 16   ? ZYDIS_REGISTER_CX
        : i_.info.address_width == 32 ? ZYDIS_REGISTER_ECX
                                      : ZYDIS_REGISTER_RCX,
        r_.chance(10) ? 0 : r_.below(40));
    if (r_.chance(40)) c_.initial.gpr[kRax] = 0;
  }
  switch (i_.info.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
      if (r_.chance(50)) s_.gpr[kRdx] = is(ZYDIS_MNEMONIC_IDIV) && r_.chance(50) ? (is_64() ? ~uint64_t{0} : 0xffffffff) : r_.below(4);
      if (r_.chance(50)) s_.gpr[kRax] &= 0x7fff;
      break;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
      if (r_.chance(70)) s_.gpr[kRcx] = (s_.gpr[kRcx] & (r_.chance(50) ? 0xffff0000 : 0)) | r_.below(3);
      break;
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
      if (r_.chance(70)) {
        s_.gpr[kRax] = r_.below(20);
        s_.gpr[kRdx] = r_.below(20);
      }
      break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:
      // A bit offset in a register reaches beyond the operand: mostly not far.
      if (i_.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER && r_.chance(80)) {
        set(i_.operands[1].reg.value, r_.below(0x400) - 0x200);
      }
      break;
    default: break;
  }
  // Selectors in registers.
  for (const auto& op : i_.visible()) {
    const bool takes_selector = is(ZYDIS_MNEMONIC_LAR) || is(ZYDIS_MNEMONIC_LSL) || is(ZYDIS_MNEMONIC_VERR) || is(ZYDIS_MNEMONIC_VERW) ||
                                is(ZYDIS_MNEMONIC_ARPL) ||
                                (is(ZYDIS_MNEMONIC_MOV) && ZydisRegisterGetClass(i_.operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT);
    if (takes_selector && op.type == ZYDIS_OPERAND_TYPE_REGISTER && gpr(op.reg.value)) {
      uint64_t* full = gpr(op.reg.value);
      *full = (*full & ~uint64_t{0xffff}) | r_.pick(kSelectors);
    }
  }
}

void Builder::solve_stack(const ZydisDecodedOperand&) {
  if (r_.chance(70)) return;  // as random_registers() left it
  static constexpr uint64_t kEdges[] = {kStack, kStack + kPage, kStack + 2 * kPage, kData + 2 * kPage, kData + 3 * kPage};
  const uint64_t at = r_.pick(kEdges) + r_.below(33) - 16;
  if (c_.mode == Mode::Code16) {
    set(ZYDIS_REGISTER_SP, (r_.chance(60) ? kStack + kPage + r_.below(33) - 16 : kStack + r_.below(9)) - kStack16Base);
  } else {
    s_.gpr[kRsp] = is_64() && r_.chance(5) ? 0x800000000000 - r_.below(16) : at;
  }
}

void Builder::solve_vsib(const ZydisDecodedOperand& op) {
  const uint64_t target = kData + kPage / 2 + r_.below(kPage);
  set(op.mem.base, target - uint64_t(op.mem.disp.value));
  const size_t index = size_t(ZydisRegisterGetId(op.mem.index));
  const bool wide = i_.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD || i_.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS ||
                    i_.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD || i_.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ;
  for (size_t lane = 0; lane < (wide ? 4u : 8u); ++lane) {
    const int64_t offset = int64_t(r_.below(400)) - 200 + (r_.chance(3) ? 0x1000 : 0);
    const size_t byte = lane * (wide ? 8 : 4);
    uint8_t* at = byte < 16 ? &s_.vectors.xmm[index][byte] : &s_.vectors.ymm_high[index][byte - 16];
    std::memcpy(at, &offset, wide ? 8 : 4);
  }
}

// Chooses where the operand shall lie, and sets displacement, index or base so that it does.
void Builder::solve(const ZydisDecodedOperand& op) {
  const uint64_t mask = mask_of(i_.info.address_width);
  const uint64_t target = is_xsave_family(i_.info) ? pick_xsave_target() : pick_target(op.size / 8);
  const uint64_t offset = (target - segment_base(op.mem.segment)) & mask;
  uint64_t displacement = uint64_t(op.mem.disp.value);
  if (is_xsave_family(i_.info)) {  // as solve_memory() leaves them in the end
    s_.gpr[kRax] &= 7;
    s_.gpr[kRdx] = 0;
  }
  const auto index_value = [&] { return op.mem.index ? value(op.mem.index) * op.mem.scale : 0; };
  if (op.mem.base == ZYDIS_REGISTER_RIP || op.mem.base == ZYDIS_REGISTER_EIP) {
    displacement = target - (s_.rip + c_.length);
    set_displacement(displacement);
    return shape_memory_value(op, target);
  }
  if (op.mem.base && op.mem.index && gpr(op.mem.base) == gpr(op.mem.index)) {
    set(op.mem.base, (offset - displacement) / (1u + op.mem.scale));
  } else if (op.mem.base) {
    set(op.mem.base, offset - displacement - index_value());
  } else {
    if (op.mem.index) set(op.mem.index, interesting(r_) & 0xfff);
    displacement = offset - index_value();
    set_displacement(displacement);
  }
  const uint64_t address = ((op.mem.base ? value(op.mem.base) : 0) + index_value() + displacement) & mask;
  shape_memory_value(op, segment_base(op.mem.segment) + address);
}

void Builder::shape_memory_value(const ZydisDecodedOperand& op, uint64_t linear) {
  uint8_t data[64];
  if (r_.chance(60)) {
    fill_vector(r_, data, sizeof data);
    patch(linear, data, sizeof data);
  }
  const size_t size = op.size / 8;
  const auto put = [&](const auto& v) { patch(linear, &v, sizeof v); };
  switch (i_.info.mnemonic) {
    case ZYDIS_MNEMONIC_CMPXCHG:
      if (r_.chance(50)) patch(linear, &s_.gpr[kRax], std::min<size_t>(size, 8));
      break;
    case ZYDIS_MNEMONIC_CMPXCHG8B:
      if (r_.chance(50)) put((s_.gpr[kRax] & 0xffffffff) | s_.gpr[kRdx] << 32);
      break;
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      if (r_.chance(50)) put(std::array<uint64_t, 2>{s_.gpr[kRax], s_.gpr[kRdx]});
      break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
      if (r_.chance(80)) put(uint32_t(r_.next() & 0xffff));
      break;
    case ZYDIS_MNEMONIC_FLDCW: put(uint16_t(r_.next() & (r_.chance(50) ? 0xffff : 0xf7f))); break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: {
      Vectors image;
      random_vectors(r_, image);
      if (r_.chance(90)) {
        for (size_t at = 0; at < 512; at += 64) patch(linear + at, reinterpret_cast<const uint8_t*>(&image) + at, 64);
      }
      break;
    }
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: {
      Vectors image;
      random_vectors(r_, image);
      image.xstate_bv = r_.below(8);
      if (r_.chance(40)) image.xcomp_bv = uint64_t{1} << 63 | image.xstate_bv | r_.below(8);  // the compacted form
      if (r_.chance(5)) image.header[r_.below(6)] = 1;
      if (r_.chance(5)) image.xstate_bv |= uint64_t{1} << 62;
      for (size_t at = 0; at < sizeof image; at += 64) patch(linear + at, reinterpret_cast<const uint8_t*>(&image) + at, 64);
      break;
    }
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL: put(r_.pick(kSelectors)); break;
    case ZYDIS_MNEMONIC_MOV:
      if (ZydisRegisterGetClass(i_.operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) put(r_.pick(kSelectors));
      break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS: {
      const uint16_t selector = r_.pick(kSelectors);
      patch(linear + i_.info.operand_width / 8, &selector, 2);
      if (i_.info.operand_width == 64) patch(linear + 4, &selector, 2);  // AMD's ignore REX.W
      break;
    }
    default: break;
  }
}

void Builder::solve_memory() {
  for (const auto& op : i_.all()) {
    if (op.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (op.mem.type == ZYDIS_MEMOP_TYPE_AGEN) {
      if (r_.chance(30)) solve(op);
    } else if (op.mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
      solve_vsib(op);
    } else if (op.visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && gpr(op.mem.base) == &s_.gpr[kRsp]) {
      solve_stack(op);
    } else if (gpr(op.mem.base) != &s_.gpr[kRbp] || op.visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
      solve(op);
    }
  }
  if (is_xsave_family(i_.info)) {
    // Host and guest differ in XCR0 beyond x87, SSE and AVX.
    s_.gpr[kRax] &= 7;
    s_.gpr[kRdx] = 0;
  }
  if (is(ZYDIS_MNEMONIC_ENTER) || is(ZYDIS_MNEMONIC_LEAVE)) {
    set(ZYDIS_REGISTER_RBP, s_.gpr[kRsp] + r_.below(64) * 8);
    // ENTER's frame size: mostly within the stack's pages.
    if (is(ZYDIS_MNEMONIC_ENTER) && r_.chance(80)) c_.bytes[i_.info.raw.imm[0].offset + 1] &= 0x03;
  }
  if (is(ZYDIS_MNEMONIC_WRFSBASE) || is(ZYDIS_MNEMONIC_WRGSBASE)) {
    if (r_.chance(60)) *gpr(i_.operands[0].reg.value) &= 0x7fffffffffff;
  }
  // POP of a segment register.
  if (is(ZYDIS_MNEMONIC_POP) && i_.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
      ZydisRegisterGetClass(i_.operands[0].reg.value) == ZYDIS_REGCLASS_SEGMENT) {
    const uint16_t selector = r_.pick(kSelectors);
    patch(stack_top(), &selector, 2);
  }
}

// Never inside the instruction itself, whose bytes would be other instructions.
uint64_t Builder::pick_branch_target() {
  const uint64_t self = s_.rip + code_base();
  const uint64_t choice = r_.below(100);
  if (choice >= 95) return kData + r_.below(kPage);  // not executable
  if (choice >= 90) return kData + 3 * kPage + r_.below(kPage);
  if (choice >= 86 && is_64()) return 0x800000000000 + r_.below(4096);
  for (;;) {
    const uint64_t target = choice < 50 ? self + c_.length + r_.below(64) - 40 : kCode + r_.below(2 * kPage);
    if (target + 16 < self || target >= self + c_.length) return target;
  }
}

uint64_t Builder::stack_top() const {
  return (c_.mode == Mode::Code16 ? s_.gpr[kRsp] & 0xffff : s_.gpr[kRsp]) + segment_base(ZYDIS_REGISTER_SS);
}

// Where the operand lies with the registers and the displacement as they are now.
uint64_t Builder::effective_address(const ZydisDecodedOperand& op) {
  const bool rip_relative = op.mem.base == ZYDIS_REGISTER_RIP || op.mem.base == ZYDIS_REGISTER_EIP;
  int64_t displacement = op.mem.disp.value;
  if (i_.info.raw.disp.size && (rip_relative || !op.mem.base)) {
    displacement = 0;
    std::memcpy(&displacement, &c_.bytes[i_.info.raw.disp.offset], i_.info.raw.disp.size / 8);
    const unsigned shift = 64u - i_.info.raw.disp.size;
    displacement = int64_t(uint64_t(displacement) << shift) >> shift;
  }
  const uint64_t base = rip_relative ? s_.rip + c_.length : op.mem.base ? value(op.mem.base) : 0;
  const uint64_t index = op.mem.index ? value(op.mem.index) * op.mem.scale : 0;
  return ((base + index + uint64_t(displacement)) & mask_of(i_.info.address_width)) + segment_base(op.mem.segment);
}

void Builder::aim_far_branch() {
  uint16_t selector = r_.pick(kCodeSelectors);
  // Which stack a far CALL from 16-bit into 64-bit code pushes to, that of the old or of the new mode, differs too.
  if (c_.mode == Mode::Code16 && is(ZYDIS_MNEMONIC_CALL) && selector == kSelUserCode64) selector = kSelUserCode32;
  const uint64_t base = selector == kSelUserCode64 ? 0 : descriptor_base(descriptor_of(selector));
  const uint64_t offset = pick_branch_target() - base;
  const unsigned width = i_.info.operand_width / 8;
  if (i_.info.meta.category == ZYDIS_CATEGORY_RET) {
    // Processors differ in what they look at first when the released bytes end beyond the stack.
    if (i_.info.raw.imm[0].size == 16) c_.bytes[i_.info.raw.imm[0].offset + 1] = 0;
    patch(stack_top(), &offset, width);
    return patch(stack_top() + width, &selector, 2);
  }
  const auto& op = i_.operands[0];
  if (op.type == ZYDIS_OPERAND_TYPE_POINTER) {
    std::memcpy(&c_.bytes[i_.info.raw.imm[0].offset], &offset, i_.info.raw.imm[0].size / 8);
    std::memcpy(&c_.bytes[i_.info.raw.imm[1].offset], &selector, 2);
  } else if (op.type == ZYDIS_OPERAND_TYPE_MEMORY) {
    const uint64_t at = effective_address(op);
    patch(at, &offset, width);
    patch(at + width, &selector, 2);
    if (width == 8) patch(at + 4, &selector, 2);  // AMD's ignore REX.W
  }
}

void Builder::aim_iret() {
  const uint16_t selector = r_.pick(kCodeSelectors);
  const uint64_t base = selector == kSelUserCode64 ? 0 : descriptor_base(descriptor_of(selector));
  const unsigned width = i_.info.operand_width / 8;
  static constexpr uint16_t kStackSelectors[] = {0x2b, 0x2b, 0x2b, 0x17, 0x27, 0, 3, 0x18};
  const uint64_t frame[] = {pick_branch_target() - base, selector, 2 | (r_.next() & (r_.chance(20) ? ~uint64_t{0} : 0x200ed5)),
                            kStack + r_.below(2 * kPage), r_.pick(kStackSelectors)};
  if (r_.chance(90)) s_.rflags &= ~kNt;
  for (size_t i = 0; i < std::size(frame); ++i) {
    if (i < 3 || is_64() || r_.chance(50)) patch(stack_top() + i * width, &frame[i], width);
  }
}

void Builder::aim_branch() {
  const auto type = i_.info.meta.branch_type;
  if (is(ZYDIS_MNEMONIC_IRET) || is(ZYDIS_MNEMONIC_IRETD) || is(ZYDIS_MNEMONIC_IRETQ)) return aim_iret();
  if (type == ZYDIS_BRANCH_TYPE_FAR) return aim_far_branch();
  const bool returns = i_.info.meta.category == ZYDIS_CATEGORY_RET;
  if (type == ZYDIS_BRANCH_TYPE_NONE && !returns) return;
  const uint64_t target = (pick_branch_target() - code_base());
  if (i_.info.raw.imm[0].is_relative) {
    const uint64_t next = s_.rip + c_.length;
    uint64_t displacement = target - next;
    const unsigned size = i_.info.raw.imm[0].size;
    if (size == 8) {
      displacement = r_.chance(50) ? r_.below(100) : uint64_t(-int64_t(c_.length) - 1 - int64_t(r_.below(100)));
    }
    std::memcpy(&c_.bytes[i_.info.raw.imm[0].offset], &displacement, size / 8);
    return;
  }
  if (returns) {
    return patch(stack_top(), &target, i_.info.operand_width / 8);
  }
  const auto& op = i_.operands[0];
  if (op.type == ZYDIS_OPERAND_TYPE_REGISTER) return set(op.reg.value, target);
  if (op.type == ZYDIS_OPERAND_TYPE_MEMORY) patch(effective_address(op), &target, op.size / 8);
}

void Builder::patch_instruction() {
  Patch p = {s_.rip + code_base(), c_.length, {}};
  std::copy_n(c_.bytes.begin(), c_.length, p.data.begin());
  c_.patches.push_back(p);
}

void Builder::build() {
  random_vectors(r_, s_.vectors);
  random_segments(r_, c_.mode, s_);
  random_registers();
  place_code();
  if (!c_.undecodable) {
    shape_registers();
    solve_memory();
    aim_branch();
  } else {
    for (size_t g = 0; g < 8; ++g) {
      if (g != kRsp) s_.gpr[g] = r_.chance(50) ? kData + r_.below(kPage) : s_.gpr[g];
    }
  }
  // As Native::kEspHigh16 says, whatever address ESP was to make.
  if (c_.mode == Mode::Code16) s_.gpr[kRsp] = kEspHigh16 | (s_.gpr[kRsp] & 0xffff);
  if (c_.trap_flag) s_.rflags |= kTf;
  patch_instruction();
}

bool choose_instruction(Random& r, Mode mode, const Forms& forms, Case& c, Instruction& i) {
  for (unsigned attempt = 0; attempt < 64; ++attempt) {
    Bytes b = r.chance(55) ? form_bytes(r, mode, forms) : random_bytes(r, mode);
    if (!decode(mode, {b.data(), 15}, i)) {
      if (!r.chance(4) || !safe_undecodable(mode, b)) continue;
      c.undecodable = true;
      c.bytes = b;
      c.length = 15;
      return true;
    }
    if (mode == Mode::Code64 && r.chance(40)) {
      add_rex(r, b, i);
      if (!decode(mode, {b.data(), 15}, i)) continue;
    }
    if (excluded(mode, i)) {
      if (!never_offered(i)) continue;
      c.never_offered = true;
    }
    c.bytes = b;
    c.length = i.info.length;
    return true;
  }
  return false;
}

}  // namespace

std::optional<Case> generate(Mode mode, uint64_t seed, const Forms& forms, std::span<const uint8_t> fixed) {
  Random r(seed);
  Case c;
  c.seed = seed;
  c.mode = mode;
  Instruction i;
  if (!fixed.empty()) {
    const size_t size = std::min<size_t>(fixed.size(), 15);
    std::copy_n(fixed.begin(), size, c.bytes.begin());
    c.undecodable = !decode(mode, {c.bytes.data(), size}, i);
    c.length = c.undecodable ? uint8_t(size) : i.info.length;
    c.never_offered = !c.undecodable && never_offered(i);
  } else if (!choose_instruction(r, mode, forms, c, i)) {
    return std::nullopt;
  }
  // Bytes of unknown length run for one step only.
  c.trap_flag = r.chance(25) || c.undecodable;
  Builder(r, c, i).build();
  return c;
}

}  // namespace lodge::oracle
