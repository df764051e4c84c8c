// Where a direct kernel boot puts its data in low memory.
#pragma once

#include <cstdint>

namespace lodge::machine {

constexpr uint64_t kBootGdt = 0x1000;
constexpr uint64_t kBootParams = 0x2000;      // struct boot_params, one page
constexpr uint64_t kBootPageTables = 0x3000;  // PML4, PDPT, four page directories: 4 GiB in 2 MiB pages
constexpr uint64_t kPvhStartInfo = 0x9000;    // hvm_start_info, module list, memory map
constexpr uint64_t kCommandLine = 0x10000;
constexpr uint64_t kCommandLineMaximum = 0x10000;  // bytes with the terminating zero

// Linux's __BOOT_CS and __BOOT_DS (boot protocol, "32-bit Boot Protocol").
constexpr uint16_t kBootCs = 0x10, kBootDs = 0x18;

}  // namespace lodge::machine
