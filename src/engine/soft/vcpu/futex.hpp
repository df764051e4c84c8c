// Blocking and clocks without the C library, so that the freestanding core can use them in guest mode: the kernel keeps
// the vector registers over a system call, the C library does not promise to.
#pragma once

#include <linux/futex.h>
#include <linux/time_types.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdint>

namespace lodge::engine::soft {

static inline long raw_syscall(long number, long a0, long a1 = 0, long a2 = 0, long a3 = 0, long a4 = 0, long a5 = 0) {
  long result = 0;
  register long r10 asm("r10") = a3;
  register long r8 asm("r8") = a4;
  register long r9 asm("r9") = a5;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a0), "S"(a1), "d"(a2), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory", "cc");
  return result;
}

// Waits while the word holds `value`; returns early at will (signals, spurious wake-ups). `nanoseconds`: relative
// limit, UINT64_MAX for none.
static inline void futex_wait(const std::atomic<uint32_t>& word, uint32_t value, uint64_t nanoseconds = UINT64_MAX) {
  __kernel_timespec limit = {};
  limit.tv_sec = static_cast<long long>(nanoseconds / 1'000'000'000);
  limit.tv_nsec = static_cast<long long>(nanoseconds % 1'000'000'000);
  raw_syscall(SYS_futex, reinterpret_cast<long>(&word), FUTEX_WAIT_PRIVATE, static_cast<long>(value),
              nanoseconds == UINT64_MAX ? 0 : reinterpret_cast<long>(&limit));
}

static inline void futex_wake_all(const std::atomic<uint32_t>& word) {
  raw_syscall(SYS_futex, reinterpret_cast<long>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX);
}

}  // namespace lodge::engine::soft
