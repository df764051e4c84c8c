// Standard input and output as a serial line.
#pragma once

#include <memory>

#include "console/backend.hpp"

namespace lodge::console {

[[nodiscard]] Result<std::unique_ptr<Backend>> open_stdio(EventLoop& loop, std::function<void()> quit);

// Standard input, which is a terminal, gives each key at once and unchanged; undone when the process ends.
[[nodiscard]] Result<> make_terminal_raw();

}  // namespace lodge::console
