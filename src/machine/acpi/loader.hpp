// ACPI tables for firmware to place: two blobs, and the script by which firmware puts them into memory and links them (QEMU's
// docs/specs/acpi: the "linker/loader" commands of etc/table-loader).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "devices/fw_cfg.hpp"
#include "machine/acpi/tables.hpp"

namespace lodge::machine::acpi {

struct Blobs {
  std::vector<uint8_t> tables, rsdp, script;
};

// What the tables say of a board.
struct Board {
  FixedHardware hardware;
  std::vector<uint8_t> dsdt;
  std::span<const uint8_t> level_lines;                    // as build_madt() has them
  std::optional<devices::pci::Window> configuration = {};  // configuration space in memory
};
[[nodiscard]] Blobs build_blobs(uint32_t vcpus, const Board& board);

// Puts them among the files. `board` is asked each time that firmware begins to read one: it says where the chips are by then.
[[nodiscard]] Result<> offer_tables(devices::FwCfg& fw_cfg, uint32_t vcpus, const std::function<Board()>& board);

}  // namespace lodge::machine::acpi
