// Task switches of legacy protected mode (SDM vol. 3, 7.3): far JMP and CALL to a TSS or task gate, IRET with NT, events through
// task gates.
//
// All that can fail for the outgoing task's sake comes before its TSS is written. Faults after that point belong to the new
// task: they are raised with its state loaded as far as the check, as on hardware.
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/system.hpp"

namespace lodge::engine::soft {
namespace {

// Field offsets: the 32-bit TSS (figure 7-2) and the 16-bit one (figure 7-10).
struct Layout {
  uint32_t size, cr3, eip, eflags, gpr, segments, segment_count, ldt, word;
};
constexpr Layout kTss32Layout{104, 28, 32, 36, 40, 72, 6, 96, 4};
constexpr Layout kTss16Layout{44, 0, 14, 16, 18, 34, 4, 42, 2};

struct Image {
  uint32_t cr3, eip, eflags, gpr[8];
  uint16_t segment[6], ldt;
  bool debug_trap;
};

uint32_t read_word(CpuState& c, uint64_t base, uint32_t offset, uint32_t size) {
  const uint64_t at = linear_wrap(c, base + offset);
  return size == 4 ? mmu_read_system<uint32_t>(c, at) : mmu_read_system<uint16_t>(c, at);
}

void write_word(CpuState& c, uint64_t base, uint32_t offset, uint32_t value, uint32_t size) {
  mmu_write_system(c, linear_wrap(c, base + offset), &value, size);
}

Image read_image(CpuState& c, uint64_t base, const Layout& l) {
  Image image;
  image.cr3 = l.cr3 ? read_word(c, base, l.cr3, 4) : 0;
  image.eip = read_word(c, base, l.eip, l.word);
  image.eflags = read_word(c, base, l.eflags, l.word);
  for (uint32_t i = 0; i < 8; ++i) image.gpr[i] = read_word(c, base, l.gpr + i * l.word, l.word);
  for (uint32_t i = 0; i < 6; ++i)
    image.segment[i] = i < l.segment_count ? static_cast<uint16_t>(read_word(c, base, l.segments + i * l.word, 2)) : 0;
  image.ldt = static_cast<uint16_t>(read_word(c, base, l.ldt, 2));
  image.debug_trap = l.word == 4 && (read_word(c, base, 100, 2) & 1);
  return image;
}

void save_outgoing(CpuState& c, const Layout& l, uint64_t eip, uint32_t flags) {
  const uint64_t base = c.tr.base;
  write_word(c, base, l.eip, static_cast<uint32_t>(eip), l.word);
  write_word(c, base, l.eflags, flags, l.word);
  for (uint32_t i = 0; i < 8; ++i) write_word(c, base, l.gpr + i * l.word, static_cast<uint32_t>(c.gpr[i]), l.word);
  for (uint32_t i = 0; i < l.segment_count; ++i) write_word(c, base, l.segments + i * l.word, c.seg[i].selector, 2);
}

void set_busy(CpuState& c, uint64_t address, bool busy) {
  uint8_t byte = mmu_read_system<uint8_t>(c, address + 5);
  byte = static_cast<uint8_t>(busy ? byte | 2 : byte & ~2);
  mmu_write_system<uint8_t>(c, address + 5, byte);
}

Descriptor incoming_tss(CpuState& c, uint32_t selector, bool returning, uint32_t ext) {
  const Vector vector = returning ? kTs : kGp;
  if ((selector & 4) || null_selector(selector)) raise(c, vector, selector_error(selector, ext));
  Descriptor d = need_descriptor(c, selector, vector, ext);
  const uint32_t type = d.type() & ~8u;
  if (d.segment() || type != (returning ? system_type::kBusyTss16 : system_type::kTss16)) raise(c, vector, selector_error(selector, ext));
  if (!d.present()) raise(c, kNp, selector_error(selector, ext));
  const uint32_t least = d.type() & 8 ? 103 : 43;
  if (d.limit() < least) raise(c, kTs, selector_error(selector, ext));
  return d;
}

void load_ldt(CpuState& c, uint16_t selector, uint32_t ext) {
  c.ldtr = {0, 0, selector, 0};
  if (null_selector(selector)) return;
  Descriptor d;
  if ((selector & 4) || !fetch_descriptor(c, selector, d) || d.segment() || d.type() != system_type::kLdt || !d.present())
    raise(c, kTs, selector_error(selector, ext));
  c.ldtr = make_segment(selector, d);
}

void load_code(CpuState& c, uint16_t selector, uint32_t ext) {
  const uint32_t error = selector_error(selector, ext);
  if (null_selector(selector)) raise(c, kTs, error);
  Descriptor d = need_descriptor(c, selector, kTs, ext);
  const bool level = d.conforming() ? d.dpl() <= (selector & 3u) : d.dpl() == (selector & 3u);
  if (!d.code() || !level) raise(c, kTs, error);
  if (!d.present()) raise(c, kNp, error);
  set_accessed(c, d);
  c.seg[kCs] = make_segment(selector, d);
}

void load_stack(CpuState& c, uint16_t selector, uint32_t ext) {
  const uint32_t error = selector_error(selector, ext);
  if (null_selector(selector)) raise(c, kTs, error);
  Descriptor d = need_descriptor(c, selector, kTs, ext);
  if (!d.writable_data() || d.dpl() != c.cpl || (selector & 3u) != c.cpl) raise(c, kTs, error);
  if (!d.present()) raise(c, kSs_, error);
  set_accessed(c, d);
  c.seg[kSs] = make_segment(selector, d);
}

void load_data(CpuState& c, uint32_t index, uint16_t selector, uint32_t ext) {
  if (null_selector(selector)) return;
  const uint32_t error = selector_error(selector, ext);
  Descriptor d = need_descriptor(c, selector, kTs, ext);
  if (!d.segment() || !d.readable()) raise(c, kTs, error);
  if (!d.conforming() && (d.dpl() < c.cpl || d.dpl() < (selector & 3u))) raise(c, kTs, error);
  if (!d.present()) raise(c, kNp, error);
  set_accessed(c, d);
  c.seg[index] = make_segment(selector, d);
}

// Registers that need no check. All segments are null until their descriptors proved good.
void enter_image(CpuState& c, const Image& image, const Layout& l, bool nested) {
  if (l.cr3 && (c.cr0 & cr0::kPg)) {
    c.cr3 = image.cr3;
    if (c.cr4 & cr4::kPae) mmu_load_pdptes(c, c.cr3);
    mmu_load_cr3(c, false);
  }
  for (uint32_t i = 0; i < 8; ++i) c.gpr[i] = l.word == 4 ? image.gpr[i] : image.gpr[i] | 0xffff0000;
  set_eflags(c, l.word == 4 ? image.eflags : image.eflags & 0xffff);
  if (nested) c.eflags_system |= eflags::kNt;
  c.rip = c.next_rip = image.eip;
  c.cr0 |= cr0::kTs;
  c.dr[7] &= ~0x155ull;  // local breakpoints
  c.cpl = v86_mode(c) ? 3 : image.segment[kCs] & 3;
  for (uint32_t i = 0; i < kSegmentCount; ++i) c.seg[i] = null_segment(image.segment[i], i == kSs || i == kCs ? c.cpl : 0);
}

void enter_segments(CpuState& c, const Image& image, uint32_t ext) {
  load_ldt(c, image.ldt, ext);
  if (v86_mode(c)) {
    for (uint32_t i = 0; i < kSegmentCount; ++i) c.seg[i] = real_segment(c, i, image.segment[i]);
  } else {
    load_code(c, image.segment[kCs], ext);
    mode_changed(c);
    load_stack(c, image.segment[kSs], ext);
    for (const uint32_t index : {kDs, kEs, kFs, kGs}) load_data(c, index, image.segment[index], ext);
  }
  mode_changed(c);
  if (c.rip > c.seg[kCs].limit) raise(c, kGp, ext);
}

}  // namespace

void task_switch(CpuState& c, uint32_t selector, TaskSwitch reason, uint64_t return_rip, const TaskSwitchEvent* event) {
  const uint32_t ext = event ? event->ext : 0;
  const bool returning = reason == TaskSwitch::Return;
  const bool nested = reason == TaskSwitch::Call || reason == TaskSwitch::Event;
  Descriptor d = incoming_tss(c, selector, returning, ext);
  const Layout& to = d.type() & 8 ? kTss32Layout : kTss16Layout;
  const Layout& from = c.tr.attributes & 8 ? kTss32Layout : kTss16Layout;
  const uint64_t base = d.base32();
  const Image image = read_image(c, base, to);
  const uint64_t old_descriptor = linear_wrap(c, c.gdtr.base + (c.tr.selector & 0xfff8));
  mmu_probe_write(c, linear_wrap(c, c.tr.base), from.size, true);
  if (nested) mmu_probe_write(c, linear_wrap(c, base), 2, true);
  if (!nested) mmu_probe_write(c, old_descriptor + 5, 1, true);
  if (!returning) mmu_probe_write(c, d.address + 5, 1, true);

  uint32_t flags = get_eflags(c);
  if (returning) flags &= ~eflags::kNt;
  if (!nested) set_busy(c, old_descriptor, false);
  save_outgoing(c, from, return_rip, flags);
  if (nested) write_word(c, base, 0, c.tr.selector, 2);
  if (!returning) set_busy(c, d.address, true);
  c.tr = make_segment(selector, d);
  c.tr.attributes |= 2;

  enter_image(c, image, to, nested);
  mode_changed(c);
  enter_segments(c, image, ext);
  if (event && event->has_error_code) push(c, event->error_code, to.word);
  if (image.debug_trap) c.debug_hits |= dr6::kBt;
  c.next_rip = c.rip;
}

}  // namespace lodge::engine::soft
