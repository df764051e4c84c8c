// The VM's time: guest TSC, nanoseconds for the chips, and KVM's paravirtual clock, all one linear function of one counter.
//
// Real time: the counter is the host's TSC. Virtual time (soft::Options): it is nanoseconds, computed from the instructions that the
// only vCPU has completed, plus what HLT has skipped; the guest's TSC then runs at 1 GHz.
//
// Freestanding; functions keep the vector registers. Threads: any; virtual time is advanced by the vCPU's thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// From counter ticks to nanoseconds as in struct pvclock_vcpu_time_info (Documentation/virt/kvm/x86/msr.rst):
// ns = ((ticks << shift) * mul) >> 32, with a right shift when shift is negative.
struct ClockScale {
  uint32_t mul;
  int8_t shift;
};
[[nodiscard]] ClockScale clock_scale(uint64_t hz);  // hz: 1 kHz to 1 THz
[[nodiscard]] uint64_t clock_to_ns(ClockScale scale, uint64_t ticks);

struct Clock {
  uint64_t khz;                            // of the counter, and so of the guest's TSC
  ClockScale scale;                        // of the same
  uint64_t base;                           // counter at the VM's creation
  uint32_t picoseconds;                    // per instruction; 0: real time
  const CpuState* virtual_cpu;             // virtual time: whose instructions count; null before it exists
  std::atomic<uint64_t> virtual_skipped;   // virtual time: nanoseconds passed while halted
  int trace = -1;                          // virtual time: descriptor for StateRecords
  uint64_t trace_every, trace_next;        // instructions
  std::atomic<uint64_t> kvmclock_at_base;  // KVM_SET_CLOCK: kvmclock = this + nanoseconds since base
};

// `picoseconds`: 0 for real time.
void clock_init(Clock& clock, uint64_t khz, uint32_t picoseconds);
[[nodiscard]] uint64_t clock_counter(const Clock& clock);
// Nanoseconds since the VM's creation. What the chips' deadlines are in.
[[nodiscard]] uint64_t clock_now(const Clock& clock);
[[nodiscard]] uint64_t clock_kvmclock(const Clock& clock);
void clock_set_kvmclock(Clock& clock, uint64_t nanoseconds);

// Virtual time: lets HLT pass up to `deadline` (no effect if that is over); instructions from now until a deadline.
void clock_skip_to(Clock& clock, uint64_t deadline);
[[nodiscard]] int64_t clock_instructions_until(const Clock& clock, uint64_t deadline);

[[nodiscard]] uint64_t host_tsc();

}  // namespace lodge::engine::soft
