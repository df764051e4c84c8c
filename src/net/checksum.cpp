#include "net/checksum.hpp"

#include <cstring>

namespace lodge::net {

uint16_t internet_sum(std::span<const std::byte> bytes) {
  // Sums of wider words in the host's order fold to the same 16 bits (RFC 1071, sections 2.A to 2.C).
  uint64_t sum = 0;
  size_t at = 0;
  for (; at + 4 <= bytes.size(); at += 4) {
    uint32_t word = 0;
    std::memcpy(&word, &bytes[at], sizeof word);
    sum += word;
  }
  uint32_t rest = 0;
  if (at < bytes.size()) std::memcpy(&rest, &bytes[at], bytes.size() - at);
  sum += rest;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return __builtin_bswap16(static_cast<uint16_t>(sum));
}

bool complete_checksum(const Header& header, std::span<std::byte> frame) {
  if (!(header.flags & kNeedsChecksum)) return true;
  const size_t start = header.checksum_start, place = start + header.checksum_offset;
  if (start > frame.size() || place + 2 > frame.size()) return false;
  auto sum = static_cast<uint16_t>(~internet_sum(frame.subspan(start)));
  // In UDP a zero says that there is none; both are zero in one's complement.
  if (sum == 0) sum = 0xffff;
  frame[place] = static_cast<std::byte>(sum >> 8);
  frame[place + 1] = static_cast<std::byte>(sum);
  return true;
}

}  // namespace lodge::net
