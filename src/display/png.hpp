// A picture as a PNG file.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "display/picture.hpp"

namespace lodge::display {

[[nodiscard]] Result<std::vector<uint8_t>> encode_png(const Picture& picture);

}  // namespace lodge::display
