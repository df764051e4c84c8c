// ACPI tables for firmware to place: two blobs, and the script by which firmware puts them into memory and links them (QEMU's
// docs/specs/acpi: the "linker/loader" commands of etc/table-loader).
#pragma once

#include <cstdint>
#include <vector>

#include "devices/fw_cfg.hpp"
#include "machine/acpi/tables.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {

struct Blobs {
  std::vector<uint8_t> tables, rsdp, script;
};
[[nodiscard]] Blobs build_i440fx_blobs(uint32_t vcpus, const MemoryMap& map, const FixedHardware& hardware);

// Puts them among the files. `hardware` is asked each time that firmware begins to read one: it says where the chips are by then.
[[nodiscard]] Result<> offer_tables(devices::FwCfg& fw_cfg, uint32_t vcpus, const MemoryMap& map,
                                    const std::function<FixedHardware()>& hardware);

}  // namespace lodge::machine::acpi
