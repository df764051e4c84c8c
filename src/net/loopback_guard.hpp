// Keeps a guest on the user network away from the host's loopback interface.
//
// The network's gateway address stands for the host's loopback, and so do others; behind the library that carries the connections, all of
// them and 127.0.0.0/8 itself would reach servers that listen for local programs only. Frames of new connections to such addresses do not
// get through. What the network itself serves (DHCP, DNS, neighbour discovery, echo) does, and so do answers to connections that came in
// through a forwarded port.
#pragma once

#include <netinet/in.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lodge::net {

struct UserAddresses {
  in_addr network, mask, gateway, dns;
  in6_addr prefix6;
  unsigned prefix6_bits;
  in6_addr dns6;
};

class LoopbackGuard {
 public:
  explicit LoopbackGuard(const UserAddresses& addresses) : addresses_(addresses) {}

  // A frame to the guest: a datagram from one of the guarded addresses may be answered.
  void note_incoming(std::span<const std::byte> frame);
  // Whether a frame of the guest may pass.
  [[nodiscard]] bool allows(std::span<const std::byte> frame) const;
  // What to tell the guest of a frame that may not: that its TCP connection is refused. Empty: nothing.
  [[nodiscard]] static std::vector<std::byte> refusal(std::span<const std::byte> frame);

 private:
  struct Packet;
  struct Peer {  // of a datagram: ports of both sides, 0: none
    uint16_t guest = 0, host = 0;
    bool operator==(const Peer&) const = default;
  };
  [[nodiscard]] bool guarded(const Packet& packet) const;
  [[nodiscard]] bool serves(const Packet& packet) const;

  const UserAddresses addresses_;
  // The latest: enough for the requests that are under way.
  std::array<Peer, 64> peers_{};
  size_t next_peer_ = 0;
};

}  // namespace lodge::net
