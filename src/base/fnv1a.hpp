// FNV-1a with 64 bits (draft-eastlake-fnv): a number for some bytes, where nobody has an interest in two with the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lodge {

constexpr uint64_t kFnv1aBasis = 0xcbf29ce484222325;

// `hash`: of what goes before.
[[nodiscard]] inline uint64_t fnv1a(std::span<const std::byte> bytes, uint64_t hash = kFnv1aBasis) {
  for (const std::byte byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return hash;
}
[[nodiscard]] inline uint64_t fnv1a(std::string_view text, uint64_t hash = kFnv1aBasis) {
  return fnv1a(std::as_bytes(std::span(text)), hash);
}

}  // namespace lodge
