// For fuzz targets: guest memory that knows which writes are under way.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "input.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::fuzz {

constexpr uint64_t kMemoryBytes = 1 << 18;

struct Memory final : memory::WriteObserver {
  Memory() : guest(std::move(*memory::GuestMemory::create({{0, kMemoryBytes}}))) { guest->set_observer(this); }
  void begin_write(uint64_t at, uint64_t length) noexcept override {
    require(at < kMemoryBytes && length <= kMemoryBytes - at, "a write begins outside memory");
    __atomic_add_fetch(&open, 1, __ATOMIC_RELAXED);
  }
  void commit_write(uint64_t, uint64_t) noexcept override { __atomic_sub_fetch(&open, 1, __ATOMIC_RELAXED); }
  // As the guest would: no further than memory reaches.
  void put(uint64_t at, std::span<const uint8_t> bytes) const {
    if (at >= kMemoryBytes) return;
    [[maybe_unused]] const bool done = guest->write(at, std::as_bytes(bytes.first(std::min<size_t>(bytes.size(), kMemoryBytes - at))));
  }
  template <typename T>
  void put_value(uint64_t at, T value) const {
    put(at, {reinterpret_cast<const uint8_t*>(&value), sizeof value});
  }
  void clear() const { std::memset(guest->span(0, kMemoryBytes).data(), 0, kMemoryBytes); }

  std::unique_ptr<memory::GuestMemory> guest;
  int open = 0;
};

}  // namespace lodge::fuzz
