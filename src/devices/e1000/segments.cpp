#include "devices/e1000/segments.hpp"

#include <algorithm>

#include "net/checksum.hpp"

namespace lodge::devices::e1000 {

namespace {

uint32_t load_big(std::span<const std::byte> bytes, size_t at, unsigned count) {
  uint32_t value = 0;
  for (unsigned i = 0; i < count; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[at + i]);
  return value;
}

void store_big(std::span<std::byte> bytes, size_t at, uint32_t value, unsigned count) {
  for (unsigned i = count; i-- != 0; value >>= 8) bytes[at + i] = static_cast<std::byte>(value);
}

// IPv4's total length and identification, IPv6's payload length (RFC 791, 8200), TCP's sequence and flags and UDP's length (RFC 9293, 768).
constexpr size_t kIpv4Length = 2, kIpv4Id = 4, kIpv6Length = 4, kIpv6Header = 40, kTcpSequence = 4, kTcpFlags = 13, kTcpHeader = 20,
                 kUdpLength = 4, kUdpHeader = 8;
constexpr uint32_t kFinAndPush = 0x09;

}  // namespace

void put_checksum(std::span<std::byte> frame, size_t start, size_t at, size_t end) {
  const size_t last = end == 0 ? frame.size() : std::min(end + 1, frame.size());
  if (start >= last || at + 2 > frame.size()) return;
  store_big(frame, at, static_cast<uint16_t>(~net::internet_sum(frame.subspan(start, last - start))), 2);
}

void for_each_segment(const Context& context, std::span<const std::byte> frame, bool ip_checksum, bool payload_checksum,
                      const std::function<void(std::vector<std::byte>)>& emit) {
  const size_t header = context.header_bytes, ip = context.ip_start, transport = context.payload_start;
  const size_t transport_header = context.tcp ? kTcpHeader : kUdpHeader;
  const bool fits = context.segment_bytes != 0 && header <= frame.size() && ip + (context.ipv4 ? kTcpHeader : kIpv6Header) <= header &&
                    transport >= ip && transport + transport_header <= header;
  if (!fits) return;
  const std::span<const std::byte> payload = frame.subspan(header, std::min<size_t>(context.payload_bytes, frame.size() - header));
  for (size_t at = 0, number = 0; at < payload.size(); at += context.segment_bytes, ++number) {
    const std::span<const std::byte> part = payload.subspan(at, std::min<size_t>(context.segment_bytes, payload.size() - at));
    std::vector<std::byte> segment(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(header));
    segment.insert(segment.end(), part.begin(), part.end());
    const std::span<std::byte> bytes(segment);
    if (context.ipv4) {
      store_big(bytes, ip + kIpv4Length, static_cast<uint32_t>(segment.size() - ip), 2);
      store_big(bytes, ip + kIpv4Id, load_big(bytes, ip + kIpv4Id, 2) + static_cast<uint32_t>(number), 2);
    } else {
      store_big(bytes, ip + kIpv6Length, static_cast<uint32_t>(segment.size() - ip - kIpv6Header), 2);
    }
    if (context.tcp) {
      store_big(bytes, transport + kTcpSequence, load_big(bytes, transport + kTcpSequence, 4) + static_cast<uint32_t>(at), 4);
      const bool last = at + part.size() == payload.size();
      if (!last) bytes[transport + kTcpFlags] &= static_cast<std::byte>(~kFinAndPush);
    } else {
      store_big(bytes, transport + kUdpLength, static_cast<uint32_t>(segment.size() - transport), 2);
    }
    if (payload_checksum) {
      // Software has left the length out of the pseudo header's sum, which it put where the checksum goes (3.5.6).
      const size_t sum_at = context.payload_checksum;
      if (sum_at + 2 <= segment.size()) {
        uint32_t sum = load_big(bytes, sum_at, 2) + static_cast<uint32_t>(segment.size() - transport);
        sum = (sum & 0xffff) + (sum >> 16);
        store_big(bytes, sum_at, sum, 2);
      }
      put_checksum(bytes, transport, sum_at, 0);
    }
    if (ip_checksum) put_checksum(bytes, ip, context.ip_checksum, context.ip_end);
    emit(std::move(segment));
  }
}

}  // namespace lodge::devices::e1000
