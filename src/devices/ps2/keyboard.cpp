#include "devices/ps2/keyboard.hpp"

#include <linux/input-event-codes.h>

#include <array>
#include <utility>

#include "devices/ps2/scan_codes.hpp"
#include "display/keys.hpp"

namespace lodge::devices::ps2 {

namespace {

enum Command : uint8_t {
  kSetLeds = 0xed,
  kEcho = 0xee,
  kScanCodeSet = 0xf0,
  kIdentify = 0xf2,
  kTypematic = 0xf3,
  kEnable = 0xf4,
  kDefaultDisable = 0xf5,
  kSetDefault = 0xf6,
  kSetAllTypes = 0xf7,  // ..0xfa: all keys' types
  kSetKeyType = 0xfb,   // ..0xfd: of the keys that follow
  kResend = 0xfe,
  kReset = 0xff,
};
constexpr uint8_t kAcknowledge = 0xfa, kAssuranceTestDone = 0xaa, kAskAgain = 0xfe;
constexpr size_t kMostAnswers = 64, kMostEvents = 2000;  // a guest that never reads cannot make them grow

}  // namespace

void Keyboard::answer(uint8_t byte) {
  if (bytes_.size() < kMostAnswers) bytes_.push_back(byte);
}

void Keyboard::set_defaults() {
  set_ = 2;
  scanning_ = true;
  bytes_.clear();
  events_.clear();
}

void Keyboard::parameter(uint8_t command, uint8_t value) {
  if (command == kScanCodeSet && (value == 1 || value == 2)) set_ = value;
  answer(kAcknowledge);
  if (command == kScanCodeSet && value == 0) answer(set_);
}

void Keyboard::receive(uint8_t byte) {
  // A command in the place of a parameter counts as a command.
  if (const uint8_t command = std::exchange(awaits_, 0); command != 0 && byte < kSetLeds) return parameter(command, byte);
  switch (byte) {
    case kEcho: return answer(kEcho);
    case kResend: return answer(last_);
    case kSetLeds:
    case kScanCodeSet:
    case kTypematic:
    case kSetKeyType:
    case kSetKeyType + 1:
    case kSetKeyType + 2: awaits_ = byte; break;
    case kIdentify:
      answer(kAcknowledge);
      answer(0xab);
      return answer(0x83);
    case kEnable: scanning_ = true; break;
    case kDefaultDisable:
      set_defaults();
      scanning_ = false;
      break;
    case kSetDefault: set_defaults(); break;
    case kReset:
      set_defaults();
      answer(kAcknowledge);
      return answer(kAssuranceTestDone);
    case kSetAllTypes:
    case kSetAllTypes + 1:
    case kSetAllTypes + 2:
    case kSetAllTypes + 3: break;
    default: return answer(kAskAgain);
  }
  answer(kAcknowledge);
}

void Keyboard::key(display::Key key, bool down) {
  if (scanning_ && events_.size() < kMostEvents) events_.push_back({key, down});
}

void Keyboard::encode(const Event& event) {
  const auto put = [&](uint8_t byte) { bytes_.push_back(byte); };
  if (event.key == KEY_PAUSE) {  // it sends all at once, and nothing when it goes up
    constexpr std::array<uint8_t, 6> kSet1{0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    constexpr std::array<uint8_t, 8> kSet2{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    if (event.down) bytes_.insert(bytes_.end(), set_ == 1 ? kSet1.begin() : kSet2.begin(), set_ == 1 ? kSet1.end() : kSet2.end());
    return;
  }
  const auto code = display::scan_code_of(event.key);
  if (!code) return;
  if (code->extended) put(0xe0);
  if (set_ == 1) return put(static_cast<uint8_t>(code->code | (event.down ? 0 : 0x80)));
  if (!event.down) put(0xf0);
  put(set2_of_set1(code->code));
}

std::optional<uint8_t> Keyboard::send() {
  while (bytes_.empty() && !events_.empty()) {
    encode(events_.front());
    events_.pop_front();
  }
  if (bytes_.empty()) return std::nullopt;
  last_ = bytes_.front();
  bytes_.pop_front();
  return last_;
}

}  // namespace lodge::devices::ps2
