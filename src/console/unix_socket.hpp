// A serial line behind a listening Unix socket.
#pragma once

#include <memory>
#include <string>

#include "console/backend.hpp"

namespace lodge::console {

// Takes the place of a socket file that nobody listens on; ErrorKind::Usage when something else is there.
[[nodiscard]] Result<std::unique_ptr<Backend>> open_unix_socket(std::string_view option, const std::string& path, EventLoop& loop);

}  // namespace lodge::console
