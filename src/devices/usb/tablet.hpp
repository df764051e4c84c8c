// A tablet with three buttons and a wheel (USB 2.0; Device Class Definition for HID 1.11; HID Usage Tables 1.12): it says where the pointer
// is, so that the guest's and the viewer's are one.
//
// Threads: point() from any; the rest under the controller's lock.
#pragma once

#include <deque>

#include "base/mutex.hpp"
#include "devices/usb/device.hpp"
#include "display/input.hpp"

namespace lodge::devices::usb {

class Tablet final : public Device, public display::TabletInput {
 public:
  void point(unsigned x, unsigned y, int wheel, uint8_t buttons) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool in_use() override LODGE_EXCLUDES(mutex_);  // the guest has configured it

  void reset() override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] std::optional<std::vector<uint8_t>> control_in(const Setup& setup) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool control_out(const Setup& setup, std::span<const uint8_t> data) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] std::optional<std::vector<uint8_t>> interrupt_in(unsigned endpoint) override LODGE_EXCLUDES(mutex_);

 private:
  struct State {
    unsigned x = 0, y = 0;
    int wheel = 0;
    uint8_t buttons = 0;
  };
  [[nodiscard]] static std::vector<uint8_t> report(const State& state);

  Mutex mutex_;
  uint8_t configuration_ LODGE_GUARDED_BY(mutex_) = 0;
  uint8_t idle_ LODGE_GUARDED_BY(mutex_) = 0;
  uint8_t protocol_ LODGE_GUARDED_BY(mutex_) = 1;
  State told_ LODGE_GUARDED_BY(mutex_);
  std::deque<State> untold_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices::usb
