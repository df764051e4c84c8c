// A device's interrupt output: a value given to the device at construction, so that the device does not know
// what sits behind it (a GSI of the driver's interrupt controller, or a test's variable).
// Threads: as the function behind it; the PC's pins may be driven from any thread.
#pragma once

#include <functional>
#include <utility>

namespace lodge::devices {

class IrqPin {
 public:
  IrqPin() = default;  // not connected
  explicit IrqPin(std::function<void(bool level)> drive) : drive_(std::move(drive)) {}

  void set(bool level) const {
    if (drive_) drive_(level);
  }
  void raise() const { set(true); }
  void lower() const { set(false); }
  void pulse() const {
    raise();
    lower();
  }

 private:
  std::function<void(bool)> drive_;
};

}  // namespace lodge::devices
