// Where viewers come in.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace lodge::display::vnc {

struct Address {
  std::string host = "127.0.0.1";  // a name or a number
  uint16_t port = 0;
  uint16_t tries = 1;  // ports to try, in their order

  [[nodiscard]] std::string text() const;  // "127.0.0.1:5900", "[::1]:5900"
};

// "HOST:PORT", ":PORT" or "HOST"; "[...]" around a host with colons. Empty: `usual`. What is not said is as in `usual`.
[[nodiscard]] Result<Address> parse_address(std::string_view text, const Address& usual);

struct Listener {
  Fd fd;  // does not block
  Address address;
  bool loopback;  // nobody outside this host reaches it
};
// ErrorKind::Usage: there is no such address, or the port is in use, and what to do.
[[nodiscard]] Result<Listener> listen(const Address& address);

}  // namespace lodge::display::vnc
