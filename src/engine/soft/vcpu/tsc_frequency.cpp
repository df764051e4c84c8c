#include "engine/soft/vcpu/tsc_frequency.hpp"

#include <cpuid.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <mutex>

#include "base/fd.hpp"
#include "engine/soft/vcpu/clock.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kMeasureNanoseconds = 3'000'000;  // some ten parts in a million

// SDM vol. 2, CPUID leaf 15H: TSC = crystal * EBX / EAX. Processors that leave ECX zero do not say what crystal they have.
uint64_t khz_of_leaf15() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(0x15, 0, &eax, &ebx, &ecx, &edx) || eax == 0 || ebx == 0 || ecx == 0) return 0;
  return static_cast<uint64_t>(ecx) * ebx / eax / 1000;
}

// The leaf that VMware began and KVM and others took up: EAX is the TSC's frequency in kHz.
uint64_t khz_of_hypervisor() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 31))) return 0;
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  if (eax < 0x40000010 || eax > 0x400000ff) return 0;
  __cpuid(0x40000010, eax, ebx, ecx, edx);
  return eax;
}

// perf_event_open(2): with cap_user_time, ns = (tsc * time_mult) >> time_shift is the kernel's own conversion.
uint64_t khz_of_perf_page() {
  perf_event_attr attributes = {};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.config = PERF_COUNT_SW_DUMMY;
  attributes.exclude_kernel = 1;
  const Fd event(static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!event) return 0;
  const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, event.get(), 0);
  if (mapping == MAP_FAILED) return 0;
  const auto* page = static_cast<const perf_event_mmap_page*>(mapping);
  uint64_t khz = 0;
  if (page->cap_user_time && page->time_mult != 0 && page->time_shift < 64) {
    const auto scaled = static_cast<unsigned __int128>(1'000'000) << page->time_shift;
    khz = static_cast<uint64_t>((scaled + page->time_mult / 2) / page->time_mult);
  }
  munmap(mapping, size);
  return khz;
}

struct Moment {
  uint64_t tsc, nanoseconds;
};

uint64_t raw_nanoseconds() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// The pair with the least time between its two readings of the TSC, so that an interruption in between does not count.
Moment sample() {
  Moment best = {};
  uint64_t narrowest = UINT64_MAX;
  for (int i = 0; i < 32; ++i) {
    const uint64_t before = host_tsc();
    const uint64_t now = raw_nanoseconds();
    const uint64_t after = host_tsc();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    best = {before + (after - before) / 2, now};
  }
  return best;
}

class Frequency {
 public:
  void begin() {
    const std::lock_guard lock(mutex_);
    if (khz_ != 0 || start_.nanoseconds != 0) return;
    for (const auto source : {khz_of_leaf15, khz_of_hypervisor, khz_of_perf_page}) {
      khz_ = source();
      if (khz_ != 0) return;
    }
    start_ = sample();
  }

  uint64_t khz() {
    begin();
    const std::lock_guard lock(mutex_);
    if (khz_ == 0) khz_ = measure();
    return khz_;
  }

 private:
  uint64_t measure() const {
    const uint64_t passed = raw_nanoseconds() - start_.nanoseconds;
    if (passed < kMeasureNanoseconds) {
      timespec rest = {0, static_cast<long>(kMeasureNanoseconds - passed)};
      nanosleep(&rest, nullptr);
    }
    const Moment end = sample();
    const auto ticks = static_cast<unsigned __int128>(end.tsc - start_.tsc) * 1'000'000;
    return static_cast<uint64_t>(ticks / (end.nanoseconds - start_.nanoseconds));
  }

  std::mutex mutex_;
  uint64_t khz_ = 0;
  Moment start_ = {};
};

Frequency& frequency() {
  static Frequency instance;
  return instance;
}

}  // namespace

void tsc_frequency_begin() { frequency().begin(); }
uint64_t tsc_frequency_khz() { return frequency().khz(); }

}  // namespace lodge::engine::soft
