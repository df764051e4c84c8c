// A Bloom filter over page numbers: whether something was remembered of a page, perhaps wrongly "yes", never wrongly "no".
#pragma once

#include <cstdint>

namespace lodge::engine::soft {

// All zeros: empty. `kWords` is a power of two. With n pages in it the answer is wrong for about (n / (32 * kWords))^2 of the others.
template <uint32_t kWords>
struct PageFilter {
  static constexpr uint32_t kBits = kWords * 64;
  static_assert((kBits & (kBits - 1)) == 0);
  uint64_t word[kWords];

  void add(uint64_t page) {
    const uint64_t h = hash(page);
    set(first(h)), set(second(h));
  }
  [[nodiscard]] bool may_hold(uint64_t page) const {
    const uint64_t h = hash(page);
    return has(first(h)) && has(second(h));
  }
  void clear() {
    for (uint64_t& w : word) w = 0;
  }

 private:
  static uint64_t hash(uint64_t page) {
    const uint64_t h = page * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
  }
  static uint32_t first(uint64_t h) { return static_cast<uint32_t>(h) & (kBits - 1); }
  static uint32_t second(uint64_t h) { return static_cast<uint32_t>(h >> 40) & (kBits - 1); }
  void set(uint32_t bit) { word[bit / 64] |= uint64_t{1} << bit % 64; }
  [[nodiscard]] bool has(uint32_t bit) const { return word[bit / 64] >> bit % 64 & 1; }
};

}  // namespace lodge::engine::soft
