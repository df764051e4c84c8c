#include "devices/i8042.hpp"

#include <utility>

namespace lodge::devices {

namespace {

constexpr uint8_t kStatusOutputFull = 0x01, kStatusSystem = 0x04, kStatusCommand = 0x08, kStatusUnlocked = 0x10, kStatusAuxiliary = 0x20;
constexpr uint8_t kByteKeyboardInterrupt = 0x01, kByteSystem = 0x04, kByteKeyboardOff = 0x10, kByteAuxiliaryOff = 0x20;
constexpr uint8_t kOutputNoReset = 0x01, kOutputA20 = 0x02;

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
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,
  kWriteKeyboardBuffer = 0xd2,
  kWriteAuxiliaryBuffer = 0xd3,
  kWriteAuxiliary = 0xd4,
  kPulseOutput = 0xf0,  // ..0xff: the low nibble's zero bits are pulled low
};

enum KeyboardCommand : uint8_t {
  kSetLeds = 0xed,
  kEcho = 0xee,
  kScanCodeSet = 0xf0,
  kIdentify = 0xf2,
  kTypematic = 0xf3,
  kReset = 0xff,
};
constexpr uint8_t kAcknowledge = 0xfa, kBasicAssuranceOk = 0xaa, kTestPassed = 0x55, kClockStuckLow = 0x01;
constexpr size_t kOutputLimit = 64;  // a guest that never reads cannot make it grow

}  // namespace

I8042::I8042(IrqPin keyboard, std::function<void()> reset) : keyboard_irq_(std::move(keyboard)), reset_(std::move(reset)) {
  MutexLock lock(mutex_);
  command_byte_ = kByteKeyboardInterrupt | kByteSystem | kByteAuxiliaryOff;
  output_port_ = kOutputNoReset | kOutputA20;
  self_tested_ = true;  // firmware has done it
}

void I8042::answer(uint8_t value, bool auxiliary, bool from_keyboard) {
  if (output_.size() < kOutputLimit) output_.push_back({value, auxiliary, from_keyboard});
}

void I8042::update_pin() {
  const bool level = !output_.empty() && !output_.front().auxiliary && (command_byte_ & kByteKeyboardInterrupt);
  if (level == level_) return;
  level_ = level;
  keyboard_irq_.set(level);
}

uint8_t I8042::read_status() {
  MutexLock lock(mutex_);
  uint8_t status = kStatusUnlocked;
  if (!output_.empty()) status |= kStatusOutputFull | (output_.front().auxiliary ? kStatusAuxiliary : 0);
  if (self_tested_) status |= kStatusSystem;
  if (last_was_command_) status |= kStatusCommand;
  return status;
}

uint8_t I8042::read_data() {
  MutexLock lock(mutex_);
  if (output_.empty()) return 0;
  const uint8_t value = output_.front().value;
  output_.pop_front();
  // The next byte is a new edge.
  if (level_) {
    level_ = false;
    keyboard_irq_.lower();
  }
  update_pin();
  return value;
}

bool I8042::accept_command(uint8_t value) {
  last_was_command_ = true;
  awaiting_parameter_ = 0;
  if (value >= kPulseOutput) return !(value & kOutputNoReset);
  switch (value) {
    case kReadCommandByte: answer(command_byte_); break;
    case kWriteCommandByte:
    case kWriteOutputPort:
    case kWriteKeyboardBuffer:
    case kWriteAuxiliaryBuffer:
    case kWriteAuxiliary: awaiting_parameter_ = value; break;
    case kDisableAuxiliary: command_byte_ |= kByteAuxiliaryOff; break;
    case kEnableAuxiliary: command_byte_ &= static_cast<uint8_t>(~kByteAuxiliaryOff); break;
    case kTestAuxiliary: answer(kClockStuckLow); break;
    case kSelfTest:
      output_.clear();
      self_tested_ = true;
      answer(kTestPassed);
      break;
    case kTestKeyboard: answer(0); break;
    case kDisableKeyboard: command_byte_ |= kByteKeyboardOff; break;
    case kEnableKeyboard: command_byte_ &= static_cast<uint8_t>(~kByteKeyboardOff); break;
    case kReadOutputPort: answer(output_port_); break;
    default: break;
  }
  return false;
}

bool I8042::accept_parameter(uint8_t value) {
  last_was_command_ = false;
  switch (std::exchange(awaiting_parameter_, 0)) {
    case kWriteCommandByte: command_byte_ = value & 0x7f; break;
    case kWriteOutputPort: output_port_ = value; return !(value & kOutputNoReset);
    case kWriteKeyboardBuffer: answer(value); break;
    case kWriteAuxiliaryBuffer: answer(value, false); break;  // no auxiliary loop: see the header
    case kWriteAuxiliary: break;                              // nobody there
    default: keyboard_byte(value); break;
  }
  return false;
}

// What a keyboard answers (PC/AT Technical Reference, "Keyboard"): scan code set 2, MF2 identification.
void I8042::keyboard_byte(uint8_t value) {
  command_byte_ &= static_cast<uint8_t>(~kByteKeyboardOff);  // writing to the keyboard enables it
  const auto say = [&](uint8_t byte) LODGE_REQUIRES(mutex_) { answer(byte, false, true); };
  if (const uint8_t command = std::exchange(keyboard_awaits_, 0); command != 0) {
    say(kAcknowledge);
    if (command == kScanCodeSet && value == 0) say(2);
    return;
  }
  switch (value) {
    case kEcho: say(kEcho); return;
    case kSetLeds:
    case kScanCodeSet:
    case kTypematic: keyboard_awaits_ = value; break;
    default: break;
  }
  say(kAcknowledge);
  if (value == kIdentify) {
    say(0xab);
    say(0x83);
  }
  if (value == kReset) say(kBasicAssuranceOk);
}

void I8042::write_command(uint8_t value) {
  bool reset = false;
  {
    MutexLock lock(mutex_);
    reset = accept_command(value);
    update_pin();
  }
  if (reset && reset_) reset_();
}

void I8042::write_data(uint8_t value) {
  bool reset = false;
  {
    MutexLock lock(mutex_);
    reset = accept_parameter(value);
    update_pin();
  }
  if (reset && reset_) reset_();
}

}  // namespace lodge::devices
