#include "engine/soft/translate/tier2.hpp"

#include <algorithm>
#include <cstring>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

namespace {

// The word whose lower half is the jump table's salt, and whose upper half makes no tag match while a request waits.
constexpr uint32_t kJumpCheck = offsetof(CpuState, jump_salt);
static_assert(kJumpCheck % 8 == 0 && offsetof(CpuState, request) == kJumpCheck + 4);
// The word of CpuState that makes the loop look.
constexpr uint32_t kAttention = offsetof(CpuState, shadow);
static_assert(kAttention % 4 == 0 && offsetof(CpuState, halted) == kAttention + 1 && offsetof(CpuState, events_waiting) == kAttention + 2 &&
              offsetof(CpuState, guest_debug_step) == kAttention + 3);

template <typename F>
void for_pinned(F f) {
  for (int r = 0; r < 16; ++r)
    if (host_of(r) >= 0) f(gpr_offset(r), static_cast<Host>(host_of(r)));
}

void spill_all(Assembler& as) {
  for_pinned([&](uint32_t offset, Host host) { as.store(offset, host); });
}
void reload_all(Assembler& as) {
  for_pinned([&](uint32_t offset, Host host) { as.load(host, offset); });
}

}  // namespace

void emit_thunks(Assembler& as, Thunks& thunks) {
  const auto begin = [&](uint8_t*& thunk) {
    as.align(16);
    thunk = as.here();
  };
  Assembler::Label resolve_read;
  begin(thunks.enter);  // RDI: the entry
  as.alu_imm8(5, hRsp, 8);
  as.move(kS1, hRdi);
  reload_all(as);
  as.byte(0x41), as.byte(0xff), as.byte(0xe3);  // jmp r11

  const auto save_flags = [&] {  // by way of R10
    as.move(kS0, hRax);
    flags_to_state(as);
    as.move(hRax, kS0);
  };
  // R10 = the linear address that the edge leads to whose call, so far behind its record, returns to what is popped. R11 = the edge.
  const auto find_edge = [&](uint32_t returns) {
    as.pop(kS1);
    as.lea(kS1, {.base = kS1, .displacement = -static_cast<int32_t>(returns)});
    as.load_word(kS0, {.base = kS1, .displacement = offsetof(Edge, target)});
    as.with_memory(0x03, kS0, {.displacement = offsetof(CpuState, code_page), .gs = true});
  };
  begin(thunks.exit_host);
  save_flags();
  const auto state = as.jump();
  begin(thunks.exit_at);
  as.with_memory(0x03, kS0, {.displacement = offsetof(CpuState, code_page), .gs = true});
  as.store(kRip, kS0);
  const auto at = as.jump();
  begin(thunks.unlinked[false]);
  save_flags();
  begin(thunks.unlinked[true]);
  find_edge(edge_indirect(0));
  as.store(offsetof(CpuState, chain), kS1);
  as.store(kRip, kS0);
  const auto unlinked = as.jump();
  for (const bool user : {false, true}) {
    begin(thunks.indirect_host[user]);
    save_flags();
    begin(thunks.indirect_state[user]);
    find_edge(edge_indirect(0) + Edge::kCall);
    as.store_imm32(offsetof(CpuState, jump_from), kJumpComplete);
    Tier2::table_jump(as, user);
  }
  begin(thunks.miss);
  as.store(kRip, kS0);
  as.store_imm32(offsetof(CpuState, jump_missed), 1);
  begin(thunks.exit_state);
  as.bind(state);
  as.bind(at);
  as.bind(unlinked);
  spill_all(as);
  thunks.leave = as.here();
  as.alu_imm8(0, hRsp, 8);
  as.ret();

  for (const bool write : {false, true}) {
    // The entry may just have given way to another page's (TlbSpace::kVictims): if it answers for the whole range, that is all.
    begin(thunks.resolve_host[write]);
    as.push(hRax);
    flags_to_state(as);
    as.pop(hRax);
    begin(thunks.resolve[write]);
    as.push(hRax);
    as.push(hRcx);
    as.move(hRax, kS1);
    as.shift_imm(5, hRax, 12);
    as.move(hRcx, kS1);
    as.shift_imm(5, hRcx, 24);
    as.alu(0x31, hRax, hRcx, false);
    as.byte(0x0f), as.byte(0xb6), as.byte(0xc0);  // movzx eax, al
    static_assert(TlbSpace::kVictims == 256 && sizeof(TlbEntry) == 32);
    as.shift_imm(4, hRax, 5, false);
    as.with_memory(0x03, hRax, {.displacement = offsetof(CpuState, tlb), .gs = true});
    constexpr auto kVictimsFrom = static_cast<int32_t>(TlbSpace::kEntries * sizeof(TlbEntry));
    constexpr auto kIndexMask = static_cast<int32_t>((TlbSpace::kEntries - 1) * sizeof(TlbEntry));
    const Address tag{.base = hRax, .displacement = kVictimsFrom + (write ? 8 : 0)};
    // The page of the range's last byte, then that of its first (ResolveForm).
    as.move(hRcx, kS0);
    as.shift_imm(5, hRcx, 48);
    as.lea(hRcx, {.base = hRcx, .index = kS1, .displacement = -1});
    as.alu_imm32(4, hRcx, static_cast<int32_t>(kPageMask));
    as.with_memory(0x3b, hRcx, tag);
    const auto not_last = as.jump_if(kNotZero);
    as.move(hRcx, kS0);
    as.shift_imm(5, hRcx, 32);
    as.byte(0x0f), as.byte(0xb7), as.byte(0xc9);  // movzx ecx, cx
    as.byte(0x48), as.byte(0xf7), as.byte(0xd9);  // neg rcx
    as.alu(0x01, hRcx, kS1);
    as.alu_imm32(4, hRcx, static_cast<int32_t>(kPageMask));
    as.with_memory(0x3b, hRcx, tag);
    const auto not_first = as.jump_if(kNotZero);
    // It takes its place again; the one there becomes a victim, if a flush would find it: in a place that was taken before.
    as.push(hRdx);
    as.move(hRcx, kS1);
    as.shift_imm(5, hRcx, 12 - 5);
    as.alu_imm32(4, hRcx, kIndexMask, false);
    as.with_memory(0x03, hRcx, {.displacement = offsetof(CpuState, tlb), .gs = true});
    as.load(hRdx, Address{.base = hRcx});
    as.move(kS0, hRdx);
    as.shift_imm(5, hRdx, 12);
    as.shift_imm(5, kS0, 24);
    as.alu(0x31, hRdx, kS0, false);
    as.byte(0x0f), as.byte(0xb6), as.byte(0xd2);  // movzx edx, dl
    as.shift_imm(4, hRdx, 5, false);
    as.with_memory(0x03, hRdx, {.displacement = offsetof(CpuState, tlb), .gs = true});
    as.load(kS0, Address{.base = hRdx, .displacement = kVictimsFrom});
    as.alu_imm32(7, kS0, static_cast<int32_t>(TlbSpace::kNoTag));
    const auto untaken = as.jump_if(kZero);
    for (int32_t field = 0; field < 32; field += 8) {
      as.load(kS0, Address{.base = hRax, .displacement = kVictimsFrom + field});
      as.load(kS1, Address{.base = hRcx, .displacement = field});
      as.store(Address{.base = hRcx, .displacement = field}, kS0);
      as.store(Address{.base = hRdx, .displacement = kVictimsFrom + field}, kS1);
    }
    const auto taken = as.jump();
    as.bind(untaken);
    for (int32_t field = 0; field < 32; field += 8) {
      as.load(kS0, Address{.base = hRax, .displacement = kVictimsFrom + field});
      as.store(Address{.base = hRcx, .displacement = field}, kS0);
    }
    as.bind(taken);
    as.load(kS1, Address{.base = hRcx, .displacement = 16});
    as.alu(0x31, kS0, kS0, false);  // sets ZF: no ungrouped form is needed
    as.pop(hRdx);
    as.pop(hRcx);
    as.pop(hRax);
    as.ret();
    as.bind(not_last);
    as.bind(not_first);
    // Or just the range does not lie in the access's page.
    const Address own{.base = hRax, .displacement = write ? 8 : 0};
    as.move(hRax, kS1);
    as.shift_imm(5, hRax, 12 - 5);
    as.alu_imm32(4, hRax, kIndexMask, false);
    as.with_memory(0x03, hRax, {.displacement = offsetof(CpuState, tlb), .gs = true});
    as.move(hRcx, kS1);
    as.alu_imm32(4, hRcx, static_cast<int32_t>(kPageMask));
    as.with_memory(0x3b, hRcx, own);
    const auto not_own = as.jump_if(kNotZero);
    as.byte(0x41), as.byte(0x0f), as.byte(0xb7), as.byte(0xca);  // movzx ecx, r10w: the access's size
    as.lea(hRcx, {.base = hRcx, .index = kS1, .displacement = -1});
    as.alu_imm32(4, hRcx, static_cast<int32_t>(kPageMask));
    as.with_memory(0x3b, hRcx, own);
    const auto crosses = as.jump_if(kNotZero);
    as.load(kS1, Address{.base = hRax, .displacement = 16});
    as.add_state_imm(offsetof(CpuState, counter) + 8 * static_cast<uint32_t>(Counter::Ungrouped), 1, true);  // clears ZF
    as.pop(hRcx);
    as.pop(hRax);
    as.ret();
    as.bind(not_own);
    as.bind(crosses);
    as.pop(hRcx);
    as.pop(hRax);
    if (!write) resolve_read = as.jump();
  }
  if (resolve_read.patch) as.bind(resolve_read);
  spill_all(as);
  as.alu_imm8(5, hRsp, 8);
  as.load(hRdi, offsetof(CpuState, self));
  as.move(hRsi, kS1);
  as.move(hRdx, kS0);
  as.call(reinterpret_cast<const void*>(rt_resolve));
  as.move(kS1, hRax);
  as.alu(0x85, hRdx, hRdx);  // the flags tell of Resolved::ungrouped
  for (const int r : {kRax, kRcx, kRdx, kRsi, kRdi, kR8, kR9}) as.load(static_cast<Host>(r), gpr_offset(r));  // what a callee may change
  as.lea(hRsp, {.base = hRsp, .displacement = 8});
  as.ret();

  begin(thunks.run_slow);
  spill_all(as);
  as.load(hRdi, offsetof(CpuState, self));
  as.call(reinterpret_cast<const void*>(rt_run_slow));
}

void Tier2::note(uint32_t item, bool spilled, uint8_t flags, int x87) {
  workspace_.side.push_back({cache_offset(as_.here()), static_cast<uint8_t>(item), flags, spilled, static_cast<int8_t>(x87)});
}

void Tier2::load_rip(Host into, int64_t page_offset) {
  as_.load(into, offsetof(CpuState, code_page));
  if (page_offset) as_.lea(into, {.base = into, .displacement = static_cast<int32_t>(page_offset)}, code64_);
}

void Tier2::store_rip(Host through, int64_t page_offset) {
  load_rip(through, page_offset);
  as_.store(kRip, through);
}

// Virtual clock: the block's instructions were all counted at its beginning; here only so many are complete. Keeps the flags.
void Tier2::count_back(uint32_t completed) {
  if (!o_.virtual_clock || completed == items_.size()) return;
  const auto left = static_cast<int32_t>(items_.size() - completed);
  as_.load(kS0, offsetof(CpuState, budget));
  as_.lea(kS0, {.base = kS0, .displacement = left});
  as_.store(offsetof(CpuState, budget), kS0);
  as_.load(kS0, offsetof(CpuState, instructions));
  as_.lea(kS0, {.base = kS0, .displacement = -left});
  as_.store(offsetof(CpuState, instructions), kS0);
}

void Tier2::emit_entries() {
  const auto entry = [&](uint32_t& offset) { offset = cache_offset(as_.here()); };
  Assembler::Label to_body;
  as_.align(16);
  direct_host_ = as_.here();
  if (live_in_) {
    save_flags(kS0);
    to_body = as_.jump();
    as_.align(16);
  }
  entry(result_->entry);
  // R10 is the target, R11 the index.
  as_.with_memory(
      0x8b, kS1, {.index = kS1, .scale = 3, .displacement = static_cast<int32_t>(kJumpTableOffset + offsetof(JumpTable, tag)), .gs = true});
  as_.with_memory(0x33, kS1, {.displacement = kJumpCheck, .gs = true});
  as_.alu(0x39, kS1, kS0);
  as_.jump_if_to(kNotZero, thunks_.miss);
  if (at_) as_.lea(kS0, {.base = kS0, .displacement = -static_cast<int32_t>(at_)});
  as_.store(offsetof(CpuState, code_page), kS0);
  as_.align(8);
  body_ = as_.here();
  if (live_in_)
    as_.bind(to_body);
  else
    direct_host_ = body_;
  as_.nop(5);  // what ends the translation overwrites these at once
  result_->body = cache_offset(body_);
  result_->direct_host = cache_offset(direct_host_);
  flags_ = live_in_ ? kInState : 0;
  recipe_ = {};
  if (!o_.virtual_clock) return;
  const auto count = static_cast<int32_t>(items_.size());
  as_.load(kS0, offsetof(CpuState, budget));
  as_.lea(kS0, {.base = kS0, .displacement = -count});
  as_.store(offsetof(CpuState, budget), kS0);
  as_.load(kS1, offsetof(CpuState, instructions));
  as_.lea(kS1, {.base = kS1, .displacement = count});
  as_.store(offsetof(CpuState, instructions), kS1);
  as_.alu(0x85, kS0, kS0);
  const auto enough = as_.jump_if(kNotSign);
  count_back(0);
  store_rip(kS0, at_);
  as_.jump_to(thunks_.exit_state);
  as_.bind(enough);
}

// After code that may have changed anything.
void Tier2::nothing_known() {
  for (Group& group : groups_) group.valid = false;
  addend_group_ = -1;
  recipe_ = {};
}

bool Tier2::bridge(uint32_t i) {
  const Item& item = *items_[i];
  need_state_flags();
  if (x87_ >= 0) commit_x87(x87_);
  x87_ = -1;
  store_rip(kS0, at_ + item.offset);
  spill_all(as_);
  note(i, true, kInState, -1);
  std::vector<Assembler::Label> ends;
  first_.collect_ends(&ends);
  const bool last = first_.emit(item.in);
  first_.collect_ends(nullptr);
  if (last && ends.empty()) return false;
  if (last) {
    for (const Assembler::Label end : ends) as_.bind(end);
    if (!bridge_end(i)) return false;
  } else {
    for (const Assembler::Label end : ends) {
      Stub stub;
      stub.kind = Stub::Kind::Leave;
      stub.from = end.patch;
      stubs_.push_back(stub);
    }
  }
  reload_all(as_);
  advance_versions(item);
  nothing_known();
  flags_ = kInState;
  return true;
}

// The ones that change neither the mode nor what code lies where, and go on with the next instruction when they are complete.
bool Tier2::falls_through(const Instruction& in) {
  if (in.decoded.meta.category == ZYDIS_CATEGORY_STRINGOP) return true;
  switch (in.mnemonic()) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: return true;
    default: return false;
  }
}

// After an instruction that ends a block of the first tier; everything is in CpuState. To the loop if it has something to do before the
// next instruction, else there by the jump table, or, true, straight on.
bool Tier2::bridge_end(uint32_t i) {
  const Item& item = *items_[i];
  const bool straight = falls_through(item.in);
  as_.compare_state_imm8(kAttention, 0);
  as_.jump_if_to(kNotZero, thunks_.leave);
  as_.test_state_imm32(offsetof(CpuState, eflags_system), eflags::kRf);
  as_.jump_if_to(kNotZero, thunks_.leave);
  static_assert(offsetof(Replay, count) == 0);
  as_.load(kS0, offsetof(CpuState, replay));
  as_.byte(0x41), as_.byte(0x83), as_.byte(0x3a), as_.byte(0);  // cmp dword ptr [r10], 0
  as_.jump_if_to(kNotZero, thunks_.leave);
  as_.load(kS0, kRip);
  if (straight) {
    load_rip(kS1, at_ + item.offset + item.in.length());
    as_.alu(0x39, kS0, kS1);
    as_.jump_if_to(kNotZero, thunks_.leave);
    return true;
  }
  reload_all(as_);
  as_.store_imm32(offsetof(CpuState, jump_from), kJumpComplete);
  table_jump(as_, true);
  return false;
}

bool Tier2::emit_item(uint32_t i) {
  const Item& item = *items_[i];
  // Flags that only a recipe gives must be had before its registers change.
  const auto touches = [&](int r) { return r >= 0 && (item.written >> r & 1); };
  if (!(flags_ & kInState) && (touches(recipe_.left) || touches(recipe_.right)) && (item.live_in() || o_.exact_flags) && recipe_valid() &&
      item.kind != Kind::Bridge) {
    const auto versions = version_;
    const auto deltas = delta_;
    advance_versions(item);
    const bool stays = recipe_valid();
    version_ = versions;
    delta_ = deltas;
    if (!stays) {
      if (item.access.valid || item.kind == Kind::CallIndirect || (item.kind >= Kind::Swapgs && item.kind <= Kind::Clac))
        need_state_flags();
      else if (!flags_)
        need_host_flags(true);
    }
  }
  const bool leaves = item.kind >= Kind::Call && item.kind <= Kind::Condition;
  if (leaves && x87_ >= 0) {
    commit_x87(x87_);
    x87_ = -1;
  }
  switch (item.kind) {
    case Kind::Copy: copy(i); return true;
    case Kind::Lea: lea(item); return true;
    case Kind::Push: push(i); return true;
    case Kind::PushMemory: push_memory(i); return true;
    case Kind::PushFlags: push_flags(i); return true;
    case Kind::Swapgs: swapgs(i); return true;
    case Kind::Cli: interrupt_flag(i, false); return true;
    case Kind::Sti: return i + 1 < items_.size() && items_[i + 1]->kind != Kind::Bridge ? (interrupt_flag(i, true), true) : bridge(i);
    case Kind::Stac: access_flag(i, true); return true;
    case Kind::Clac: access_flag(i, false); return true;
    case Kind::Pop: pop(i); return true;
    case Kind::Leave: leave(i); return true;
    case Kind::Call: call(i); return false;
    case Kind::CallIndirect: call_indirect(i); return false;
    case Kind::Return: ret(i); return false;
    case Kind::Jump: jump_relative(i, target_of(item)); return false;
    case Kind::JumpIndirect: jump_indirect(i); return false;
    case Kind::Condition: condition(i); return true;
    case Kind::Nothing: return true;
    case Kind::Pause: as_.byte(0xf3), as_.byte(0x90); return true;
    case Kind::Bridge: return bridge(i);
  }
  return false;
}

void Tier2::emit_stubs() {
  for (size_t i = 0; i < stubs_.size(); ++i) {
    const Stub stub = stubs_[i];
    switch (stub.kind) {
      case Stub::Kind::Resolve:
        as_.bind({stub.from});
        emit_resolve(stub);
        break;
      case Stub::Kind::Edge: emit_edge(stub); break;
      case Stub::Kind::Request: emit_request(stub); break;
      case Stub::Kind::Leave:
        as_.bind({stub.from});
        as_.jump_to(thunks_.leave);
        break;
      case Stub::Kind::Shadow:
      case Stub::Kind::Slow:
        as_.bind({stub.from});
        flags_of_stub(stub);
        if (flags_ == kInHost) save_flags(kS0);
        if (stub.kind == Stub::Kind::Shadow) {
          store_rip(kS0, at_ + items_[stub.item]->offset + items_[stub.item]->in.length());
          as_.store_imm8(offsetof(CpuState, shadow), kShadowSti);
          as_.jump_to(thunks_.exit_state);
          break;
        }
        store_rip(kS0, at_ + items_[stub.item]->offset);
        count_back(stub.item);
        as_.jump_to(thunks_.run_slow);
        break;
    }
  }
  as_.align(8);
  result_->dead = cache_offset(as_.here());
  as_.move_imm(kS0, at_);
  as_.jump_to(thunks_.exit_at);
}

bool Tier2::translate(const uint8_t* page, const uint8_t* second_page, uint32_t at, Tier2Code& result) {
  page_ = page;
  second_page_ = second_page;
  at_ = at;
  result_ = &result;
  if (!(second_page ? decode_across() : decode_all())) return false;
  result.scan_begin = static_cast<uint16_t>(at);
  result.scan_end = static_cast<uint16_t>(std::min<uint32_t>(at + length_, 4096));
  find_accesses();
  find_liveness();
  const bool x87 = std::ranges::any_of(items_, [](const Item* item) { return is_x87(item->in); });
  for (const Item* const item : items_) {
    workspace_.offset.push_back(item->offset);
    if (!x87) continue;
    workspace_.x87_opcode.push_back(
        is_x87(item->in) ? static_cast<uint16_t>((item->in.decoded.opcode & 7) << 8 | item->in.bytes[item->in.decoded.raw.modrm.offset])
                         : uint16_t{0});
  }
  result.count = static_cast<uint16_t>(items_.size());
  result.length = static_cast<uint16_t>(length_);
  result.begin = cache_offset(as_.here());
  emit_entries();
  bool goes_on = true;
  for (uint32_t i = 0; goes_on && i < items_.size() && !failed_ && !as_.full(); ++i) goes_on = emit_item(i);
  if (goes_on && !failed_) {
    const auto last = static_cast<uint32_t>(items_.size() - 1);
    if (x87_ >= 0) commit_x87(x87_);
    jump_relative(last, at_ + length_);
  }
  emit_stubs();
  result.end = cache_offset(as_.here());
  result.offset = workspace_.offset;
  result.side = workspace_.side;
  result.x87_opcode = workspace_.x87_opcode;
  return !failed_ && !as_.full();
}

}  // namespace lodge::engine::soft
