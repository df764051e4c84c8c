#include "devices/ps2/mouse.hpp"

#include <algorithm>
#include <utility>

namespace lodge::devices::ps2 {

namespace {

enum Command : uint8_t {
  kScale1 = 0xe6,
  kScale2 = 0xe7,
  kSetResolution = 0xe8,
  kStatusRequest = 0xe9,
  kSetStream = 0xea,
  kReadData = 0xeb,
  kResetWrap = 0xec,
  kSetWrap = 0xee,
  kSetRemote = 0xf0,
  kReadType = 0xf2,
  kSetRate = 0xf3,
  kEnable = 0xf4,
  kDisable = 0xf5,
  kSetDefault = 0xf6,
  kResend = 0xfe,
  kReset = 0xff,
};
constexpr uint8_t kAcknowledge = 0xfa, kTestDone = 0xaa, kAskAgain = 0xfe, kWheelId = 3;
constexpr size_t kMostAnswers = 64, kMostPresses = 64;
constexpr int kMostMoved = 255, kMostAccumulated = 1 << 14;

}  // namespace

void Mouse::answer(uint8_t byte) {
  if (bytes_.size() < kMostAnswers) bytes_.push_back(byte);
}

void Mouse::set_defaults() {
  rate_ = 100;
  resolution_ = 2;
  remote_ = reporting_ = double_scale_ = false;
  dx_ = dy_ = wheel_ = 0;
  presses_.clear();
}

void Mouse::parameter(uint8_t command, uint8_t value) {
  if (command == kSetResolution) {
    resolution_ = value & 3;
  } else {
    constexpr uint32_t kKnock = 200 << 16 | 100 << 8 | 80;
    rate_ = value;
    last_rates_ = (last_rates_ << 8 | value) & 0xffffff;
    if (last_rates_ == kKnock) id_ = kWheelId;
  }
  answer(kAcknowledge);
}

void Mouse::receive(uint8_t byte) {
  if (const uint8_t command = std::exchange(awaits_, 0); command != 0) return parameter(command, byte);
  if (wrap_ && byte != kReset && byte != kResetWrap) return answer(byte);
  // What it was about to report is gone when it is spoken to.
  if (byte != kResend) bytes_.clear();
  switch (byte) {
    case kScale1: double_scale_ = false; break;
    case kScale2: double_scale_ = true; break;
    case kSetResolution:
    case kSetRate: awaits_ = byte; break;
    case kStatusRequest:
      answer(kAcknowledge);
      answer(static_cast<uint8_t>(remote_ << 6 | reporting_ << 5 | double_scale_ << 4 | (buttons_ & 1) << 2 | (buttons_ & 4) >> 1 |
                                  (buttons_ & 2) >> 1));
      answer(resolution_);
      return answer(rate_);
    case kSetStream: remote_ = false; break;
    case kReadData: answer(kAcknowledge); return make_packet();
    case kResetWrap: wrap_ = false; break;
    case kSetWrap: wrap_ = true; break;
    case kSetRemote: remote_ = true; break;
    case kReadType: answer(kAcknowledge); return answer(id_);
    case kEnable: reporting_ = true; break;
    case kDisable: reporting_ = false; break;
    case kSetDefault: set_defaults(); break;
    case kResend: return answer(last_);
    case kReset:
      set_defaults();
      id_ = 0;
      wrap_ = false;
      answer(kAcknowledge);
      answer(kTestDone);
      return answer(id_);
    default: return answer(kAskAgain);
  }
  answer(kAcknowledge);
}

void Mouse::move(int dx, int dy, int wheel, uint8_t buttons) {
  const auto add = [](int& sum, int by) {
    sum = std::clamp(sum + std::clamp(by, -kMostAccumulated, kMostAccumulated), -kMostAccumulated, kMostAccumulated);
  };
  add(dx_, dx);
  add(dy_, -dy);  // up is positive on the wire
  add(wheel_, wheel);
  const uint8_t before = presses_.empty() ? buttons_ : presses_.back();
  if (buttons != before && presses_.size() < kMostPresses) presses_.push_back(buttons);
  if (!reporting_) {
    buttons_ = buttons;
    dx_ = dy_ = wheel_ = 0;
    presses_.clear();
  }
}

bool Mouse::has_news() const { return dx_ != 0 || dy_ != 0 || (wheel_ != 0 && id_ == kWheelId) || !presses_.empty(); }

void Mouse::make_packet() {
  if (!presses_.empty()) {
    buttons_ = presses_.front();
    presses_.pop_front();
  }
  const int dx = std::clamp(dx_, -kMostMoved, kMostMoved), dy = std::clamp(dy_, -kMostMoved, kMostMoved), wheel = std::clamp(wheel_, -7, 7);
  dx_ -= dx;
  dy_ -= dy;
  wheel_ -= wheel;
  answer(static_cast<uint8_t>(0x08 | (buttons_ & 7) | (dx < 0) << 4 | (dy < 0) << 5));
  answer(static_cast<uint8_t>(dx));
  answer(static_cast<uint8_t>(dy));
  if (id_ == kWheelId) answer(static_cast<uint8_t>(wheel));
}

std::optional<uint8_t> Mouse::send() {
  if (bytes_.empty() && reporting_ && !remote_ && !wrap_ && has_news()) make_packet();
  if (bytes_.empty()) return std::nullopt;
  last_ = bytes_.front();
  bytes_.pop_front();
  return last_;
}

}  // namespace lodge::devices::ps2
