// What a transitional device has for drivers older than virtio 1.0: where their ports are (virtio 1.2, 4.1.4.10).
#pragma once

#include <cstdint>

namespace lodge::devices::virtio {

constexpr unsigned kLegacyBar = 0;
constexpr uint64_t kLegacyBytes = 256;  // the header, and the device's configuration

}  // namespace lodge::devices::virtio
