// The chips' time with a virtual clock: the VM's own, so that what the guest reads from them repeats exactly.
//
// Deadlines of chips still fire by the host's clock: a guest that arms an alarm of the RTC does not repeat in that.
#pragma once

#include "base/clock.hpp"
#include "engine/api/engine.hpp"

namespace lodge::machine {

class EngineClock final : public Clock {
 public:
  explicit EngineClock(engine::Vm& vm) : vm_(vm) {}
  [[nodiscard]] uint64_t monotonic_ns() const override {
    const auto clock = vm_.get_clock();
    return clock ? clock->clock : 0;
  }
  // The engine's virtual wall clock begins with 2000-01-01.
  [[nodiscard]] int64_t realtime_ns() const override { return kEpoch + static_cast<int64_t>(monotonic_ns()); }

 private:
  static constexpr int64_t kEpoch = 946'684'800 * static_cast<int64_t>(kSecondNs);
  engine::Vm& vm_;
};

}  // namespace lodge::machine
