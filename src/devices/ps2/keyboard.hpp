// A 101/102-key keyboard with PS/2 connector (IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)").
//
// Deviations: scan code sets 1 and 2, not 3; the keys' types of set 3 are acknowledged and do nothing; keys do not repeat by themselves,
// since the person's own keyboard does it; keys that were added later send no shifts around them.
//
// Threads: under the controller's lock.
#pragma once

#include <deque>

#include "devices/ps2/port_device.hpp"
#include "display/input.hpp"

namespace lodge::devices::ps2 {

class Keyboard final : public PortDevice {
 public:
  void receive(uint8_t byte) override;
  [[nodiscard]] std::optional<uint8_t> send() override;
  // Nothing is lost while the guest is slow, up to a thousand keys.
  void key(display::Key key, bool down);

 private:
  struct Event {
    display::Key key;
    bool down;
  };
  void encode(const Event& event);
  void parameter(uint8_t command, uint8_t value);
  void set_defaults();
  void answer(uint8_t byte);

  std::deque<uint8_t> bytes_;  // answers and codes, to be sent
  std::deque<Event> events_;   // keys that have no codes yet
  uint8_t awaits_ = 0;         // the command whose parameter comes next
  uint8_t set_ = 2;
  uint8_t last_ = 0;  // sent
  bool scanning_ = true;
};

}  // namespace lodge::devices::ps2
