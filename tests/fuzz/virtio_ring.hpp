// For fuzz targets: a driver's hand that puts anything into rings.
#pragma once

#include <memory>
#include <tuple>
#include <utility>

#include "devices/virtio/queue.hpp"
#include "guest_memory.hpp"
#include "input.hpp"

namespace lodge::fuzz {

// A ring at a place of its own, where most drivers' descriptors make sense and any may not.
class Ring {
 public:
  static constexpr uint64_t kBytes = 0x3000;  // of memory, from `base` on

  Ring(uint64_t base, uint16_t size, bool packed, bool event_index, bool indirect)
      : setup_{.size = size,
               .descriptors = base,
               .driver_area = base + 0x1000,
               .device_area = base + 0x2000,
               .packed = packed,
               .event_index = event_index,
               .indirect = indirect} {}

  [[nodiscard]] const devices::virtio::QueueSetup& setup() const { return setup_; }

  // A chain of up to four descriptors: sound ones as a rule, so that devices get to see something.
  void offer(const Memory& memory, Input& input) {
    const auto shape = input.take<uint8_t>();
    const unsigned count = 1 + shape % 4;
    const auto head = static_cast<uint16_t>(next_ % setup_.size);
    uint64_t first_flags_at = 0;
    uint16_t first_flags = 0;
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t address = input.take<uint16_t>() * uint64_t{4};
      uint32_t length = input.take<uint16_t>();
      if (shape & 0x80) length %= 64;
      const auto kind = input.take<uint8_t>();
      // Bit 0, next, as it should be unless bit 7 says otherwise; 1: written by the device; 2: indirect.
      uint16_t flags = static_cast<uint16_t>((i + 1 < count ? 1 : 0) | (kind & 2) | ((kind & 0x60) == 0x60 ? 4 : 0));
      if (kind & 0x80) flags = kind & 7;
      const uint64_t at = setup_.descriptors + 16 * (next_ % setup_.size);
      memory.put_value(at, address);
      memory.put_value(at + 8, length);
      if (setup_.packed) {
        const bool wrap = (next_ / setup_.size) % 2 == 0;
        flags |= wrap ? 1 << 7 : 1 << 15;
        memory.put_value<uint16_t>(at + 12, head);
        if (i == 0)
          std::tie(first_flags_at, first_flags) = std::pair(at + 14, flags);
        else
          memory.put_value(at + 14, flags);
      } else {
        memory.put_value(at + 12, flags);
        memory.put_value(at + 14, static_cast<uint16_t>((next_ + 1) % setup_.size));
      }
      ++next_;
    }
    if (setup_.packed) return memory.put_value(first_flags_at, first_flags);
    memory.put_value(setup_.driver_area + 4 + 2 * (available_ % setup_.size), head);
    memory.put_value(setup_.driver_area + 2, ++available_);
  }

 private:
  devices::virtio::QueueSetup setup_;
  uint32_t next_ = 0;
  uint16_t available_ = 0;
};

}  // namespace lodge::fuzz
