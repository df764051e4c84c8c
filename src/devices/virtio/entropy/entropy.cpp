#include "devices/virtio/entropy/entropy.hpp"

#include <sys/random.h>

#include <algorithm>

namespace lodge::devices::virtio {

namespace {

constexpr uint16_t kEntries = 64;
// Of one buffer: a guest that asks for gigabytes gets some of them, and asks again (5.4.6.1).
constexpr size_t kMostBytes = 65536;

}  // namespace

Entropy::Entropy(Worker& worker) : Device(Type::Entropy, "random numbers", worker, {kEntries}) {}

void Entropy::read_config(uint64_t, std::span<uint8_t> into) const { std::ranges::fill(into, uint8_t{0}); }

void Entropy::serve(unsigned queue) {
  bool done = false;
  for_each_buffer(queue, chain_, [&](const Chain& chain) {
    size_t filled = 0;
    for (const iovec& piece : chain.writable()) {
      const size_t wanted = std::min(piece.iov_len, kMostBytes - filled);
      const ssize_t got = wanted == 0 ? 0 : getrandom(piece.iov_base, wanted, 0);
      if (got > 0) filled += static_cast<size_t>(got);
      if (got != static_cast<ssize_t>(piece.iov_len)) break;
    }
    give_back(queue, chain, filled);
    done = true;
    return true;
  });
  if (done) interrupt(queue);
}

}  // namespace lodge::devices::virtio
