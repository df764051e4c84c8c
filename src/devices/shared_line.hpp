// An interrupt line that several drive: it is up while one of them is.
//
// Threads: any; what drives it is called under the lock.
#pragma once

#include <bitset>
#include <utility>

#include "base/mutex.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class SharedLine {
 public:
  explicit SharedLine(IrqPin line) : line_(std::move(line)) {}

  static constexpr unsigned kMost = 256;  // who drive it, by their numbers

  void set(unsigned number, bool level) LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const bool before = asserted_.any();
    asserted_[number] = level;
    if (asserted_.any() != before) line_.set(level);
  }
  // As a pin; this object outlives it.
  [[nodiscard]] IrqPin input(unsigned number) {
    return IrqPin([this, number](bool level) { set(number, level); });
  }

 private:
  const IrqPin line_;
  Mutex mutex_;
  std::bitset<kMost> asserted_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices
