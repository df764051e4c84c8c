// Files of the user's that are read whole.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace lodge::machine {

// A regular file that is not empty. ErrorKind::Usage, with `what` it was to be ("kernel") and its path.
[[nodiscard]] Result<std::vector<uint8_t>> read_file(const std::string& path, std::string_view what);

}  // namespace lodge::machine
