#include "engine/soft/vcpu/loop.hpp"

#include <linux/kvm.h>

#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/vcpu/hooks.hpp"
#include "engine/soft/vcpu/host_faults.hpp"
#include "engine/soft/vcpu/offsets.hpp"
#include "engine/soft/vcpu/quiesce.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

void code_written(CpuState& c, uint8_t* host, uint32_t length) {
  count(c, Counter::CodeWrites);
  InvalidateRequest request{&c, host, length};
  soft_host_call(invalidate_block, &request);
  // The running block may be one of those: it looks at requests after each instruction that may write code.
  c.request.fetch_or(kRequestEvent, std::memory_order_relaxed);
}

namespace {

std::atomic<uint8_t>* flags_of(const FetchPage& page) { return &page.slot->page_flags[(page.gpa - page.slot->gpa) >> 12]; }

FetchPage next_page(CpuState& c, uint64_t linear) {
  const uint64_t next = (linear & kPageMask) + kPageSize;
  return mmu_fetch(c, code64(c) ? next : next & 0xffffffff);
}

// Where a lookup got to.
struct Lookup {
  Block* block;
  bool not_ram;
  bool again;
  uint32_t key;
};

// Whether the entry's translation is there still, and one for the key.
bool known(const JumpCacheEntry& entry, const CodeIndex& index, uint32_t key) {
  return entry.block && entry.key == key && entry.resets == static_cast<uint32_t>(index.resets.load(std::memory_order_acquire)) &&
         !has_ended(*entry.block);
}

// Under soft_guarded: fetching may fault.
void find_block(CpuState* cp, uint64_t argument) {
  CpuState& c = *cp;
  Lookup& lookup = *reinterpret_cast<Lookup*>(argument);
  if (code64(c) && !canonical(c.rip)) raise(c, kGp, 0);
  if (!code64(c) && c.rip > c.seg[kCs].limit) raise(c, kGp, 0);
  const uint64_t linear = code_linear(c);
  CodeIndex& index = *c.code_index;
  const uint64_t resets = index.resets.load();
  const FetchPage page = mmu_fetch(c, linear);
  if (!page.host) {
    lookup.not_ram = true;
    return;
  }
  const uint8_t* const host_pc = page.host + (linear & (kPageSize - 1));
  count(c, Counter::BlockLookups);
  JumpCacheEntry& entry = c.jump_cache->of(linear);
  if (entry.linear == linear && known(entry, index, lookup.key) && entry.block->host_pc == host_pc && !entry.block->second_page) {
    entry.mmu_generation = code_generation_of(c);
    lookup.block = entry.block;
    return;
  }
  FetchPage second{};
  for (Block* block = index.bucket[CodeIndex::hash(host_pc, lookup.key)].load(std::memory_order_acquire); block;
       block = block->next.load(std::memory_order_acquire)) {
    if (block->host_pc != host_pc || block->key != lookup.key) continue;
    if (block->second_page) {
      if (!second.slot) second = next_page(c, linear);
      if (index.resets.load() != resets) {  // guest mode was left meanwhile, and the block is gone
        lookup.again = true;
        return;
      }
      if (second.host != block->second_page) continue;
    }
    entry = {linear, code_generation_of(c), block, lookup.key, static_cast<uint32_t>(resets)};
    lookup.block = block;
    return;
  }
  TranslateRequest request{&c, host_pc, nullptr, flags_of(page), nullptr, resets, lookup.key, TranslateRequest::kAgain};
  soft_host_call(translate_block, &request);
  lookup.again = true;
  if (request.outcome == TranslateRequest::kAgain) return;
  request.resets = index.resets.load();
  // The walk may raise the page fault of the instruction's second half.
  second = next_page(c, linear);
  if (!second.host) {
    lookup.again = false;
    lookup.not_ram = true;
    return;
  }
  // Guest mode was left meanwhile: only what is looked up now counts.
  const FetchPage first = mmu_fetch(c, linear);
  if (!first.host) return;
  request.host_pc = first.host + (linear & (kPageSize - 1));
  request.page_flags = flags_of(first);
  request.second_page = second.host;
  request.second_flags = flags_of(second);
  soft_host_call(translate_block, &request);
}

Block* cached_block(const CpuState& c, uint32_t key) {
  const uint64_t linear = code_linear(c);
  const JumpCacheEntry& entry = c.jump_cache->of(linear);
  if (entry.linear != linear || entry.mmu_generation != code_generation_of(c) || !known(entry, *c.code_index, key)) return nullptr;
  return entry.block;
}

void run_code(CpuState*, uint64_t code) { reinterpret_cast<void (*)()>(code)(); }
void run_tier2(CpuState* c, uint64_t entry) {
  reinterpret_cast<void (*)(uint64_t)>(reinterpret_cast<uint64_t>(c->code_index->enter))(entry);
}

// Where translated code jumps to find this block again.
void enter_in_jump_table(CpuState& c, const Block& block) {
  const uint32_t i = (c.rip ^ c.jump_index) & (JumpTable::kEntries - 1);
  c.jump_table->tag[i] = c.rip ^ c.jump_salt;
  c.jump_table->code[i] = reinterpret_cast<uint64_t>(c.code_index->code_begin + block.tier2->entry);
}

// A jump to an address that is not canonical faults itself: it is put back to where it was.
void undo_jump(CpuState& c) {
  c.rip = c.code_page + (c.jump_from & (kPageSize - 1));
  c.gpr[kRsp] -= static_cast<uint64_t>(int64_t{static_cast<int32_t>(c.jump_from) >> 12});
}

// How translated code of the second tier was left, and what it asks for.
struct Link {
  uint64_t chain = 0, rip = 0, generation = 0;  // of the code index: another one, and the edge's memory may have been given anew
};

void deliver_current(CpuState* c, uint64_t) {
  count(*c, c->delivery == Delivery::Exception ? Counter::Exceptions : Counter::Interrupts);
  switch (c->delivery) {
    case Delivery::Exception: deliver_exception(*c, c->delivering); break;
    case Delivery::Interrupt: deliver_interrupt(*c, c->delivering.vector); break;
    case Delivery::Nmi: deliver_nmi(*c); break;
    case Delivery::None: break;
  }
}

enum class Step { Next, Exit, Shutdown };

// Delivers what c.delivery says, and what that raises in turn (SDM vol. 3, table 6-5).
Step deliver(CpuState& c) {
  while (c.delivery != Delivery::None) {
    switch (soft_guarded(&c, deliver_current, 0)) {
      case Unwind::None:
        c.delivery = Delivery::None;
        c.shadow = kShadowNone;
        replay_commit(c);
        mode_changed(c);
        return Step::Next;
      case Unwind::Exception: {
        replay_commit(c);
        PendingException first = c.delivering;
        if (c.delivery != Delivery::Exception) {
          first = {};
          first.vector = c.delivery == Delivery::Nmi ? static_cast<uint8_t>(kNmi) : c.delivering.vector;
          first.is_external = true;
          // An external vector has no class of its own: whatever it is numbered, it is benign.
          if (c.delivery == Delivery::Interrupt) first.vector = kNmi;
        }
        const PendingException second = c.exception;
        switch (escalate(first, second)) {
          case Escalation::Serial: c.delivering = second; break;
          case Escalation::DoubleFault:
            c.delivering = {};
            c.delivering.vector = kDf;
            c.delivering.has_error_code = true;
            break;
          case Escalation::Shutdown: return Step::Shutdown;
        }
        c.delivery = Delivery::Exception;
        break;
      }
      case Unwind::Exit: return Step::Exit;
      case Unwind::Shutdown: return Step::Shutdown;
      case Unwind::Restart:
      case Unwind::SlowVariant: break;
    }
  }
  return Step::Next;
}

Step deliver_pending_exception(CpuState& c) {
  replay_commit(c);
  c.delivering = c.exception;
  c.delivery = Delivery::Exception;
  return deliver(c);
}

LoopExit exit_of(Step step) { return step == Step::Exit ? LoopExit::Exit : LoopExit::Shutdown; }

// Instructions of the block that completed before it was left at c.rip.
uint32_t completed(const CpuState& c, const Block& block) {
  const uint64_t at = c.rip - c.block_rip;
  for (uint32_t i = 0; i < block.count; ++i)
    if (block.offset[i] == at) return i;
  return block.count;
}

LoopExit internal_error(CpuState& c) {
  c.run->exit_reason = c.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  c.run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
  c.run->internal.ndata = 0;
  return LoopExit::Exit;
}

LoopExit debug_exit(CpuState& c) {
  c.run->exit_reason = c.exit_reason = KVM_EXIT_DEBUG;
  c.run->debug.arch = {};
  c.run->debug.arch.exception = kDb;
  c.run->debug.arch.pc = code_linear(c);
  c.run->debug.arch.dr6 = 0xffff0ff0 | 1 << 14;
  c.run->debug.arch.dr7 = c.dr[7];
  return LoopExit::Exit;
}

// A completed instruction clears RF, unless it is the IRET that loaded it (SDM vol. 3, 18.3.1.1); debug_trap_pending() does it while
// stepping.
void instruction_completed(CpuState& c) {
  if (!c.rf_loaded) c.eflags_system &= ~eflags::kRf;
  c.rf_loaded = false;
}

// Requests of other threads. True: leave with `exit`.
bool look_at_requests(CpuState& c, LoopExit& exit) {
  const uint32_t request = c.request.load(std::memory_order_acquire);
  if (request & (kRequestFlush | kRequestStop)) quiesce_poll(&c);
  if (request & kRequestEvent) {
    c.request.fetch_and(~static_cast<uint32_t>(kRequestEvent));
    c.events_waiting = true;
  }
  // A pending instruction completes first, as with KVM_RUN.
  if ((request & kRequestKick) && !c.replay->count && c.delivery == Delivery::None) {
    c.request.fetch_and(~static_cast<uint32_t>(kRequestKick));
    exit = LoopExit::Interrupted;
    return true;
  }
  return false;
}

enum class Events { None, Delivered, Leave, Shutdown, Exit };

// Between two instructions, none of which is pending.
Events look_at_events(CpuState& c) {
  const uint32_t events = c.hooks->pending_events(&c);
  if (events & kEventLeave) return Events::Leave;
  if ((events & kEventNmi) && !c.nmi_blocked && c.shadow == kShadowNone && c.hooks->take_nmi(&c)) {
    c.halted = false;
    c.delivery = Delivery::Nmi;
  } else if ((events & kEventInterrupt) && (c.eflags_system & eflags::kIf) && c.shadow == kShadowNone) {
    const int32_t vector = c.hooks->acknowledge_interrupt(&c);
    if (vector < 0) return Events::None;
    c.halted = false;
    c.delivering = {};
    c.delivering.vector = static_cast<uint8_t>(vector);
    c.delivery = Delivery::Interrupt;
  } else {
    if (!(events & (kEventNmi | kEventInterrupt))) c.events_waiting = false;
    return Events::None;
  }
  switch (deliver(c)) {
    case Step::Next: return Events::Delivered;
    case Step::Exit: return Events::Exit;
    case Step::Shutdown: return Events::Shutdown;
  }
  return Events::None;
}

// What follows a completed instruction under TF or with breakpoints armed.
Step after_single_step(CpuState& c, bool trap_flag) {
  if (!debug_trap_pending(c, trap_flag)) return Step::Next;
  return deliver_pending_exception(c);
}

LoopExit loop(CpuState& c) {
  if (!replay_resume(c)) return LoopExit::Exit;
  if (c.delivery != Delivery::None) {
    if (const Step step = deliver(c); step != Step::Next) return exit_of(step);
  }
  bool slow_next = false, ungrouped_next = false;
  Link link;
  for (;;) {
    LoopExit exit;
    if (c.request.load(std::memory_order_relaxed)) {
      count(c, Counter::Requests);
      if (look_at_requests(c, exit)) return exit;
    }
    const bool between = !c.replay->count && !slow_next;
    if ((c.events_waiting || c.halted) && between) {
      switch (look_at_events(c)) {
        case Events::None: break;
        case Events::Delivered: continue;
        case Events::Leave: return LoopExit::Event;
        case Events::Shutdown: return LoopExit::Shutdown;
        case Events::Exit: return LoopExit::Exit;
      }
      if (c.halted) return LoopExit::Halted;
    }
    if (c.budget <= 0) [[unlikely]] {
      c.hooks->virtual_time(&c);
      continue;
    }

    uint32_t key = c.key;
    const bool stepping = key & key::kSingleStep;
    if (slow_next || stepping)
      key |= kKeySingle | kKeySlow;  // breakpoints on data are noticed in the slow form
    else if (c.shadow || c.replay->count || c.guest_debug_step || (c.eflags_system & eflags::kRf))
      key |= kKeySingle;
    else if (ungrouped_next)
      key |= kKeyUngrouped;
    if (stepping && debug_instruction_breakpoint(c)) {
      if (const Step step = deliver_pending_exception(c); step != Step::Next) return exit_of(step);
      continue;
    }

    Block* block = cached_block(c, key);
    for (;;) {
      if (!block) {
        Lookup lookup{nullptr, false, false, key};
        const Unwind unwind = soft_guarded(&c, find_block, reinterpret_cast<uint64_t>(&lookup));
        if (unwind == Unwind::Exception) {
          if (const Step step = deliver_pending_exception(c); step != Step::Next) return exit_of(step);
          break;
        }
        if (unwind == Unwind::Exit) return LoopExit::Exit;
        if (lookup.not_ram) return internal_error(c);
        block = lookup.block;
        if (!block) break;  // made just now, or to be looked up with what has changed
      }
      const bool too_long = block->count > c.budget || (!code64(c) && c.rip + block->length - 1 > c.seg[kCs].limit);
      if (!too_long) break;
      if (key & kKeySingle) {
        if (block->count <= c.budget) {  // the segment ends in the middle of the instruction
          c.exception = {};
          c.exception.vector = kGp;
          c.exception.has_error_code = true;
          if (const Step step = deliver_pending_exception(c); step != Step::Next) return exit_of(step);
        }
        block = nullptr;
        break;
      }
      key = (key & ~kKeyUngrouped) | kKeySingle;
      block = cached_block(c, key);
    }
    slow_next = slow_next && !block;  // the slow form stays wanted while its translation is being made
    if (!block) continue;

    const uint8_t shadow = c.shadow;
    const bool trap_flag = c.eflags_system & eflags::kTf;
    c.shadow = kShadowNone;
    if (block->tier2) {
      if (link.chain && link.rip == c.rip && link.generation == c.code_index->generation.load(std::memory_order_acquire))
        code_link(*c.code_index, link.chain, *block);
      link = {};
      count(c, Counter::Tier2Runs);
      if (!ungrouped_next) enter_in_jump_table(c, *block);
      ungrouped_next = false;
      c.code_page = c.rip & kPageMask;
      const Unwind unwind = soft_guarded(&c, run_tier2, reinterpret_cast<uint64_t>(block->code));
      c.left_early = 0;
      if (unwind == Unwind::None) [[likely]] {
        if (c.replay->count) replay_commit(c);
        if (c.chain) {
          count(c, Counter::EdgeExits);
          ungrouped_next = edge_is_ungrouped(*c.code_index, c.chain);
          link = {c.chain, c.rip, c.code_index->generation.load(std::memory_order_acquire)};
          c.chain = 0;
        }
        if (c.jump_missed) {
          count(c, Counter::JumpMisses);
          c.jump_missed = 0;
          if (!canonical(c.rip) && c.jump_from != kJumpComplete) {
            undo_jump(c);
            slow_next = true;
          }
        }
        continue;
      }
      instruction_completed(c);
      switch (unwind) {
        case Unwind::Exception:
          if (const Step step = deliver_pending_exception(c); step != Step::Next) return exit_of(step);
          break;
        case Unwind::Exit: return LoopExit::Exit;
        case Unwind::Shutdown: return LoopExit::Shutdown;
        case Unwind::SlowVariant: slow_next = true; break;
        case Unwind::Restart:
        case Unwind::None: break;
      }
      continue;
    }
    count(c, key & kKeySlow ? Counter::SlowRuns : Counter::Tier1Runs);
    c.block_rip = c.rip;
    c.budget -= block->count;
    c.instructions += block->count;
    const Unwind unwind = soft_guarded(&c, run_code, reinterpret_cast<uint64_t>(block->code));
    if (unwind == Unwind::None) [[likely]] {
      if (c.left_early) [[unlikely]] {
        c.left_early = 0;
        const uint32_t unfinished = block->count - completed(c, *block);
        c.budget += unfinished;
        c.instructions -= unfinished;
      }
      if (c.replay->count) replay_commit(c);
      if (stepping) {
        // MOV SS and POP SS hold the trap back until after the next instruction (SDM vol. 3, 6.8.3).
        if (const Step step = after_single_step(c, trap_flag && c.shadow != kShadowMovSs); step != Step::Next) return exit_of(step);
      } else if (c.eflags_system & eflags::kRf) [[unlikely]]
        instruction_completed(c);
      if (c.guest_debug_step) return debug_exit(c);
      continue;
    }

    const uint32_t unfinished = block->count - completed(c, *block);
    if (unfinished != block->count) instruction_completed(c);
    c.budget += unfinished;
    c.instructions -= unfinished;
    switch (unwind) {
      case Unwind::Exception:
        if (const Step step = deliver_pending_exception(c); step != Step::Next) return exit_of(step);
        if (c.guest_debug_step) return debug_exit(c);
        break;
      case Unwind::Exit: c.shadow = unfinished == block->count ? shadow : c.shadow; return LoopExit::Exit;
      case Unwind::Shutdown: return LoopExit::Shutdown;
      case Unwind::SlowVariant:
        slow_next = true;
        if (unfinished == block->count) c.shadow = shadow;
        break;
      case Unwind::Restart:
      case Unwind::None:
        if (unfinished == block->count) c.shadow = shadow;
        break;
    }
  }
}

uint32_t guest_loop(CpuState* c) {
  quiesce_enter_guest(c);
  const LoopExit exit = loop(*c);
  quiesce_leave_guest(c);
  return static_cast<uint32_t>(exit);
}

}  // namespace

LoopExit run_guest(CpuState& c, void* vector) {
  running_guest = &c;
  const auto exit = static_cast<LoopExit>(soft_enter(&c, vector, guest_loop));
  running_guest = nullptr;
  return exit;
}

}  // namespace lodge::engine::soft
