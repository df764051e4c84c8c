// User-mode instructions that are not copied: several memory accesses in one, or state that differs from the host's.
#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/translate/runtime.hpp"

namespace lodge::engine::soft {

namespace {

void write_register(CpuState& c, uint32_t r, uint64_t value, uint32_t size) {
  if (size >= 4)
    c.gpr[r] = value & width_mask(size);
  else
    c.gpr[r] = (c.gpr[r] & ~width_mask(size)) | (value & width_mask(size));
}

uint8_t al(const CpuState& c) { return static_cast<uint8_t>(c.gpr[kRax]); }
uint8_t ah(const CpuState& c) { return static_cast<uint8_t>(c.gpr[kRax] >> 8); }
void set_ax(CpuState& c, uint8_t high, uint8_t low) { write_register(c, kRax, static_cast<uint64_t>(high) << 8 | low, 2); }

bool even_parity(uint8_t value) { return !__builtin_parity(value); }

// SF, ZF and PF of a byte result; the rest as given.
void set_result_flags(CpuState& c, uint8_t result, bool cf, bool af, bool of) {
  c.flags_low = static_cast<uint8_t>(2 | (result & eflags::kSf) | (result ? 0 : eflags::kZf) | (even_parity(result) ? eflags::kPf : 0) |
                                     (cf ? eflags::kCf : 0) | (af ? eflags::kAf : 0));
  c.flags_of = of;
}

}  // namespace

extern "C" {

// ENTER (SDM vol. 2A). Frame pointers are copied one by one, since the frames may overlap; the registers change last, so that a
// fault leaves nothing but bytes below the stack pointer.
void rt_enter(CpuState* c, uint32_t operand_size, uint32_t frame, uint32_t level) {
  level &= 31;
  const uint64_t mask = width_mask(stack_width(*c));
  uint64_t top = c->gpr[kRsp];
  const auto pointer = [&](uint64_t offset) { return (c->gpr[kRsp] & ~mask) | (offset & mask); };  // as the whole register would be
  const auto push_value = [&](uint64_t value) {
    top -= operand_size;
    rt_store(c, segment_linear(*c, kSs, top & mask, operand_size, true), operand_size | kOperandStack | kOperandChecked, value);
  };
  push_value(c->gpr[kRbp]);
  const uint64_t frame_pointer = pointer(top);
  for (uint32_t i = 1; i < level; ++i) {
    const uint64_t at = (c->gpr[kRbp] - i * operand_size) & mask;
    push_value(rt_load(c, segment_linear(*c, kSs, at, operand_size, false), operand_size | kOperandStack | kOperandChecked));
  }
  if (level) push_value(frame_pointer);
  top -= frame;
  // The new top of the stack must be writable.
  const uint64_t new_top = segment_linear(*c, kSs, top & mask, operand_size, true);
  check_alignment(*c, new_top, operand_size);
  mmu_probe_write(*c, new_top, operand_size, false);
  write_register(*c, kRbp, frame_pointer, operand_size);
  set_rsp(*c, top);
}

uint64_t rt_random(CpuState* c) {
  uint64_t x = c->random;  // xorshift64
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return c->random = x;
}

void rt_leave(CpuState* c, uint32_t operand_size) {
  const uint64_t saved = c->gpr[kRsp];
  const uint32_t stack = stack_width(*c);
  const uint64_t at = c->gpr[kRbp] & width_mask(stack);
  uint64_t value = 0;
  const uint64_t linear = segment_linear(*c, kSs, at, operand_size, false);
  check_alignment(*c, linear, operand_size);
  mmu_read(*c, linear, &value, operand_size);
  c->gpr[kRsp] = saved;
  set_rsp(*c, at + operand_size);
  write_register(*c, kRbp, value, operand_size);
}

void rt_pusha(CpuState* c, uint32_t operand_size) {
  const uint64_t saved = c->gpr[kRsp];
  const uint64_t mask = width_mask(stack_width(*c));
  // A fault leaves what has been written below the stack pointer, which moves last.
  for (uint32_t r = 0; r < 8; ++r) {
    const uint64_t linear = segment_linear(*c, kSs, (saved - (r + 1) * operand_size) & mask, operand_size, true);
    rt_store(c, linear, operand_size | kOperandStack | kOperandChecked, r == kRsp ? saved : c->gpr[r]);
  }
  set_rsp(*c, saved - 8 * operand_size);
}

void rt_popa(CpuState* c, uint32_t operand_size) {
  const uint64_t saved = c->gpr[kRsp];
  const uint64_t mask = width_mask(stack_width(*c));
  // A fault leaves the registers that have been read.
  for (uint32_t i = 0; i < 8; ++i) {
    const uint64_t linear = segment_linear(*c, kSs, (saved + i * operand_size) & mask, operand_size, false);
    const uint64_t value = rt_load(c, linear, operand_size | kOperandStack | kOperandChecked);
    if (i != 3) write_register(*c, 7 - i, value, operand_size);  // the pushed stack pointer is skipped
  }
  set_rsp(*c, saved + 8 * operand_size);
}

void rt_xlat(CpuState* c, uint32_t segment, uint32_t address_width) {
  const uint64_t offset = (c->gpr[kRbx] + al(*c)) & width_mask(address_width);
  const uint64_t value = rt_load(c, segment_linear(*c, segment, offset, 1, false), 1);
  write_register(*c, kRax, static_cast<uint64_t>(ah(*c)) << 8 | value, 2);
}

void rt_bound(CpuState* c, uint32_t index, uint32_t operand_size) {
  uint64_t low, high;
  __builtin_memcpy(&low, c->operand[0], sizeof low);
  __builtin_memcpy(&high, c->operand[1], sizeof high);
  const int64_t i = operand_size == 2 ? static_cast<int16_t>(index) : static_cast<int32_t>(index);
  const int64_t l = operand_size == 2 ? static_cast<int16_t>(low) : static_cast<int32_t>(low);
  const int64_t h = operand_size == 2 ? static_cast<int16_t>(high) : static_cast<int32_t>(high);
  if (i < l || i > h) raise(*c, kBr);
}

// SDM vol. 2A; flags it leaves undefined are those of the additions by which the processors at hand carry it out.
void rt_decimal(CpuState* c, uint32_t opcode, uint32_t immediate) {
  const bool cf = c->flags_low & eflags::kCf, af = c->flags_low & eflags::kAf;
  const uint8_t a = al(*c);
  const auto add_overflows = [](uint8_t x, uint8_t y) { return ((~(x ^ y) & (x ^ (x + y))) & 0x80) != 0; };
  const auto subtract_overflows = [](uint8_t x, uint8_t y) { return (((x ^ y) & (x ^ (x - y))) & 0x80) != 0; };
  switch (opcode) {
    case 0x27:    // DAA
    case 0x2f: {  // DAS
      const bool subtract = opcode == 0x2f;
      const bool adjust_low = (a & 15) > 9 || af, adjust_high = a > 0x99 || cf;
      const uint8_t delta = static_cast<uint8_t>((adjust_low ? 6 : 0) + (adjust_high ? 0x60 : 0));
      const bool carry = adjust_high || (subtract && adjust_low && a < 6);
      const uint8_t result = static_cast<uint8_t>(subtract ? a - delta : a + delta);
      write_register(*c, kRax, static_cast<uint64_t>(ah(*c)) << 8 | result, 2);
      set_result_flags(*c, result, carry, adjust_low, subtract ? subtract_overflows(a, delta) : add_overflows(a, delta));
      break;
    }
    case 0x37:    // AAA
    case 0x3f: {  // AAS
      const bool subtract = opcode == 0x3f;
      const bool adjust = (a & 15) > 9 || af;
      uint16_t ax = static_cast<uint16_t>(c->gpr[kRax]);
      if (adjust) ax = static_cast<uint16_t>(subtract ? ax - 0x106 : ax + 0x106);
      const uint8_t sum = static_cast<uint8_t>(ax);
      write_register(*c, kRax, ax & 0xff0f, 2);
      set_result_flags(*c, sum, adjust, adjust, adjust && (subtract ? subtract_overflows(a, 6) : add_overflows(a, 6)));
      break;
    }
    case 0xd4: {  // AAM
      const uint8_t base = static_cast<uint8_t>(immediate);
      if (!base) raise(*c, kDe);
      set_ax(*c, a / base, a % base);
      set_result_flags(*c, a % base, false, false, false);
      break;
    }
    case 0xd5: {  // AAD
      const uint8_t product = static_cast<uint8_t>(ah(*c) * static_cast<uint8_t>(immediate));
      const uint8_t result = static_cast<uint8_t>(a + product);
      set_ax(*c, 0, result);
      set_result_flags(*c, result, a + product > 0xff, ((a & 15) + (product & 15)) > 15, add_overflows(a, product));
      break;
    }
    default:  // D6, SALC
      write_register(*c, kRax, static_cast<uint64_t>(ah(*c)) << 8 | (cf ? 0xff : 0), 2);
  }
}

namespace {

int64_t signed_element(const uint8_t* from, uint32_t size) {
  int64_t value = 0;
  if (size == 4) {
    int32_t v;
    __builtin_memcpy(&v, from, 4);
    value = v;
  } else {
    __builtin_memcpy(&value, from, 8);
  }
  return value;
}

struct Gather {
  uint64_t base;
  GatherForm form;
  uint32_t at;    // element
  bool gathered;  // any so far
};

void gather_elements(CpuState* c, uint64_t argument) {
  Gather& g = *reinterpret_cast<Gather*>(argument);
  const GatherForm& form = g.form;
  for (; g.at < form.count; ++g.at) {
    if (!(c->operand[2][(g.at + 1) * form.element_size - 1] & 0x80)) continue;
    const int64_t index = signed_element(&c->operand[1][g.at * form.index_size], form.index_size);
    const uint64_t offset = (g.base + (static_cast<uint64_t>(index) << form.scale_shift)) & width_mask(form.address_width);
    const uint64_t linear = segment_linear(*c, form.segment, offset, form.element_size, false);
    if (c->key & key::kSingleStep) debug_note_access(*c, linear, form.element_size, false);
    uint64_t value = 0;
    mmu_read(*c, linear, &value, form.element_size);  // all of it, or nothing of the element changes
    __builtin_memcpy(&c->operand[0][g.at * form.element_size], &value, 4);
    if (form.element_size == 8) __builtin_memcpy(&c->operand[0][g.at * 8], &value, 8);
    g.gathered = true;
  }
}

}  // namespace

// Elements whose mask is clear are not touched. At a fault the elements before it are complete and their masks are clear; if any was
// gathered, the instruction starts again with the rest, so that traps of those come before the fault (SDM vol. 2C, VGATHERDPS).
GatherEnd rt_gather(CpuState* c, uint64_t base, uint64_t packed) {
  Gather g{base, GatherForm::unpack(packed), 0, false};
  const uint32_t size = g.form.element_size;
  const Unwind end = soft_guarded(c, gather_elements, reinterpret_cast<uint64_t>(&g));
  if (end != Unwind::None && end != Unwind::Exception) unwind_to_loop(*c, end);  // nothing is committed
  if (end == Unwind::Exception) {
    for (uint32_t i = 0; i < g.at * size; ++i) c->operand[2][i] = 0;
    // Intel's processors leave what a comparison would have made of the rest of the vector.
    const uint32_t vector = g.form.count * (size < g.form.index_size ? g.form.index_size : size);
    for (uint32_t i = 0; c->intel_rules && i < 32; i += size) {
      const uint8_t value = i < vector && (c->operand[2][i + size - 1] & 0x80) ? 0xff : 0;
      for (uint32_t byte = i; byte < i + size; ++byte) c->operand[2][byte] = value;
    }
    for (uint32_t i = vector; g.gathered && c->intel_rules && i < 32; ++i) c->operand[0][i] = 0;
    if (g.gathered && c->intel_rules && (c->key & key::kSingleStep)) debug_trap_with_rf(*c);
    return g.gathered ? GatherEnd::Again : GatherEnd::Fault;
  }
  for (uint32_t i = g.form.count * size; i < 32; ++i) c->operand[0][i] = 0;
  for (uint32_t i = 0; i < 32; ++i) c->operand[2][i] = 0;
  return GatherEnd::Complete;
}

void rt_gather_fault(CpuState* c) { unwind_to_loop(*c, Unwind::Exception); }

// An element whose mask is clear is not accessed at all, and alignment is not checked (SDM vol. 2C, VMASKMOV). Each element's offset
// wraps on its own; with 16-bit addresses on Intel's processors it goes on behind 64 KiB.
static uint64_t masked_linear(CpuState& c, const MaskedForm& form, uint64_t offset, uint32_t i, bool write) {
  const uint32_t width = form.address_width == 2 && c.intel_rules ? 4 : form.address_width;
  const uint64_t linear = segment_linear(c, form.segment, (offset + i) & width_mask(width), form.element, write);
  if (c.key & key::kSingleStep) debug_note_access(c, linear, form.element, write);
  return linear;
}

void rt_masked_load(CpuState* c, uint64_t offset, uint64_t packed) {
  const MaskedForm form = MaskedForm::unpack(packed);
  for (uint32_t i = 0; i < 32; ++i) c->operand[0][i] = 0;
  for (uint32_t i = 0; i < form.total; i += form.element) {
    if (!(c->operand[1][i + form.element - 1] & 0x80)) continue;
    mmu_read(*c, masked_linear(*c, form, offset, i, false), &c->operand[0][i], form.element);
  }
}

void rt_masked_store(CpuState* c, uint64_t offset, uint64_t packed) {
  const MaskedForm form = MaskedForm::unpack(packed);
  for (uint32_t i = 0; i < form.total; i += form.element)
    if (c->operand[1][i + form.element - 1] & 0x80) mmu_probe_write(*c, masked_linear(*c, form, offset, i, true), form.element, false);
  for (uint32_t i = 0; i < form.total; i += form.element) {
    if (!(c->operand[1][i + form.element - 1] & 0x80)) continue;
    mmu_write(*c, masked_linear(*c, form, offset, i, true), &c->operand[0][i], form.element);
  }
}

// Whether the whole operand must be writable is the implementation's choice (SDM vol. 2B, MASKMOVDQU): the processors at hand want it,
// by eight bytes at a time.
void rt_masked_store_bytes(CpuState* c, uint64_t offset, uint64_t packed) {
  const MaskedForm form = MaskedForm::unpack(packed);
  uint64_t half[2] = {};
  for (uint32_t i = 0; i < form.total; i += 8) {
    const uint64_t linear = segment_linear(*c, form.segment, (offset + i) & width_mask(form.address_width), 8, true);
    check_alignment(*c, linear, 8);
    mmu_probe_write(*c, linear, 8, false);
    half[i / 8] = linear;
  }
  for (uint32_t i = 0; i < form.total; ++i) {
    if (!(c->operand[1][i] & 0x80)) continue;
    const uint64_t linear = half[i / 8] + i % 8;
    if (c->key & key::kSingleStep) debug_note_access(*c, linear, 1, true);
    mmu_write(*c, linear, &c->operand[0][i], 1);
  }
}

}  // extern "C"

}  // namespace lodge::engine::soft
