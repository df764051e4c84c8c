// The frequency of the host's TSC.
#pragma once

#include <cstdint>

namespace lodge::engine::soft {

// Remembers a moment to measure from, unless the host tells the frequency at once: CPUID leaf 15H, a hypervisor's leaf
// 4000_0010H, or the kernel's own conversion in a perf_event page. To be called early.
void tsc_frequency_begin();

// In kHz. Where it must be measured (against CLOCK_MONOTONIC_RAW), waits until 5 ms have passed since begin(), and always
// gives the same answer from then on. Any thread.
uint64_t tsc_frequency_khz();

}  // namespace lodge::engine::soft
