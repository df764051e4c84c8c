// Guest RAM as the host sees it: one mapping, laid out in guest-physical ranges.
//
// The memory is the process's own (anonymous), since most hosts make large pages of that only: kernels come with shared memory's turned
// off. Pages that the guest never touched cost nothing. Threads: reads and writes from any thread; the layout
// is fixed after create().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "memory/coherence.hpp"

namespace lodge::memory {

struct Range {
  uint64_t guest_physical = 0;  // page-aligned
  uint64_t size = 0;            // bytes, page-aligned
};

class GuestMemory {
 public:
  // Reserves and maps the ranges (sorted, not overlapping). ErrorKind::Resource when the host lacks memory.
  static Result<std::unique_ptr<GuestMemory>> create(const std::vector<Range>& ranges);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  struct Region : Range {
    std::byte* host = nullptr;  // first byte of the range in this process
  };
  [[nodiscard]] std::span<const Region> regions() const { return regions_; }
  [[nodiscard]] uint64_t size() const { return size_; }

  // The engine that must hear of device writes; set once, before the first write of a running guest.
  void set_observer(WriteObserver* observer) { observer_ = observer; }

  // The whole range [gpa, gpa+length) as one host span, or an empty span if any byte of it is not RAM.
  // For reading, or for writing between begin_write() and commit_write().
  [[nodiscard]] std::span<std::byte> span(uint64_t gpa, uint64_t length) const;

  // False (and nothing done) if any byte of the range is not RAM. A range of no bytes is everywhere.
  [[nodiscard]] bool read(uint64_t gpa, std::span<std::byte> into) const;
  [[nodiscard]] bool write(uint64_t gpa, std::span<const std::byte> from);
  [[nodiscard]] bool fill(uint64_t gpa, std::byte value, uint64_t length);

  void begin_write(uint64_t gpa, uint64_t length) const noexcept {
    if (observer_) observer_->begin_write(gpa, length);
  }
  void commit_write(uint64_t gpa, uint64_t length) const noexcept {
    if (observer_) observer_->commit_write(gpa, length);
  }

 private:
  GuestMemory() = default;
  std::span<std::byte> mapping_;
  std::byte* base_ = nullptr;
  uint64_t size_ = 0;
  std::vector<Region> regions_;
  WriteObserver* observer_ = nullptr;
};

// Ranges that a device is about to write, announced for as long as this lives. All of them are RAM.
class AnnouncedWrites {
 public:
  AnnouncedWrites(const GuestMemory& memory, std::vector<Range> ranges) : memory_(memory), ranges_(std::move(ranges)) {
    for (const Range& range : ranges_) memory_.begin_write(range.guest_physical, range.size);
  }
  ~AnnouncedWrites() {
    for (const Range& range : ranges_) memory_.commit_write(range.guest_physical, range.size);
  }
  AnnouncedWrites(const AnnouncedWrites&) = delete;
  AnnouncedWrites& operator=(const AnnouncedWrites&) = delete;

 private:
  const GuestMemory& memory_;
  const std::vector<Range> ranges_;
};

}  // namespace lodge::memory
