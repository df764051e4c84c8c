// One walk of the guest's paging structures.
#pragma once

#include "engine/soft/mmu/tlb.hpp"

namespace lodge::engine::soft {

struct WalkRequest {
  bool write = false, fetch = false;
  bool user = false;  // CPL 3 and not one of the processor's own accesses
  bool smap = false;  // a supervisor access to a user page faults
  bool peek = false;  // not ok where an accessed bit would have to be set
};

struct WalkResult {
  bool ok;
  uint64_t gpa;
  uint64_t page_size;
  bool writable, user, no_execute, dirty, global;
  uint32_t error_code;  // of the page fault when not ok
};

// `effects`: whose accessed and dirty bits are set (and dirty logs marked), or null for a walk that only looks.
WalkResult walk(const CpuState& c, const PhysicalMap& map, uint64_t linear, const WalkRequest& request, CpuState* effects);

}  // namespace lodge::engine::soft
