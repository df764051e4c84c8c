// A tablet with three buttons and a wheel (HID Usage Tables 1.12): it says where the pointer is, so that the guest's and the viewer's are
// one.
//
// Threads: point() and in_use() from any; the rest under the controller's lock.
#pragma once

#include <deque>

#include "devices/usb/hid.hpp"
#include "display/input.hpp"

namespace lodge::devices::usb {

class Tablet final : public HidDevice, public display::TabletInput {
 public:
  Tablet();
  void point(unsigned x, unsigned y, int wheel, uint8_t buttons) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool in_use() override LODGE_EXCLUDES(mutex_) { return configured(); }

 private:
  struct State {
    unsigned x = 0, y = 0;
    int wheel = 0;
    uint8_t buttons = 0;
  };
  [[nodiscard]] std::vector<uint8_t> report() override LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool advance() override LODGE_REQUIRES(mutex_);
  void forget() override LODGE_REQUIRES(mutex_);

  State told_ LODGE_GUARDED_BY(mutex_);
  std::deque<State> untold_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices::usb
