// MC146818 real-time clock with the PC's CMOS memory behind ports 0x70 and 0x71.
//
// After Motorola MC146818A (DS9840) and the PC/AT's use of the memory. The chip's time runs with the host's
// clock in UTC; what the guest sets is kept as a difference to it. Register C: PF, AF and UF rise whether or
// not their interrupt is enabled; reading clears them and lets the pin go.
//
// Known deviations: the time base is always 32.768 kHz (DV 010) unless the divider is held in reset (DV 11x),
// which stops the updates; daylight saving (DSE) has no effect; SQW is not connected.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class Mc146818 final : public BytePortDevice {
 public:
  // `changed` is called, without the lock, when deadline() may have moved closer.
  Mc146818(IrqPin irq, const Clock& clock, std::function<void()> changed = {});

  // Where firmware reads the size of memory: 640 KiB, extended up to 64 MiB, up to 4 GiB, above it.
  void set_memory_size(uint64_t below_4g, uint64_t above_4g) LODGE_EXCLUDES(mutex_);

  // The types of the floppy drives, the first one's in the upper half; 0: none.
  void set_floppy_types(uint8_t types) LODGE_EXCLUDES(mutex_);

  [[nodiscard]] uint64_t deadline() LODGE_EXCLUDES(mutex_);  // monotonic ns of the next interrupt, or kNever
  void on_deadline() LODGE_EXCLUDES(mutex_);

 protected:
  uint8_t read_byte(uint64_t offset) override LODGE_EXCLUDES(mutex_);
  void write_byte(uint64_t offset, uint8_t value) override LODGE_EXCLUDES(mutex_);

 private:
  [[nodiscard]] bool updates_run() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint64_t period_ns() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] int64_t chip_ns() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool update_in_progress() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool alarm_matches() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t encode(unsigned value) const LODGE_REQUIRES(mutex_);
  [[nodiscard]] unsigned decode(uint8_t value) const LODGE_REQUIRES(mutex_);
  void store_time(int64_t seconds) LODGE_REQUIRES(mutex_);
  void load_time() LODGE_REQUIRES(mutex_);
  void catch_up() LODGE_REQUIRES(mutex_);
  void update_pin() LODGE_REQUIRES(mutex_);
  uint8_t read_register(unsigned index) LODGE_REQUIRES(mutex_);
  void write_register(unsigned index, uint8_t value) LODGE_REQUIRES(mutex_);

  IrqPin irq_;
  const Clock& clock_;
  std::function<void()> changed_;
  Mutex mutex_;
  uint8_t index_ LODGE_GUARDED_BY(mutex_) = 0;
  std::array<uint8_t, 128> memory_ LODGE_GUARDED_BY(mutex_){};
  int64_t offset_ns_ LODGE_GUARDED_BY(mutex_) = 0;          // chip time less host time
  int64_t updated_s_ LODGE_GUARDED_BY(mutex_) = 0;          // chip second that the registers show
  uint64_t periodic_from_ns_ LODGE_GUARDED_BY(mutex_) = 0;  // monotonic; PF rises at whole periods from here
  bool level_ LODGE_GUARDED_BY(mutex_) = false;
};

}  // namespace lodge::devices
