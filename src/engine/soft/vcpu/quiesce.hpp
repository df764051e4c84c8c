// Making vCPUs stand still, or agree that a TLB entry is gone.
//
// A vCPU in guest mode tests a TLB tag and then stores: two instructions. Whoever takes a right away from a page
// (it became code, or clean in a dirty log) may rely on that only after every vCPU has passed a point between two guest
// instructions with an emptied data TLB. That is request_flush_and_wait(); where code lies stays known. Whoever must change something that
// vCPUs read without locks (memory slots, doorbells), or carry out what only one processor may do at a time (a LOCKed access over a page
// boundary), holds an Exclusive.
//
// The protocol, once for all:
//  - A vCPU is Outside, InGuest, or Exclusive (it holds the exclusive section). Entering guest mode first stores InGuest and then looks
//    for a stop or a flush; a requester first stores its request and then looks at the vCPU's state. Both are
//    sequentially consistent, so at least one sees the other.
//  - Outside counts as having acknowledged: the flush happens on the way in, before the vCPU touches memory.
//  - A vCPU that itself waits here is Outside meanwhile, so that two that want each other's acknowledgement
//    both get it. On its return, TLBs may have been emptied, page flags changed and slots moved: what was
//    looked up before must be looked up again.
//  - A holder of the exclusive section that is a vCPU still accesses guest memory, so a flush waits for it.
//
// Threads: any, as said at each function. In guest mode these keep the vector registers (general registers only, raw futex calls).
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

constexpr uint32_t kMaxVcpus = 64;

enum class GuestMode : uint32_t { Outside, InGuest, Exclusive };

struct alignas(64) Participant {
  std::atomic<GuestMode> mode;
  std::atomic<uint32_t> flush_requested;     // counts requests
  std::atomic<uint32_t> flush_acknowledged;  // the last request whose flush has been done
  CpuState* cpu;
};

struct Quiesce {
  std::atomic<uint32_t> count;    // participants; they stay until the VM ends
  std::atomic<uint32_t> stop;     // 1: somebody holds the exclusive section; a futex
  std::atomic<uint32_t> waiters;  // threads waiting on `events`
  std::atomic<uint32_t> events;   // counts acknowledgements and departures while there are waiters; a futex
  Participant participant[kMaxVcpus];
};

// Adds a vCPU; one thread at a time. Null when there are kMaxVcpus.
Participant* quiesce_add(Quiesce& quiesce, CpuState* cpu);

// vCPU's thread. run_guest() calls enter before the first access to guest memory and leave after the last; poll
// where it sees kRequestFlush or kRequestStop, between guest instructions. Enter and poll do not return while another holds the exclusive
// section, and empty the TLBs (mmu_flush_data, mmu_flush_all) where a flush is due.
void quiesce_enter_guest(CpuState* cpu);
void quiesce_leave_guest(CpuState* cpu);
void quiesce_poll(CpuState* cpu);

// Returns when every vCPU but `self` has emptied its data TLBs since the call, or is out of guest mode and will on its way in.
// `self`: the calling thread's vCPU if it is in guest mode, else null. The caller empties self's TLBs.
void request_flush_and_wait(Quiesce& quiesce, CpuState* self);
// The same for all but `self`, which is outside guest mode and sees to its own TLB.
void request_flush_of_others_and_wait(Quiesce& quiesce, CpuState* self);

// Memory slots have changed: all that vCPUs know by linear address goes, data and code, before they come back to guest mode. The caller
// holds the exclusive section and is no vCPU.
void request_forget(Quiesce& quiesce);

// Between begin and end no vCPU but `self` is in guest mode. Does not nest.
void exclusive_begin(Quiesce& quiesce, CpuState* self);
void exclusive_end(Quiesce& quiesce, CpuState* self);

// For code that owns frames. The core, which unwinds past destructors, must not raise between begin and end.
class Exclusive {
 public:
  explicit Exclusive(Quiesce& quiesce, CpuState* self = nullptr) : quiesce_(quiesce), self_(self) { exclusive_begin(quiesce_, self_); }
  ~Exclusive() { exclusive_end(quiesce_, self_); }
  Exclusive(const Exclusive&) = delete;
  Exclusive& operator=(const Exclusive&) = delete;

 private:
  Quiesce& quiesce_;
  CpuState* self_;
};

// Those of the VM that the vCPU belongs to, for the core.
Quiesce& quiesce_of(CpuState* cpu);
void request_flush_and_wait(CpuState* self);

}  // namespace lodge::engine::soft
