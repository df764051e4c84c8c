// An interrupt line that several drive: it is up while one of them is.
//
// Threads: any; what drives it is called under the lock.
#pragma once

#include <cstdint>
#include <memory>

#include "base/mutex.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class SharedLine {
 public:
  explicit SharedLine(IrqPin line) : line_(std::move(line)) {}

  // One of 32 who drive it; this object outlives the pin.
  [[nodiscard]] IrqPin input(unsigned number) {
    return IrqPin([this, bit = uint32_t{1} << number](bool level) { set(bit, level); });
  }

 private:
  void set(uint32_t bit, bool level) LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const uint32_t before = asserted_;
    asserted_ = level ? before | bit : before & ~bit;
    if ((asserted_ != 0) != (before != 0)) line_.set(level);
  }

  const IrqPin line_;
  Mutex mutex_;
  uint32_t asserted_ LODGE_GUARDED_BY(mutex_) = 0;
};

}  // namespace lodge::devices
