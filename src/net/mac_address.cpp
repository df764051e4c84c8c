#include "net/mac_address.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <span>

#include "base/fnv1a.hpp"

namespace lodge::net {

Result<MacAddress> parse_mac_address(std::string_view text) {
  constexpr size_t kLength = 17;
  MacAddress mac{};
  bool good = text.size() == kLength;
  for (size_t i = 0; good && i < mac.size(); ++i) {
    const char* at = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(at, at + 2, mac[i], 16);
    good = error == std::errc() && end == at + 2 && (i == 0 || at[-1] == ':' || at[-1] == '-');
  }
  if (!good) return fail(ErrorKind::Usage, "'{}' is not an Ethernet address such as 52:54:00:12:34:56", text);
  if (is_multicast(mac) || mac == MacAddress{})
    return fail(ErrorKind::Usage, "'{}' is no card's own address: its first byte must be even, and something must not be zero", text);
  return mac;
}

std::string to_string(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

MacAddress derived_mac_address(std::string_view machine, unsigned number) {
  const std::array<uint32_t, 1> second{number};
  const uint64_t hash = fnv1a(std::as_bytes(std::span(second)), fnv1a(machine));
  return {0x52, 0x54, 0x00, static_cast<uint8_t>(hash >> 40), static_cast<uint8_t>(hash >> 32), static_cast<uint8_t>(hash >> 24)};
}

}  // namespace lodge::net
