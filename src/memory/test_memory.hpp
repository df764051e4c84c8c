// For tests of what reads and writes guest memory.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "memory/guest_memory.hpp"

namespace lodge::memory::test {

// Memory that counts writes begun and not ended, and tells of each that ended.
struct Memory : WriteObserver {
  static constexpr uint64_t kBytes = 16 << 20;

  explicit Memory(uint64_t bytes = kBytes) : guest(std::move(*GuestMemory::create({{0, bytes}}))) { guest->set_observer(this); }
  ~Memory() override { EXPECT_EQ(open, 0) << "writes begun and never ended"; }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void begin_write(uint64_t, uint64_t) noexcept override { ++open; }
  void commit_write(uint64_t, uint64_t) noexcept override {
    --open;
    if (committed) committed();
  }

  template <typename T>
  void put(uint64_t at, T value) const {
    ASSERT_TRUE(guest->write(at, std::as_bytes(std::span(&value, 1))));
  }
  template <typename T>
  [[nodiscard]] T get(uint64_t at) const {
    T value{};
    EXPECT_TRUE(guest->read(at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  void put_text(uint64_t at, std::string_view text) const { ASSERT_TRUE(guest->write(at, std::as_bytes(std::span(text)))); }
  [[nodiscard]] std::string text(uint64_t at, size_t bytes) const {
    std::string text(bytes, '\0');
    EXPECT_TRUE(guest->read(at, std::as_writable_bytes(std::span(text))));
    return text;
  }

  std::unique_ptr<GuestMemory> guest;
  std::atomic<int> open = 0;
  std::function<void()> committed;
};

}  // namespace lodge::memory::test
