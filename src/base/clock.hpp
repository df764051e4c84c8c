// Time as devices see it, so that a test can hold it still.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

namespace lodge {

constexpr uint64_t kNever = UINT64_MAX;  // a deadline that does not come
constexpr uint64_t kSecondNs = 1'000'000'000;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual uint64_t monotonic_ns() const = 0;  // any thread
  [[nodiscard]] virtual int64_t realtime_ns() const = 0;    // since 1970-01-01 00:00 UTC; may step
};

class HostClock final : public Clock {
 public:
  [[nodiscard]] uint64_t monotonic_ns() const override { return static_cast<uint64_t>(read(CLOCK_MONOTONIC)); }
  [[nodiscard]] int64_t realtime_ns() const override { return read(CLOCK_REALTIME); }

 private:
  static int64_t read(clockid_t id) {
    timespec now{};
    clock_gettime(id, &now);
    return static_cast<int64_t>(now.tv_sec) * static_cast<int64_t>(kSecondNs) + now.tv_nsec;
  }
};

class FakeClock final : public Clock {
 public:
  explicit FakeClock(int64_t realtime_ns = 0) : realtime_ns_(realtime_ns) {}
  [[nodiscard]] uint64_t monotonic_ns() const override { return elapsed_ns_; }
  [[nodiscard]] int64_t realtime_ns() const override { return realtime_ns_ + static_cast<int64_t>(elapsed_ns_.load()); }
  void advance(uint64_t ns) { elapsed_ns_ += ns; }

 private:
  int64_t realtime_ns_;
  std::atomic<uint64_t> elapsed_ns_ = 0;
};

}  // namespace lodge
