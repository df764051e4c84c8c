// What devices of the class HID have in common (USB 2.0, chapter 9; Device Class Definition for HID 1.11): their descriptors, requests, one
// configuration with one interface, and one interrupt endpoint for reports.
//
// Deviations: reports come when there is something new, whatever SET_IDLE wants.
//
// Threads: under the controller's lock; what a host's person does from any.
#pragma once

#include <string_view>

#include "base/mutex.hpp"
#include "devices/usb/device.hpp"

namespace lodge::devices::usb {

class HidDevice : public Device {
 public:
  [[nodiscard]] bool configured() LODGE_EXCLUDES(mutex_);  // by the guest

  void reset() final LODGE_EXCLUDES(mutex_);
  [[nodiscard]] std::optional<std::vector<uint8_t>> control_in(const Setup& setup) final LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool control_out(const Setup& setup, std::span<const uint8_t> data) final LODGE_EXCLUDES(mutex_);
  [[nodiscard]] std::optional<std::vector<uint8_t>> interrupt_in(unsigned endpoint) final LODGE_EXCLUDES(mutex_);

 protected:
  // HID 1.11, 4.2 and 4.3: a device that firmware can use without reading its report descriptor.
  enum class Boot : uint8_t { None = 0, Keyboard = 1, Mouse = 2 };
  struct Description {
    std::string_view name;
    uint16_t product;
    std::span<const uint8_t> report;  // its descriptor (6.2.2)
    Boot boot = Boot::None;
  };
  static constexpr unsigned kEndpoint = 1;
  explicit HidDevice(const Description& description) : description_(description) {}

  [[nodiscard]] virtual std::vector<uint8_t> report() LODGE_REQUIRES(mutex_) = 0;  // as told last
  // The next report becomes the one told; false: there is none.
  [[nodiscard]] virtual bool advance() LODGE_REQUIRES(mutex_) = 0;
  virtual void forget() LODGE_REQUIRES(mutex_) = 0;
  // What the host says to the device (lights); false: it takes nothing.
  [[nodiscard]] virtual bool set_report(std::span<const uint8_t>) LODGE_REQUIRES(mutex_) { return false; }
  [[nodiscard]] bool is_configured() const LODGE_REQUIRES(mutex_) { return configuration_ != 0; }

  Mutex mutex_;

 private:
  [[nodiscard]] std::vector<uint8_t> configuration_descriptor() const;
  [[nodiscard]] std::optional<std::vector<uint8_t>> descriptor(uint16_t value) const;
  [[nodiscard]] std::optional<std::vector<uint8_t>> string_descriptor(unsigned number) const;

  const Description description_;
  uint8_t configuration_ LODGE_GUARDED_BY(mutex_) = 0;
  uint8_t idle_ LODGE_GUARDED_BY(mutex_) = 0;
  uint8_t protocol_ LODGE_GUARDED_BY(mutex_) = 1;
};

}  // namespace lodge::devices::usb
