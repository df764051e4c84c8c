// Images of expansion ROMs (PCI 3.0, 6.3.1; PCI Firmware 3.0, 5.1.2).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lodge::devices::pci {

// The ROM for a function of these numbers: one that was made for a sister of it says so in each of its images, and firmware looks. The sum
// of an image for a PC's BIOS stays what it was. What is no such image stays as it is.
[[nodiscard]] std::vector<uint8_t> option_rom_for(std::span<const uint8_t> rom, uint16_t vendor, uint16_t device);

}  // namespace lodge::devices::pci
