// The gate of address line 20, which hides from software of 1981 that there is memory behind the first megabyte (PC/AT Technical Reference,
// "Real Address Mode"). Two chips drive it: the keyboard controller's output port and system control port A.
//
// What was written last counts. Chipsets let either open it; but firmware that uses one of the two leaves the other open, and software that
// uses that one would never close it.
//
// Threads: any.
#pragma once

#include <functional>

#include "base/mutex.hpp"

namespace lodge::devices {

class A20Gate {
 public:
  // `changed`: from the thread that has written, one change at a time; empty: nobody wants to know.
  explicit A20Gate(std::function<void(bool open)> changed) : changed_(std::move(changed)) {}

  [[nodiscard]] bool open() LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return open_;
  }
  void set(bool open) LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (open_ == open) return;
    open_ = open;
    if (changed_) changed_(open);
  }

 private:
  const std::function<void(bool)> changed_;
  Mutex mutex_;
  bool open_ LODGE_GUARDED_BY(mutex_) = true;
};

}  // namespace lodge::devices
