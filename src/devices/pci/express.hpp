// The PCI Express capability (Base 4.0, 7.5.3): what a link of one lane at 2.5 GT/s is.
#pragma once

#include <cstdint>

#include "devices/pci/config_space.hpp"

namespace lodge::devices::pci {

enum class ExpressType : uint8_t { Endpoint = 0, RootPort = 4 };  // table 7-15
// `port`: the number of a root port, and of its slot, which is never empty.
void add_express_capability(ConfigSpace& space, ExpressType type, unsigned port = 0);

}  // namespace lodge::devices::pci
