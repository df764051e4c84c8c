// Stack and control flow in the second tier.
#include <new>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/encoding.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

namespace {
constexpr uint32_t kRequestOffset = offsetof(CpuState, request);
}  // namespace

void Tier2::adjust_stack(int32_t by) { as_.lea(hR15, {.base = hR15, .displacement = by}, code64_); }

void Tier2::push(uint32_t i) {
  const Item& item = *items_[i];
  const auto& operand = item.in.operand[0];
  const int guest = operand.type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_index(operand.reg.value) : -1;
  const bool in_state = guest >= 0 && host_of(guest) < 0;
  const Address to = look_up(i, item.access, in_state);
  if (guest < 0) {
    as_.rex_for(code64_, 0, to);
    as_.byte(0xc7);
    as_.operand(0, to);
    as_.dword(static_cast<uint32_t>(operand.imm.value.s));
  } else if (in_state) {
    as_.load(kS0, gpr_offset(guest));
    as_.store(to, kS0);
  } else {
    as_.store(to, static_cast<Host>(host_of(guest)), code64_);
  }
  adjust_stack(-static_cast<int32_t>(word_));
  advance_versions(item);
}

void Tier2::push_memory(uint32_t i) {
  const Item& item = *items_[i];
  constexpr uint32_t kValue = offsetof(CpuState, scratch);
  as_.load(kS0, look_up(i, item.access, false), code64_);
  as_.store(kValue, kS0);
  const Address to = look_up(i, stack_access(-static_cast<int64_t>(word_), true), true);
  as_.load(kS0, kValue);
  as_.store(to, kS0, code64_);
  adjust_stack(-static_cast<int32_t>(word_));
  advance_versions(item);
}

// PUSHF at any CPL: outside virtual-8086 mode IOPL does not matter (SDM vol. 2B, PUSHF). RF and VM are clear in this tier.
void Tier2::push_flags(uint32_t i) {
  const Item& item = *items_[i];
  need_state_flags();
  const Address to = look_up(i, item.access, true);
  flags_ &= static_cast<uint8_t>(~kInHost);
  as_.byte(0x65), as_.byte(0x44), as_.byte(0x0f), as_.byte(0xb6), as_.byte(0x14), as_.byte(0x25);  // movzx r10d, byte gs:[flags_of]
  as_.dword(offsetof(CpuState, flags_of));
  as_.shift_imm(4, kS0, 11);
  as_.with_memory(0x0a, kS0, {.displacement = offsetof(CpuState, flags_low), .gs = true}, false);  // or r10b, gs:[flags_low]
  as_.with_memory(0x0b, kS0, {.displacement = offsetof(CpuState, eflags_system), .gs = true}, false);
  as_.store(to, kS0, code64_);
  adjust_stack(-static_cast<int32_t>(word_));
  advance_versions(item);
}

void Tier2::swapgs(uint32_t i) {
  constexpr uint32_t kBase = offsetof(CpuState, seg) + kGs * sizeof(SegmentRegister) + offsetof(SegmentRegister, base);
  constexpr uint32_t kOther = offsetof(CpuState, msrs) + offsetof(Msrs, kernel_gs_base);
  as_.load(kS0, kBase);
  as_.load(kS1, kOther);
  as_.store(kBase, kS1);
  as_.store(kOther, kS0);
  addend_group_ = -1;
  for (Group& group : groups_)
    if (group.place.segment == kGs) group.valid = false;
  advance_versions(*items_[i]);
}

// CLI and STI at CPL 0. Nothing is looked at between this and the next instruction, so that STI's shadow needs no more than not to be the
// block's end; but for an event that waits, which the loop looks at behind the shadow (SDM vol. 3, 6.8.3).
void Tier2::interrupt_flag(uint32_t i, bool set) {
  const Item& item = *items_[i];
  before_clobber(item.live_in());
  as_.alu_state_imm32(set ? 1 : 4, offsetof(CpuState, eflags_system), set ? eflags::kIf : ~eflags::kIf);
  if (set) {
    as_.compare_state_imm8(offsetof(CpuState, shadow), 0);  // and what lies beside it: CpuState::events_waiting
    stubs_.push_back(stub_with_flags(Stub::Kind::Shadow, as_.jump_if(kNotZero), i));
  }
  advance_versions(item);
}

// STAC and CLAC at CPL 0, where CR4.SMAP says that CPUID has them; else the first tier decides.
void Tier2::access_flag(uint32_t i, bool set) {
  const Item& item = *items_[i];
  before_clobber(item.live_in());
  as_.test_state_imm32(offsetof(CpuState, cr4), static_cast<uint32_t>(cr4::kSmap));
  stubs_.push_back(stub_with_flags(Stub::Kind::Slow, as_.jump_if(kZero), i));
  as_.alu_state_imm32(set ? 1 : 4, offsetof(CpuState, eflags_system), set ? eflags::kAc : ~eflags::kAc);
  const uint32_t view = set ? kViewSupervisor : kViewSupervisorSmap;
  as_.store_imm32(offsetof(CpuState, view), view);
  as_.load(kS0, offsetof(CpuState, tlb_views));
  as_.lea(kS0, {.base = kS0, .displacement = static_cast<int32_t>(view * sizeof(TlbSpace::tlb[0]))});
  as_.store(offsetof(CpuState, tlb), kS0);
  for (Group& group : groups_) group.valid = false;
  addend_group_ = -1;
  advance_versions(item);
}

void Tier2::pop(uint32_t i) {
  const Item& item = *items_[i];
  const int guest = gpr_index(item.in.operand[0].reg.value);
  const Address from = look_up(i, item.access, false);
  if (guest == kRsp) {
    as_.load(hR15, from, code64_);
    advance_versions(item);
    return;
  }
  if (host_of(guest) < 0) {
    as_.load(kS0, from);
    as_.store(gpr_offset(guest), kS0);
  } else {
    as_.load(static_cast<Host>(host_of(guest)), from, code64_);
  }
  adjust_stack(static_cast<int32_t>(word_));
  advance_versions(item);
}

void Tier2::leave(uint32_t i) {
  const Item& item = *items_[i];
  const Address from = look_up(i, item.access, false);
  as_.load(kS0, from, code64_);
  as_.lea(hR15, {.base = hRbp, .displacement = static_cast<int32_t>(word_)}, code64_);
  as_.move(hRbp, kS0);
  advance_versions(item);
}

void Tier2::push_return(uint32_t i) {
  const Item& item = *items_[i];
  const Address to = look_up(i, stack_access(-static_cast<int64_t>(word_), true), true);
  load_rip(kS0, at_ + item.offset + item.in.length());
  as_.store(to, kS0, code64_);
  adjust_stack(-static_cast<int32_t>(word_));
  advance_versions(item);
}

void Tier2::call(uint32_t i) {
  push_return(i);
  jump_relative(i, target_of(*items_[i]));
}

void Tier2::call_indirect(uint32_t i) {
  const Item& item = *items_[i];
  constexpr uint32_t kTarget = offsetof(CpuState, scratch);
  if (item.access.valid)
    as_.load(kS0, look_up(i, item.access, false), code64_);
  else
    load_guest(kS0, gpr_index(item.in.operand[0].reg.value));
  as_.store(kTarget, kS0);
  if (!code64_) {
    push_return(i);
    as_.load(kS0, kTarget);
    through_table(i, 0, kAll);
    return;
  }
  // A target that is not canonical faults before anything is pushed; the first tier does that.
  // before_clobber() may use R10.
  if (flags_ & kInHost) {
    before_clobber(kAll);
    as_.load(kS0, kTarget);
  }
  as_.move(kS1, kS0);
  addend_group_ = -1;
  as_.shift_imm(4, kS1, 16);
  as_.shift_imm(7, kS1, 16);
  as_.alu(0x39, kS1, kS0);
  stubs_.push_back(stub_with_flags(Stub::Kind::Slow, as_.jump_if(kNotZero), i));
  push_return(i);
  as_.load(kS0, kTarget);
  through_table(i, 0, kAll);
}

void Tier2::ret(uint32_t i) {
  const Item& item = *items_[i];
  as_.load(kS0, look_up(i, item.access, false), code64_);
  const auto popped = static_cast<int32_t>(item.adjustment);
  adjust_stack(popped);
  advance_versions(item);
  through_table(i, popped, kAll);
}

void Tier2::jump_indirect(uint32_t i) {
  const Item& item = *items_[i];
  if (item.access.valid)
    as_.load(kS0, look_up(i, item.access, false), code64_);
  else
    load_guest(kS0, gpr_index(item.in.operand[0].reg.value));
  through_table(i, 0, kAll);
}

// To the translation for the linear address in R10. `indexed`: in user mode, or where that may have changed. The host's flags are lost.
void Tier2::table_jump(Assembler& as, bool indexed) {
  const Host index = kS1;
  as.byte(0x45), as.byte(0x0f), as.byte(0xb7), as.byte(0xda);  // movzx r11d, r10w
  if (indexed) as.with_memory(0x33, index, {.displacement = offsetof(CpuState, jump_index), .gs = true}, false);
  as.with_memory(0xff, 4, {.index = index, .scale = 3, .displacement = kJumpTableOffset + offsetof(JumpTable, code), .gs = true}, false);
}

// The flags where an entry may expect them. Keeps R10.
void Tier2::prepare_exit(uint8_t live) {
  if (!flags_ && (live || o_.exact_flags)) need_host_flags(true);
}

void Tier2::through_table(uint32_t i, int32_t popped, uint8_t live) {
  if (live || o_.exact_flags) need_state_flags(kS1);
  as_.store_imm32(offsetof(CpuState, jump_from), jump_from(at_ + items_[i]->offset, popped));
  table_jump(as_, o_.key & key::kUser);
}

void Tier2::jump_relative(uint32_t i, int64_t target) {
  const uint8_t live = live_at(target);
  if (in_page(target)) {
    edge(i, static_cast<uint32_t>(target), live, i + 1);
    return;
  }
  if (target != static_cast<int32_t>(target)) failed_ = true;  // load_rip() does not reach so far
  count_back(i + 1);
  load_rip(kS0, target);
  // Flags may have to be made again by way of R11 only.
  through_table(i, items_[i]->kind == Kind::Call ? -static_cast<int32_t>(word_) : 0, live);
}

// Leaves for code in the same page.
void Tier2::edge(uint32_t i, uint32_t target, uint8_t live, uint32_t completed) {
  if (target <= at_ + items_[i]->offset) {  // backward: no loop without a look at requests
    before_clobber(live);
    as_.compare_state_imm8(kRequestOffset, 0);
    Stub stub = stub_with_flags(Stub::Kind::Request, as_.jump_if(kNotZero), completed);
    stub.target = target;
    stubs_.push_back(stub);
  }
  prepare_exit(live);
  count_back(completed);
  if (target == at_) {
    as_.jump_to(live_in_ && !(flags_ & kInState) ? direct_host_ : body_);
    return;
  }
  as_.align(4, 1);
  Stub stub;
  stub.kind = Stub::Kind::Edge;
  stub.from = as_.jump().patch;
  stub.target = target;
  stub.flags = flags_;
  stubs_.push_back(stub);
}

void Tier2::condition(uint32_t i) {
  const Item& item = *items_[i];
  need_host_flags(true);
  const int64_t target = target_of(item);
  const auto code = static_cast<uint8_t>(condition_of(item.in.mnemonic()));
  const bool backward = target <= at_ + item.offset;
  if (in_page(target) && !backward && !o_.virtual_clock) {
    as_.align(4, 2);
    Stub stub;
    stub.kind = Stub::Kind::Edge;
    stub.from = as_.jump_if(code).patch;
    stub.target = static_cast<uint32_t>(target);
    stub.flags = flags_;
    stubs_.push_back(stub);
    return;
  }
  const auto skip = as_.jump_if(code ^ 1);
  const uint8_t flags = flags_;
  const int group = addend_group_;
  jump_relative(i, target);
  flags_ = flags;
  addend_group_ = group;
  as_.bind(skip);
}

void Tier2::emit_edge(const Stub& stub) {
  as_.align(8);
  const uint32_t record = cache_offset(as_.here());
  Edge edge{};
  as_.bytes(&edge, sizeof edge);
  as_.bind({stub.from});
  const bool state = stub.flags != kInHost, user = o_.key & key::kUser;
  as_.call_to(thunks_.unlinked[state]);
  as_.call_to((state ? thunks_.indirect_state : thunks_.indirect_host)[user]);
  if (as_.full()) return;
  auto* const made = new (const_cast<uint8_t*>(begin_) + record) Edge{};
  made->page = page_;
  made->key = (o_.key & ~kKeyUngrouped) | (stub.ungrouped ? kKeyUngrouped : 0);
  made->displacement = cache_offset(stub.from);
  made->target = static_cast<uint16_t>(stub.target);
  made->state_flags = state;
}

void Tier2::emit_request(const Stub& stub) {
  as_.bind({stub.from});
  flags_of_stub(stub);
  store_rip(kS0, stub.target);
  count_back(stub.item);
  as_.jump_to(flags_ == kInHost ? thunks_.exit_host : thunks_.exit_state);
}

}  // namespace lodge::engine::soft
