// Builds the PhysicalMap from KVM's memory slots: owns the flags of host pages and the dirty bitmaps that the map points to.
//
// Slots that show the same host memory share its flags: a page's flags stand once per host page, in an area that spans all
// slots whose host ranges touch.
//
// Threads: set() with no vCPU in guest mode (Exclusive); the rest as said.
#pragma once

#include <linux/kvm.h>

#include <map>
#include <memory>
#include <vector>

#include "base/error.hpp"
#include "engine/soft/mmu/physical.hpp"

namespace lodge::engine::soft {

class MemorySlots {
 public:
  explicit MemorySlots(PhysicalMap& map) : map_(map) {}

  // KVM_SET_USER_MEMORY_REGION (EINVAL, EEXIST as os_errno). The caller drops all translated code.
  [[nodiscard]] Result<> set(const kvm_userspace_memory_region& region);

  // The slot's dirty bits, cleared in the same breath: the first half of KVM_GET_DIRTY_LOG. ENOENT without such a log.
  [[nodiscard]] Result<std::vector<uint64_t>> harvest(uint32_t id);

 private:
  // Flags of the pages of one stretch of host memory.
  struct FlagArea {
    uint64_t start = 0, size = 0;
    std::unique_ptr<std::atomic<uint8_t>[]> flags;
  };
  struct Region {
    kvm_userspace_memory_region parameters = {};
    std::unique_ptr<std::atomic<uint64_t>[]> dirty;
  };

  [[nodiscard]] Result<> check(const kvm_userspace_memory_region& region) const;
  void remove(uint32_t id);
  [[nodiscard]] bool shown(uint64_t host, uint64_t size) const;
  void cover(uint64_t start, uint64_t size);
  [[nodiscard]] std::atomic<uint8_t>* flags_of(uint64_t host) const;
  void drop_unused_areas();
  void rebuild();

  PhysicalMap& map_;
  std::map<uint32_t, Region> regions_;
  std::map<uint64_t, FlagArea> areas_;  // by start; they do not touch
};

}  // namespace lodge::engine::soft
