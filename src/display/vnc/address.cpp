#include "display/vnc/address.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <charconv>
#include <memory>

namespace lodge::display::vnc {

namespace {

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0)
    return fail(ErrorKind::Usage, "'{}' is not a port: use 1 to 65535", text);
  return port;
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24 == 127;
  return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

// 0 or an errno.
int bind_and_listen(const Fd& fd, const addrinfo& where) {
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  return bind(fd.get(), where.ai_addr, where.ai_addrlen) == 0 && ::listen(fd.get(), SOMAXCONN) == 0 ? 0 : errno;
}

}  // namespace

std::string Address::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Result<Address> parse_address(std::string_view text, const Address& usual) {
  Address address = usual;
  if (text.empty()) return address;
  std::string_view port;
  if (text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return fail(ErrorKind::Usage, "'{}': there is no ']' to its '['", text);
    address.host = text.substr(1, close - 1);
    port = text.substr(close + 1);
    if (!port.empty() && port.front() != ':') return fail(ErrorKind::Usage, "'{}' is not an address: use [HOST]:PORT", text);
    if (!port.empty()) port.remove_prefix(1);
  } else {
    const size_t colon = text.rfind(':');
    if (colon != text.find(':')) return fail(ErrorKind::Usage, "'{}': put [ and ] around an address of IPv6", text);
    if (colon != 0) address.host = text.substr(0, colon);
    if (colon != std::string_view::npos) {
      port = text.substr(colon + 1);
      if (port.empty()) return fail(ErrorKind::Usage, "'{}': there is no port after the ':'", text);
    }
  }
  if (address.host.empty()) return fail(ErrorKind::Usage, "'{}' is not an address: use HOST:PORT", text);
  if (port.empty()) return address;
  address.port = TRY(parse_port(port));
  address.tries = 1;
  return address;
}

Result<Listener> listen(const Address& wanted) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  int error = 0;
  for (uint16_t i = 0; i < wanted.tries; ++i) {
    Address address = wanted;
    address.port = static_cast<uint16_t>(wanted.port + i);
    addrinfo* found = nullptr;
    if (const int failed = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found); failed != 0)
      return fail(ErrorKind::Usage, "no such address '{}': {}", address.host, gai_strerror(failed));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> all(found, &freeaddrinfo);
    Fd fd(socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return os_fail("socket");
    error = bind_and_listen(fd, *all);
    if (error == 0) return Listener{std::move(fd), address, is_loopback(all->ai_addr)};
    if (error != EADDRINUSE) break;
  }
  Error why = os_error(wanted.text(), error);
  why.kind = ErrorKind::Usage;
  if (error == EADDRINUSE) why.message = fmt::format("{}: this port is in use: choose another", wanted.text());
  return std::unexpected(std::move(why));
}

}  // namespace lodge::display::vnc
