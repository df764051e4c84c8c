// lodge console: the serial console of a running machine at this terminal.
#pragma once

#include <string>

#include "base/error.hpp"

namespace lodge::control {

// Until the machine ends, or the person at a terminal leaves it (Ctrl-A x); the machine goes on then.
[[nodiscard]] Result<> share_console(const std::string& name);

}  // namespace lodge::control
