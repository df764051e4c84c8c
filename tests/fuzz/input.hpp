// What a fuzz target reads its decisions from: bytes, and zeros when there are no more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>

namespace lodge::fuzz {

class Input {
 public:
  explicit Input(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  template <typename T>
  T take() {
    T value{};
    const auto from = take_bytes(sizeof value);
    std::memcpy(&value, from.data(), from.size());
    return value;
  }
  uint64_t below(uint64_t limit) { return take<uint32_t>() % limit; }
  std::span<const uint8_t> take_bytes(size_t most) {
    const auto taken = bytes_.first(std::min(most, bytes_.size()));
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const uint8_t> bytes_;
};

// What must hold whatever the input is; libFuzzer keeps the input of a process that aborts.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

// What the input says, one step after the other, as long as there is some.
template <typename Target>
void drive(Target& target, Input& input, unsigned most_steps) {
  for (unsigned steps = 0; !input.empty() && steps < most_steps; ++steps) target.step(input);
}

}  // namespace lodge::fuzz
