#include "devices/pci/express.hpp"

#include <array>

namespace lodge::devices::pci {

namespace {

// Registers, from the capability's beginning (figure 7-22).
enum Register : unsigned {
  kCapabilities = 0x02,
  kDeviceCapabilities = 0x04,
  kDeviceControl = 0x08,
  kLinkCapabilities = 0x0c,
  kLinkControl = 0x10,
  kLinkStatus = 0x12,
  kSlotCapabilities = 0x14,
  kSlotControl = 0x18,
  kSlotStatus = 0x1a,
  kRootControl = 0x1c,
  kDeviceControl2 = 0x28,
  kLinkCapabilities2 = 0x2c,
  kLinkControl2 = 0x30,
  kEnd = 0x3c,
};
constexpr uint32_t kVersion2 = 2, kSlotImplemented = 1 << 8;
constexpr uint32_t kRoleBasedErrors = 1 << 15;
constexpr uint32_t kSpeed2500 = 1, kOneLane = 1 << 4, kReportsLinkActive = 1 << 20, kLinkActive = 1 << 13;
constexpr uint32_t kPresent = 1 << 6;  // slot status
constexpr unsigned kPortNumberShift = 24, kSlotNumberShift = 19;

}  // namespace

void add_express_capability(ConfigSpace& space, ExpressType type, unsigned port) {
  const bool root = type == ExpressType::RootPort;
  const unsigned at = space.add_capability(Capability::Express, std::array<uint8_t, kEnd - 2>{});
  space.set(at + kCapabilities, 2, kVersion2 | static_cast<uint32_t>(type) << 4 | (root ? kSlotImplemented : 0));
  space.set(at + kDeviceCapabilities, 4, kRoleBasedErrors);
  space.allow(at + kDeviceControl, 2, 0x78ff);  // errors that are told, sizes, ordering
  space.set(at + kLinkCapabilities, 4, kSpeed2500 | kOneLane | port << kPortNumberShift | (root ? kReportsLinkActive : 0));
  space.allow(at + kLinkControl, 2, 0x0ff8);
  space.set(at + kLinkStatus, 2, kSpeed2500 | kOneLane | (root ? kLinkActive : 0));
  if (root) {
    space.set(at + kSlotCapabilities, 4, port << kSlotNumberShift);
    space.allow(at + kSlotControl, 2, 0x1fff);
    space.set(at + kSlotStatus, 2, kPresent);
    space.allow(at + kRootControl, 2, 0x000f);
  }
  space.allow(at + kDeviceControl2, 2, 0x001f);
  space.set(at + kLinkCapabilities2, 4, kSpeed2500 << 1);
  space.define(at + kLinkControl2, 2, kSpeed2500, 0x000f);
}

}  // namespace lodge::devices::pci
