#include "devices/ps2/controller.hpp"

#include <utility>

#include "devices/ps2/scan_codes.hpp"

namespace lodge::devices::ps2 {

namespace {

constexpr uint8_t kStatusOutputFull = 0x01, kStatusSystem = 0x04, kStatusCommand = 0x08, kStatusUnlocked = 0x10, kStatusAuxiliary = 0x20;
constexpr uint8_t kByteKeyboardInterrupt = 0x01, kByteAuxiliaryInterrupt = 0x02, kByteSystem = 0x04, kByteKeyboardOff = 0x10,
                  kByteAuxiliaryOff = 0x20, kByteTranslate = 0x40;
constexpr uint8_t kOutputNoReset = 0x01, kOutputA20 = 0x02;
constexpr uint8_t kReleased = 0xf0;

enum Command : uint8_t {
  kReadCommandByte = 0x20,
  kWriteCommandByte = 0x60,
  kDisableAuxiliary = 0xa7,
  kEnableAuxiliary = 0xa8,
  kTestAuxiliary = 0xa9,
  kSelfTest = 0xaa,
  kTestKeyboard = 0xab,
  kDisableKeyboard = 0xad,
  kEnableKeyboard = 0xae,
  kReadInputPort = 0xc0,
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,
  kWriteKeyboardBuffer = 0xd2,
  kWriteAuxiliaryBuffer = 0xd3,
  kWriteAuxiliary = 0xd4,
  kDisableA20 = 0xdd,
  kEnableA20 = 0xdf,
  kPulseOutput = 0xf0,  // ..0xff: the low nibble's zero bits are pulled low
};
constexpr uint8_t kTestPassed = 0x55, kClockStuckLow = 0x01, kInputPort = 0x80;  // the keyboard is not locked
constexpr size_t kMostAnswers = 64;                                              // a guest that never reads cannot make it grow

}  // namespace

Controller::Controller(Board board) : board_(std::move(board)) {
  MutexLock lock(mutex_);
  command_byte_ = kByteKeyboardInterrupt | kByteSystem | kByteAuxiliaryOff;
  output_port_ = kOutputNoReset | kOutputA20;
  self_tested_ = board_.tested;
}

void Controller::answer(uint8_t value, bool auxiliary) {
  if (answers_.size() < kMostAnswers) answers_.push_back({value, auxiliary});
}

// Set 2 becomes set 1: a release is no code of its own any more, but the top bit of the next.
uint8_t Controller::translated(uint8_t value) {
  const uint8_t code = set1_of_set2(value);
  return std::exchange(release_follows_, false) ? code | 0x80 : code;
}

std::optional<uint8_t> Controller::keyboard_code() {
  if (command_byte_ & kByteKeyboardOff) return std::nullopt;
  for (;;) {
    const auto byte = keyboard_.send();
    if (!byte || !(command_byte_ & kByteTranslate)) return byte;
    if (*byte != kReleased) return translated(*byte);
    release_follows_ = true;
  }
}

void Controller::fill() {
  if (!output_) {
    if (!answers_.empty()) {
      output_ = answers_.front();
      answers_.pop_front();
    } else if (const auto code = keyboard_code()) {
      output_ = Output{*code, false};
    } else if (board_.has_mouse && !(command_byte_ & kByteAuxiliaryOff)) {
      if (const auto byte = mouse_.send()) output_ = Output{*byte, true};
    }
  }
  update_pins();
}

void Controller::update_pins() {
  const auto drive = [](const IrqPin& pin, bool& now, bool level) {
    if (level == std::exchange(now, level)) return;
    pin.set(level);
  };
  drive(board_.keyboard, keyboard_level_, output_ && !output_->auxiliary && (command_byte_ & kByteKeyboardInterrupt));
  drive(board_.mouse, mouse_level_, output_ && output_->auxiliary && (command_byte_ & kByteAuxiliaryInterrupt));
}

uint8_t Controller::read_status() {
  MutexLock lock(mutex_);
  uint8_t status = kStatusUnlocked;
  if (output_) status |= kStatusOutputFull | (output_->auxiliary ? kStatusAuxiliary : 0);
  if (self_tested_) status |= kStatusSystem;
  if (last_was_command_) status |= kStatusCommand;
  return status;
}

uint8_t Controller::read_data() {
  MutexLock lock(mutex_);
  // An empty buffer still holds what was read last: nothing, here.
  const uint8_t value = output_ ? output_->value : 0;
  output_.reset();
  update_pins();  // the next byte is a new edge
  fill();
  return value;
}

Controller::Effect Controller::write_output_port(uint8_t value) {
  output_port_ = value;
  return {.reset = !(value & kOutputNoReset), .a20 = (value & kOutputA20) != 0};
}

Controller::Effect Controller::accept_command(uint8_t value) {
  last_was_command_ = true;
  awaiting_parameter_ = 0;
  if (value >= kPulseOutput) return {.reset = !(value & kOutputNoReset), .a20 = {}};
  switch (value) {
    case kReadCommandByte: answer(command_byte_); break;
    case kWriteCommandByte:
    case kWriteOutputPort:
    case kWriteKeyboardBuffer:
    case kWriteAuxiliaryBuffer:
    case kWriteAuxiliary: awaiting_parameter_ = value; break;
    case kDisableAuxiliary: command_byte_ |= kByteAuxiliaryOff; break;
    case kEnableAuxiliary: command_byte_ &= static_cast<uint8_t>(~kByteAuxiliaryOff); break;
    case kTestAuxiliary: answer(board_.has_mouse ? 0 : kClockStuckLow); break;
    case kSelfTest:
      output_.reset();
      answers_.clear();
      self_tested_ = true;
      answer(kTestPassed);
      break;
    case kTestKeyboard: answer(0); break;
    case kDisableKeyboard: command_byte_ |= kByteKeyboardOff; break;
    case kEnableKeyboard: command_byte_ &= static_cast<uint8_t>(~kByteKeyboardOff); break;
    case kReadInputPort: answer(kInputPort); break;
    case kReadOutputPort: answer(output_port_); break;
    case kDisableA20: return write_output_port(output_port_ & static_cast<uint8_t>(~kOutputA20));
    case kEnableA20: return write_output_port(output_port_ | kOutputA20);
    default: break;
  }
  return {};
}

Controller::Effect Controller::accept_parameter(uint8_t value) {
  last_was_command_ = false;
  switch (std::exchange(awaiting_parameter_, 0)) {
    case kWriteCommandByte: command_byte_ = value & 0x7f; break;
    case kWriteOutputPort: return write_output_port(value);
    case kWriteKeyboardBuffer: answer(value); break;
    // Without a second port the byte does not come back from it.
    case kWriteAuxiliaryBuffer: answer(value, board_.has_mouse); break;
    case kWriteAuxiliary:
      command_byte_ &= static_cast<uint8_t>(~kByteAuxiliaryOff);  // as below
      if (board_.has_mouse) mouse_.receive(value);
      break;
    default:
      command_byte_ &= static_cast<uint8_t>(~kByteKeyboardOff);  // writing to the keyboard enables it
      keyboard_.receive(value);
      break;
  }
  return {};
}

void Controller::carry_out(const Effect& effect) {
  if (effect.a20 && board_.a20) board_.a20(*effect.a20);
  if (effect.reset && board_.reset) board_.reset();
}

void Controller::write_command(uint8_t value) {
  Effect effect;
  {
    MutexLock lock(mutex_);
    effect = accept_command(value);
    fill();
  }
  carry_out(effect);
}

void Controller::write_data(uint8_t value) {
  Effect effect;
  {
    MutexLock lock(mutex_);
    effect = accept_parameter(value);
    fill();
  }
  carry_out(effect);
}

void Controller::key(display::Key key, bool down) {
  MutexLock lock(mutex_);
  keyboard_.key(key, down);
  fill();
}

void Controller::move(int dx, int dy, int wheel, uint8_t buttons) {
  MutexLock lock(mutex_);
  if (!board_.has_mouse) return;
  mouse_.move(dx, dy, wheel, buttons);
  fill();
}

}  // namespace lodge::devices::ps2
