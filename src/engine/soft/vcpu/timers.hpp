// Deadlines of the VM's chips, and the thread that meets them.
//
// Each vCPU's local APIC and the 8254 have one entry: the time of their next event, which their owner keeps up to date. The thread
// sleeps until the earliest; then it wakes the vCPU, which lets its own APIC expire, or lets the 8254 expire itself. It is woken
// itself only when an entry becomes earlier than what it sleeps for. A vCPU that waits in HLT takes its entry
// away and minds the time itself, which saves the hop over this thread.
//
// Freestanding but for the thread, which vm.cpp runs. Threads: an entry is written by its owner; the thread takes it away when due.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/soft/vcpu/quiesce.hpp"

namespace lodge::engine::soft {

constexpr uint64_t kNever = UINT64_MAX;
constexpr uint32_t kPitTimer = kMaxVcpus;  // entry of the 8254; those below are the vCPUs'
constexpr uint32_t kTimerCount = kMaxVcpus + 1;

struct Timers {
  std::atomic<uint64_t> deadline[kTimerCount];  // nanoseconds of clock_now()
  std::atomic<uint64_t> sleeping_until;         // what the thread waits for, kNever when it waits for a change only
  std::atomic<uint32_t> changes;                // a futex
  std::atomic<uint32_t> ended;
};

void timers_init(Timers& timers);
// Any thread, in guest mode too.
void timer_set(Timers& timers, uint32_t entry, uint64_t deadline);
// The thread's loop: waits until an entry is due and takes it away. Its number, or kTimerCount after timers_end().
uint32_t timers_wait(Timers& timers, uint64_t (*now)(void*), void* context);
void timers_end(Timers& timers);

}  // namespace lodge::engine::soft
