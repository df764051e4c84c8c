// The System Management BIOS tables (DMTF DSP0134, version 2.8) of a machine with firmware, which gets them by fw_cfg and adds what it
// knows of itself (type 0).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "devices/fw_cfg.hpp"
#include "machine/config.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

// The machine's UUID as its bytes are written down (RFC 9562, version 8): the same at every start, another for another name.
[[nodiscard]] std::array<uint8_t, 16> derived_uuid(const std::string& name);

struct SmbiosTables {
  std::vector<uint8_t> anchor, structures;
};
// `signature`: CPUID leaf 1, EAX and EDX of the processors.
[[nodiscard]] SmbiosTables build_smbios(const Config& config, const MemoryMap& map, uint64_t signature);

// Puts them among the files.
[[nodiscard]] Result<> offer_smbios(devices::FwCfg& fw_cfg, const Config& config, const MemoryMap& map, uint64_t signature);

}  // namespace lodge::machine
