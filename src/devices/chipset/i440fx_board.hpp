// How the chips of a 440FX board are wired to each other: what firmware knows of it, and what its ACPI tables say.
#pragma once

#include <array>
#include <cstdint>

#include "devices/acpi_pm.hpp"
#include "devices/pci/host_bridge.hpp"

namespace lodge::devices::chipset {

struct I440FxBoard {
  static constexpr unsigned kIsaDevice = 1, kIdeFunction = 1, kPowerFunction = 3;
  static constexpr AcpiPm::Layout kPowerLayout{.gpe0_block = 0x0c, .soft_off_sleep = 0};  // PIIX4: GPSTS and SUS_TYP (7.2)
  // ISA interrupts that PCI's may be routed to, beside the SCI's.
  static constexpr std::array<uint8_t, 4> kLevelLines{5, 9, 10, 11};
  // Which of the router's inputs a pin leads to: pin A of device 1 to PIRQA.
  [[nodiscard]] static constexpr unsigned line_of(unsigned device, unsigned pin) { return (device + pin + 2) % pci::HostBridge::kPins; }
};

}  // namespace lodge::devices::chipset
