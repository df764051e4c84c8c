// What firmware is told of the machine through fw_cfg (devices/fw_cfg.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/error.hpp"
#include "devices/fw_cfg.hpp"
#include "machine/config.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

// The kernel that firmware is to start by itself, as QEMU's docs/specs/fw_cfg has it.
struct HandedKernel {
  std::span<const uint8_t> image, initrd;
  std::string command_line;
};
void hand_over_kernel(devices::FwCfg& fw_cfg, const HandedKernel& kernel);
// ErrorKind::Usage: UEFI could not start it.
[[nodiscard]] Result<> check_efi_program(std::span<const uint8_t> image, const std::string& path);

[[nodiscard]] Result<> describe_machine(devices::FwCfg& fw_cfg, const MemoryMap& map, const Config& config);

}  // namespace lodge::machine
