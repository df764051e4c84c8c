// A frame as the controller's transmit unit finishes it: checksums put in, and what is longer than a segment cut into several (order number
// 317453, 3.5 to 3.6). Pure functions of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lodge::devices::e1000 {

// A context descriptor (3.3.6).
struct Context {
  uint8_t ip_start = 0, ip_checksum = 0;
  uint16_t ip_end = 0;  // the last byte; 0: the frame's end
  uint8_t payload_start = 0, payload_checksum = 0;
  uint16_t payload_end = 0;
  uint32_t payload_bytes = 0;  // of TCP, of all segments
  uint8_t header_bytes = 0;
  uint16_t segment_bytes = 0;
  bool tcp = false, ipv4 = false;
};

// Puts the checksum over [start, end] to `at`; end 0: to the frame's last byte. Nothing where that does not lie in the frame.
void put_checksum(std::span<std::byte> frame, size_t start, size_t at, size_t end);

// Cuts the frame into segments, each with its own header, and finishes them; `emit` gets them one by one. A context that makes no sense
// sends nothing.
void for_each_segment(const Context& context, std::span<const std::byte> frame, bool ip_checksum, bool payload_checksum,
                      const std::function<void(std::vector<std::byte>)>& emit);

}  // namespace lodge::devices::e1000
