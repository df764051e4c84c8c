// A USB device as its controller sees it (USB 2.0, chapter 9): requests on the default pipe, and packets of its interrupt endpoints.
//
// Threads: under the controller's lock, except where a device says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace lodge::devices::usb {

// 9.3, table 9-2.
struct Setup {
  uint8_t type, request;
  uint16_t value, index, length;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual void reset() = 0;
  // A request whose data goes to the host: the data, at most `length` bytes. Nothing: the device does not know it (a stall).
  [[nodiscard]] virtual std::optional<std::vector<uint8_t>> control_in(const Setup& setup) = 0;
  [[nodiscard]] virtual bool control_out(const Setup& setup, std::span<const uint8_t> data) = 0;
  // What an interrupt endpoint has to say (number 1 to 15); nothing: not now (NAK).
  [[nodiscard]] virtual std::optional<std::vector<uint8_t>> interrupt_in(unsigned endpoint) = 0;

  // An endpoint may have something to say. Set by the controller.
  void set_wake(std::function<void(unsigned endpoint)> wake) { wake_ = std::move(wake); }

 protected:
  // Without the controller's lock.
  void wake(unsigned endpoint) const {
    if (wake_) wake_(endpoint);
  }

 private:
  std::function<void(unsigned)> wake_;
};

}  // namespace lodge::devices::usb
