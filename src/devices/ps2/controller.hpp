// i8042 keyboard controller with a PS/2 keyboard and, where the board has a second port, a mouse.
//
// After the Intel UPI-41/8042 as IBM's PC/AT and PS/2 program it (PC/AT Technical Reference, "Keyboard Controller"; PS/2 Hardware Interface
// Technical Reference, "Keyboard and Auxiliary Device Controller"). Ports 0x60 (data) and 0x64 (status/command). Without a second port its
// test says so (clock line stuck low), which ends a driver's probe at once.
// Threads: any.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"
#include "devices/ps2/keyboard.hpp"
#include "devices/ps2/mouse.hpp"
#include "display/input.hpp"

namespace lodge::devices::ps2 {

class Controller final : public display::KeyboardInput, public display::MouseInput {
 public:
  struct Board {
    IrqPin keyboard, mouse;
    bool has_mouse = true;
    bool tested = false;          // firmware has run the self-test before
    std::function<void()> reset;  // the output port's bit 0 (processor reset) was pulled low; called without the lock, as what follows
    std::function<void(bool open)> a20{};  // its bit 1 has been written
  };
  explicit Controller(Board board);

  [[nodiscard]] devices::PortDevice& data_port() { return data_; }
  [[nodiscard]] devices::PortDevice& command_port() { return command_; }

  void key(display::Key key, bool down) override LODGE_EXCLUDES(mutex_);
  void move(int dx, int dy, int wheel, uint8_t buttons) override LODGE_EXCLUDES(mutex_);

 private:
  struct Port final : BytePortDevice {
    Port(Controller& c, bool is_command) : chip(c), command(is_command) {}
    uint8_t read_byte(uint64_t) override { return command ? chip.read_status() : chip.read_data(); }
    void write_byte(uint64_t, uint8_t value) override { command ? chip.write_command(value) : chip.write_data(value); }
    Controller& chip;
    bool command;
  };
  struct Output {
    uint8_t value;
    bool auxiliary;
  };

  uint8_t read_status() LODGE_EXCLUDES(mutex_);
  uint8_t read_data() LODGE_EXCLUDES(mutex_);
  void write_command(uint8_t value) LODGE_EXCLUDES(mutex_);
  void write_data(uint8_t value) LODGE_EXCLUDES(mutex_);
  // What a write does outside the chip.
  struct Effect {
    bool reset = false;
    std::optional<bool> a20;
  };
  [[nodiscard]] Effect accept_command(uint8_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] Effect accept_parameter(uint8_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] Effect write_output_port(uint8_t value) LODGE_REQUIRES(mutex_);
  void carry_out(const Effect& effect) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint8_t translated(uint8_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] std::optional<uint8_t> keyboard_code() LODGE_REQUIRES(mutex_);
  void answer(uint8_t value, bool auxiliary = false) LODGE_REQUIRES(mutex_);
  // Puts the next byte into the output buffer if it is free.
  void fill() LODGE_REQUIRES(mutex_);
  void update_pins() LODGE_REQUIRES(mutex_);

  const Board board_;
  Port data_{*this, false};
  Port command_{*this, true};
  Mutex mutex_;
  Keyboard keyboard_ LODGE_GUARDED_BY(mutex_);
  Mouse mouse_ LODGE_GUARDED_BY(mutex_);
  uint8_t command_byte_ LODGE_GUARDED_BY(mutex_);
  uint8_t output_port_ LODGE_GUARDED_BY(mutex_);
  uint8_t awaiting_parameter_ LODGE_GUARDED_BY(mutex_) = 0;  // the command that wants a byte at 0x60
  bool last_was_command_ LODGE_GUARDED_BY(mutex_) = false;
  bool self_tested_ LODGE_GUARDED_BY(mutex_) = false;
  bool release_follows_ LODGE_GUARDED_BY(mutex_) = false;  // 0xF0 has come: it becomes the next code's bit 7
  bool keyboard_level_ LODGE_GUARDED_BY(mutex_) = false, mouse_level_ LODGE_GUARDED_BY(mutex_) = false;
  std::optional<Output> output_ LODGE_GUARDED_BY(mutex_);  // the output buffer
  std::deque<Output> answers_ LODGE_GUARDED_BY(mutex_);    // the controller's own, which go first
};

}  // namespace lodge::devices::ps2
