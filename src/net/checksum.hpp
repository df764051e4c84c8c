// Checksums that the sender has left to the network (virtio 1.2, section 5.1.6.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "net/backend.hpp"

namespace lodge::net {

// The Internet checksum's sum (RFC 1071) over the bytes, folded to 16 bits, not complemented.
[[nodiscard]] uint16_t internet_sum(std::span<const std::byte> bytes);

// Finishes the frame's checksum if its header asks for it. False: the header's offsets do not lie in the frame.
[[nodiscard]] bool complete_checksum(const Header& header, std::span<std::byte> frame);

}  // namespace lodge::net
