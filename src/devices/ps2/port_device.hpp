// What hangs at a PS/2 port: it is sent bytes and has bytes to send, one at a time, when the controller takes them.
#pragma once

#include <cstdint>
#include <optional>

namespace lodge::devices::ps2 {

// Threads: under the controller's lock.
class PortDevice {
 public:
  virtual ~PortDevice() = default;
  virtual void receive(uint8_t byte) = 0;
  [[nodiscard]] virtual std::optional<uint8_t> send() = 0;
};

}  // namespace lodge::devices::ps2
