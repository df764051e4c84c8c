// The differentiated system description tables: one a kind of machine (ACPI 6.5, 5.2.11.1).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "devices/pci/host_bridge.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {

// What boards with firmware may differ in.
struct LegacyBoard {
  MemoryMap map;
  bool floppy = false;  // there is a controller for floppy disks
};

[[nodiscard]] std::vector<uint8_t> build_direct_dsdt(uint32_t vcpus);
// The 440FX machine: PCI interrupts go by way of the PIIX3's router, which the operating system may program.
[[nodiscard]] std::vector<uint8_t> build_i440fx_dsdt(uint32_t vcpus, const LegacyBoard& board);
// The Q35 machine: PCI interrupts have inputs of their own at the IOAPIC, and where that is not used, the ICH9's router.
[[nodiscard]] std::vector<uint8_t> build_q35_dsdt(uint32_t vcpus, const LegacyBoard& board,
                                                  const std::optional<devices::pci::Window>& configuration);

}  // namespace lodge::machine::acpi
