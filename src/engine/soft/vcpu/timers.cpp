#include "engine/soft/vcpu/timers.hpp"

#include "engine/soft/vcpu/futex.hpp"

namespace lodge::engine::soft {

namespace {

uint64_t earliest(const Timers& timers) {
  uint64_t result = kNever;
  for (const auto& entry : timers.deadline) {
    const uint64_t deadline = entry.load();
    if (deadline < result) result = deadline;
  }
  return result;
}

// An entry that its owner moves at the same moment is not taken.
uint32_t take_due(Timers& timers, uint64_t now) {
  for (uint32_t i = 0; i < kTimerCount; ++i) {
    uint64_t deadline = timers.deadline[i].load();
    if (deadline <= now && timers.deadline[i].compare_exchange_strong(deadline, kNever)) return i;
  }
  return kTimerCount;
}

void rouse(Timers& timers) {
  timers.changes.fetch_add(1);
  futex_wake_all(timers.changes);
}

}  // namespace

void timers_init(Timers& timers) {
  for (auto& entry : timers.deadline) entry.store(kNever);
  timers.sleeping_until.store(kNever);
}

// The thread publishes what it sleeps for and then looks at the entries once more; this stores the entry and then looks
// at what the thread sleeps for: one of the two sees the other.
void timer_set(Timers& timers, uint32_t entry, uint64_t deadline) {
  timers.deadline[entry].store(deadline);
  if (deadline < timers.sleeping_until.load()) rouse(timers);
}

uint32_t timers_wait(Timers& timers, uint64_t (*now)(void*), void* context) {
  for (;;) {
    const uint32_t seen = timers.changes.load();
    if (timers.ended.load()) return kTimerCount;
    // Awake: nobody need rouse this thread before it has looked again.
    timers.sleeping_until.store(0);
    const uint64_t time = now(context);
    const uint32_t due = take_due(timers, time);
    if (due != kTimerCount) return due;
    const uint64_t until = earliest(timers);
    timers.sleeping_until.store(until);
    if (earliest(timers) < until || until <= time) continue;
    futex_wait(timers.changes, seen, until == kNever ? UINT64_MAX : until - time);
  }
}

void timers_end(Timers& timers) {
  timers.ended.store(1);
  rouse(timers);
}

}  // namespace lodge::engine::soft
