// A cluster's data in fewer bytes.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "block/qcow2/format.hpp"

namespace lodge::block::qcow2 {

// Empty when the data does not become smaller than it is.
[[nodiscard]] std::vector<std::byte> compress(Compression kind, std::span<const std::byte> cluster);
// `compressed` may go on behind the end of the data. False: it is damaged.
[[nodiscard]] bool decompress(Compression kind, std::span<const std::byte> compressed, std::span<std::byte> cluster);

}  // namespace lodge::block::qcow2
