// How the chips of a Q35 board are wired to each other: what firmware knows of it, and what its ACPI tables say.
#pragma once

#include <array>
#include <cstdint>

#include "devices/acpi_pm.hpp"
#include "devices/pci/host_bridge.hpp"

namespace lodge::devices::chipset {

struct Q35Board {
  static constexpr unsigned kLpcDevice = 31, kSataFunction = 2, kRootPortDevice = 28;
  // GPE0 after the ICH9 (13.8.3). By the real chip's SLP_TYP soft off is 7; firmware for virtual machines knows 0.
  static constexpr AcpiPm::Layout kPowerLayout{.gpe0_block = 0x20, .soft_off_sleep = 0};
  // ISA interrupts that are level-triggered at the IOAPIC: the SCI's. PCI's have inputs of their own there, PIRQA's first.
  static constexpr std::array<uint8_t, 1> kLevelLines{9};
  static constexpr unsigned kFirstPirqInput = 16;
  // Which of the router's inputs a pin leads to: cards to PIRQE to PIRQH in turns, the ICH9's own functions to PIRQA to PIRQD.
  [[nodiscard]] static constexpr unsigned line_of(unsigned device, unsigned pin) {
    constexpr unsigned kFirstOwnDevice = 25, kPirqE = 4;
    if (device >= kFirstOwnDevice) return (pin - 1) % pci::HostBridge::kPins;
    return kPirqE + (device + pin - 1) % pci::HostBridge::kPins;
  }
};

}  // namespace lodge::devices::chipset
