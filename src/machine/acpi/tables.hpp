// The ACPI tables of the PC (ACPI 6.5, chapter 5), and where the direct machine, which has no firmware, finds them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "devices/acpi_pm.hpp"
#include "devices/pci/host_bridge.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine::acpi {

constexpr uint16_t kPmBase = 0x600;  // ports of devices::AcpiPm
constexpr devices::AcpiPm::Layout kPmLayout{.gpe0_block = 0x20, .soft_off_sleep = 5};
constexpr uint16_t kPmBytes = 0x24;
constexpr uint16_t kPanicPort = 0x505;
constexpr uint8_t kSciIrq = 9;
constexpr uint16_t kPciPorts = 0xc000;  // to the end: what PCI devices can have
constexpr uint8_t kFirstPciIrq = 16;    // IOAPIC inputs of the four PCI lines

// Where the fixed hardware is, as far as machines differ; the direct machine's by default.
struct FixedHardware {
  uint16_t base = kPmBase;
  devices::AcpiPm::Layout layout = kPmLayout;
  bool vga = false;
};

// `configuration`: a whole number of buses' configuration spaces, from bus 0 on.
[[nodiscard]] std::vector<uint8_t> build_mcfg(const devices::pci::Window& configuration);
// `level_lines`: ISA interrupts that are level-triggered and active high.
[[nodiscard]] std::vector<uint8_t> build_madt(uint32_t vcpus, std::span<const uint8_t> level_lines);
[[nodiscard]] std::vector<uint8_t> build_fadt(const FixedHardware& hardware, uint64_t dsdt, uint64_t facs);
[[nodiscard]] std::vector<uint8_t> build_facs();
// Of devices::Hpet (IA-PC HPET 1.0a, 3.2.4).
[[nodiscard]] std::vector<uint8_t> build_hpet();

// Writes RSDP, XSDT and the tables into the ROM area and the FACS into the EBDA. The address of the RSDP.
[[nodiscard]] Result<uint64_t> place_tables(memory::GuestMemory& memory, uint32_t vcpus);

}  // namespace lodge::machine::acpi
