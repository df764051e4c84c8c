// The I/O port space and the MMIO space: which device answers at an address.
//
// An access goes to the range that holds its first byte. One that starts in a range and runs past its end is
// split into bytes, as the ISA bus does. Where no device answers, reads give all ones and writes are ignored.
//
// Threads: read(), write() and find() from any thread without a lock. attach() publishes a new table; the old
// ones stay until the bus goes, so that no reader can hold a freed one (attachments are few).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
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
    const Table* current = table_.load(std::memory_order_acquire);
    auto next = std::make_unique<Table>(current ? *current : Table{});
    if (length == 0 || base + length < base) return fail(ErrorKind::Internal, "{}: empty bus range at {:#x}", name, base);
    const auto place = std::ranges::lower_bound(*next, base, {}, &Range::base);
    const bool hits_next = place != next->end() && place->base < base + length;
    const bool hits_previous = place != next->begin() && std::prev(place)->base + std::prev(place)->length > base;
    if (hits_next || hits_previous)
      return fail(ErrorKind::Internal, "{}: bus range {:#x}+{:#x} overlaps {}", name, base, length,
                  hits_next ? place->name : std::prev(place)->name);
    next->insert(place, Range{base, length, &device, std::move(name)});
    table_.store(next.get(), std::memory_order_release);
    tables_.push_back(std::move(next));
    return {};
  }

  [[nodiscard]] Value read(uint64_t address, unsigned size) const {
    const Range* range = find(address);
    if (!range) return all_ones(size);
    if (address + size <= range->base + range->length) return range->device->read(address - range->base, size) & all_ones(size);
    Value value = 0;
    for (unsigned i = 0; i < size; ++i) value |= read(address + i, 1) << (8 * i);
    return value;
  }

  void write(uint64_t address, unsigned size, Value value) const {
    const Range* range = find(address);
    if (!range) return;
    if (address + size <= range->base + range->length) return range->device->write(address - range->base, size, value & all_ones(size));
    for (unsigned i = 0; i < size; ++i) write(address + i, 1, (value >> (8 * i)) & 0xff);
  }

 private:
  struct Range {
    uint64_t base;
    uint64_t length;
    Device* device;
    std::string name;
  };
  using Table = std::vector<Range>;

  [[nodiscard]] const Range* find(uint64_t address) const {
    const Table* table = table_.load(std::memory_order_acquire);
    if (!table) return nullptr;
    auto next = std::ranges::upper_bound(*table, address, {}, &Range::base);
    if (next == table->begin()) return nullptr;
    const Range& range = *std::prev(next);
    return address - range.base < range.length ? &range : nullptr;
  }

  [[nodiscard]] static Value all_ones(unsigned size) {
    return size >= sizeof(Value) ? ~Value{0} : static_cast<Value>((Value{1} << (8 * size)) - 1);
  }

  std::atomic<const Table*> table_ = nullptr;
  Mutex mutex_;
  std::vector<std::unique_ptr<const Table>> tables_ LODGE_GUARDED_BY(mutex_);
};

using PortBus = Bus<PortDevice>;
using MmioBus = Bus<MmioDevice>;

}  // namespace lodge::devices
