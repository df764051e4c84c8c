// What the identities of Intel's chips on these boards share.
#pragma once

#include "devices/pci/function.hpp"

namespace lodge::devices::chipset {

// By the subsystem's numbers firmware and operating systems know the machines that QEMU describes (its docs/specs/pci-ids).
constexpr pci::Identity intel(uint16_t device, uint8_t revision, uint32_t class_code) {
  return {
      .vendor = 0x8086, .device = device, .revision = revision, .class_code = class_code, .subsystem_vendor = 0x1af4, .subsystem = 0x1100};
}

}  // namespace lodge::devices::chipset
