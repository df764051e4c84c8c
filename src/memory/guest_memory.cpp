#include "memory/guest_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace lodge::memory {

namespace {
constexpr uint64_t kPage = 4096, kLargePage = uint64_t{2} << 20;
}

Result<std::unique_ptr<GuestMemory>> GuestMemory::create(const std::vector<Range>& ranges) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  uint64_t end = 0;
  for (const Range& range : ranges) {
    if (range.size == 0 || range.size % kPage != 0 || range.guest_physical % kPage != 0 || range.guest_physical < end ||
        range.guest_physical + range.size < range.guest_physical)
      return fail(ErrorKind::Internal, "guest memory range {:#x}+{:#x} is not a sorted, page-aligned range", range.guest_physical,
                  range.size);
    end = range.guest_physical + range.size;
    memory->size_ += range.size;
  }
  if (memory->size_ == 0) return fail(ErrorKind::Internal, "guest memory of size 0");

  // Aligned to the host's large pages, of which the kernel then makes it.
  const uint64_t reserved = memory->size_ + kLargePage;
  void* const base = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return os_fail(fmt::format("mapping {} MiB of guest memory", memory->size_ >> 20));
  memory->mapping_ = {static_cast<std::byte*>(base), reserved};
  const uint64_t begin = (reinterpret_cast<uint64_t>(base) + kLargePage - 1) / kLargePage * kLargePage;
  memory->base_ = reinterpret_cast<std::byte*>(begin);
  // A core dump of the VM process is about Lodge; the guest's memory would only make it huge.
  madvise(memory->base_, memory->size_, MADV_DONTDUMP);
  madvise(memory->base_, memory->size_, MADV_HUGEPAGE);

  uint64_t offset = 0;
  for (const Range& range : ranges) {
    memory->regions_.push_back({range, memory->base_ + offset});
    offset += range.size;
  }
  return memory;
}

GuestMemory::~GuestMemory() {
  if (!mapping_.empty()) munmap(mapping_.data(), mapping_.size());
}

std::span<std::byte> GuestMemory::span(uint64_t gpa, uint64_t length) const {
  for (const Region& region : regions_) {
    if (gpa >= region.guest_physical && gpa - region.guest_physical <= region.size && length <= region.size - (gpa - region.guest_physical))
      return {region.host + (gpa - region.guest_physical), length};
  }
  return {};
}

bool GuestMemory::read(uint64_t gpa, std::span<std::byte> into) const {
  if (into.empty()) return true;  // its data() may be null, which memcpy() does not take even for a length of 0 (C17, 7.24.1)
  const auto from = span(gpa, into.size());
  if (from.size() != into.size()) return false;
  std::memcpy(into.data(), from.data(), into.size());
  return true;
}

bool GuestMemory::write(uint64_t gpa, std::span<const std::byte> from) {
  if (from.empty()) return true;
  const auto into = span(gpa, from.size());
  if (into.size() != from.size()) return false;
  begin_write(gpa, from.size());
  std::memcpy(into.data(), from.data(), from.size());
  commit_write(gpa, from.size());
  return true;
}

bool GuestMemory::fill(uint64_t gpa, std::byte value, uint64_t length) {
  if (length == 0) return true;
  const auto into = span(gpa, length);
  if (into.size() != length) return false;
  begin_write(gpa, length);
  std::memset(into.data(), static_cast<int>(value), length);
  commit_write(gpa, length);
  return true;
}

}  // namespace lodge::memory
