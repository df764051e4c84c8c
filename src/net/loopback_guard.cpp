#include "net/loopback_guard.hpp"

#include <algorithm>
#include <cstring>

#include "net/checksum.hpp"

namespace lodge::net {

namespace {

constexpr size_t kEthernetBytes = 14, kTypeAt = 12;
constexpr uint16_t kIpv4 = 0x0800, kIpv6 = 0x86dd;
constexpr size_t kIpv4Bytes = 20, kIpv6Bytes = 40;
constexpr uint8_t kTcp = 6, kUdp = 17, kIcmp = 1, kIcmp6 = 58;
constexpr uint16_t kDnsPort = 53, kDhcpServer = 67, kDhcp6Server = 547;
constexpr uint8_t kTcpSyn = 2, kTcpReset = 4, kTcpAck = 16;

uint8_t byte_at(std::span<const std::byte> bytes, size_t at) { return std::to_integer<uint8_t>(bytes[at]); }
uint16_t word_at(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint16_t>(byte_at(bytes, at) << 8 | byte_at(bytes, at + 1));
}

}  // namespace

struct LoopbackGuard::Packet {
  bool v6 = false;
  bool whole = false;    // not a fragment, its transport header in reach
  bool network = false;  // an IP packet at all
  uint8_t protocol = 0;
  in6_addr source{}, destination{};  // of IPv4 the first four bytes
  uint16_t source_port = 0, destination_port = 0;
  uint8_t tcp_flags = 0;

  explicit Packet(std::span<const std::byte> frame) {
    if (frame.size() < kEthernetBytes) return;
    const uint16_t type = word_at(frame, kTypeAt);
    const auto ip = frame.subspan(kEthernetBytes);
    if (type == kIpv4 && ip.size() >= kIpv4Bytes)
      parse_v4(ip);
    else if (type == kIpv6 && ip.size() >= kIpv6Bytes)
      parse_v6(ip);
  }

  [[nodiscard]] in_addr destination4() const {
    in_addr address{};
    std::memcpy(&address, &destination, sizeof address);
    return address;
  }
  [[nodiscard]] in_addr source4() const {
    in_addr address{};
    std::memcpy(&address, &source, sizeof address);
    return address;
  }

 private:
  void parse_v4(std::span<const std::byte> ip) {  // RFC 791
    network = true;
    protocol = byte_at(ip, 9);
    std::memcpy(&source, &ip[12], 4);
    std::memcpy(&destination, &ip[16], 4);
    const size_t header = (byte_at(ip, 0) & 15) * size_t{4};
    const bool fragment = (word_at(ip, 6) & 0x3fff) != 0;
    if (!fragment && header >= kIpv4Bytes && header <= ip.size()) parse_transport(ip.subspan(header));
  }
  void parse_v6(std::span<const std::byte> ip) {  // RFC 8200; extension headers count as something unknown
    network = v6 = true;
    protocol = byte_at(ip, 6);
    std::memcpy(&source, &ip[8], 16);
    std::memcpy(&destination, &ip[24], 16);
    parse_transport(ip.subspan(kIpv6Bytes));
  }
  void parse_transport(std::span<const std::byte> body) {
    if (protocol == kTcp || protocol == kUdp) {
      if (body.size() < (protocol == kTcp ? 20u : 8u)) return;
      source_port = word_at(body, 0);
      destination_port = word_at(body, 2);
      if (protocol == kTcp) tcp_flags = byte_at(body, 13);
    }
    whole = true;
  }
};

// Addresses that stand for the host's loopback interface, or are it.
bool LoopbackGuard::guarded(const Packet& packet) const {
  if (packet.v6) {
    const in6_addr& to = packet.destination;
    if (IN6_IS_ADDR_LOOPBACK(&to) || IN6_IS_ADDR_UNSPECIFIED(&to) || IN6_IS_ADDR_V4MAPPED(&to) || IN6_IS_ADDR_V4COMPAT(&to) ||
        IN6_IS_ADDR_MULTICAST(&to) || IN6_IS_ADDR_LINKLOCAL(&to))
      return true;
    for (unsigned bit = 0; bit < addresses_.prefix6_bits; ++bit)
      if (((to.s6_addr[bit / 8] ^ addresses_.prefix6.s6_addr[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
    return true;
  }
  const in_addr to = packet.destination4();
  const uint8_t first = static_cast<uint8_t>(ntohl(to.s_addr) >> 24);
  return first == 127 || first == 0 || to.s_addr == INADDR_BROADCAST || IN_MULTICAST(ntohl(to.s_addr)) ||
         (to.s_addr & addresses_.mask.s_addr) == (addresses_.network.s_addr & addresses_.mask.s_addr);
}

// What the network answers itself, or asks the host's name server.
bool LoopbackGuard::serves(const Packet& packet) const {
  if (packet.protocol == kIcmp || packet.protocol == kIcmp6) return true;
  if (packet.protocol == kUdp && packet.destination_port == (packet.v6 ? kDhcp6Server : kDhcpServer)) return true;
  if (packet.destination_port != kDnsPort || (packet.protocol != kUdp && packet.protocol != kTcp)) return false;
  return packet.v6 ? std::memcmp(&packet.destination, &addresses_.dns6, sizeof(in6_addr)) == 0
                   : packet.destination4().s_addr == addresses_.dns.s_addr;
}

bool LoopbackGuard::allows(std::span<const std::byte> frame) const {
  const Packet packet(frame);
  if (!packet.network || !guarded(packet)) return true;  // ARP and the like stay within the network
  if (!packet.whole) return false;
  if (serves(packet)) return true;
  // The guest's half of a connection that came in. A lone ACK for none is answered with a reset.
  if (packet.protocol == kTcp) return (packet.tcp_flags & (kTcpSyn | kTcpAck)) != kTcpSyn && packet.tcp_flags != 0;
  if (packet.protocol != kUdp) return false;
  return std::ranges::find(peers_, Peer{packet.source_port, packet.destination_port}) != peers_.end();
}

// RFC 9293, section 3.10.7.1: a reset that acknowledges the SYN, the way back.
std::vector<std::byte> LoopbackGuard::refusal(std::span<const std::byte> frame) {
  const Packet packet(frame);
  if (!packet.whole || packet.protocol != kTcp || (packet.tcp_flags & (kTcpSyn | kTcpAck)) != kTcpSyn) return {};
  constexpr size_t kMac = 6, kTcpBytes = 20;
  const size_t ip_bytes = packet.v6 ? kIpv6Bytes : kIpv4Bytes, tcp = kEthernetBytes + ip_bytes;
  const size_t from = kEthernetBytes + (packet.v6 ? size_t{kIpv6Bytes} : (byte_at(frame, kEthernetBytes) & 15) * size_t{4});
  const size_t address = packet.v6 ? 16 : 4, addresses = kEthernetBytes + (packet.v6 ? 8 : 12);
  std::vector<std::byte> reply(tcp + kTcpBytes);
  const auto copy = [&](size_t to, size_t source, size_t bytes) { std::memcpy(&reply[to], &frame[source], bytes); };
  const auto put = [&](size_t at, size_t value) {
    reply[at] = static_cast<std::byte>(value >> 8);
    reply[at + 1] = static_cast<std::byte>(value);
  };
  copy(0, kMac, kMac);
  copy(kMac, 0, kMac);
  copy(kTypeAt, kTypeAt, 2);
  copy(addresses, addresses + address, address);
  copy(addresses + address, addresses, address);
  reply[kEthernetBytes] = std::byte{packet.v6 ? uint8_t{0x60} : uint8_t{0x45}};
  constexpr uint8_t kHops = 64;
  if (packet.v6) {
    put(kEthernetBytes + 4, kTcpBytes);
    reply[kEthernetBytes + 6] = std::byte{kTcp};
    reply[kEthernetBytes + 7] = std::byte{kHops};
  } else {
    put(kEthernetBytes + 2, ip_bytes + kTcpBytes);
    reply[kEthernetBytes + 8] = std::byte{kHops};
    reply[kEthernetBytes + 9] = std::byte{kTcp};
    put(kEthernetBytes + 10, ~internet_sum(std::span(reply).subspan(kEthernetBytes, ip_bytes)));
  }
  put(tcp, packet.destination_port);
  put(tcp + 2, packet.source_port);
  const uint32_t next = (uint32_t{word_at(frame, from + 4)} << 16 | word_at(frame, from + 6)) + 1;
  put(tcp + 8, next >> 16);
  put(tcp + 10, next);
  reply[tcp + 12] = std::byte{kTcpBytes / 4 << 4};
  reply[tcp + 13] = std::byte{kTcpReset | kTcpAck};
  // The pseudo header: addresses, protocol, length.
  uint32_t sum = internet_sum(std::span(reply).subspan(addresses, 2 * address)) + kTcp + kTcpBytes;
  sum += internet_sum(std::span(reply).subspan(tcp));
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  put(tcp + 16, ~sum);
  return reply;
}

void LoopbackGuard::note_incoming(std::span<const std::byte> frame) {
  const Packet packet(frame);
  if (!packet.whole || packet.protocol != kUdp) return;
  const bool ours = packet.v6 || (packet.source4().s_addr & addresses_.mask.s_addr) == (addresses_.network.s_addr & addresses_.mask.s_addr);
  const Peer peer{packet.destination_port, packet.source_port};
  if (!ours || std::ranges::find(peers_, peer) != peers_.end()) return;
  peers_[next_peer_] = peer;
  next_peer_ = (next_peer_ + 1) % peers_.size();
}

}  // namespace lodge::net
