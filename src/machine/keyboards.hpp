// The keyboard controller's keyboard and one on USB: a key goes to the second while the guest uses it.
#pragma once

#include "devices/usb/keyboard.hpp"
#include "display/input.hpp"

namespace lodge::machine {

class Keyboards final : public display::KeyboardInput {
 public:
  explicit Keyboards(display::KeyboardInput& other) : other_(other) {}
  [[nodiscard]] devices::usb::Keyboard& usb() { return usb_; }
  void key(display::Key key, bool down) override { usb_.configured() ? usb_.key(key, down) : other_.key(key, down); }

 private:
  devices::usb::Keyboard usb_;
  display::KeyboardInput& other_;
};

}  // namespace lodge::machine
