// The value of --net.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "machine/nic.hpp"

namespace lodge::control {

// "user,hostfwd=tcp::2222-:22", "tap,ifname=tap0"; nothing for "none". ErrorKind::Usage names the setting that is wrong, and what would be
// right.
Result<std::optional<machine::NicConfig>> parse_net(std::string_view text);

// The settings with their meaning, for people.
[[nodiscard]] std::string net_help();

}  // namespace lodge::control
