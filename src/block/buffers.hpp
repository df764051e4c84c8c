// A list of memory ranges that a request reads into or writes from: the guest's own memory as a rule. Does not own it.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace lodge::block {

class Buffers {
 public:
  Buffers() = default;
  Buffers(void* data, uint64_t size) { append(data, size); }
  explicit Buffers(std::span<const std::byte> data) : Buffers(const_cast<std::byte*>(data.data()), data.size()) {}
  Buffers(const Buffers& other) { *this = other; }
  Buffers& operator=(const Buffers& other);
  Buffers(Buffers&& other) noexcept { *this = std::move(other); }
  Buffers& operator=(Buffers&& other) noexcept;
  ~Buffers() = default;

  void append(void* data, uint64_t size);
  void append(const Buffers& other);
  [[nodiscard]] std::span<const iovec> vectors() const { return {more_.empty() ? few_ : more_.data(), count_}; }
  [[nodiscard]] uint64_t size() const { return size_; }
  // offset + length at most size().
  [[nodiscard]] Buffers slice(uint64_t offset, uint64_t length) const;

  // Between a plain range of memory and bytes `offset`... of these.
  void copy_from(uint64_t offset, const void* from, uint64_t length) const;
  void copy_to(uint64_t offset, void* to, uint64_t length) const;
  void fill(uint64_t offset, uint64_t length, uint8_t value) const;
  [[nodiscard]] bool all_zero() const;
  // Whether every range begins and ends at a multiple of `alignment`, as O_DIRECT wants it.
  [[nodiscard]] bool aligned_to(uint64_t alignment) const;

 private:
  static constexpr uint32_t kFew = 4;
  template <typename Function>
  void for_each_part(uint64_t offset, uint64_t length, Function&& function) const;

  iovec few_[kFew]{};
  std::vector<iovec> more_;  // all of them, when they are more
  uint32_t count_ = 0;
  uint64_t size_ = 0;
};

// Whether all bytes are zero.
[[nodiscard]] bool is_zero(const void* data, uint64_t size);

}  // namespace lodge::block
