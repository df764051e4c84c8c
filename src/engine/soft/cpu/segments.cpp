// Segment registers and the instructions that look at descriptors (SDM vol. 3, chapters 3 and 5).
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"

namespace lodge::engine::soft {

bool fetch_descriptor(CpuState& c, uint32_t selector, Descriptor& d) {
  const bool local = selector & 4;
  if (local && !(c.ldtr.attributes & attr::kPresent)) return false;
  const uint64_t base = local ? c.ldtr.base : c.gdtr.base;
  const uint32_t limit = local ? c.ldtr.limit : c.gdtr.limit;
  const uint32_t offset = selector & 0xfff8;
  if (offset + 7 > limit) return false;
  d.address = linear_wrap(c, base + offset);
  const uint64_t raw = mmu_read_system<uint64_t>(c, d.address);
  d.low = static_cast<uint32_t>(raw);
  d.high = static_cast<uint32_t>(raw >> 32);
  d.upper_low = d.upper_high = 0;
  return true;
}

Descriptor need_descriptor(CpuState& c, uint32_t selector, Vector vector, uint32_t ext) {
  Descriptor d;
  if (!fetch_descriptor(c, selector, d)) raise(c, vector, selector_error(selector, ext));
  return d;
}

void fetch_upper_half(CpuState& c, uint32_t selector, Descriptor& d) {
  if (!long_mode(c)) return;
  const uint32_t limit = selector & 4 ? c.ldtr.limit : c.gdtr.limit;
  if ((selector & 0xfff8) + 15 > limit) raise(c, kGp, selector_error(selector));
  const uint64_t raw = mmu_read_system<uint64_t>(c, d.address + 8);
  d.upper_low = static_cast<uint32_t>(raw);
  d.upper_high = static_cast<uint32_t>(raw >> 32);
  if (d.upper_high & 0x1f00) raise(c, kGp, selector_error(selector));
}

void set_accessed(CpuState& c, Descriptor& d) {
  if (d.high & 0x100) return;
  mmu_or_system(c, d.address + 5, 1);
  d.high |= 0x100;
}

// Real mode changes selector and base only, so that limits loaded in protected mode stay ("unreal mode"); a segment that
// protected mode left null becomes usable. Virtual-8086 mode has fixed limits and rights (SDM vol. 3, 20.2.1).
SegmentRegister real_segment(const CpuState& c, uint32_t index, uint32_t selector) {
  SegmentRegister s = c.seg[index];
  s.selector = static_cast<uint16_t>(selector);
  s.base = (selector & 0xffff) << 4;
  if (protected_mode(c)) {
    s.limit = 0xffff;
    s.attributes = 0xf3;
  } else if (!(s.attributes & attr::kPresent)) {
    s.limit = 0xffff;
    s.attributes = index == kCs ? 0x9b : 0x93;
  }
  return s;
}

namespace {

SegmentRegister load_stack_segment(CpuState& c, uint32_t selector) {
  const uint32_t rpl = selector & 3;
  if (null_selector(selector)) {
    if (!code64(c) || c.cpl == 3 || rpl != c.cpl) raise(c, kGp, 0);
    return null_segment(selector, c.cpl);
  }
  Descriptor d = need_descriptor(c, selector, kGp);
  if (rpl != c.cpl || !d.writable_data() || d.dpl() != c.cpl) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kSs_, selector_error(selector));
  set_accessed(c, d);
  return make_segment(selector, d);
}

SegmentRegister load_data_segment(CpuState& c, uint32_t selector) {
  if (null_selector(selector)) return null_segment(selector, 0);
  Descriptor d = need_descriptor(c, selector, kGp);
  if (!d.segment() || !d.readable()) raise(c, kGp, selector_error(selector));
  if (!d.conforming() && ((selector & 3) > d.dpl() || c.cpl > d.dpl())) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  set_accessed(c, d);
  return make_segment(selector, d);
}

void need_protected(CpuState& c) {
  if (real_or_v86(c)) raise(c, kUd);
}

void need_cpl0(CpuState& c) {
  if (c.cpl != 0) raise(c, kGp, 0);
}

void check_umip(CpuState& c) {
  if (c.cpl != 0 && (c.cr4 & cr4::kUmip)) raise(c, kGp, 0);
}

void set_zf(CpuState& c, bool set) { c.flags_low = static_cast<uint8_t>(set ? c.flags_low | eflags::kZf : c.flags_low & ~eflags::kZf); }

void store_table(CpuState& c, uint64_t linear, const DescriptorTable& table) {
  check_umip(c);
  const uint32_t base_size = code64(c) ? 8 : 4;
  uint8_t image[10];
  for (uint32_t i = 0; i < 2; ++i) image[i] = static_cast<uint8_t>(table.limit >> (8 * i));
  for (uint32_t i = 0; i < base_size; ++i) image[2 + i] = static_cast<uint8_t>(table.base >> (8 * i));
  mmu_write(c, linear, image, 2 + base_size);
}

DescriptorTable load_table(CpuState& c, uint64_t linear, uint32_t operand_size) {
  need_cpl0(c);
  const bool wide = code64(c);
  uint8_t image[10];
  mmu_read(c, linear, image, wide ? 10 : 6);
  uint64_t base = 0;
  for (uint32_t i = 0; i < (wide ? 8u : 4u); ++i) base |= static_cast<uint64_t>(image[2 + i]) << (8 * i);
  if (wide && !canonical(base)) raise(c, kGp, 0);
  if (!wide && operand_size == 2) base &= 0xffffff;
  return {base, static_cast<uint32_t>(image[0] | image[1] << 8), 0};
}

// The privilege check of LAR, LSL, VERR and VERW.
bool visible(const CpuState& c, uint32_t selector, const Descriptor& d) {
  return d.conforming() || (c.cpl <= d.dpl() && (selector & 3) <= d.dpl());
}

bool lar_type(const CpuState& c, uint32_t type) {
  constexpr uint32_t kLegacy = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12;
  constexpr uint32_t kLong = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12;
  return (long_mode(c) ? kLong : kLegacy) & (1u << type);
}

bool lsl_type(const CpuState& c, uint32_t type) {
  constexpr uint32_t kLegacy = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
  constexpr uint32_t kLong = 1 << 2 | 1 << 9 | 1 << 11;
  return (long_mode(c) ? kLong : kLegacy) & (1u << type);
}

uint64_t merge(uint64_t old, uint64_t value, uint32_t operand_size) {
  return operand_size == 2 ? (old & ~0xffffull) | (value & 0xffff) : value;
}

}  // namespace

void sys_load_segment(CpuState* cpu, uint32_t index, uint32_t selector) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  SegmentRegister s;
  if (real_or_v86(c))
    s = real_segment(c, index, selector);
  else
    s = index == kSs ? load_stack_segment(c, selector) : load_data_segment(c, selector);
  c.seg[index] = s;
  if (index == kSs) c.shadow = kShadowMovSs;
  mode_changed(c);
}

void sys_lldt(CpuState* cpu, uint32_t selector) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  need_cpl0(c);
  if (null_selector(selector)) {
    c.ldtr = {0, 0, static_cast<uint16_t>(selector), 0};
    return;
  }
  if (selector & 4) raise(c, kGp, selector_error(selector));
  Descriptor d = need_descriptor(c, selector, kGp);
  if (d.segment() || d.type() != system_type::kLdt) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  fetch_upper_half(c, selector, d);
  if (!canonical(d.base64())) raise(c, kGp, selector_error(selector));
  c.ldtr = make_segment(selector, d);
  c.ldtr.base = d.base64();
}

void sys_ltr(CpuState* cpu, uint32_t selector) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  need_cpl0(c);
  if (null_selector(selector)) raise(c, kGp, 0);
  if (selector & 4) raise(c, kGp, selector_error(selector));
  Descriptor d = need_descriptor(c, selector, kGp);
  const bool available = d.type() == system_type::kTss32 || (d.type() == system_type::kTss16 && !long_mode(c));
  if (d.segment() || !available) raise(c, kGp, selector_error(selector));
  if (!d.present()) raise(c, kNp, selector_error(selector));
  fetch_upper_half(c, selector, d);
  if (!canonical(d.base64())) raise(c, kGp, selector_error(selector));
  mmu_or_system(c, d.address + 5, 2);
  c.tr = make_segment(selector, d);
  c.tr.base = d.base64();
  c.tr.attributes |= 2;
}

uint32_t sys_sldt(CpuState* c) {
  need_protected(*c);
  check_umip(*c);
  return c->ldtr.selector;
}

uint32_t sys_str(CpuState* c) {
  need_protected(*c);
  check_umip(*c);
  return c->tr.selector;
}

uint32_t sys_smsw(CpuState* c) {
  check_umip(*c);
  return static_cast<uint32_t>(c->cr0);
}

void sys_sgdt(CpuState* c, uint64_t linear) { store_table(*c, linear, c->gdtr); }
void sys_sidt(CpuState* c, uint64_t linear) { store_table(*c, linear, c->idtr); }
void sys_lgdt(CpuState* c, uint64_t linear, uint32_t operand_size) { c->gdtr = load_table(*c, linear, operand_size); }
void sys_lidt(CpuState* c, uint64_t linear, uint32_t operand_size) { c->idtr = load_table(*c, linear, operand_size); }

uint64_t sys_lar(CpuState* cpu, uint32_t selector, uint64_t old, uint32_t operand_size) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  Descriptor d;
  const bool ok =
      !null_selector(selector) && fetch_descriptor(c, selector, d) && (d.segment() || lar_type(c, d.type())) && visible(c, selector, d);
  set_zf(c, ok);
  // Bits 19:16 are undefined (SDM vol. 2A, LAR); the processors at hand leave the limit's there.
  return ok ? merge(old, d.high & 0x00ffff00, operand_size) : old;
}

uint64_t sys_lsl(CpuState* cpu, uint32_t selector, uint64_t old, uint32_t operand_size) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  Descriptor d;
  const bool ok =
      !null_selector(selector) && fetch_descriptor(c, selector, d) && (d.segment() || lsl_type(c, d.type())) && visible(c, selector, d);
  set_zf(c, ok);
  return ok ? merge(old, d.limit(), operand_size) : old;
}

void sys_verr(CpuState* cpu, uint32_t selector) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  Descriptor d;
  set_zf(c, !null_selector(selector) && fetch_descriptor(c, selector, d) && d.segment() && d.readable() && visible(c, selector, d));
}

void sys_verw(CpuState* cpu, uint32_t selector) {
  CpuState& c = *cpu;
  selector &= 0xffff;
  need_protected(c);
  Descriptor d;
  set_zf(c, !null_selector(selector) && fetch_descriptor(c, selector, d) && d.writable_data() && visible(c, selector, d));
}

uint32_t sys_arpl(CpuState* cpu, uint32_t destination, uint32_t source) {
  CpuState& c = *cpu;
  need_protected(c);
  const bool raised = (destination & 3) < (source & 3);
  set_zf(c, raised);
  return raised ? (destination & ~3u) | (source & 3) : destination;
}

}  // namespace lodge::engine::soft
