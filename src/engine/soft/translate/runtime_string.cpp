// String instructions. Each iteration commits on its own, so that a fault, an exit or an interrupt between two leaves what the
// architecture says; runs of MOVS and STOS within pages go through the host's own string instructions.
#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

namespace {

void set_register(CpuState& c, Gpr r, uint64_t value, uint32_t width) {
  if (width == 2)
    c.gpr[r] = (c.gpr[r] & ~uint64_t{0xffff}) | (value & 0xffff);
  else
    c.gpr[r] = value & width_mask(width);
}

// Flags of a - b, by the host.
void compare(CpuState& c, uint64_t a, uint64_t b, uint32_t size) {
  const uint32_t shift = 64 - 8 * size;  // the top bytes have the same carry, sign, overflow and zero; parity and AF need the low byte
  uint64_t flags, low_flags;
  asm("cmp %2, %1\n\tpushfq\n\tpop %0" : "=r"(flags) : "r"(a << shift), "r"(b << shift) : "cc", "memory");
  asm("cmpb %2, %1\n\tpushfq\n\tpop %0" : "=r"(low_flags) : "q"(static_cast<uint8_t>(a)), "q"(static_cast<uint8_t>(b)) : "cc", "memory");
  constexpr uint64_t kFromLowByte = eflags::kAf | eflags::kPf;
  c.flags_low = static_cast<uint8_t>((((flags & ~kFromLowByte) | (low_flags & kFromLowByte)) & eflags::kArithmeticLow) | 2);
  c.flags_of = flags >> 11 & 1;
}

uint64_t load_element(CpuState& c, uint64_t linear, uint32_t size) { return rt_load(&c, linear, size | kOperandChecked); }
void store_element(CpuState& c, uint64_t linear, uint32_t size, uint64_t value) { rt_store(&c, linear, size | kOperandChecked, value); }

uint64_t accumulator(const CpuState& c, uint32_t size) { return c.gpr[kRax] & width_mask(size); }
void set_accumulator(CpuState& c, uint64_t value, uint32_t size) {
  if (size >= 4)
    c.gpr[kRax] = value & width_mask(size);
  else
    c.gpr[kRax] = (c.gpr[kRax] & ~width_mask(size)) | (value & width_mask(size));
}

// As for other operands (runtime_memory.cpp): Intel's processors check the alignment first where the operand begins at a canonical address.
uint64_t element_linear(CpuState& c, uint32_t segment, uint64_t offset, uint32_t size, bool write) {
  if (c.intel_rules && code64(c)) {
    const uint64_t linear = offset + (segment == kFs || segment == kGs ? c.seg[segment].base : 0);
    if (canonical(linear)) check_alignment(c, linear, size);
  }
  return segment_linear(c, segment, offset, size, write);
}

// One iteration; registers other than RCX are updated here.
void iterate(CpuState& c, const StringForm& form) {
  const uint32_t size = form.element, width = form.address_width;
  const uint64_t mask = width_mask(width);
  const uint64_t step = c.eflags_system & eflags::kDf ? uint64_t{0} - size : size;
  const uint64_t source = c.gpr[kRsi] & mask, destination = c.gpr[kRdi] & mask;
  auto advance = [&](Gpr r) { set_register(c, r, c.gpr[r] + step, width); };
  switch (form.op) {
    case StringOp::Movs: {
      const uint64_t value = load_element(c, element_linear(c, form.segment, source, size, false), size);
      store_element(c, element_linear(c, kEs, destination, size, true), size, value);
      advance(kRsi);
      advance(kRdi);
      break;
    }
    case StringOp::Stos:
      store_element(c, element_linear(c, kEs, destination, size, true), size, accumulator(c, size));
      advance(kRdi);
      break;
    case StringOp::Lods:
      set_accumulator(c, load_element(c, element_linear(c, form.segment, source, size, false), size), size);
      advance(kRsi);
      break;
    case StringOp::Cmps: {
      // When both fault, the processors at hand report the one at ES:[rDI]; REPE CMPSB, which has a fast path there, the other one.
      const bool source_first = !c.intel_rules && form.repeat == 1 && size == 1;
      const auto load_source = [&] { return load_element(c, element_linear(c, form.segment, source, size, false), size); };
      uint64_t a = source_first ? load_source() : 0;
      const uint64_t b = load_element(c, element_linear(c, kEs, destination, size, false), size);
      if (!source_first) a = load_source();
      compare(c, a, b, size);
      advance(kRsi);
      advance(kRdi);
      break;
    }
    case StringOp::Scas: {
      const uint64_t b = load_element(c, element_linear(c, kEs, destination, size, false), size);
      compare(c, accumulator(c, size), b, size);
      advance(kRdi);
      break;
    }
    case StringOp::Ins: {
      const uint16_t port = static_cast<uint16_t>(c.gpr[kRdx]);
      const uint64_t to = element_linear(c, kEs, destination, size, true);
      mmu_probe_write(c, to, size, false);  // the port is not read when the store would fault
      store_element(c, to, size, replay_port_read(c, port, size));
      advance(kRdi);
      break;
    }
    case StringOp::Outs: {
      const uint16_t port = static_cast<uint16_t>(c.gpr[kRdx]);
      const uint64_t value = load_element(c, element_linear(c, form.segment, source, size, false), size);
      replay_port_write(c, port, size, static_cast<uint32_t>(value));
      advance(kRsi);
      break;
    }
  }
}

uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

// The linear address of a run's first element when all of the run surely lies within the segment, which can be read and written.
bool within(const CpuState& c, uint32_t segment, uint64_t offset, uint64_t& linear) {
  if (code64(c)) {
    linear = offset + (segment == kFs || segment == kGs ? c.seg[segment].base : 0);
    return canonical(linear) && canonical(linear + kPageSize);
  }
  constexpr uint16_t kKind = attr::kPresent | attr::kS | attr::kCode | attr::kExpandDown | attr::kWritable;
  const SegmentRegister& s = c.seg[segment];
  if ((s.attributes & kKind) != (attr::kPresent | attr::kS | attr::kWritable) || offset + (kPageSize - 1) > s.limit) return false;
  linear = s.base + offset;
  return linear + kPageSize <= 0xffffffff;
}

// How many elements of MOVS or STOS can go at once, done if any. DF is clear.
uint64_t run_fast(CpuState& c, const StringForm& form, uint64_t count) {
  const uint32_t size = form.element;
  const uint64_t mask = width_mask(form.address_width);
  uint64_t to = 0, from = 0;
  if (!within(c, kEs, c.gpr[kRdi] & mask, to)) return 0;
  uint64_t n = least(count, (kPageSize - (to & (kPageSize - 1))) / size);
  if (form.op == StringOp::Movs) {
    if (!within(c, form.segment, c.gpr[kRsi] & mask, from)) return 0;
    n = least(n, (kPageSize - (from & (kPageSize - 1))) / size);
  }
  if (n < 2) return 0;
  // The same order of accesses as one element at a time: the source faults first.
  const uint8_t* source = nullptr;
  if (form.op == StringOp::Movs) {
    const TlbEntry& entry = tlb_entry(c, from);
    if (entry.read_tag == (from & kPageMask)) {
      source = reinterpret_cast<const uint8_t*>(from + entry.addend);
    } else {
      const DataPage page = mmu_resolve(c, from, false, c.view);
      if (!page.host) return 0;
      source = page.host;
    }
  }
  uint8_t* target;
  DataPage page{.host = nullptr, .slot = nullptr, .gpa = 0, .direct = true};
  const TlbEntry& entry = tlb_entry(c, to);
  if (entry.write_tag == (to & kPageMask)) {
    target = reinterpret_cast<uint8_t*>(to + entry.addend);
  } else {
    page = mmu_resolve(c, to, true, c.view);
    if (!page.host) return 0;
    target = page.host;
  }
  uint64_t left = n;
  if (form.op == StringOp::Movs) {
    switch (size) {
      case 1: asm volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(left) : : "memory"); break;
      case 2: asm volatile("rep movsw" : "+D"(target), "+S"(source), "+c"(left) : : "memory"); break;
      case 4: asm volatile("rep movsl" : "+D"(target), "+S"(source), "+c"(left) : : "memory"); break;
      default: asm volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(left) : : "memory"); break;
    }
    set_register(c, kRsi, c.gpr[kRsi] + n * size, form.address_width);
  } else {
    const uint64_t value = c.gpr[kRax];
    switch (size) {
      case 1: asm volatile("rep stosb" : "+D"(target), "+c"(left) : "a"(value) : "memory"); break;
      case 2: asm volatile("rep stosw" : "+D"(target), "+c"(left) : "a"(value) : "memory"); break;
      case 4: asm volatile("rep stosl" : "+D"(target), "+c"(left) : "a"(value) : "memory"); break;
      default: asm volatile("rep stosq" : "+D"(target), "+c"(left) : "a"(value) : "memory"); break;
    }
  }
  if (!page.direct) mmu_written(c, *page.slot, page.gpa, static_cast<uint32_t>(n * size));
  set_register(c, kRdi, c.gpr[kRdi] + n * size, form.address_width);
  return n;
}

// REP INS into memory within one page: how many elements have come, 0 if it is not so simple. DF is clear.
uint64_t run_from_port(CpuState& c, const StringForm& form, uint64_t count) {
  const uint32_t size = form.element;
  uint64_t to = 0;
  if (!within(c, kEs, c.gpr[kRdi] & width_mask(form.address_width), to)) return 0;
  const uint64_t room = least(kPageSize - (to & (kPageSize - 1)), Replay::kStringBytes);
  const uint64_t n = least(count, room / size);
  if (n < 2) return 0;
  mmu_probe_write(c, to, size, false);  // the port is not read when the store would fault
  if (!mmu_resolve(c, to, true, c.view).host) return 0;
  const uint32_t got = replay_port_read_string(c, static_cast<uint16_t>(c.gpr[kRdx]), size, static_cast<uint32_t>(n));
  mmu_write(c, to, c.replay->string, got * size);
  set_register(c, kRdi, c.gpr[kRdi] + uint64_t{got} * size, form.address_width);
  return got;
}

}  // namespace

extern "C" void rt_string(CpuState* c, uint64_t packed) {
  const StringForm form = StringForm::unpack(packed);
  const bool port = form.op == StringOp::Ins || form.op == StringOp::Outs;
  if (port) sys_check_io(c, static_cast<uint32_t>(c->gpr[kRdx] & 0xffff), form.element);
  if (!form.repeat) {
    iterate(*c, form);
    return;
  }
  const uint64_t mask = width_mask(form.address_width);
  // Intel's processors take the upper halves away before the first iteration, that of a count of zero too.
  if (form.address_width == 4 && code64(*c) && c->intel_rules) {
    c->gpr[kRcx] &= mask;
    if (form.op == StringOp::Movs) c->gpr[kRsi] &= mask;
    if (form.op == StringOp::Movs || form.op == StringOp::Stos) c->gpr[kRdi] &= mask;
  }
  const bool simple = !(c->eflags_system & eflags::kDf) && !(c->key & (key::kSingleStep | key::kAlignmentCheck));
  const bool runs = simple && (form.op == StringOp::Movs || form.op == StringOp::Stos);
  const bool reads_port = simple && form.op == StringOp::Ins;
  const bool compares = form.op == StringOp::Cmps || form.op == StringOp::Scas;
  const uint8_t flags_low = c->flags_low, flags_of = c->flags_of;
  uint32_t elements = 0;  // one at a time since the last look at requests
  for (;;) {
    const uint64_t count = c->gpr[kRcx] & mask;
    if (!count) return;  // a count of zero leaves the upper half of RCX, too
    uint64_t done = runs ? run_fast(*c, form, count) : reads_port ? run_from_port(*c, form, count) : 0;
    if (!done) {
      iterate(*c, form);
      done = 1;
    }
    set_register(*c, kRcx, count - done, form.address_width);
    const bool exited = c->replay->count != 0;
    replay_commit(*c);
    if (compares) {
      const bool equal = c->flags_low & eflags::kZf;
      if (equal != (form.repeat == 1)) return;
    }
    elements += done == 1 ? 1 : 64;
    if (count == done) return;
    // Intel's processors give comparisons' flags at the end only: not in the frame of a fault or trap between iterations.
    if (compares && c->intel_rules) {
      c->flags_low = flags_low;
      c->flags_of = flags_of;
    }
    // An interrupt or a kick between two iterations: the instruction starts again where it is.
    // One that has been outside for an access looks each time: run() with immediate_exit completes just the pending element.
    const bool stop = c->key & key::kSingleStep || c->guest_debug_step;
    if ((c->key & key::kSingleStep) && c->intel_rules) debug_trap_with_rf(*c);
    if (stop || ((exited || elements >= 1024) && c->request.load(std::memory_order_relaxed))) {
      c->next_rip = c->rip;
      ++c->budget;  // it has not completed: whenever requests come, it counts once
      --c->instructions;
      return;
    }
    if (elements >= 1024) elements = 0;
  }
}

extern "C" uint32_t rt_in(CpuState* c, uint32_t port, uint32_t size) {
  port &= 0xffff;
  sys_check_io(c, port, size);
  if (c->key & key::kSingleStep) debug_note_port(*c, port, size);
  return replay_port_read(*c, static_cast<uint16_t>(port), size);
}

extern "C" void rt_out(CpuState* c, uint32_t port, uint32_t size) {
  port &= 0xffff;
  sys_check_io(c, port, size);
  if (c->key & key::kSingleStep) debug_note_port(*c, port, size);
  const uint64_t value = c->gpr[kRax] & width_mask(size);
  replay_port_write(*c, static_cast<uint16_t>(port), size, static_cast<uint32_t>(value));
}

}  // namespace lodge::engine::soft
