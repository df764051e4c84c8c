#include "devices/usb/tablet.hpp"

#include <algorithm>
#include <array>

namespace lodge::devices::usb {

namespace {

constexpr size_t kMostUntold = 16;

// HID 1.11, 6.2.2: buttons 1 to 3, X and Y from 0 to 32767, and a wheel.
constexpr auto kReportDescriptor = std::to_array<uint8_t>({
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01,              // generic desktop, mouse; an application
    0x09, 0x01, 0xa1, 0x00,                          //   pointer; physical
    0x05, 0x09, 0x19, 0x01, 0x29, 0x03,              //     buttons 1 to 3
    0x15, 0x00, 0x25, 0x01, 0x95, 0x03, 0x75, 0x01,  //     0 or 1: three of one bit
    0x81, 0x02, 0x95, 0x01, 0x75, 0x05, 0x81, 0x01,  //     variable; five bits of nothing
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31,              //     generic desktop: X, Y
    0x15, 0x00, 0x26, 0xff, 0x7f,                    //     0 to 32767
    0x35, 0x00, 0x46, 0xff, 0x7f,                    //     on the whole screen
    0x75, 0x10, 0x95, 0x02, 0x81, 0x02,              //     two of 16 bits, absolute
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f,              //     wheel: -127 to 127
    0x35, 0x00, 0x45, 0x00, 0x75, 0x08, 0x95, 0x01,  //     one of 8 bits
    0x81, 0x06, 0xc0, 0xc0,                          //     relative; the ends
});

}  // namespace

Tablet::Tablet() : HidDevice({.name = "USB Tablet", .product = 0x0001, .report = kReportDescriptor}) {}

std::vector<uint8_t> Tablet::report() {
  return {told_.buttons,
          static_cast<uint8_t>(told_.x),
          static_cast<uint8_t>(told_.x >> 8),
          static_cast<uint8_t>(told_.y),
          static_cast<uint8_t>(told_.y >> 8),
          static_cast<uint8_t>(std::clamp(-told_.wheel, -127, 127))};
}

void Tablet::point(unsigned x, unsigned y, int wheel, uint8_t buttons) {
  {
    MutexLock lock(mutex_);
    if (!is_configured()) return;
    const State next{std::min(x, 0x7fffU), std::min(y, 0x7fffU), wheel, static_cast<uint8_t>(buttons & 7)};
    // Clicks are told one by one; of mere movements the last one counts.
    const bool moves_only = !untold_.empty() && untold_.back().buttons == next.buttons && wheel == 0 && untold_.back().wheel == 0;
    if (moves_only)
      untold_.back() = next;
    else if (untold_.size() < kMostUntold)
      untold_.push_back(next);
  }
  wake(kEndpoint);
}

bool Tablet::advance() {
  if (untold_.empty()) return false;
  told_ = untold_.front();
  untold_.pop_front();
  return true;
}

void Tablet::forget() { untold_.clear(); }

}  // namespace lodge::devices::usb
