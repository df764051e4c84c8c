// A 16550A on the ISA bus: places the chip at its ports, owns its lock and its interrupt pin, and joins it to
// a byte stream of the host.
// Threads: any. The sink is called outside the lock, since it may wait for a slow reader.
#pragma once

#include <functional>
#include <span>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"
#include "devices/uart16550.hpp"

namespace lodge::devices {

class SerialPort final : public BytePortDevice {
 public:
  struct Host {
    std::function<void(std::span<const uint8_t>)> transmit;  // the guest's output
    std::function<void()> changed;                           // there is space for input again, or deadline() moved
  };
  SerialPort(IrqPin irq, const Clock& clock, Host host) : irq_(std::move(irq)), clock_(clock), host_(std::move(host)) {}

  [[nodiscard]] size_t receive_space() LODGE_EXCLUDES(mutex_);
  size_t receive(std::span<const uint8_t> bytes) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint64_t deadline() LODGE_EXCLUDES(mutex_);
  void on_deadline() LODGE_EXCLUDES(mutex_);

 protected:
  uint8_t read_byte(uint64_t offset) override LODGE_EXCLUDES(mutex_);
  void write_byte(uint64_t offset, uint8_t value) override LODGE_EXCLUDES(mutex_);

 private:
  void update_pin() LODGE_REQUIRES(mutex_);

  IrqPin irq_;
  const Clock& clock_;
  Host host_;
  Mutex mutex_;
  Uart16550 chip_ LODGE_GUARDED_BY(mutex_);
  bool level_ LODGE_GUARDED_BY(mutex_) = false;
};

}  // namespace lodge::devices
