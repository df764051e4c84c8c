// i8042 keyboard controller with a keyboard that nobody types on.
//
// After the Intel UPI-41/8042 as IBM's PC/AT programs it (PC/AT Technical Reference, "Keyboard Controller").
// Ports 0x60 (data) and 0x64 (status/command). The auxiliary port has nothing attached and its test says so
// (clock line stuck low), which ends a driver's probe at once.
// Threads: any.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices {

class I8042 {
 public:
  // `reset`: the output port's bit 0 (processor reset) was pulled low. Called without the lock.
  I8042(IrqPin keyboard, std::function<void()> reset);

  [[nodiscard]] PortDevice& data_port() { return data_; }
  [[nodiscard]] PortDevice& command_port() { return command_; }

 private:
  struct Port final : BytePortDevice {
    Port(I8042& c, bool is_command) : chip(c), command(is_command) {}
    uint8_t read_byte(uint64_t) override { return command ? chip.read_status() : chip.read_data(); }
    void write_byte(uint64_t, uint8_t value) override { command ? chip.write_command(value) : chip.write_data(value); }
    I8042& chip;
    bool command;
  };
  struct Output {
    uint8_t value;
    bool auxiliary;
    bool from_keyboard;
  };

  uint8_t read_status() LODGE_EXCLUDES(mutex_);
  uint8_t read_data() LODGE_EXCLUDES(mutex_);
  void write_command(uint8_t value) LODGE_EXCLUDES(mutex_);
  void write_data(uint8_t value) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool accept_command(uint8_t value) LODGE_REQUIRES(mutex_);  // true: reset
  [[nodiscard]] bool accept_parameter(uint8_t value) LODGE_REQUIRES(mutex_);
  void keyboard_byte(uint8_t value) LODGE_REQUIRES(mutex_);
  void answer(uint8_t value, bool auxiliary = false, bool from_keyboard = false) LODGE_REQUIRES(mutex_);
  void update_pin() LODGE_REQUIRES(mutex_);

  IrqPin keyboard_irq_;
  std::function<void()> reset_;
  Port data_{*this, false};
  Port command_{*this, true};
  Mutex mutex_;
  uint8_t command_byte_ LODGE_GUARDED_BY(mutex_);
  uint8_t output_port_ LODGE_GUARDED_BY(mutex_);
  uint8_t awaiting_parameter_ LODGE_GUARDED_BY(mutex_) = 0;  // the command that wants a byte at 0x60
  uint8_t keyboard_awaits_ LODGE_GUARDED_BY(mutex_) = 0;
  bool last_was_command_ LODGE_GUARDED_BY(mutex_) = false;
  bool self_tested_ LODGE_GUARDED_BY(mutex_) = false;
  bool level_ LODGE_GUARDED_BY(mutex_) = false;
  std::deque<Output> output_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices
