#include "engine/soft/vcpu/quiesce.hpp"

#include <array>

#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/futex.hpp"

namespace lodge::engine::soft {

namespace {

Participant& self_of(CpuState* cpu) { return *context_of(cpu).participant; }

// After a change that somebody may wait for. Waiters count themselves before they look; this looks after the change.
void announce(Quiesce& quiesce) {
  if (quiesce.waiters.load() == 0) return;
  quiesce.events.fetch_add(1);
  futex_wake_all(quiesce.events);
}

template <typename Condition>
void wait_until(Quiesce& quiesce, Condition condition) {
  quiesce.waiters.fetch_add(1);
  for (;;) {
    const uint32_t seen = quiesce.events.load();
    if (condition()) break;
    futex_wait(quiesce.events, seen);
  }
  quiesce.waiters.fetch_sub(1);
}

// The request bit goes first, so that a request made meanwhile sets it again; the count read after it covers all whose
// bit has just been taken away.
void flush_if_requested(Quiesce& quiesce, CpuState* cpu, Participant& self) {
  if ((cpu->request.load() & kRequestFlush) == 0) return;
  const uint32_t taken = cpu->request.fetch_and(~static_cast<uint32_t>(kRequestFlush | kRequestForget));
  const uint32_t requested = self.flush_requested.load();
  if (taken & kRequestForget)
    mmu_flush_all(*cpu);
  else
    mmu_flush_data(*cpu);
  self.flush_acknowledged.store(requested);
  announce(quiesce);
}

// From Outside to InGuest, past stops and flushes.
void enter(Quiesce& quiesce, CpuState* cpu, Participant& self) {
  for (;;) {
    self.mode.store(GuestMode::InGuest);
    if (quiesce.stop.load() == 0) break;
    self.mode.store(GuestMode::Outside);
    announce(quiesce);
    futex_wait(quiesce.stop, 1);
  }
  flush_if_requested(quiesce, cpu, self);
}

void leave(Quiesce& quiesce, Participant& self) {
  self.mode.store(GuestMode::Outside);
  announce(quiesce);
}

bool acknowledged(const Participant& other, uint32_t ticket) {
  return static_cast<int32_t>(other.flush_acknowledged.load() - ticket) >= 0 || other.mode.load() == GuestMode::Outside;
}

struct FlushTickets {
  uint32_t count;
  std::array<uint32_t, kMaxVcpus> ticket;
};

// Of all but `own`.
FlushTickets ask_for_flush(Quiesce& quiesce, const Participant* own) {
  FlushTickets tickets{quiesce.count.load(), {}};
  for (uint32_t i = 0; i < tickets.count; ++i) {
    Participant& other = quiesce.participant[i];
    if (&other == own) continue;
    tickets.ticket[i] = other.flush_requested.fetch_add(1) + 1;
    other.cpu->request.fetch_or(kRequestFlush);
  }
  return tickets;
}

void await_flush(Quiesce& quiesce, const Participant* own, const FlushTickets& tickets) {
  for (uint32_t i = 0; i < tickets.count; ++i) {
    const Participant& other = quiesce.participant[i];
    if (&other == own || acknowledged(other, tickets.ticket[i])) continue;
    wait_until(quiesce, [&] { return acknowledged(other, tickets.ticket[i]); });
  }
}

}  // namespace

Participant* quiesce_add(Quiesce& quiesce, CpuState* cpu) {
  const uint32_t index = quiesce.count.load();
  if (index == kMaxVcpus) return nullptr;
  Participant& added = quiesce.participant[index];
  added.cpu = cpu;
  added.mode.store(GuestMode::Outside);
  quiesce.count.store(index + 1);
  return &added;
}

Quiesce& quiesce_of(CpuState* cpu) { return context_of(cpu).vm->quiesce; }

void quiesce_enter_guest(CpuState* cpu) { enter(quiesce_of(cpu), cpu, self_of(cpu)); }

void quiesce_leave_guest(CpuState* cpu) { leave(quiesce_of(cpu), self_of(cpu)); }

void quiesce_poll(CpuState* cpu) {
  Quiesce& quiesce = quiesce_of(cpu);
  Participant& self = self_of(cpu);
  if (quiesce.stop.load() != 0 && self.mode.load() == GuestMode::InGuest) {
    leave(quiesce, self);
    enter(quiesce, cpu, self);
    return;
  }
  flush_if_requested(quiesce, cpu, self);
}

void request_flush_of_others_and_wait(Quiesce& quiesce, CpuState* self) {
  const Participant* own = &self_of(self);
  const FlushTickets tickets = ask_for_flush(quiesce, own);
  await_flush(quiesce, own, tickets);
}

void request_flush_and_wait(Quiesce& quiesce, CpuState* self) {
  Participant* own = self ? &self_of(self) : nullptr;
  const bool exclusive = own && own->mode.load() == GuestMode::Exclusive;
  const FlushTickets tickets = ask_for_flush(quiesce, own);
  // Whoever holds the exclusive section is alone: the others empty their TLBs when they come back.
  if (exclusive) return;
  if (own) leave(quiesce, *own);
  await_flush(quiesce, own, tickets);
  if (own) enter(quiesce, self, *own);
}

void request_forget(Quiesce& quiesce) {
  for (uint32_t i = 0; i < quiesce.count.load(); ++i) quiesce.participant[i].cpu->request.fetch_or(kRequestForget);
  ask_for_flush(quiesce, nullptr);
}

void request_flush_and_wait(CpuState* self) { request_flush_and_wait(quiesce_of(self), self); }

void exclusive_begin(Quiesce& quiesce, CpuState* self) {
  Participant* own = self ? &self_of(self) : nullptr;
  if (own) leave(quiesce, *own);
  uint32_t free = 0;
  while (!quiesce.stop.compare_exchange_strong(free, 1)) {
    futex_wait(quiesce.stop, 1);
    free = 0;
  }
  const uint32_t count = quiesce.count.load();
  for (uint32_t i = 0; i < count; ++i) {
    const Participant& other = quiesce.participant[i];
    if (&other == own) continue;
    other.cpu->request.fetch_or(kRequestStop);
    if (other.mode.load() != GuestMode::InGuest) continue;
    wait_until(quiesce, [&] { return other.mode.load() != GuestMode::InGuest; });
  }
  if (!own) return;
  own->mode.store(GuestMode::Exclusive);
  flush_if_requested(quiesce, self, *own);
}

void exclusive_end(Quiesce& quiesce, CpuState* self) {
  const uint32_t count = quiesce.count.load();
  for (uint32_t i = 0; i < count; ++i) {
    CpuState* cpu = quiesce.participant[i].cpu;
    if (cpu != self) cpu->request.fetch_and(~static_cast<uint32_t>(kRequestStop));
  }
  quiesce.stop.store(0);
  futex_wake_all(quiesce.stop);
  if (self) {
    Participant& own = self_of(self);
    // Through Outside, so that the next holder does not take this vCPU for stopped while it is not.
    leave(quiesce, own);
    enter(quiesce, self, own);
  }
}

}  // namespace lodge::engine::soft
