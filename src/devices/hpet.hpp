// High precision event timers: a counter of 100 MHz and three comparators, at their place in memory.
//
// After Intel's IA-PC HPET Specification 1.0a (section numbers are its). All timers have 64 bits and can be periodic. In the place of the
// 8254 and the clock (LEG_RT_CNF) the first two interrupt by IRQ0 and IRQ8; otherwise a timer does by the input of the IOAPIC that the
// guest chooses among those of Board::inputs.
//
// Deviations: no messages (FSB); a comparator that is written with what the counter has passed already, by less than half its range, is
// due at once, and not a turn of the counter later: a virtual processor may have stood still in between. Periods that were missed make one
// interrupt, and there are at most twenty thousand in a second, so that no guest keeps the host from all else.
//
// Threads: registers from any vCPU's thread, on_deadline() from the loop's. Pins and legacy() are called under the lock: they do not call
// back.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class Hpet final : public MmioDevice {
 public:
  static constexpr uint64_t kBase = 0xfed00000, kBytes = 0x400;
  static constexpr unsigned kTimers = 3, kInputs = 32;
  static constexpr uint32_t kBlockId = 0x8086a201;  // the lower half of GCAP_ID, which ACPI's table repeats (3.2.4)
  static constexpr uint64_t kTickNs = 10;

  struct Board {
    IrqPin irq0, irq8;
    std::array<IrqPin, kInputs> inputs;   // of the IOAPIC
    uint32_t possible = 0;                // which of them a timer can use, a bit each
    std::function<void(bool on)> legacy;  // the timers stand in the place of the 8254 and the clock now, or do not
    std::function<void()> changed{};      // deadline() may have moved closer; without the lock
  };
  Hpet(Board board, const Clock& clock);

  uint64_t read(uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void write(uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);

  [[nodiscard]] uint64_t deadline() LODGE_EXCLUDES(mutex_);  // monotonic ns of the next interrupt, or kNever
  void on_deadline() LODGE_EXCLUDES(mutex_);

 private:
  struct Timer {
    uint64_t configuration = 0, comparator = ~uint64_t{0}, period = 0;
    uint64_t due = kNever;  // in ticks of the counter as if it had more than 64 bits; kNever: nothing to come
    bool level = false;     // of its pin
  };

  [[nodiscard]] uint64_t ticks() const LODGE_REQUIRES(mutex_);  // since it was enabled
  [[nodiscard]] uint64_t counter() const LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint64_t read_register(unsigned offset) LODGE_REQUIRES(mutex_);
  void write_register(unsigned offset, uint64_t value, uint64_t mask) LODGE_REQUIRES(mutex_);
  void write_configuration(uint64_t value) LODGE_REQUIRES(mutex_);
  void write_timer(unsigned number, uint64_t value) LODGE_REQUIRES(mutex_);
  void write_comparator(Timer& timer, uint64_t value) LODGE_REQUIRES(mutex_);
  void arm(Timer& timer) LODGE_REQUIRES(mutex_);
  void catch_up() LODGE_REQUIRES(mutex_);
  void fire(unsigned number) LODGE_REQUIRES(mutex_);
  void update_pin(unsigned number) LODGE_REQUIRES(mutex_);
  [[nodiscard]] const IrqPin& pin_of(unsigned number) const LODGE_REQUIRES(mutex_);

  const Board board_;
  const Clock& clock_;
  Mutex mutex_;
  uint64_t configuration_ LODGE_GUARDED_BY(mutex_) = 0, status_ LODGE_GUARDED_BY(mutex_) = 0;
  uint64_t counter_ LODGE_GUARDED_BY(mutex_) = 0;    // when it was enabled, or stands still
  uint64_t since_ns_ LODGE_GUARDED_BY(mutex_) = 0;   // when that was
  uint64_t worked_ns_ LODGE_GUARDED_BY(mutex_) = 0;  // when the loop was here last
  std::array<Timer, kTimers> timers_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices
