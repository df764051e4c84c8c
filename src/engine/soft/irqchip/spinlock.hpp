// The lock of the interrupt chips: a test-and-test-and-set spinlock that needs nothing from the host.
//
// Critical sections are some dozen instructions; none of them calls out of the chips. Where the host can
// preempt a holder (a process, as opposed to a kernel), set_spin_relax() supplies what a waiter does
// after it has spun for a while, such as sched_yield().
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::engine::soft {

// Called by waiters that have spun for long; nullptr (the default) means to go on spinning. Any thread.
void set_spin_relax(void (*relax)());

class Spinlock {
 public:
  void lock();
  void unlock();

 private:
  std::atomic<uint32_t> locked_{0};
};

class SpinGuard {
 public:
  explicit SpinGuard(Spinlock& lock) : lock_(lock) { lock_.lock(); }
  ~SpinGuard() { lock_.unlock(); }
  SpinGuard(const SpinGuard&) = delete;
  SpinGuard& operator=(const SpinGuard&) = delete;

 private:
  Spinlock& lock_;
};

}  // namespace lodge::engine::soft
