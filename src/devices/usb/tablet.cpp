#include "devices/usb/tablet.hpp"

#include <algorithm>
#include <array>
#include <string_view>

namespace lodge::devices::usb {

namespace {

// Requests (9.4, table 9-4; HID 7.2).
enum Request : uint8_t {
  kGetStatus = 0x00,
  kClearFeature = 0x01,
  kSetFeature = 0x03,
  kSetAddress = 0x05,
  kGetDescriptor = 0x06,
  kGetConfiguration = 0x08,
  kSetConfiguration = 0x09,
  kGetInterface = 0x0a,
  kSetInterface = 0x0b,
};
enum HidRequest : uint8_t { kGetReport = 0x01, kGetIdle = 0x02, kGetProtocol = 0x03, kSetIdle = 0x0a, kSetProtocol = 0x0b };
constexpr uint8_t kTypeMask = 0x60, kStandard = 0x00, kClass = 0x20;
enum Descriptor : uint8_t { kDevice = 1, kConfiguration = 2, kString = 3, kQualifier = 6, kHid = 0x21, kReport = 0x22 };

constexpr unsigned kEndpoint = 1;
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

// Tables 9-8, 9-9, 9-10, 9-12 and 9-13; HID 6.2.1. High speed.
constexpr auto kDeviceDescriptor =
    std::to_array<uint8_t>({18, kDevice, 0x00, 0x02, 0, 0, 0, 64, 0x27, 0x06, 0x01, 0x00, 0x00, 0x01, 1, 2, 0, 1});
constexpr auto kQualifierDescriptor = std::to_array<uint8_t>({10, kQualifier, 0x00, 0x02, 0, 0, 0, 64, 1, 0});
constexpr auto kHidDescriptor =
    std::to_array<uint8_t>({9, kHid, 0x01, 0x01, 0, 1, kReport, static_cast<uint8_t>(kReportDescriptor.size()), 0});
constexpr auto kConfigurationHead =
    std::to_array<uint8_t>({9, kConfiguration, 9 + 9 + 9 + 7, 0, 1, 1, 0, 0xa0, 50,                 // one interface, 100 mA
                            9, 4, 0, 0, 1, 3, 0, 0, 0});                                            // HID, no boot protocol
constexpr auto kEndpointDescriptor = std::to_array<uint8_t>({7, 5, 0x80 | kEndpoint, 3, 8, 0, 4});  // interrupt, 8 bytes, each millisecond

template <size_t kSize>
std::vector<uint8_t> bytes(const std::array<uint8_t, kSize>& from) {
  return {from.begin(), from.end()};
}

std::vector<uint8_t> configuration_descriptor() {
  std::vector<uint8_t> all = bytes(kConfigurationHead);
  all.insert(all.end(), kHidDescriptor.begin(), kHidDescriptor.end());
  all.insert(all.end(), kEndpointDescriptor.begin(), kEndpointDescriptor.end());
  return all;
}

// 9.6.7: number 0 says which languages there are.
std::optional<std::vector<uint8_t>> string_descriptor(unsigned number) {
  constexpr std::array<std::string_view, 2> kStrings{"Lodge", "USB Tablet"};
  if (number == 0) return std::vector<uint8_t>{4, kString, 0x09, 0x04};
  if (number > kStrings.size()) return std::nullopt;
  const std::string_view text = kStrings[number - 1];
  std::vector<uint8_t> out{static_cast<uint8_t>(2 + 2 * text.size()), kString};
  for (const char c : text) {
    out.push_back(static_cast<uint8_t>(c));
    out.push_back(0);
  }
  return out;
}

std::optional<std::vector<uint8_t>> descriptor(uint16_t value) {
  switch (value >> 8) {
    case kDevice: return bytes(kDeviceDescriptor);
    case kConfiguration: return configuration_descriptor();
    case kString: return string_descriptor(value & 0xff);
    case kQualifier: return bytes(kQualifierDescriptor);
    case kHid: return bytes(kHidDescriptor);
    case kReport: return bytes(kReportDescriptor);
    default: return std::nullopt;
  }
}

}  // namespace

std::vector<uint8_t> Tablet::report(const State& state) {
  return {state.buttons,
          static_cast<uint8_t>(state.x),
          static_cast<uint8_t>(state.x >> 8),
          static_cast<uint8_t>(state.y),
          static_cast<uint8_t>(state.y >> 8),
          static_cast<uint8_t>(std::clamp(-state.wheel, -127, 127))};
}

void Tablet::point(unsigned x, unsigned y, int wheel, uint8_t buttons) {
  {
    MutexLock lock(mutex_);
    if (configuration_ == 0) return;
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

bool Tablet::in_use() {
  MutexLock lock(mutex_);
  return configuration_ != 0;
}

void Tablet::reset() {
  MutexLock lock(mutex_);
  configuration_ = 0;
  protocol_ = 1;
  untold_.clear();
}

std::optional<std::vector<uint8_t>> Tablet::control_in(const Setup& setup) {
  MutexLock lock(mutex_);
  if ((setup.type & kTypeMask) == kClass) {
    switch (setup.request) {
      case kGetReport: return report(told_);
      case kGetIdle: return std::vector<uint8_t>{idle_};
      case kGetProtocol: return std::vector<uint8_t>{protocol_};
      default: return std::nullopt;
    }
  }
  if ((setup.type & kTypeMask) != kStandard) return std::nullopt;
  switch (setup.request) {
    case kGetStatus: return std::vector<uint8_t>{0, 0};
    case kGetDescriptor: return descriptor(setup.value);
    case kGetConfiguration: return std::vector<uint8_t>{configuration_};
    case kGetInterface: return std::vector<uint8_t>{0};
    default: return std::nullopt;
  }
}

bool Tablet::control_out(const Setup& setup, std::span<const uint8_t>) {
  MutexLock lock(mutex_);
  if ((setup.type & kTypeMask) == kClass) {
    if (setup.request == kSetIdle) idle_ = static_cast<uint8_t>(setup.value >> 8);
    if (setup.request == kSetProtocol) protocol_ = static_cast<uint8_t>(setup.value);
    return setup.request == kSetIdle || setup.request == kSetProtocol;
  }
  if ((setup.type & kTypeMask) != kStandard) return false;
  switch (setup.request) {
    case kSetConfiguration:
      if (setup.value > 1) return false;
      configuration_ = static_cast<uint8_t>(setup.value);
      return true;
    case kClearFeature:
    case kSetFeature:
    case kSetAddress: return true;  // the address is the controller's business
    case kSetInterface: return setup.value == 0;
    default: return false;
  }
}

std::optional<std::vector<uint8_t>> Tablet::interrupt_in(unsigned endpoint) {
  MutexLock lock(mutex_);
  if (endpoint != kEndpoint || untold_.empty()) return std::nullopt;
  told_ = untold_.front();
  untold_.pop_front();
  return report(told_);
}

}  // namespace lodge::devices::usb
