// Guest-physical memory as the engine sees it: KVM's memory slots, and per host page what the engine knows of it.
//
// Slots may alias (two guest-physical ranges on the same host memory), so the flags are kept per host page. The map changes only
// while no vCPU is in guest mode; lookups need no lock. Freestanding readers; the table itself is built by the Vm.
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::engine::soft {

// What a host page of guest memory is, beside data.
enum PageFlag : uint8_t {
  kPageCode = 1,  // translations exist that were made from its bytes: writes take the slow path
};

struct Slot {
  uint64_t gpa, size;                // bytes; page-aligned
  uint8_t* host;                     // first byte
  uint32_t id, flags;                // KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
  std::atomic<uint8_t>* page_flags;  // one a page, shared between slots on the same host memory
  std::atomic<uint64_t>* dirty;      // one bit a page, null when not logged
};

struct PhysicalMap {
  static constexpr uint32_t kMaxSlots = 512;
  uint32_t count = 0;
  Slot slot[kMaxSlots];  // sorted by gpa

  const Slot* find(uint64_t gpa) const {
    uint32_t low = 0, high = count;
    while (low < high) {
      const uint32_t middle = (low + high) / 2;
      if (gpa < slot[middle].gpa)
        high = middle;
      else if (gpa - slot[middle].gpa >= slot[middle].size)
        low = middle + 1;
      else
        return &slot[middle];
    }
    return nullptr;
  }
};

}  // namespace lodge::engine::soft
