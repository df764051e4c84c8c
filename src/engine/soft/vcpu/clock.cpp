#include "engine/soft/vcpu/clock.hpp"

#include "engine/soft/irqchip/muldiv.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr uint64_t kVirtualKhz = 1'000'000;  // ticks are nanoseconds

uint64_t virtual_now(const Clock& clock) {
  // Another thread may look at the counter while the vCPU runs; it then sees some recent value.
  const uint64_t instructions = clock.virtual_cpu ? __atomic_load_n(&clock.virtual_cpu->instructions, __ATOMIC_RELAXED) : 0;
  return mul_div(instructions, clock.picoseconds, 1000) + clock.virtual_skipped.load(std::memory_order_relaxed);
}

}  // namespace

uint64_t host_tsc() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// The multiplier has most bits when the shifted frequency lies in (1 GHz, 2 GHz].
ClockScale clock_scale(uint64_t hz) {
  int shift = 0;
  uint64_t numerator = kNanosecondsPerSecond;  // of mul = numerator / denominator * 2^32
  uint64_t denominator = hz;
  while (denominator > 2 * numerator) {
    numerator *= 2;
    --shift;
  }
  while (denominator <= numerator) {
    denominator *= 2;
    ++shift;
  }
  return {static_cast<uint32_t>(mul_div(numerator, uint64_t{1} << 32, denominator)), static_cast<int8_t>(shift)};
}

uint64_t clock_to_ns(ClockScale scale, uint64_t ticks) {
  const uint64_t shifted = scale.shift < 0 ? ticks >> -scale.shift : ticks << scale.shift;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(shifted) * scale.mul) >> 32);
}

void clock_init(Clock& clock, uint64_t khz, uint32_t picoseconds) {
  clock.khz = picoseconds ? kVirtualKhz : khz;
  clock.scale = clock_scale(clock.khz * 1000);
  clock.picoseconds = picoseconds;
  clock.base = picoseconds ? 0 : host_tsc();
}

uint64_t clock_counter(const Clock& clock) { return clock.picoseconds ? virtual_now(clock) : host_tsc(); }

uint64_t clock_now(const Clock& clock) { return clock_to_ns(clock.scale, clock_counter(clock) - clock.base); }

uint64_t clock_kvmclock(const Clock& clock) { return clock.kvmclock_at_base.load() + clock_now(clock); }

void clock_set_kvmclock(Clock& clock, uint64_t nanoseconds) { clock.kvmclock_at_base.store(nanoseconds - clock_now(clock)); }

void clock_skip_to(Clock& clock, uint64_t deadline) {
  const uint64_t now = virtual_now(clock);
  if (deadline > now) clock.virtual_skipped.fetch_add(deadline - now);
}

int64_t clock_instructions_until(const Clock& clock, uint64_t deadline) {
  // Far beyond any run, and far from overflow.
  constexpr uint64_t kFar = uint64_t{1} << 50;
  const uint64_t now = virtual_now(clock);
  if (deadline <= now) return 0;
  const uint64_t instructions = mul_div_up(deadline - now, 1000, clock.picoseconds);
  return static_cast<int64_t>(instructions < kFar ? instructions : kFar);
}

}  // namespace lodge::engine::soft
