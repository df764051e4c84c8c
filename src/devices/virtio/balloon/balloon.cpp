#include "devices/virtio/balloon/balloon.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace lodge::devices::virtio {

namespace {

// 5.5.3; the hints of free pages (3) are for migration.
constexpr unsigned kStatistics = 1, kDeflateOnOom = 2, kReporting = 5;
// 5.5.4.
constexpr size_t kTargetAt = 0, kActualAt = 4, kConfigBytes = 16;
constexpr unsigned kInflate = 0, kNoQueue = ~0u;
constexpr uint16_t kEntries = 256;

}  // namespace

Balloon::Balloon(Worker& worker, uint32_t target)
    : Device(Type::Balloon, "memory balloon", worker, {kEntries, kEntries, kEntries, kEntries}), target_(target) {}

uint64_t Balloon::features() const { return feature(kStatistics) | feature(kDeflateOnOom) | feature(kReporting); }

unsigned Balloon::statistics_queue() const { return has(kStatistics) ? 2 : kNoQueue; }
unsigned Balloon::report_queue() const { return has(kReporting) ? 2 + has(kStatistics) : kNoQueue; }

void Balloon::set_target(uint32_t pages) {
  if (target_.exchange(pages) != pages) config_changed();
}

void Balloon::read_config(uint64_t offset, std::span<uint8_t> into) const {
  std::array<uint8_t, kConfigBytes> config{};
  const uint32_t target = target_, actual = actual_;
  std::memcpy(&config[kTargetAt], &target, sizeof target);
  std::memcpy(&config[kActualAt], &actual, sizeof actual);
  for (size_t i = 0; i < into.size(); ++i) into[i] = offset + i < config.size() ? config[offset + i] : 0;
}

void Balloon::write_config(uint64_t offset, std::span<const uint8_t> from) {
  if (offset != kActualAt || from.size() != sizeof(uint32_t)) return;
  uint32_t actual = 0;
  std::memcpy(&actual, from.data(), sizeof actual);
  actual_ = actual;
}

void Balloon::serve(unsigned queue) {
  if (queue == statistics_queue()) return read_statistics(queue);
  bool done = false;
  for_each_buffer(queue, chain_, [&](const Chain& chain) {
    if (queue == kInflate) inflate(chain);
    if (queue == report_queue())
      for (const memory::Range& range : chain.writable_ranges()) discard(range.guest_physical, range.size);
    // 5.5.6.7: nothing is written; the length says nothing.
    give_back(queue, chain, 0);
    done = true;
    return true;
  });
  if (done) interrupt(queue);
}

// 5.5.6: page numbers of 32 bits. Neighbours go together.
void Balloon::inflate(const Chain& chain) {
  uint64_t first = 0, bytes = 0;
  const auto flush = [&] { discard(first, std::exchange(bytes, 0)); };
  for (const iovec& piece : chain.readable()) {
    for (size_t at = 0; at + sizeof(uint32_t) <= piece.iov_len; at += sizeof(uint32_t)) {
      uint32_t number = 0;
      std::memcpy(&number, static_cast<const std::byte*>(piece.iov_base) + at, sizeof number);
      const uint64_t gpa = number * kPageBytes;
      if (bytes != 0 && gpa == first + bytes) {
        bytes += kPageBytes;
      } else if (bytes != 0 && gpa + kPageBytes == first) {
        first = gpa;
        bytes += kPageBytes;
      } else {
        flush();
        first = gpa;
        bytes = kPageBytes;
      }
    }
  }
  flush();
}

// Whole pages of RAM; they read as zeros when the guest takes them back.
void Balloon::discard(uint64_t gpa, uint64_t bytes) {
  const uint64_t first = (gpa + kPageBytes - 1) & ~(kPageBytes - 1), end = (gpa + bytes) & ~(kPageBytes - 1);
  if (first >= end) return;
  const auto span = memory().span(first, end - first);
  if (span.empty()) return;
  memory().begin_write(first, span.size());
  madvise(span.data(), span.size(), MADV_DONTNEED);
  memory().commit_write(first, span.size());
}

// --- Statistics (5.5.6.3): the driver leaves a buffer with them; giving it back asks for the next.

bool Balloon::ask_statistics(std::function<void(const MemoryStatistics&)> tell) {
  if (!holds_statistics_) return false;
  tell_ = std::move(tell);
  holds_statistics_ = false;
  const unsigned queue = statistics_queue();
  give_back(queue, statistics_, 0);
  interrupt(queue);
  read_statistics(queue);  // asks to be told of the answer
  return true;
}

void Balloon::read_statistics(unsigned queue) {
  if (holds_statistics_) return;
  while (!take(queue, statistics_))
    if (!allow_notifications(queue)) return;
  holds_statistics_ = true;
  std::vector<uint8_t> bytes;
  for (const iovec& piece : statistics_.readable()) {
    constexpr size_t kMost = 4096;
    const auto* from = static_cast<const uint8_t*>(piece.iov_base);
    bytes.insert(bytes.end(), from, from + std::min(piece.iov_len, kMost - bytes.size()));
  }
  MemoryStatistics statistics;
  constexpr size_t kEntryBytes = 10;  // tag, value
  for (size_t at = 0; at + kEntryBytes <= bytes.size(); at += kEntryBytes) {
    uint16_t tag = 0;
    uint64_t value = 0;
    std::memcpy(&tag, &bytes[at], sizeof tag);
    std::memcpy(&value, &bytes[at + sizeof tag], sizeof value);
    if (tag < MemoryStatistics::kTags) statistics.values[tag] = value;
  }
  if (tell_) std::exchange(tell_, nullptr)(statistics);
}

void Balloon::queue_stopping(unsigned queue) {
  if (queue != statistics_queue() || !std::exchange(holds_statistics_, false)) return;
  give_back(queue, statistics_, 0);
}

void Balloon::stopped() {
  actual_ = 0;
  tell_ = nullptr;
}

}  // namespace lodge::devices::virtio
