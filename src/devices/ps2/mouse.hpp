// A mouse with PS/2 connector (IBM PS/2 Hardware Interface Technical Reference, "Mouse"), with the wheel that Microsoft's IntelliMouse
// added: the sample rates 200, 100, 80 in a row turn it on.
//
// Threads: under the controller's lock.
#pragma once

#include <deque>

#include "devices/ps2/port_device.hpp"

namespace lodge::devices::ps2 {

class Mouse final : public PortDevice {
 public:
  void receive(uint8_t byte) override;
  [[nodiscard]] std::optional<uint8_t> send() override;
  void move(int dx, int dy, int wheel, uint8_t buttons);

 private:
  void set_defaults();
  void answer(uint8_t byte);
  void parameter(uint8_t command, uint8_t value);
  [[nodiscard]] bool has_news() const;
  void make_packet();

  std::deque<uint8_t> bytes_;
  uint8_t awaits_ = 0, last_ = 0;
  uint8_t id_ = 0;
  uint8_t rate_ = 100, resolution_ = 2;
  uint32_t last_rates_ = 0;  // three of them, the last one lowest
  bool remote_ = false, reporting_ = false, double_scale_ = false, wrap_ = false;
  int dx_ = 0, dy_ = 0, wheel_ = 0;
  uint8_t buttons_ = 0;
  std::deque<uint8_t> presses_;  // buttons after each change that has not been told yet
};

}  // namespace lodge::devices::ps2
