// ACPI fixed hardware: PM1 event and control blocks, power management timer, general-purpose events.
//
// After the ACPI specification 6.5, section 4.8. There is no SMI: ACPI mode is always on (SCI_EN reads 1, the
// FADT's SMI_CMD is 0). One port block: the PM1 blocks and the timer as every Intel chip has them, the general-purpose events where the
// board's chip does.
// Threads: any.
#pragma once

#include <cstdint>
#include <functional>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class AcpiPm final : public BytePortDevice {
 public:
  static constexpr uint16_t kEventBlock = 0, kControlBlock = 4, kTimerBlock = 8;  // offsets
  static constexpr uint16_t kEventBytes = 4, kControlBytes = 2, kTimerBytes = 4, kGpe0Bytes = 4;

  // Where the chips differ.
  struct Layout {
    uint16_t gpe0_block;     // offset of GPE0's status and enable registers, behind the timer
    uint8_t soft_off_sleep;  // the SLP_TYP of S5: what the DSDT's \_S5 must say
  };
  struct Host {
    std::function<void()> power_off;  // SLP_EN with the type of S5; called without the lock
    std::function<void()> changed;    // deadline() may have moved closer
  };
  AcpiPm(IrqPin sci, const Clock& clock, const Layout& layout, Host host);

  void press_power_button() LODGE_EXCLUDES(mutex_);
  void rtc_interrupt() LODGE_EXCLUDES(mutex_);            // the clock raised IRQ 8: RTC_STS
  void raise_gpe(unsigned event) LODGE_EXCLUDES(mutex_);  // 0..15

  [[nodiscard]] uint64_t deadline() LODGE_EXCLUDES(mutex_);  // the timer's carry interrupt, or kNever
  void on_deadline() LODGE_EXCLUDES(mutex_);

 protected:
  uint8_t read_byte(uint64_t offset) override LODGE_EXCLUDES(mutex_);
  void write_byte(uint64_t offset, uint8_t value) override LODGE_EXCLUDES(mutex_);

 private:
  [[nodiscard]] uint64_t ticks() const LODGE_REQUIRES(mutex_);
  void catch_up() LODGE_REQUIRES(mutex_);
  void update_pin() LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool write_control_high(uint8_t value) LODGE_REQUIRES(mutex_);  // true: power off

  IrqPin sci_;
  const Clock& clock_;
  const Layout layout_;
  Host host_;
  uint64_t start_ns_;
  Mutex mutex_;
  uint16_t status_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t enable_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t control_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t gpe_status_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t gpe_enable_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t latched_ticks_ LODGE_GUARDED_BY(mutex_) = 0;  // a 32-bit read is one reading of the counter
  uint64_t carries_ LODGE_GUARDED_BY(mutex_) = 0;        // changes of the counter's bit 31 seen so far
  bool level_ LODGE_GUARDED_BY(mutex_) = false;
};

}  // namespace lodge::devices
