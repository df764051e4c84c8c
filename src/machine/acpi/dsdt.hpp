// The differentiated system description tables: one a kind of machine (ACPI 6.5, 5.2.11.1).
#pragma once

#include <cstdint>
#include <vector>

#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {

[[nodiscard]] std::vector<uint8_t> build_direct_dsdt(uint32_t vcpus);
// The 440FX machine: PCI interrupts go by way of the PIIX3's router, which the operating system may program.
[[nodiscard]] std::vector<uint8_t> build_i440fx_dsdt(uint32_t vcpus, const MemoryMap& map);

}  // namespace lodge::machine::acpi
