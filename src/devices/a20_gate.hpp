// The gate of address line 20, which hides from software of 1981 that there is memory behind the first megabyte (PC/AT Technical Reference,
// "Real Address Mode"). Two chips drive it: the keyboard controller's output port and system control port A.
//
// What was written last counts. Chipsets let either open it; but firmware that uses one of the two leaves the other open, and software that
// uses that one would never close it.
//
// Threads: any.
#pragma once

#include <atomic>
#include <functional>

namespace lodge::devices {

class A20Gate {
 public:
  // `changed`: from the thread that has written; empty: nobody wants to know.
  explicit A20Gate(std::function<void(bool open)> changed) : changed_(std::move(changed)) {}

  [[nodiscard]] bool open() const { return open_; }
  void set(bool open) {
    if (open_.exchange(open) != open && changed_) changed_(open);
  }

 private:
  const std::function<void(bool)> changed_;
  std::atomic<bool> open_ = true;
};

}  // namespace lodge::devices
