// A virtqueue as the device sees it, split or packed (virtio 1.2, sections 2.7 and 2.8).
//
// The driver is not trusted: whatever its rings say, no byte outside guest RAM is touched, no descriptor is followed twice, and a ring that
// makes no sense is broken() until it is configured anew. Each ring entry and descriptor is read once.
//
// Guest memory that the device may write is announced under the coherence contract (memory/coherence.hpp) from pop() to push().
//
// Threads: one at a time, the device's; the driver may do what it likes meanwhile.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/guest_memory.hpp"

namespace lodge::devices::virtio {

// What the driver has set up before it enables a queue.
struct QueueSetup {
  uint16_t size = 0;         // entries: split a power of two; at most kMostEntries
  uint64_t descriptors = 0;  // guest-physical: descriptor table, or the packed ring
  uint64_t driver_area = 0;  // available ring, or the driver's event suppression structure
  uint64_t device_area = 0;  // used ring, or the device's
  bool packed = false;       // VIRTIO_F_RING_PACKED
  bool event_index = false;  // VIRTIO_F_EVENT_IDX
  bool indirect = false;     // VIRTIO_F_INDIRECT_DESC
};

// A buffer that the driver has made available: what the device reads, then what it writes. Kept and used again, so that a request costs
// no allocation.
class Chain {
 public:
  [[nodiscard]] std::span<const iovec> readable() const { return readable_; }
  [[nodiscard]] std::span<const iovec> writable() const { return writable_; }
  [[nodiscard]] uint64_t readable_bytes() const { return readable_bytes_; }
  [[nodiscard]] uint64_t writable_bytes() const { return writable_bytes_; }
  // Where the writable pieces lie in the guest: as many as writable() has.
  [[nodiscard]] std::span<const memory::Range> writable_ranges() const { return ranges_; }

 private:
  friend class Queue;
  std::vector<iovec> readable_, writable_;
  std::vector<memory::Range> ranges_;
  uint64_t readable_bytes_ = 0, writable_bytes_ = 0;
  uint16_t id_ = 0;       // by which the driver knows it
  uint16_t entries_ = 0;  // of the packed ring that it took
};

class Queue {
 public:
  static constexpr uint16_t kMostEntries = 32768;
  // A chain of more descriptors is a broken one. An indirect table may have more than the queue has entries, as Linux makes them.
  static constexpr uint32_t kMostDescriptors = 1024;

  // Takes the queue into use, from its beginning. False and broken() if the rings are not aligned or do not lie in RAM.
  bool configure(memory::GuestMemory& memory, const QueueSetup& setup);
  // Out of use; pop() finds nothing.
  void clear();
  [[nodiscard]] bool ready() const { return ready_; }
  [[nodiscard]] bool broken() const { return !broken_.empty(); }
  [[nodiscard]] std::string_view what_is_broken() const { return broken_; }

  // The next buffer, if there is one.
  [[nodiscard]] bool pop(Chain& chain);
  // Takes back the pop() that came last, as if it had not been.
  void unpop(const Chain& chain);
  // Gives a buffer back with so many bytes written, from its first writable one on. In any order.
  void push(const Chain& chain, uint64_t written);
  // Several buffers that the driver sees at once, or none of them: a frame in merged receive buffers.
  struct Used {
    const Chain* chain;
    uint64_t written;
  };
  void push(std::span<const Used> all);

  // The driver wants an interrupt for what was pushed since the last call. Ask after a batch.
  [[nodiscard]] bool wants_interrupt();
  // Whether the driver should notify of new buffers. allow_notifications(): true if some have come in already, which it may not tell.
  void suppress_notifications();
  [[nodiscard]] bool allow_notifications();
  [[nodiscard]] bool empty() const;

 private:
  struct Descriptor;  // of both kinds: what matters of it
  struct Walk;

  void fail(std::string what);
  [[nodiscard]] std::byte* host(uint64_t gpa, uint64_t bytes, uint64_t alignment) const;
  [[nodiscard]] bool pop_split(Chain& chain);
  [[nodiscard]] bool pop_packed(Chain& chain);
  [[nodiscard]] bool packed_available(uint16_t flags) const;
  [[nodiscard]] bool add(Walk& walk, const Descriptor& descriptor);
  [[nodiscard]] bool add_indirect(Walk& walk, const Descriptor& descriptor);
  [[nodiscard]] Descriptor split_descriptor(const std::byte* table, uint32_t index) const;
  void end_writes(const Chain& chain) const;
  void put_split(const Chain& chain, uint64_t written, uint16_t at);
  void put_packed(const Chain& chain, uint64_t written, uint16_t at, bool wrap, bool publish);
  template <typename T>
  void store(std::byte* at, uint64_t gpa, T value) const;

  memory::GuestMemory* memory_ = nullptr;
  QueueSetup setup_;
  bool ready_ = false;
  std::string broken_;
  std::byte *descriptors_ = nullptr, *driver_ = nullptr, *device_ = nullptr;
  uint16_t next_available_ = 0;  // split: counts on; packed: position
  uint16_t next_used_ = 0;
  uint16_t unsignalled_ = 0;  // entries pushed since wants_interrupt()
  bool available_wrap_ = true, used_wrap_ = true;
};

}  // namespace lodge::devices::virtio
