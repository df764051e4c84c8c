// What firmware is told of the machine through fw_cfg (devices/fw_cfg.hpp).
#pragma once

#include "base/error.hpp"
#include "devices/fw_cfg.hpp"
#include "machine/config.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

[[nodiscard]] Result<> describe_machine(devices::FwCfg& fw_cfg, const MemoryMap& map, const Config& config);

}  // namespace lodge::machine
