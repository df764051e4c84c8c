// Standard input and output as a serial line.
#pragma once

#include <memory>

#include "console/backend.hpp"

namespace lodge::console {

[[nodiscard]] Result<std::unique_ptr<Backend>> open_stdio(EventLoop& loop, std::function<void()> quit);

}  // namespace lodge::console
