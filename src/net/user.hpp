// The user network: a small network of its own behind NAT, carried by this process's sockets (libslirp); needs no privilege.
//
//   network 10.0.2.0/24 and fec0::/64; gateway .2, name server .3, the guest gets .15 by DHCP
//
// The guest reaches what the host can reach, except for the host's loopback interface, unless asked for (LoopbackGuard).
//
// Threads: the event loop's. libslirp keeps state of all its networks together: they share one thread.
#pragma once

#include <netinet/in.h>

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "net/backend.hpp"

namespace lodge::net {

// A port of the host's that leads to one of the guest's.
struct HostForward {
  bool udp = false;
  in_addr host_address{};  // 0.0.0.0: every interface
  uint16_t host_port = 0;
  in_addr guest_address{};  // 0.0.0.0: the first that DHCP gives out
  uint16_t guest_port = 0;
};

struct UserOptions {
  in_addr network{}, mask{};  // 0: 10.0.2.0/24
  std::string hostname;       // given out by DHCP; empty: none
  bool ipv6 = true;
  bool restrict = false;  // nothing leaves the network, except for what comes in through forwarded ports
  bool loopback = false;  // the gateway's address is the host's loopback interface
  std::vector<HostForward> forwards;
};

// "[tcp|udp]:[HOST-ADDRESS]:HOST-PORT-[GUEST-ADDRESS]:GUEST-PORT"; without a host address, 127.0.0.1. ErrorKind::Usage.
[[nodiscard]] Result<HostForward> parse_host_forward(std::string_view text);
// "A.B.C.D/BITS", 8 to 28 bits.
[[nodiscard]] Result<> parse_network(std::string_view text, UserOptions& options);

// ErrorKind::Usage when a port cannot be had. On the loop's thread, as all else.
[[nodiscard]] Result<std::unique_ptr<Backend>> open_user_network(EventLoop& loop, const UserOptions& options);

}  // namespace lodge::net
