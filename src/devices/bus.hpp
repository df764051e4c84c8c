// The I/O port space and the MMIO space: which device answers at an address.
//
// An access goes to the range that holds its first byte. One that starts in a range and runs past its end is
// split into bytes, as the ISA bus does. Where no device answers, reads give all ones and writes are ignored.
//
// Threads: read() and write() from any thread without a lock: a reader that meets a change in progress looks again. attach() and
// detach() from any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "base/mutex.hpp"

namespace lodge::devices {

// A chip at I/O ports. `offset` counts from the attached base; size 1, 2 or 4.
class PortDevice {
 public:
  using Value = uint32_t;
  virtual ~PortDevice() = default;
  virtual uint32_t read(uint64_t offset, unsigned size) = 0;
  virtual void write(uint64_t offset, unsigned size, uint32_t value) = 0;
};

// A chip in memory. Size 1, 2, 4 or 8.
class MmioDevice {
 public:
  using Value = uint64_t;
  virtual ~MmioDevice() = default;
  virtual uint64_t read(uint64_t offset, unsigned size) = 0;
  virtual void write(uint64_t offset, unsigned size, uint64_t value) = 0;
};

// A chip with 8-bit registers: wider accesses reach it byte by byte, lowest address first.
class BytePortDevice : public PortDevice {
 public:
  uint32_t read(uint64_t offset, unsigned size) final {
    uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= static_cast<uint32_t>(read_byte(offset + i)) << (8 * i);
    return value;
  }
  void write(uint64_t offset, unsigned size, uint32_t value) final {
    for (unsigned i = 0; i < size; ++i) write_byte(offset + i, static_cast<uint8_t>(value >> (8 * i)));
  }

 protected:
  virtual uint8_t read_byte(uint64_t offset) = 0;
  virtual void write_byte(uint64_t offset, uint8_t value) = 0;
};

template <typename Device>
class Bus {
 public:
  using Value = typename Device::Value;

  // The device must outlive the bus. ErrorKind::Internal when the range is empty or overlaps another.
  Result<> attach(uint64_t base, uint64_t length, Device& device, std::string name) LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (length == 0 || base + (length - 1) < base) return fail(ErrorKind::Internal, "{}: empty bus range at {:#x}", name, base);
    const auto place = std::ranges::lower_bound(ranges_, base, {}, &Named::base);
    const bool hits_next = place != ranges_.end() && place->base - base < length;
    const bool hits_previous = place != ranges_.begin() && base - std::prev(place)->base < std::prev(place)->length;
    if (hits_next || hits_previous)
      return fail(ErrorKind::Internal, "{}: bus range {:#x}+{:#x} overlaps {}", name, base, length,
                  hits_next ? place->name : std::prev(place)->name);
    ranges_.insert(place, Named{{base, length, &device}, std::move(name)});
    publish();
    return {};
  }

  // Takes away the range that begins at `base`; nothing if there is none. An access that found it before may still reach the device
  // when this has returned.
  void detach(uint64_t base) LODGE_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (std::erase_if(ranges_, [base](const Named& range) { return range.base == base; }) != 0) publish();
  }

  [[nodiscard]] Value read(uint64_t address, unsigned size) const {
    const Range range = find(address);
    if (!range.device) return all_ones(size);
    const uint64_t offset = address - range.base;
    if (size <= range.length - offset) return range.device->read(offset, size) & all_ones(size);
    Value value = 0;
    for (unsigned i = 0; i < size; ++i) value |= read(address + i, 1) << (8 * i);
    return value;
  }

  void write(uint64_t address, unsigned size, Value value) const {
    const Range range = find(address);
    if (!range.device) return;
    const uint64_t offset = address - range.base;
    if (size <= range.length - offset) return range.device->write(offset, size, value & all_ones(size));
    for (unsigned i = 0; i < size; ++i) write(address + i, 1, (value >> (8 * i)) & 0xff);
  }

 private:
  struct Range {
    uint64_t base;
    uint64_t length;
    Device* device;
  };
  struct Named : Range {
    std::string name;
  };
  // What readers see of ranges_: the same in the same order, in words that may change under them.
  struct Entry {
    std::atomic<uint64_t> base = 0, length = 0;
    std::atomic<Device*> device = nullptr;
  };
  struct Table {
    explicit Table(size_t most) : entries(most) {}
    std::vector<Entry> entries;
    std::atomic<size_t> count = 0;
  };

  // A sequence lock: odd while the table changes. A table that has become too small stays until the bus goes, since readers may be in
  // it; each is twice as large as the one before, so all together take no more than the last one does.
  void publish() LODGE_REQUIRES(mutex_) {
    Table* table = tables_.empty() ? nullptr : tables_.back().get();
    if (!table || ranges_.size() > table->entries.size()) {
      tables_.push_back(std::make_unique<Table>(table ? 2 * table->entries.size() : kFirstEntries));
      table = tables_.back().get();
    }
    const uint64_t before = sequence_.load(std::memory_order_relaxed);
    sequence_.store(before + 1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    for (size_t i = 0; i < ranges_.size(); ++i) {
      table->entries[i].base.store(ranges_[i].base, std::memory_order_relaxed);
      table->entries[i].length.store(ranges_[i].length, std::memory_order_relaxed);
      table->entries[i].device.store(ranges_[i].device, std::memory_order_relaxed);
    }
    table->count.store(ranges_.size(), std::memory_order_relaxed);
    table_.store(table, std::memory_order_relaxed);
    sequence_.store(before + 2, std::memory_order_release);
  }

  // The range that holds the address; its device is null if there is none.
  [[nodiscard]] Range find(uint64_t address) const {
    for (;;) {
      const uint64_t before = sequence_.load(std::memory_order_acquire);
      const Range found = search(address);
      std::atomic_thread_fence(std::memory_order_acquire);
      if (before % 2 == 0 && sequence_.load(std::memory_order_relaxed) == before) return found;
      std::this_thread::yield();  // the one who changes it may have been preempted
    }
  }

  // Whatever a change in progress shows here, it stays within the table.
  [[nodiscard]] Range search(uint64_t address) const {
    const Table* table = table_.load(std::memory_order_acquire);
    if (!table) return {};
    size_t low = 0, high = table->count.load(std::memory_order_relaxed);
    while (low < high) {
      const size_t middle = low + (high - low) / 2;
      if (table->entries[middle].base.load(std::memory_order_relaxed) <= address)
        low = middle + 1;
      else
        high = middle;
    }
    if (low == 0) return {};
    const Entry& entry = table->entries[low - 1];
    const Range range{entry.base.load(std::memory_order_relaxed), entry.length.load(std::memory_order_relaxed),
                      entry.device.load(std::memory_order_relaxed)};
    return address - range.base < range.length ? range : Range{};
  }

  [[nodiscard]] static Value all_ones(unsigned size) {
    return size >= sizeof(Value) ? ~Value{0} : static_cast<Value>((Value{1} << (8 * size)) - 1);
  }

  static constexpr size_t kFirstEntries = 16;
  std::atomic<uint64_t> sequence_ = 0;
  std::atomic<const Table*> table_ = nullptr;
  Mutex mutex_;
  std::vector<Named> ranges_ LODGE_GUARDED_BY(mutex_);  // sorted
  std::vector<std::unique_ptr<Table>> tables_ LODGE_GUARDED_BY(mutex_);
};

using PortBus = Bus<PortDevice>;
using MmioBus = Bus<MmioDevice>;

}  // namespace lodge::devices
