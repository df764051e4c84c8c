// Numbers that several chips' identities share.
#pragma once

#include <cstdint>

namespace lodge::devices::chipset {

constexpr uint16_t kIntel = 0x8086;
// By these firmware and operating systems know the machines that QEMU describes (its docs/specs/pci-ids).
constexpr uint16_t kVirtualSubsystemVendor = 0x1af4, kVirtualSubsystem = 0x1100;

}  // namespace lodge::devices::chipset
