#include "compare.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "decoder.hpp"

namespace lodge::oracle {
namespace {

class Report {
 public:
  void value(std::string_view name, uint64_t left, uint64_t right) {
    if (left != right) fmt::format_to(std::back_inserter(text_), "  {}: {:#x} | {:#x}\n", name, left, right);
  }
  void bytes(const std::string& name, const uint8_t* left, const uint8_t* right, size_t size) {
    if (std::memcmp(left, right, size) == 0) return;
    fmt::format_to(std::back_inserter(text_), "  {}: {:02x} | {:02x}\n", name, fmt::join(left, left + size, ""),
                   fmt::join(right, right + size, ""));
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

bool is_fault(uint8_t vector) { return (vector >= 10 && vector <= 14) || vector == 17; }

// What Intel's processors leave behind when an instruction's memory operand faults, although the instruction runs again from its
// beginning then. AMD's leave everything as it was, and so does the engine.
struct Leftovers {
  bool order = false;   // which of several elements faults first
  bool x87 = false;     // the stack is already MMX's (TOP is 0)
  bool mxcsr = false;   // exception flags of a conversion whose store faults
  bool memory = false;  // a part of the operand
  bool pushed = false;  // the return address of a CALL whose target is not canonical
};

Leftovers leftovers(const Case& test) {
  Leftovers left;
  Instruction i;
  if (host_is_amd() || !decode(test.mode, {test.bytes.data(), test.length}, i)) return left;
  bool stores = false;
  for (const auto& op : i.visible()) {
    if (op.type == ZYDIS_OPERAND_TYPE_MEMORY && (op.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
      stores = true;
      left.memory = op.size == 80;
    }
    if (op.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(op.reg.value) == ZYDIS_REGCLASS_MMX) left.x87 = true;
  }
  left.x87 = left.x87 && stores;
  switch (i.info.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ: left.x87 = true; [[fallthrough]];
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: left.order = true; break;
    case ZYDIS_MNEMONIC_VCVTPS2PH: left.mxcsr = true; break;
    case ZYDIS_MNEMONIC_CALL: left.pushed = true; break;
    default: break;
  }
  return left;
}

// Where Intel's processors do not get as far as to the memory access that faults on AMD's and in the engine: x87's stores with an unmasked
// exception write nothing, VCVTPS2PH converts first, BOUND compares with the lower bound before it reads the upper one. The half-precision
// conversions check no alignment.
bool needs_no_access(const Case& test, const Outcome& left, const Outcome& right) {
  constexpr uint16_t kErrorSummary = 0x80;
  constexpr uint8_t kBr = 5, kAc = 17, kXm = 19;
  Instruction i;
  if (host_is_amd() || !is_fault(right.vector) || !decode(test.mode, {test.bytes.data(), test.length}, i)) return false;
  switch (i.info.mnemonic) {
    case ZYDIS_MNEMONIC_BOUND: return left.vector == kBr;
    case ZYDIS_MNEMONIC_VCVTPH2PS: return right.vector == kAc;
    case ZYDIS_MNEMONIC_VCVTPS2PH: return left.vector == kXm || right.vector == kAc;
    default: break;
  }
  if (left.state.rip == test.initial.rip || !(left.state.vectors.fsw & kErrorSummary)) return false;
  switch (i.info.mnemonic) {
    case ZYDIS_MNEMONIC_FST:
    case ZYDIS_MNEMONIC_FSTP:
    case ZYDIS_MNEMONIC_FIST:
    case ZYDIS_MNEMONIC_FISTP:
    case ZYDIS_MNEMONIC_FISTTP:
    case ZYDIS_MNEMONIC_FBSTP: return true;
    default: return false;
  }
}

// AMD's processors want an operand's offset canonical before FS's or GS's base is added; translated blocks look at the sum alone.
bool sum_is_canonical_only(const Case& test, const Outcome& left) {
  constexpr uint8_t kGp = 13;
  Instruction i;
  if (!host_is_amd() || test.mode != Mode::Code64 || left.vector != kGp || !decode(test.mode, {test.bytes.data(), test.length}, i))
    return false;
  const auto value = [&](ZydisRegister r) {
    return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_GPR64 ? test.initial.gpr[size_t(ZydisRegisterGetId(r))] : 0;
  };
  const auto canonical = [](uint64_t address) { return int64_t(address << 16) >> 16 == int64_t(address); };
  return std::ranges::any_of(i.all(), [&](const ZydisDecodedOperand& op) {
    if (op.type != ZYDIS_OPERAND_TYPE_MEMORY || (op.mem.segment != ZYDIS_REGISTER_FS && op.mem.segment != ZYDIS_REGISTER_GS)) return false;
    const uint64_t offset = value(op.mem.base) + value(op.mem.index) * op.mem.scale + uint64_t(op.mem.disp.value);
    const uint64_t base = op.mem.segment == ZYDIS_REGISTER_FS ? test.initial.fs_base : test.initial.gs_base;
    return !(canonical(offset) && canonical(offset + op.size / 8 - 1)) && canonical(base + offset);
  });
}

// An IRET to a segment of the local table, which the processor has to mark as accessed: a host whose kernel maps that table read-only
// takes the page fault for a spurious one, and the instruction never ends.
bool restarted_for_ever(const Case& test, const Outcome& left) {
  Instruction i;
  if (left.vector != kHang || left.state.rip != test.initial.rip || !decode(test.mode, {test.bytes.data(), test.length}, i)) return false;
  return i.info.mnemonic == ZYDIS_MNEMONIC_IRET || i.info.mnemonic == ZYDIS_MNEMONIC_IRETD || i.info.mnemonic == ZYDIS_MNEMONIC_IRETQ;
}

void compare_vectors(Report& r, const Vectors& a, const Vectors& b, const Leftovers& ignored) {
  constexpr uint32_t kMxcsrFlags = 0x3f;
  const uint32_t mxcsr = ignored.mxcsr ? ~kMxcsrFlags : ~0u;
  r.value("mxcsr", a.mxcsr & mxcsr, b.mxcsr & mxcsr);
  for (size_t i = 0; i < 16; ++i) r.bytes(fmt::format("xmm{}", i), a.xmm[i], b.xmm[i], 16);
  for (size_t i = 0; i < 16; ++i) r.bytes(fmt::format("ymm{}[255:128]", i), a.ymm_high[i], b.ymm_high[i], 16);
  r.value("fcw", a.fcw, b.fcw);
  if (ignored.x87) return;
  r.value("fsw", a.fsw, b.fsw);
  r.value("ftw", a.ftw, b.ftw);
  // AMD's XSAVE, with which the kernel fills a signal's frame, writes zeros for the error pointers unless an unmasked
  // exception is pending (APM vol. 2, 11.4.4); the engine's call gives them always.
  if (a.fop || a.fip || a.fdp) {
    r.value("fop", a.fop, b.fop);
    r.value("fip", a.fip, b.fip);
    r.value("fdp", a.fdp, b.fdp);
  }
  for (size_t i = 0; i < 8; ++i) r.bytes(fmt::format("st{}", i), a.st[i], b.st[i], 10);
}

void compare_memory(Report& r, const Image& a, const Image& b) {
  if (a == b) return;
  for (const Area& area : kAreas) {
    for (size_t at = 0; at < area.pages * kPage; at += 16) {
      const size_t offset = area.offset + at;
      r.bytes(fmt::format("[{:#x}]", area.linear + at), &a[offset], &b[offset], 16);
    }
  }
}

// Flags that the SDM leaves undefined, of instructions that the engine cannot copy: 64-bit code has no decimal adjustments.
uint64_t undefined_flags(const Case& test) {
  constexpr uint64_t kCf = 1, kPf = 4, kAf = 0x10, kZf = 0x40, kSf = 0x80, kOf = 0x800;
  Instruction i;
  if (test.mode == Mode::Code64 || !decode(test.mode, {test.bytes.data(), test.length}, i)) return 0;
  switch (i.info.mnemonic) {
    case ZYDIS_MNEMONIC_AAA:
    case ZYDIS_MNEMONIC_AAS: return kOf | kSf | kZf | kPf;
    case ZYDIS_MNEMONIC_AAD:
    case ZYDIS_MNEMONIC_AAM: return kOf | kAf | kCf;
    case ZYDIS_MNEMONIC_DAA:
    case ZYDIS_MNEMONIC_DAS: return kOf;
    default: return 0;
  }
}

// Instructions of several accesses, which the manuals do not order: which of two faults comes first, and what has been
// written before it, differs between processors (SDM vol. 3, 6.9: "implementation dependent").
bool has_unordered_accesses(const Case& test) {
  Instruction i;
  if (!decode(test.mode, {test.bytes.data(), test.length}, i)) return false;
  if (i.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return true;
  switch (i.info.meta.isa_set) {
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64:
    case ZYDIS_ISA_SET_XSAVE:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVEOPT: return true;
    default: break;
  }
  for (const auto& op : i.visible()) {
    if (op.type == ZYDIS_OPERAND_TYPE_MEMORY && op.size == 80) return true;  // eight bytes and two
  }
  switch (i.info.mnemonic) {
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR: return true;
    default: return false;
  }
}

void compare_fault(Report& r, const Outcome& left, const Outcome& right) {
  r.value("vector", left.vector, right.vector);
  // Linux reports every user access to its own half as a protection fault (sanitize_error_code()).
  constexpr uint64_t kTaskSize = 0x7ffffffff000;
  const uint32_t ignored = left.vector == 14 && left.cr2 >= kTaskSize ? 1 : 0;
  r.value("error code", left.error & ~ignored, right.error & ~ignored);
  r.value("cr2", left.cr2, right.cr2);
}

bool is_far_call(const Case& test) {
  Instruction i;
  return decode(test.mode, {test.bytes.data(), test.length}, i) && i.info.meta.category == ZYDIS_CATEGORY_CALL;
}

// Processors may push before they look at the target: a fault leaves what has been written below the stack pointer.
Image without_pushes(const Case& test, Image memory) {
  constexpr uint64_t kFrame = 16;
  const auto clear_below = [&](uint64_t top) {
    for (uint64_t at = top - kFrame; at != top; ++at)
      if (const int64_t offset = image_offset(at); offset >= 0) memory[size_t(offset)] = 0;
  };
  const uint64_t sp = test.initial.gpr[kRsp];
  clear_below(test.mode == Mode::Code16 ? kStack16Base + (sp & 0xffff) : sp);
  // Into compatibility mode Intel's push by ESP.
  if (test.mode == Mode::Code64) clear_below(sp & 0xffffffff);
  return memory;
}

}  // namespace

std::string differences(const Case& test, const Outcome& left, const Outcome& right) {
  if (right.vector == 14 && right.cr2 >= kEspHigh16 && right.cr2 < kEspHigh16 + kPage) return {};
  const bool both_fault = is_fault(left.vector) && is_fault(right.vector);
  if (needs_no_access(test, left, right) || restarted_for_ever(test, left) || sum_is_canonical_only(test, left)) return {};
  const Leftovers ignored = both_fault ? leftovers(test) : Leftovers{};
  const bool any_order = both_fault && (ignored.order || has_unordered_accesses(test));
  Report r;
  if (!any_order) compare_fault(r, left, right);
  if (left.vector == kHang || right.vector == kHang) return r.take();
  const State& a = left.state;
  const State& b = right.state;
  // Outside of 64-bit code R8 to R15 are not accessible, and the upper halves of the others not defined (SDM vol. 1, 3.4.1.1).
  const bool is_64 = test.mode == Mode::Code64;
  for (size_t i = 0; i < (is_64 ? 16u : 8u); ++i) {
    // A far branch that leaves 64-bit code: the upper half of RSP is what the exception's entry makes of it.
    const bool left_64 = i == kRsp && a.cs != kSelUserCode64;
    const uint64_t mask = is_64 && !left_64 ? ~uint64_t{0} : 0xffffffff;
    r.value(kGprNames[i], a.gpr[i] & mask, b.gpr[i] & mask);
  }
  r.value("rip", a.rip, b.rip);
  r.value("rflags", a.rflags & ~undefined_flags(test), b.rflags & ~undefined_flags(test));
  r.value("cs", a.cs, b.cs);
  r.value("ss", a.ss, b.ss);
  // The kernel's IRET to the signal handler makes each null selector 0 (SDM vol. 2A, IRET).
  const auto data = [](uint16_t selector) { return selector <= 3 ? 0 : selector; };
  r.value("ds", data(a.ds), data(b.ds));
  r.value("es", data(a.es), data(b.es));
  r.value("fs", data(a.fs), data(b.fs));
  r.value("gs", data(a.gs), data(b.gs));
  r.value("fs.base", a.fs_base, b.fs_base);
  r.value("gs.base", a.gs_base, b.gs_base);
  compare_vectors(r, a.vectors, b.vectors, ignored);
  if (ignored.memory) return r.take();
  if (ignored.pushed || (any_order && is_far_call(test)))
    compare_memory(r, without_pushes(test, left.memory), without_pushes(test, right.memory));
  else
    compare_memory(r, left.memory, right.memory);
  return r.take();
}

std::string describe(const Case& test) {
  const State& s = test.initial;
  std::string text = " ";
  for (size_t i = 0; i < (test.mode == Mode::Code64 ? 16u : 8u); ++i) text += fmt::format(" {}={:#x}", kGprNames[i], s.gpr[i]);
  text += fmt::format("\n  rip={:#x} rflags={:#x} cs={:#x} ss={:#x} ds={:#x} es={:#x} fs={:#x} gs={:#x} fs.base={:#x} gs.base={:#x}\n",
                      s.rip, s.rflags, s.cs, s.ss, s.ds, s.es, s.fs, s.gs, s.fs_base, s.gs_base);
  const Vectors& v = s.vectors;
  text += fmt::format("  fcw={:#x} fsw={:#x} ftw={:#x} mxcsr={:#x}\n", v.fcw, v.fsw, v.ftw, v.mxcsr);
  Instruction i;
  if (!decode(test.mode, {test.bytes.data(), test.length}, i)) return text;
  uint32_t named = 0;
  for (const auto& op : i.all()) {
    for (const ZydisRegister r : {op.reg.value, op.mem.index}) {
      const auto family = ZydisRegisterGetClass(r);
      if (family == ZYDIS_REGCLASS_XMM || family == ZYDIS_REGCLASS_YMM) named |= 1u << ZydisRegisterGetId(r);
    }
  }
  for (size_t r = 0; r < 16; ++r) {
    if (named >> r & 1) text += fmt::format("  ymm{}={:02x}{:02x}\n", r, fmt::join(v.xmm[r], ""), fmt::join(v.ymm_high[r], ""));
  }
  return text;
}

}  // namespace lodge::oracle
