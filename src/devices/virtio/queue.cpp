#include "devices/virtio/queue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cassert>
#include <cstring>

namespace lodge::devices::virtio {

namespace {

static_assert(std::endian::native == std::endian::little, "virtio's rings are little endian, and read as they are");

// 2.7.5 and 2.8.13: a descriptor of either kind takes 16 bytes: address, length, then flags and next, or id and flags.
constexpr uint64_t kDescriptorBytes = 16;
constexpr uint16_t kNext = 1, kWrite = 2, kIndirect = 4;
constexpr uint16_t kAvailable = 1 << 7, kUsed = 1 << 15;  // 2.8.1: packed only
// 2.7.6 and 2.7.8: flags, index, ring, and the other side's event index behind it.
constexpr uint64_t kRingFlags = 0, kRingIndex = 2, kRing = 4, kUsedEntryBytes = 8;
constexpr uint16_t kNoInterrupt = 1, kNoNotify = 1;
// 2.8.14: the event suppression structures: position with wrap counter, flags.
constexpr uint64_t kEventPosition = 0, kEventFlags = 2, kEventBytes = 4;
constexpr uint16_t kEventEnable = 0, kEventDisable = 1, kEventDescriptor = 2, kEventWrap = 1 << 15;

template <typename T>
T load(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_RELAXED);
}
template <typename T>
T load_acquire(const std::byte* at) {
  return __atomic_load_n(reinterpret_cast<const T*>(at), __ATOMIC_ACQUIRE);
}

// 2.7.10: whether moving from `before` to `now` passes the event that the other side waits for.
bool passes(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

// What one side has written must be visible before it looks whether the other sleeps (2.7.13.3.1, 2.8.21.3.1).
void full_fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

}  // namespace

struct Queue::Descriptor {
  uint64_t address = 0;
  uint32_t length = 0;
  uint16_t flags = 0;
  uint16_t next = 0;  // split; of the packed ring it is the buffer's id
};

struct Queue::Walk {
  Chain& chain;
  uint32_t descriptors = 0;
};

void Queue::fail(std::string what) {
  if (broken_.empty()) broken_ = std::move(what);
  ready_ = false;
}

std::byte* Queue::host(uint64_t gpa, uint64_t bytes, uint64_t alignment) const {
  if (gpa % alignment != 0) return nullptr;
  const auto span = memory_->span(gpa, bytes);
  return span.size() == bytes ? span.data() : nullptr;
}

bool Queue::configure(memory::GuestMemory& memory, const QueueSetup& setup) {
  *this = Queue();
  memory_ = &memory;
  setup_ = setup;
  const uint64_t size = setup.size;
  if (size == 0 || size > kMostEntries || (!setup.packed && !std::has_single_bit(size))) {
    fail(fmt::format("a size of {}", size));
    return false;
  }
  descriptors_ = host(setup.descriptors, size * kDescriptorBytes, 16);
  if (setup.packed) {
    driver_ = host(setup.driver_area, kEventBytes, 4);
    device_ = host(setup.device_area, kEventBytes, 4);
  } else {
    driver_ = host(setup.driver_area, kRing + 2 * size + 2, 2);
    device_ = host(setup.device_area, kRing + kUsedEntryBytes * size + 2, 4);
  }
  if (!descriptors_ || !driver_ || !device_) {
    fail("rings outside memory or not aligned");
    return false;
  }
  ready_ = true;
  return true;
}

void Queue::clear() { *this = Queue(); }

template <typename T>
void Queue::store(std::byte* at, uint64_t gpa, T value) const {
  memory_->begin_write(gpa, sizeof value);
  __atomic_store_n(reinterpret_cast<T*>(at), value, __ATOMIC_RELEASE);
  memory_->commit_write(gpa, sizeof value);
}

// --- Available buffers

Queue::Descriptor Queue::split_descriptor(const std::byte* table, uint32_t index) const {
  const std::byte* at = table + index * kDescriptorBytes;
  return {
      .address = load<uint64_t>(at), .length = load<uint32_t>(at + 8), .flags = load<uint16_t>(at + 12), .next = load<uint16_t>(at + 14)};
}

// One piece of the buffer, from a table of any kind.
bool Queue::add(Walk& walk, const Descriptor& descriptor) {
  if (++walk.descriptors > kMostDescriptors) {
    fail("a chain of too many descriptors");
    return false;
  }
  Chain& chain = walk.chain;
  const bool write = (descriptor.flags & kWrite) != 0;
  // 2.7.4.2: what the device reads comes first.
  if (!write && !chain.writable_.empty()) {
    fail("a descriptor to be read behind one to be written");
    return false;
  }
  if (descriptor.length == 0) return true;
  const auto span = memory_->span(descriptor.address, descriptor.length);
  if (span.size() != descriptor.length) {
    fail(fmt::format("a buffer outside memory: {:#x} bytes at {:#x}", descriptor.length, descriptor.address));
    return false;
  }
  (write ? chain.writable_ : chain.readable_).push_back({span.data(), span.size()});
  (write ? chain.writable_bytes_ : chain.readable_bytes_) += descriptor.length;
  if (write) {
    chain.ranges_.push_back({descriptor.address, descriptor.length});
    memory_->begin_write(descriptor.address, descriptor.length);
  }
  return true;
}

// 2.7.5.3 and 2.8.7. The entries of a packed queue's table are all used, one after the other, whatever their flags say of a next one.
bool Queue::add_indirect(Walk& walk, const Descriptor& descriptor) {
  const uint64_t count = descriptor.length / kDescriptorBytes;
  if (!setup_.indirect || count == 0 || descriptor.length % kDescriptorBytes != 0 || count > kMostDescriptors) {
    fail(fmt::format("an indirect table of {} bytes", descriptor.length));
    return false;
  }
  // Alignment is not asked of these tables: each is read in whole words that may cross it.
  const auto table = memory_->span(descriptor.address, descriptor.length);
  if (table.size() != descriptor.length) {
    fail("an indirect table outside memory");
    return false;
  }
  uint32_t index = 0;
  for (uint32_t taken = 0;; ++taken) {
    if (taken == count) {
      if (setup_.packed) return true;
      fail("an indirect table that goes round");
      return false;
    }
    const std::byte* at = table.data() + index * kDescriptorBytes;
    Descriptor entry;
    std::memcpy(&entry.address, at, sizeof entry.address);
    std::memcpy(&entry.length, at + 8, sizeof entry.length);
    std::memcpy(&entry.flags, at + (setup_.packed ? 14 : 12), sizeof entry.flags);
    std::memcpy(&entry.next, at + (setup_.packed ? 12 : 14), sizeof entry.next);
    if (entry.flags & kIndirect) {
      fail("an indirect table within another");
      return false;
    }
    if (!add(walk, entry)) return false;
    if (setup_.packed) {
      ++index;
      continue;
    }
    if (!(entry.flags & kNext)) return true;
    if (entry.next >= count) {
      fail("an indirect descriptor beyond its table");
      return false;
    }
    index = entry.next;
  }
}

bool Queue::pop(Chain& chain) {
  chain.readable_.clear();
  chain.writable_.clear();
  chain.ranges_.clear();
  chain.readable_bytes_ = chain.writable_bytes_ = 0;
  chain.entries_ = 1;
  if (!ready_) return false;
  if (setup_.packed ? pop_packed(chain) : pop_split(chain)) return true;
  end_writes(chain);
  return false;
}

bool Queue::pop_split(Chain& chain) {
  const uint16_t waiting = static_cast<uint16_t>(load_acquire<uint16_t>(driver_ + kRingIndex) - next_available_);
  if (waiting == 0) return false;
  if (waiting > setup_.size) {
    fail(fmt::format("{} available buffers in a queue of {}", waiting, setup_.size));
    return false;
  }
  const uint32_t mask = setup_.size - 1u;
  chain.id_ = load<uint16_t>(driver_ + kRing + 2 * (next_available_ & mask));
  Walk walk{chain};
  uint32_t index = chain.id_;
  for (uint32_t taken = 0;; ++taken) {
    if (index > mask || taken > mask) {
      fail(index > mask ? "a descriptor beyond the table" : "a chain that goes round");
      return false;
    }
    const Descriptor descriptor = split_descriptor(descriptors_, index);
    if (descriptor.flags & kIndirect) {
      // 2.7.5.3.1: never with a next one.
      if (descriptor.flags & kNext) {
        fail("an indirect table with a next descriptor");
        return false;
      }
      if (!add_indirect(walk, descriptor)) return false;
      break;
    }
    if (!add(walk, descriptor)) return false;
    if (!(descriptor.flags & kNext)) break;
    index = descriptor.next;
  }
  ++next_available_;
  return true;
}

// 2.8.1: a descriptor is available while its two bits differ, the first as the wrap counter is.
bool Queue::packed_available(uint16_t flags) const {
  const bool available = (flags & kAvailable) != 0, used = (flags & kUsed) != 0;
  return available != used && available == available_wrap_;
}

bool Queue::pop_packed(Chain& chain) {
  const auto flags_at = [&](uint32_t index) { return descriptors_ + index * kDescriptorBytes + 14; };
  if (!packed_available(load_acquire<uint16_t>(flags_at(next_available_)))) return false;
  Walk walk{chain};
  uint32_t index = next_available_, taken = 0;
  for (;;) {
    const std::byte* at = descriptors_ + index * kDescriptorBytes;
    const Descriptor descriptor{
        .address = load<uint64_t>(at), .length = load<uint32_t>(at + 8), .flags = load<uint16_t>(at + 14), .next = load<uint16_t>(at + 12)};
    ++taken;
    if (++index == setup_.size) index = 0;
    chain.id_ = descriptor.next;  // 2.8.6: the last one's counts
    if (descriptor.flags & kIndirect) {
      // 2.8.7.1: such a descriptor is the whole buffer.
      if (taken != 1 || (descriptor.flags & kNext)) {
        fail("an indirect table in a chain");
        return false;
      }
      if (!add_indirect(walk, descriptor)) return false;
      break;
    }
    if (!add(walk, descriptor)) return false;
    if (!(descriptor.flags & kNext)) break;
    if (taken == setup_.size) {
      fail("a chain that goes round");
      return false;
    }
  }
  chain.entries_ = static_cast<uint16_t>(taken);
  if (next_available_ + taken >= setup_.size) available_wrap_ = !available_wrap_;
  next_available_ = static_cast<uint16_t>(index);
  return true;
}

void Queue::unpop(const Chain& chain) {
  end_writes(chain);
  if (!ready_) return;
  if (!setup_.packed) {
    --next_available_;
  } else if (next_available_ >= chain.entries_) {
    next_available_ = static_cast<uint16_t>(next_available_ - chain.entries_);
  } else {
    next_available_ = static_cast<uint16_t>(next_available_ + setup_.size - chain.entries_);
    available_wrap_ = !available_wrap_;
  }
}

bool Queue::empty() const {
  if (!ready_) return true;
  if (setup_.packed) return !packed_available(load_acquire<uint16_t>(descriptors_ + next_available_ * kDescriptorBytes + 14));
  return load_acquire<uint16_t>(driver_ + kRingIndex) == next_available_;
}

// --- Used buffers

// Ranges that stayed as they were are committed too: whoever begins a write ends it.
void Queue::end_writes(const Chain& chain) const {
  for (const memory::Range& range : chain.ranges_) memory_->commit_write(range.guest_physical, range.size);
}

void Queue::put_split(const Chain& chain, uint64_t written, uint16_t at) {
  const uint64_t offset = kRing + kUsedEntryBytes * (at & (setup_.size - 1u));
  // The two words of an entry belong to the device until the index passes it.
  store<uint32_t>(device_ + offset, setup_.device_area + offset, chain.id_);
  store<uint32_t>(device_ + offset + 4, setup_.device_area + offset + 4, static_cast<uint32_t>(std::min<uint64_t>(written, UINT32_MAX)));
}

// 2.8.8: id and length first, then the flags, which hand the descriptor over.
void Queue::put_packed(const Chain& chain, uint64_t written, uint16_t at, bool wrap, bool publish) {
  const uint64_t offset = at * kDescriptorBytes;
  std::byte* entry = descriptors_ + offset;
  const uint64_t gpa = setup_.descriptors + offset;
  if (publish) {
    const auto flags = static_cast<uint16_t>((wrap ? kAvailable | kUsed : 0) | (written != 0 ? kWrite : 0));
    store<uint16_t>(entry + 14, gpa + 14, flags);
    return;
  }
  store<uint32_t>(entry + 8, gpa + 8, static_cast<uint32_t>(std::min<uint64_t>(written, UINT32_MAX)));
  store<uint16_t>(entry + 12, gpa + 12, chain.id_);
}

void Queue::push(const Chain& chain, uint64_t written) {
  const Used one{&chain, written};
  push(std::span(&one, 1));
}

void Queue::push(std::span<const Used> all) {
  for (const Used& used : all) end_writes(*used.chain);
  if (!ready_ || all.empty()) return;
  if (!setup_.packed) {
    for (size_t i = 0; i < all.size(); ++i) put_split(*all[i].chain, all[i].written, static_cast<uint16_t>(next_used_ + i));
    next_used_ = static_cast<uint16_t>(next_used_ + all.size());
    unsignalled_ = static_cast<uint16_t>(unsignalled_ + all.size());
    store<uint16_t>(device_ + kRingIndex, setup_.device_area + kRingIndex, next_used_);
    return;
  }
  struct Place {
    uint16_t at;
    bool wrap;
  };
  uint16_t at = next_used_;
  bool wrap = used_wrap_;
  const auto advance = [&](uint16_t entries) {
    uint32_t next = at + uint32_t{entries};
    if (next >= setup_.size) {
      next -= setup_.size;
      wrap = !wrap;
    }
    at = static_cast<uint16_t>(next);
  };
  // The flags of the first come last: the driver stops at it until then (2.8.8, as drivers do with chains in 2.8.21.1).
  const Place first{at, wrap};
  for (size_t i = 0; i < all.size(); ++i) {
    put_packed(*all[i].chain, all[i].written, at, wrap, false);
    if (i != 0) put_packed(*all[i].chain, all[i].written, at, wrap, true);
    advance(all[i].chain->entries_);
    unsignalled_ = static_cast<uint16_t>(unsignalled_ + all[i].chain->entries_);
  }
  next_used_ = at;
  used_wrap_ = wrap;
  put_packed(*all[0].chain, all[0].written, first.at, first.wrap, true);
}

// --- Who wakes whom

bool Queue::wants_interrupt() {
  if (!ready_ || unsignalled_ == 0) return false;
  const auto now = next_used_;
  const auto before = static_cast<uint16_t>(now - unsignalled_);
  unsignalled_ = 0;
  full_fence();
  if (!setup_.packed) {
    if (!setup_.event_index) return !(load<uint16_t>(driver_ + kRingFlags) & kNoInterrupt);
    return passes(load<uint16_t>(driver_ + kRing + 2 * uint64_t{setup_.size}), now, before);
  }
  const uint16_t flags = load_acquire<uint16_t>(driver_ + kEventFlags) & 3;
  if (flags == kEventDisable) return false;
  if (flags != kEventDescriptor || !setup_.event_index) return true;
  const uint16_t position = load<uint16_t>(driver_ + kEventPosition);
  auto event = static_cast<uint16_t>(position & ~kEventWrap);
  // A position of the other round lies a whole ring before this one's.
  if (((position & kEventWrap) != 0) != used_wrap_) event = static_cast<uint16_t>(event - setup_.size);
  return passes(event, now, before);
}

void Queue::suppress_notifications() {
  if (!ready_) return;
  if (setup_.packed)
    store<uint16_t>(device_ + kEventFlags, setup_.device_area + kEventFlags, kEventDisable);
  else if (!setup_.event_index)
    store<uint16_t>(device_ + kRingFlags, setup_.device_area + kRingFlags, kNoNotify);
  // With an event index the driver notifies once only, until the index is moved.
}

bool Queue::allow_notifications() {
  if (!ready_) return false;
  if (setup_.packed) {
    if (setup_.event_index) {
      const auto position = static_cast<uint16_t>(next_available_ | (available_wrap_ ? kEventWrap : 0));
      store<uint16_t>(device_ + kEventPosition, setup_.device_area + kEventPosition, position);
    }
    store<uint16_t>(device_ + kEventFlags, setup_.device_area + kEventFlags, setup_.event_index ? kEventDescriptor : kEventEnable);
  } else if (setup_.event_index) {
    const uint64_t at = kRing + kUsedEntryBytes * setup_.size;
    store<uint16_t>(device_ + at, setup_.device_area + at, next_available_);
  } else {
    store<uint16_t>(device_ + kRingFlags, setup_.device_area + kRingFlags, 0);
  }
  full_fence();
  return !empty();
}

}  // namespace lodge::devices::virtio
