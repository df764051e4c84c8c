#include "block/buffers.hpp"

#include <algorithm>

namespace lodge::block {

Buffers& Buffers::operator=(const Buffers& other) {
  if (this == &other) return *this;
  more_ = other.more_;
  if (more_.empty()) std::copy_n(other.few_, other.count_, few_);
  count_ = other.count_;
  size_ = other.size_;
  return *this;
}

Buffers& Buffers::operator=(Buffers&& other) noexcept {
  if (this == &other) return *this;
  more_ = std::move(other.more_);
  other.more_.clear();
  if (more_.empty()) std::copy_n(other.few_, other.count_, few_);
  count_ = std::exchange(other.count_, 0);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void Buffers::append(void* data, uint64_t size) {
  if (size == 0) return;
  size_ += size;
  if (count_ > 0) {  // neighbours become one
    iovec& last = more_.empty() ? few_[count_ - 1] : more_.back();
    if (static_cast<std::byte*>(last.iov_base) + last.iov_len == data) {
      last.iov_len += size;
      return;
    }
  }
  if (more_.empty() && count_ < kFew) {
    few_[count_++] = {data, size};
    return;
  }
  if (more_.empty()) more_.assign(few_, few_ + count_);
  more_.push_back({data, size});
  ++count_;
}

void Buffers::append(const Buffers& other) {
  for (const iovec& part : other.vectors()) append(part.iov_base, part.iov_len);
}

template <typename Function>
void Buffers::for_each_part(uint64_t offset, uint64_t length, Function&& function) const {
  for (const iovec& part : vectors()) {
    if (length == 0) return;
    if (offset >= part.iov_len) {
      offset -= part.iov_len;
      continue;
    }
    const uint64_t here = std::min<uint64_t>(length, part.iov_len - offset);
    function(static_cast<std::byte*>(part.iov_base) + offset, here);
    offset = 0;
    length -= here;
  }
}

Buffers Buffers::slice(uint64_t offset, uint64_t length) const {
  if (offset == 0 && length == size_) return *this;
  Buffers result;
  for_each_part(offset, length, [&](std::byte* data, uint64_t size) { result.append(data, size); });
  return result;
}

void Buffers::copy_from(uint64_t offset, const void* from, uint64_t length) const {
  const auto* source = static_cast<const std::byte*>(from);
  for_each_part(offset, length, [&](std::byte* data, uint64_t size) {
    std::memcpy(data, source, size);
    source += size;
  });
}

void Buffers::copy_to(uint64_t offset, void* to, uint64_t length) const {
  auto* target = static_cast<std::byte*>(to);
  for_each_part(offset, length, [&](const std::byte* data, uint64_t size) {
    std::memcpy(target, data, size);
    target += size;
  });
}

void Buffers::fill(uint64_t offset, uint64_t length, uint8_t value) const {
  for_each_part(offset, length, [&](std::byte* data, uint64_t size) { std::memset(data, value, size); });
}

bool Buffers::all_zero() const {
  return std::ranges::all_of(vectors(), [](const iovec& part) { return is_zero(part.iov_base, part.iov_len); });
}

bool Buffers::aligned_to(uint64_t alignment) const {
  return std::ranges::all_of(
      vectors(), [&](const iovec& part) { return ((reinterpret_cast<uintptr_t>(part.iov_base) | part.iov_len) & (alignment - 1)) == 0; });
}

bool is_zero(const void* data, uint64_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  // Most data that is not zero shows it at its beginning; then memory against itself, one byte on, at memcmp's speed.
  for (uint64_t i = 0; i < std::min<uint64_t>(size, 16); ++i)
    if (bytes[i]) return false;
  return size <= 16 || std::memcmp(bytes, bytes + 16, size - 16) == 0;
}

}  // namespace lodge::block
