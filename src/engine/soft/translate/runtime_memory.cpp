// Memory operands, stack and near transfers.
#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/walk.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/translate/resolve.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/vcpu/offsets.hpp"
#include "engine/soft/vcpu/quiesce.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

namespace {

[[noreturn]] void bad_address(CpuState& c, uint32_t size) { raise(c, size & kOperandStack ? kSs_ : kGp, 0); }

// Only the host checks alignment once the copied instruction runs; but the check comes before a page fault.
bool misaligned(uint64_t linear, uint32_t size) {
  if (!(size & kOperandAligned) || !(linear & ((size & kOperandSize) - 1))) return false;
  uint32_t mxcsr;
  asm("stmxcsr %0" : "=m"(mxcsr));
  constexpr uint32_t kMisalignedMode = 1 << 17;  // APM vol. 1, 4.3.2
  return !(mxcsr & kMisalignedMode);
}

// #AC: natural alignment, that of eight bytes for ten-byte operands and of 16 for vectors of 32. Called with key::kAlignmentCheck set.
void check_operand_alignment(CpuState& c, uint64_t linear, uint32_t size) {
  const uint32_t bytes = size & kOperandSize;
  if (bytes >= 16 && c.intel_rules) return;  // Intel's processors check no vector operand
  const uint32_t alignment = bytes == 10 ? 8 : bytes == 32 ? 16 : bytes & (0 - bytes);
  if (linear & (alignment - 1)) raise(c, kAc, 0);
}

// 64-bit code: canonical first and last byte. Elsewhere segments were checked when they are not flat; a flat one ends at 4 GiB.
void check_address(CpuState& c, uint64_t linear, uint32_t size) {
  const uint64_t last = linear + (size & kOperandSize) - 1;
  // Intel's processors check the alignment first where the operand begins at a canonical address.
  if (c.intel_rules && (c.key & key::kAlignmentCheck) && canonical(linear)) check_operand_alignment(c, linear, size);
  const bool good = code64(c) ? canonical(linear) && canonical(last) : last <= 0xffffffff || (size & kOperandChecked) || c.intel_rules;
  if (good) return;
  if (misaligned(linear, size)) raise(c, kGp, 0);  // comes before what might be #SS
  bad_address(c, size);
}

void check_natural_alignment(CpuState& c, uint64_t linear, uint32_t size) {
  if (misaligned(linear, size)) raise(c, kGp, 0);
}

bool in_one_page(uint64_t linear, uint32_t bytes) { return (linear & (kPageSize - 1)) + bytes <= kPageSize; }

// Everything but a TLB hit within one page.
uint64_t pointer_slow(CpuState& c, uint64_t linear, uint32_t size, bool write) {
  check_address(c, linear, size);
  check_natural_alignment(c, linear, size);
  if (!in_one_page(linear, size & kOperandSize)) unwind_to_loop(c, Unwind::SlowVariant);
  const DataPage page = mmu_resolve(c, linear, write, c.view);
  if (!page.host || (write && !page.direct)) unwind_to_loop(c, Unwind::SlowVariant);
  return reinterpret_cast<uint64_t>(page.host);
}

uint64_t little_endian(const uint8_t* from, uint32_t size) {
  uint64_t value = 0;
  for (uint32_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(from[i]) << (8 * i);
  return value;
}

// A LOCKed access over a page boundary: both pages are walked again once the others stand still, since tables may have changed
// while this vCPU waited for that.
bool begin_exclusive(CpuState& c, uint64_t linear) {
  exclusive_begin(quiesce_of(&c), &c);
  const uint64_t second = (linear & kPageMask) + kPageSize;
  const PhysicalMap& map = *c.mmu->map;
  const WalkResult a = walk(c, map, linear, {}, nullptr), b = walk(c, map, second, {}, nullptr);
  const Slot* const slot_a = a.ok ? map.find(a.gpa) : nullptr;
  const Slot* const slot_b = b.ok ? map.find(b.gpa) : nullptr;
  if (!slot_a || !slot_b) {
    exclusive_end(quiesce_of(&c), &c);
    return false;
  }
  c.slow_host[0] = slot_a->host + (a.gpa - slot_a->gpa);
  c.slow_host[1] = slot_b->host + (b.gpa - slot_b->gpa);
  c.slow_exclusive = true;
  return true;
}

uint8_t& exclusive_byte(CpuState& c, uint32_t i) {
  const uint32_t first = static_cast<uint32_t>(kPageSize - (c.slow_linear & (kPageSize - 1)));
  return i < first ? c.slow_host[0][i] : c.slow_host[1][i - first];
}

// The host page that the running translation of the second tier was made from, null if not at hand.
const uint8_t* running_page(const CpuState& c) {
  const bool user = c.cpl == 3;
  const FetchEntry& entry = c.mmu->space[c.address_space].fetch[user][fetch_index(c.code_page)];
  return entry.tag == c.code_page ? entry.host : nullptr;
}

// A store to a mixed page (cache.hpp): beside the bytes that translations were made from it just goes on; translations in its way end
// first, but for those of the page that is running now, where the next instruction may be one of those written.
bool store_beside_code(CpuState& c, uint64_t linear, const ResolveForm& form, Resolved& result) {
  const uint32_t size = form.size & kOperandSize;
  const auto offset = static_cast<uint32_t>(linear & (kPageSize - 1));
  if (misaligned(linear, form.size) || offset + size > kPageSize) return false;
  for (uint32_t attempt = 0; attempt < 2; ++attempt) {
    const TlbEntry& entry = tlb_entry(c, linear);
    if (entry.code_write_tag != (linear & kPageMask)) return false;
    auto* const page = reinterpret_cast<uint8_t*>((linear & kPageMask) + entry.addend);
    const MixedPage& mixed = c.code_index->mixed_of(page);
    if (mixed.host.load() != page) return false;
    const uint64_t lines = mixed.lines.load();
    if (!lines) return false;  // no code any more: the walk finds that it may be written directly
    result = {entry.addend, form.before > offset || offset + form.behind > kPageSize ||
                                (lines & lines_of(offset - form.before, offset + form.behind - 1))};
    if (!result.ungrouped) return true;
    if (!(lines & lines_of(offset, offset + size - 1))) {
      const bool alone = !form.before && form.behind == size;
      if (!alone) count(c, Counter::Ungrouped);
      return true;
    }
    const uint8_t* const running = running_page(c);
    if (!running || running == page) return false;
    count(c, Counter::CodeWrites);
    InvalidateRequest request{&c, page + offset, size};
    soft_host_call(invalidate_block, &request);
  }
  return false;
}

}  // namespace

extern "C" {

uint64_t rt_read_pointer(CpuState* c, uint64_t linear, uint32_t size) {
  const TlbEntry& entry = tlb_entry(*c, linear);
  // The last byte's page decides: if the operand leaves the entry's page, the tags differ.
  if (entry.read_tag == ((linear + (size & kOperandSize) - 1) & kPageMask)) [[likely]]
    return linear + entry.addend;
  return pointer_slow(*c, linear, size, false);
}

uint64_t rt_write_pointer(CpuState* c, uint64_t linear, uint32_t size) {
  const TlbEntry& entry = tlb_entry(*c, linear);
  if (entry.write_tag == ((linear + (size & kOperandSize) - 1) & kPageMask)) [[likely]]
    return linear + entry.addend;
  return pointer_slow(*c, linear, size, true);
}

Resolved rt_resolve(CpuState* c, uint64_t linear, uint64_t packed) {
  count(*c, Counter::DataMisses);
  const ResolveForm form = ResolveForm::unpack(packed);
  c->rip = c->code_page + form.at;
  if (Resolved result; form.write && store_beside_code(*c, linear, form, result)) return result;
  const auto known = [&](uint64_t at, uint64_t& addend) {
    const TlbEntry& entry = tlb_entry(*c, at);
    addend = entry.addend;
    return (form.write ? entry.write_tag : entry.read_tag) == (at & kPageMask);
  };
  uint64_t addend = 0, other = 0;
  const uint64_t last = linear + (form.size & kOperandSize) - 1;
  const bool crosses = (linear ^ last) & kPageMask;
  if (!known(linear, addend) || (crosses && !(known(last, other) && other == addend))) {
    check_address(*c, linear, form.size);
    check_natural_alignment(*c, linear, form.size);
    if (crosses) unwind_to_loop(*c, Unwind::SlowVariant);
    const DataPage page = mmu_resolve(*c, linear, form.write, c->view);
    if (!page.host || (form.write && !page.direct)) {
      if (Resolved result; page.host && store_beside_code(*c, linear, form, result)) return result;
      unwind_to_loop(*c, Unwind::SlowVariant);
    }
    addend = reinterpret_cast<uint64_t>(page.host) - linear;
  }
  // The rest of the range lies in the same page, or in one that is its neighbour in the host's memory too; or each access looks
  // for itself.
  for (const uint64_t end : {linear - form.before, linear + form.behind - 1}) {
    if (!((end ^ linear) & kPageMask) || (known(end, other) && other == addend)) continue;
    count(*c, Counter::Ungrouped);
    return {addend, 1};
  }
  return {addend, 0};
}

void rt_run_slow(CpuState* c) { unwind_to_loop(*c, Unwind::SlowVariant); }

uint64_t rt_slow_begin(CpuState* c, uint64_t linear, uint32_t size, uint32_t read, uint32_t write) {
  check_address(*c, linear, size);
  check_natural_alignment(*c, linear, size);
  const uint32_t bytes = size & kOperandSize;
  c->slow_linear = linear;
  c->slow_size = bytes;
  c->slow_direct = c->slow_exclusive = false;
  debug_note_access(*c, linear, bytes, write);
  uint8_t* const bounce = c->bounce + (linear & 63);
  if (in_one_page(linear, bytes)) {
    const DataPage page = mmu_resolve(*c, linear, write, c->view);
    if (page.host) {  // RAM after all, perhaps with something to announce: atomic operations stay the host's
      c->slow_direct = true;
      return reinterpret_cast<uint64_t>(page.host);
    }
  } else if (write) {
    mmu_probe_write(*c, linear, bytes, false);
    if (read && (size & kOperandLocked)) {
      const bool ram = mmu_resolve(*c, linear, true, c->view).host && mmu_resolve(*c, (linear & kPageMask) + kPageSize, true, c->view).host;
      if (ram) {
        if (!begin_exclusive(*c, linear)) unwind_to_loop(*c, Unwind::Restart);
        for (uint32_t i = 0; i < bytes; ++i) bounce[i] = exclusive_byte(*c, i);
        return reinterpret_cast<uint64_t>(bounce);
      }
    }
  }
  if (read) mmu_read(*c, linear, bounce, bytes);
  return reinterpret_cast<uint64_t>(bounce);
}

// Registers and flags of the instruction are committed already: nothing here may raise. What goes to MMIO and is not a chip's goes
// out by replay_drain(), which leaves for good.
void rt_slow_commit(CpuState* c) {
  const uint64_t linear = c->slow_linear;
  const uint32_t bytes = c->slow_size;
  const uint8_t* const bounce = c->bounce + (linear & 63);
  if (c->slow_exclusive) {
    for (uint32_t i = 0; i < bytes; ++i) exclusive_byte(*c, i) = bounce[i];
    c->slow_exclusive = false;
    exclusive_end(quiesce_of(c), c);
  }
  replay_commit(*c);
  for (uint32_t done = 0; done < bytes;) {
    const uint64_t at = (linear + done) & (long_mode(*c) ? ~uint64_t{0} : 0xffffffffu);
    const uint32_t room = static_cast<uint32_t>(kPageSize - (at & (kPageSize - 1)));
    const uint32_t part = bytes - done < room ? bytes - done : room;
    const DataPage page = mmu_resolve(*c, at, true, c->view);
    if (page.host) {
      if (!c->slow_direct)
        for (uint32_t i = 0; i < part; ++i) page.host[i] = bounce[done + i];
      if (!page.direct) mmu_written(*c, *page.slot, page.gpa, part);
    } else {
      for (uint32_t i = 0; i < part;) {
        const uint32_t piece = part - i < 8 ? part - i : 8;
        replay_add_write(*c, page.gpa + i, piece, little_endian(bounce + done + i, piece));
        i += piece;
      }
    }
    done += part;
  }
  replay_drain(*c);
}

void rt_check_aligned(CpuState* c, uint64_t linear, uint32_t size) { check_natural_alignment(*c, linear, size); }

void rt_check_alignment(CpuState* c, uint64_t linear, uint32_t size) {
  check_address(*c, linear, size);
  check_natural_alignment(*c, linear, size);
  check_operand_alignment(*c, linear, size);
}

uint64_t rt_load(CpuState* c, uint64_t linear, uint32_t size) {
  check_address(*c, linear, size);
  if (c->key & key::kAlignmentCheck) check_operand_alignment(*c, linear, size);
  if (c->key & key::kSingleStep) debug_note_access(*c, linear, size & kOperandSize, false);
  uint64_t value = 0;
  mmu_read(*c, linear, &value, size & kOperandSize);
  return value;
}

void rt_store(CpuState* c, uint64_t linear, uint32_t size, uint64_t value) {
  check_address(*c, linear, size);
  if (c->key & key::kAlignmentCheck) check_operand_alignment(*c, linear, size);
  if (c->key & key::kSingleStep) debug_note_access(*c, linear, size & kOperandSize, true);
  mmu_write(*c, linear, &value, size & kOperandSize);
}

void rt_push(CpuState* c, uint64_t value, uint32_t size) {
  if (!code64(*c) || (c->key & (key::kSingleStep | key::kAlignmentCheck))) return push(*c, value, size);
  const uint64_t at = c->gpr[kRsp] - size;
  const TlbEntry& entry = tlb_entry(*c, at);
  if (size == 8 && entry.write_tag == ((at + 7) & kPageMask)) [[likely]] {
    *reinterpret_cast<uint64_t*>(at + entry.addend) = value;
    c->gpr[kRsp] = at;
    return;
  }
  push(*c, value, size);
}

// Intel's processors write a selector's two bytes only, unless the slot has eight (SDM vol. 2B, PUSH).
void rt_push_selector(CpuState* c, uint64_t value, uint32_t size) {
  if (!c->intel_rules || size != 4) return rt_push(c, value, size);
  const Stack stack = current_stack(*c);
  const uint64_t linear = stack_linear(*c, stack, stack.rsp - size, 2);
  check_alignment(*c, linear, 2);
  if (c->key & key::kSingleStep) debug_note_access(*c, linear, 2, true);
  mmu_write(*c, linear, &value, 2);
  set_rsp(*c, stack.rsp - size);
}

uint64_t rt_peek_selector(CpuState* c, uint32_t size) {
  const Stack stack = current_stack(*c);
  return stack_peek_selector(*c, stack, 0, size);
}

uint64_t rt_peek(CpuState* c, uint32_t size) {
  const uint64_t saved = c->gpr[kRsp];
  const uint64_t value = pop(*c, size);
  c->gpr[kRsp] = saved;
  return value;
}

void rt_drop(CpuState* c, uint32_t size) { set_rsp(*c, c->gpr[kRsp] + size); }

uint64_t rt_pop(CpuState* c, uint32_t size) {
  if (size == 8 && !(c->key & (key::kSingleStep | key::kAlignmentCheck))) {  // 64-bit code only
    const uint64_t at = c->gpr[kRsp];
    const TlbEntry& entry = tlb_entry(*c, at);
    if (entry.read_tag == ((at + 7) & kPageMask)) [[likely]] {
      c->gpr[kRsp] = at + 8;
      return *reinterpret_cast<const uint64_t*>(at + entry.addend);
    }
  }
  return pop(*c, size);
}

void rt_jump(CpuState* c, uint64_t target, uint32_t operand_size) {
  if (operand_size == 8) {
    if (!canonical(target)) raise(*c, kGp, 0);
  } else {
    target &= operand_size == 2 ? 0xffff : 0xffffffff;
    if (!code64(*c) && target > c->seg[kCs].limit) raise(*c, kGp, 0);
  }
  c->next_rip = target;
}

void rt_call(CpuState* c, uint64_t target, uint32_t operand_size) {
  // The processors at hand push first, and check the target then; neither leaves anything when the other faults.
  const uint64_t back = c->next_rip, saved = c->gpr[kRsp];
  const Stack stack = current_stack(*c);
  const uint64_t linear = stack_linear(*c, stack, saved - operand_size, operand_size);
  check_alignment(*c, linear, operand_size);
  if (tlb_entry(*c, linear).write_tag != ((linear + operand_size - 1) & kPageMask)) mmu_probe_write(*c, linear, operand_size, false);
  rt_jump(c, target, operand_size);
  rt_push(c, back, operand_size);
}

void rt_return(CpuState* c, uint32_t operand_size, uint32_t extra) {
  const uint64_t saved = c->gpr[kRsp];
  const uint64_t target = rt_pop(c, operand_size);
  const uint64_t after = c->gpr[kRsp];
  c->gpr[kRsp] = saved;
  rt_jump(c, target, operand_size);
  c->gpr[kRsp] = after;
  if (extra) rt_drop(c, extra);
}

uint32_t rt_loop(CpuState* c, uint32_t kind, uint32_t address_width) {
  const uint64_t mask = address_width == 8 ? ~uint64_t{0} : address_width == 4 ? 0xffffffff : 0xffff;
  uint64_t count = c->gpr[kRcx];
  if (kind == 3) return (count & mask) == 0;
  count = (count & ~mask) | ((count - 1) & mask);
  if (address_width == 4) count &= mask;  // a 32-bit write clears the upper half
  c->gpr[kRcx] = count;
  const bool zero = c->flags_low & eflags::kZf;
  return (count & mask) && (kind == 0 || zero == (kind == 1));
}

void rt_raise(CpuState* c, uint32_t vector) { raise(*c, static_cast<Vector>(vector)); }
void rt_raise_error(CpuState* c, uint32_t vector, uint32_t error_code) { raise(*c, static_cast<Vector>(vector), error_code); }

}  // extern "C"

}  // namespace lodge::engine::soft
