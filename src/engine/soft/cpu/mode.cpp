#include "engine/soft/cpu/mode.hpp"

#include "engine/soft/cpu/debug.hpp"

namespace lodge::engine::soft {
namespace {

bool flat(const SegmentRegister& s) {
  constexpr uint16_t kMask = attr::kPresent | attr::kS | attr::kCode | attr::kExpandDown | attr::kWritable;
  return s.base == 0 && s.limit == 0xffffffff && (s.attributes & kMask) == (attr::kPresent | attr::kS | attr::kWritable);
}

uint32_t code_key(const CpuState& c) {
  uint32_t k = 0;
  if (code64(c)) {
    k |= key::kCode64;
  } else {
    if (c.seg[kCs].attributes & attr::kDb) k |= key::kCode32;
    if (c.seg[kCs].base != 0 || c.seg[kCs].limit != 0xffffffff) k |= key::kCodeSegmented;
    if (!flat(c.seg[kDs]) || !flat(c.seg[kEs]) || !flat(c.seg[kSs])) k |= key::kSegmented;
  }
  if (c.seg[kSs].attributes & attr::kDb) k |= key::kStack32;
  if (!real_or_v86(c)) k |= key::kProtected;
  if (protected_mode(c) && v86_mode(c)) k |= key::kV86;
  if (c.cpl == 3) k |= key::kUser;
  if (long_mode(c)) k |= key::kLongMode;
  return k;
}

uint32_t coprocessor_key(const CpuState& c) {
  uint32_t k = 0;
  if (c.cr0 & (cr0::kTs | cr0::kEm)) k |= key::kX87Nm;
  if (c.cr0 & cr0::kEm) k |= key::kX87Em;
  if ((c.cr0 & cr0::kMp) && (c.cr0 & cr0::kTs)) k |= key::kWaitNm;
  if (c.cr0 & cr0::kTs) k |= key::kTs;
  if ((c.cr0 & cr0::kEm) || !(c.cr4 & cr4::kOsfxsr)) k |= key::kSseUd;
  if (!(c.cr4 & cr4::kOsxsave) || (c.xcr0 & 6) != 6) k |= key::kAvxUd;
  if (!(c.cr4 & cr4::kOsxmmexcpt)) k |= key::kMxcsrUd;
  if (!(c.cr0 & cr0::kNe)) k |= key::kNeClear;
  return k;
}

uint32_t data_view(const CpuState& c) {
  if (c.cpl == 3) return kViewUser;
  return (c.cr4 & cr4::kSmap) && !(c.eflags_system & eflags::kAc) ? kViewSupervisorSmap : kViewSupervisor;
}

}  // namespace

void mode_changed(CpuState& c) {
  uint32_t k = code_key(c) | coprocessor_key(c);
  if ((c.cr0 & cr0::kAm) && (c.eflags_system & eflags::kAc) && c.cpl == 3) k |= key::kAlignmentCheck;
  if ((c.eflags_system & eflags::kTf) || debug_armed(c)) k |= key::kSingleStep;
  c.view = data_view(c);
  c.tlb = c.tlb_views + c.view * c.tlb_view_size;
  if (c.key == k && c.jump_numbers) return;
  c.key = k;
  jump_context_changed(c);
}

void jump_context_changed(CpuState& c) {
  const bool user = c.key & key::kUser;
  const uint32_t row = c.global_code && !user ? kAddressSpaces : c.address_space;
  c.jump_index = user ? c.address_space * 0x1d3b & 0xffff : 0;
  for (const JumpContext& known : c.jump_context[row]) {
    if (known.key != c.key || !known.number) continue;
    c.jump_salt = known.number ^ c.jump_index;
    return;
  }
  if (c.jump_numbers == 0xffff) {  // all given: none of the old ones may match any more
    c.jump_numbers = 0;
    for (uint32_t space = 0; space <= kAddressSpaces; ++space) jump_contexts_drop(c, space);
    jump_table_clear(c);
  }
  uint32_t& next = c.jump_context_next[row];
  next = (next + 1) % kJumpContexts;
  c.jump_context[row][next] = {c.key, ++c.jump_numbers};
  c.jump_salt = c.jump_numbers ^ c.jump_index;
}

void jump_contexts_drop(CpuState& c, uint32_t row) {
  for (JumpContext& known : c.jump_context[row]) known.number = 0;
}

void jump_table_clear(CpuState& c) {
  if (!c.jump_table) return;
  for (uint32_t i = 0; i < JumpTable::kEntries; ++i) {
    if (c.jump_table->code[i] != c.jump_miss) c.jump_table->code[i] = c.jump_miss;
  }
}

}  // namespace lodge::engine::soft
