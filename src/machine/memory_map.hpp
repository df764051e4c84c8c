// The guest-physical address space of the PC.
//
//   0          640 KiB less 4 KiB   RAM; the boot data of the loaders (boot_layout.hpp)
//   0x9f000    4 KiB                reserved (the EBDA): ACPI's FACS
//   0xa0000    256 KiB              nothing (VGA and option ROMs on other PCs)
//   0xe0000    128 KiB              ROM: RSDP and ACPI tables
//   0x100000   up to 3 GiB          RAM
//   3 GiB      512 MiB              PCI devices
//   0xe0000000 1 MiB                PCI configuration space (ECAM)
//   ...        to 4 GiB             nothing but IOAPIC 0xfec00000 and local APICs 0xfee00000
//   4 GiB                           the rest of RAM
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.hpp"

namespace lodge::machine {

constexpr uint64_t kEbda = 0x9f000, kEbdaEnd = 0xa0000;
constexpr uint64_t kRom = 0xe0000, kRomEnd = 0x100000;
constexpr uint64_t kHighMemory = 0x100000;
constexpr uint64_t kHole = uint64_t{3} << 30;
constexpr uint64_t kQ35Hole = uint64_t{2} << 30;  // behind it firmware puts 256 MiB of configuration space, and BARs
constexpr uint64_t kAbove4G = uint64_t{4} << 30;
constexpr uint64_t kPciMemory = kHole, kPciMemoryBytes = uint64_t{512} << 20;
constexpr uint64_t kPciConfiguration = kPciMemory + kPciMemoryBytes, kPciConfigurationBytes = uint64_t{1} << 20;
// Where firmware may put 64-bit BARs, from the end of RAM on.
constexpr uint64_t kHighWindowBytes = uint64_t{1} << 36;
constexpr uint64_t kIoapic = 0xfec00000, kLocalApic = 0xfee00000;

struct MemoryMap {
  // At least 2 MiB, page-aligned. `hole`: where RAM below 4 GiB ends at the latest.
  explicit MemoryMap(uint64_t memory_bytes, uint64_t hole = kHole);
  uint64_t low_end;     // end of RAM below the hole
  uint64_t above_size;  // bytes of RAM from 4 GiB on

  [[nodiscard]] std::vector<memory::Range> backing() const;  // for GuestMemory: RAM and the ROM
  // On a board with firmware: all RAM, with what ROMs hide from 640 KiB to 1 MiB (firmware_memory.hpp).
  [[nodiscard]] std::vector<memory::Range> backing_with_firmware() const;
  [[nodiscard]] uint64_t end_above_4g() const { return kAbove4G + above_size; }
};

// INT 15h E820 address range types (ACPI 6.5, table 15.4).
enum class E820Type : uint32_t { Ram = 1, Reserved = 2, AcpiReclaim = 3, AcpiNvs = 4 };
struct E820Entry {
  uint64_t base;
  uint64_t size;
  E820Type type;
};
[[nodiscard]] std::vector<E820Entry> e820(const MemoryMap& map);

// Messages give sizes in whole MiB that suffice.
[[nodiscard]] constexpr uint64_t mib_up(uint64_t bytes) { return (bytes + 0xfffff) >> 20; }

}  // namespace lodge::machine
