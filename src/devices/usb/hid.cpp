#include "devices/usb/hid.hpp"

#include <array>

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
enum HidRequest : uint8_t {
  kGetReport = 0x01,
  kGetIdle = 0x02,
  kGetProtocol = 0x03,
  kSetReport = 0x09,
  kSetIdle = 0x0a,
  kSetProtocol = 0x0b
};
constexpr uint8_t kTypeMask = 0x60, kStandard = 0x00, kClass = 0x20;
enum Descriptor : uint8_t { kDevice = 1, kConfiguration = 2, kString = 3, kQualifier = 6, kHid = 0x21, kReport = 0x22 };

constexpr auto kQualifierDescriptor = std::to_array<uint8_t>({10, kQualifier, 0x00, 0x02, 0, 0, 0, 64, 1, 0});
constexpr uint16_t kVendor = 0x0627;  // what QEMU's devices are of, which systems know

}  // namespace

// Tables 9-10, 9-12 and 9-13; HID 6.2.1. High speed.
std::vector<uint8_t> HidDevice::configuration_descriptor() const {
  constexpr uint8_t kTotal = 9 + 9 + 9 + 7;
  const bool boot = description_.boot != Boot::None;
  return {// one interface, 100 mA, wakes the host
          9, kConfiguration, kTotal, 0, 1, 1, 0, 0xa0, 50,
          // HID, with the boot protocol or without
          9, 4, 0, 0, 1, 3, boot, static_cast<uint8_t>(description_.boot), 0,
          // its report's descriptor
          9, kHid, 0x01, 0x01, 0, 1, kReport, static_cast<uint8_t>(description_.report.size()), 0,
          // interrupt, 8 bytes, each millisecond
          7, 5, 0x80 | kEndpoint, 3, 8, 0, 4};
}

// 9.6.7: number 0 says which languages there are.
std::optional<std::vector<uint8_t>> HidDevice::string_descriptor(unsigned number) const {
  const std::array<std::string_view, 2> strings{"Lodge", description_.name};
  if (number == 0) return std::vector<uint8_t>{4, kString, 0x09, 0x04};
  if (number > strings.size()) return std::nullopt;
  const std::string_view text = strings[number - 1];
  std::vector<uint8_t> out{static_cast<uint8_t>(2 + 2 * text.size()), kString};
  for (const char c : text) {
    out.push_back(static_cast<uint8_t>(c));
    out.push_back(0);
  }
  return out;
}

std::optional<std::vector<uint8_t>> HidDevice::descriptor(uint16_t value) const {
  const auto low = [](uint16_t word) { return static_cast<uint8_t>(word); };
  const auto high = [](uint16_t word) { return static_cast<uint8_t>(word >> 8); };
  std::vector<uint8_t> configuration = configuration_descriptor();
  switch (value >> 8) {
    case kDevice:  // table 9-8
      return std::vector<uint8_t>{
          18,   kDevice, 0x00, 0x02, 0, 0, 0, 64, low(kVendor), high(kVendor), low(description_.product), high(description_.product),
          0x00, 0x01,    1,    2,    0, 1};
    case kConfiguration: return configuration;
    case kString: return string_descriptor(value & 0xff);
    case kQualifier: return std::vector<uint8_t>(kQualifierDescriptor.begin(), kQualifierDescriptor.end());
    case kHid: return std::vector<uint8_t>(configuration.begin() + 18, configuration.begin() + 27);
    case kReport: return std::vector<uint8_t>(description_.report.begin(), description_.report.end());
    default: return std::nullopt;
  }
}

bool HidDevice::configured() {
  MutexLock lock(mutex_);
  return is_configured();
}

void HidDevice::reset() {
  MutexLock lock(mutex_);
  configuration_ = 0;
  protocol_ = 1;
  forget();
}

std::optional<std::vector<uint8_t>> HidDevice::control_in(const Setup& setup) {
  MutexLock lock(mutex_);
  if ((setup.type & kTypeMask) == kClass) {
    switch (setup.request) {
      case kGetReport: return report();
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

bool HidDevice::control_out(const Setup& setup, std::span<const uint8_t> data) {
  MutexLock lock(mutex_);
  if ((setup.type & kTypeMask) == kClass) {
    if (setup.request == kSetReport) return set_report(data);
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

std::optional<std::vector<uint8_t>> HidDevice::interrupt_in(unsigned endpoint) {
  MutexLock lock(mutex_);
  if (endpoint != kEndpoint || !advance()) return std::nullopt;
  return report();
}

}  // namespace lodge::devices::usb
