// Queues whose driver writes anything anywhere at any time: whatever the rings say, the device sees pieces of guest memory only, and every
// write that it begins ends.
#include <deque>
#include <vector>

#include "devices/virtio/queue.hpp"
#include "virtio_ring.hpp"

namespace lodge::fuzz {
namespace {

using devices::virtio::Chain;
using devices::virtio::Queue;

void check_pieces(const Memory& memory, const Chain& chain) {
  const auto* const begin = memory.guest->span(0, kMemoryBytes).data();
  uint64_t readable = 0, writable = 0;
  const auto inside = [&](const iovec& piece) {
    const auto* const at = static_cast<const std::byte*>(piece.iov_base);
    require(
        at >= begin && at < begin + kMemoryBytes && piece.iov_len <= static_cast<size_t>(begin + kMemoryBytes - at) && piece.iov_len != 0,
        "a piece outside memory");
  };
  for (const iovec& piece : chain.readable()) inside(piece), readable += piece.iov_len;
  for (const iovec& piece : chain.writable()) inside(piece), writable += piece.iov_len;
  require(readable == chain.readable_bytes() && writable == chain.writable_bytes(), "pieces and their sums differ");
  require(chain.writable_ranges().size() == chain.writable().size(), "as many ranges as pieces");
}

void run(Input input) {
  static Memory memory;
  memory.clear();
  const auto shape = input.take<uint8_t>();
  const bool packed = shape & 1;
  const uint16_t size = packed ? static_cast<uint16_t>(1 + shape / 8) : static_cast<uint16_t>(1 << (shape / 8 % 8));
  Ring ring(0x4000, size, packed, shape & 2, shape & 4);
  Queue queue;
  if (!queue.configure(*memory.guest, ring.setup())) require(false, "a sound setup is refused");
  std::deque<Chain> held;
  while (!input.empty()) {
    switch (input.take<uint8_t>() % 12) {
      case 0:
      case 1:
      case 2: ring.offer(memory, input); break;
      case 3: memory.put(input.take<uint16_t>() * uint64_t{2}, input.take_bytes(input.take<uint8_t>())); break;
      case 4: memory.put(ring.setup().descriptors + input.take<uint16_t>() % (3 * 0x1000), input.take_bytes(16)); break;
      case 5:
      case 6:
      case 7: {
        Chain chain;
        if (!queue.pop(chain)) break;
        check_pieces(memory, chain);
        if (held.size() < 64)
          held.push_back(std::move(chain));
        else
          queue.unpop(chain);
        break;
      }
      case 8: {
        if (held.empty()) break;
        const size_t which = input.below(held.size());
        queue.push(held[which], input.take<uint32_t>());
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
        break;
      }
      case 9: {
        std::vector<Queue::Used> all;
        for (const Chain& chain : held) all.push_back({&chain, 7});
        queue.push(all);
        held.clear();
        break;
      }
      case 10:
        queue.suppress_notifications();
        static_cast<void>(queue.wants_interrupt());
        break;
      default: {
        queue.suppress_notifications();
        const bool more = queue.allow_notifications();
        require(!more || queue.ready(), "a broken queue has buffers");
      }
    }
    require(queue.ready() != queue.broken(), "ready or broken");
  }
  for (const Chain& chain : held) queue.push(chain, 0);
  require(memory.open == 0, "a write that never ends");
}

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  lodge::fuzz::run(lodge::fuzz::Input({data, size}));
  return 0;
}
