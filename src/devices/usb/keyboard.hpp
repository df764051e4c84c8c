// A keyboard (HID 1.11, appendices B.1 and E.6): up to six keys at once beside the modifiers, in reports that firmware can read as well.
//
// Threads: key() and configured() from any; the rest under the controller's lock.
#pragma once

#include <deque>
#include <vector>

#include "devices/usb/hid.hpp"
#include "display/input.hpp"

namespace lodge::devices::usb {

class Keyboard final : public HidDevice, public display::KeyboardInput {
 public:
  Keyboard();
  // Nothing is lost while the guest is slow, up to some hundred keys. A key that is down already says nothing new.
  void key(display::Key key, bool down) override LODGE_EXCLUDES(mutex_);

 private:
  struct Event {
    uint8_t usage;
    bool down;
  };
  [[nodiscard]] std::vector<uint8_t> report() override LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool advance() override LODGE_REQUIRES(mutex_);
  void forget() override LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool set_report(std::span<const uint8_t>) override LODGE_REQUIRES(mutex_) { return true; }  // its lights, which nobody sees

  std::deque<Event> untold_ LODGE_GUARDED_BY(mutex_);
  std::vector<uint8_t> down_ LODGE_GUARDED_BY(mutex_);  // as told, in their order, without modifiers
  uint8_t modifiers_ LODGE_GUARDED_BY(mutex_) = 0;
};

}  // namespace lodge::devices::usb
