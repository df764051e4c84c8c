// An Ethernet address.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace lodge::net {

using MacAddress = std::array<uint8_t, 6>;

[[nodiscard]] constexpr bool is_multicast(const MacAddress& mac) { return (mac[0] & 1) != 0; }

// "52:54:00:12:34:56", also with '-'. ErrorKind::Usage for anything else, and for a multicast address or zeros, which no card has.
[[nodiscard]] Result<MacAddress> parse_mac_address(std::string_view text);
[[nodiscard]] std::string to_string(const MacAddress& mac);

// The address of a machine's card that was given none: the same at every start, another for another name or number. Of the range that
// virtual machines use by custom, 52:54:00.
[[nodiscard]] MacAddress derived_mac_address(std::string_view machine, unsigned number);

}  // namespace lodge::net
