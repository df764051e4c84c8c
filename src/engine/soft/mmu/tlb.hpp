// The translation lookaside buffers of one vCPU: one for each address space used lately (PCID; SDM vol. 3, 4.10.1).
//
// A data entry answers for one 4 KiB page: host address = linear + addend if the tag of the access matches. Tags are
// page-aligned linear addresses; an absent right has kNoTag, which no access can match. A page that holds translated code,
// is read-only or not yet dirty in a dirty log has no write tag, so that the slow path sees each write to it.
#pragma once

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/mmu/filter.hpp"
#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/mmu/physical.hpp"

namespace lodge::engine::soft {

constexpr uint64_t kPageSize = 4096;
constexpr uint64_t kPageMask = ~(kPageSize - 1);

struct TlbEntry {
  uint64_t read_tag, write_tag;
  uint64_t addend;
  uint64_t code_write_tag;  // the page could be written directly, but that it holds translated code
};

struct FetchEntry {
  uint64_t tag;
  uint8_t* host;
  const Slot* slot;
  uint64_t gpa;
};

// The pages that code was fetched from, by linear address: the 4 KiB of each fetch, and the large pages that they were parts of.
template <uint32_t kSmall, uint32_t kLarge>
struct CodePages {
  PageFilter<kSmall> small;
  PageFilter<kLarge> large;

  void clear() { small.clear(), large.clear(); }
};

// Large pages are known by linear >> shift.
constexpr uint32_t kLargeShifts[] = {21, 22, 30};

// Where code was found.
struct CodePlace {
  uint64_t page;  // linear; bit 0: the user's
  const uint8_t* host;
};

struct alignas(64) TlbSpace {            // an entry lies in one cache line
  static constexpr uint64_t kNoTag = 1;  // never page-aligned
  static constexpr uint32_t kEntries = 4096, kFetchEntries = 1024;
  static constexpr uint32_t kListed = 2048, kCodePlaces = 1024;
  // Behind the entries those that gave way to others, at victim_index(): the slow path of look-ups finds them there.
  static constexpr uint32_t kVictims = 256, kAll = kEntries + kVictims;
  TlbEntry tlb[kViewCount][kAll];
  FetchEntry fetch[2][kFetchEntries];  // supervisor, user
  PageFilter<16> large;                // large pages that entries are parts of: INVLPG empties all of these
  CodePages<64, 8> code;
  // Of each fetch that walked, but for global code: what the contexts of jumps (CpuState::jump_context) rest on. They outlive a flush if
  // all of it is found again.
  CodePlace code_place[kCodePlaces];
  uint32_t code_places;  // beyond kCodePlaces: too many to list
  uint8_t large_shifts;  // bit i: `large` or `code.large` has pages of kLargeShifts[i]
  uint64_t generation;
  uint32_t filled_count;     // beyond kListed: too many to list
  uint16_t filled[kListed];  // what a flush has to empty: view * kAll + i, behind those side * kFetchEntries + i
};

// What walks of 4-level paging found for 2 MiB: the page table, or the large page (a paging-structure cache and a large TLB entry; SDM
// vol. 3, 4.10.2 and 4.10.3).
struct WalkCacheEntry {
  uint64_t generation, region;  // linear >> 21
  uint32_t space;
  bool writable, user, no_execute;  // by the structures above the table, or altogether
  bool dirty, global;               // large page
  const uint64_t* table;            // null: large
  uint64_t gpa;                     // of the large page's part
};

struct Mmu {
  static constexpr uint32_t kWalkCache = 1024;
  static constexpr uint64_t kNoTag = TlbSpace::kNoTag;
  TlbSpace space[kAddressSpaces];
  uint16_t named[kAddressSpaces];     // PCID + 1; 0: never used, all zeros
  uint64_t last_use[kAddressSpaces];  // by `uses`
  uint64_t uses;
  const PhysicalMap* map;
  uint64_t generation;   // the current space's: changes when what is remembered by linear address elsewhere goes stale
  uint64_t generations;  // given so far
  WalkCacheEntry walk_cache[kWalkCache];
  uint64_t walk_generation;  // the others are stale
  // Of the supervisor's global code (CpuState::global_code).
  uint64_t global_generation;
  CodePages<1024, 16> global_code;
};

// The generation that what is remembered of code by linear address goes by now.
inline uint64_t code_generation_of(const CpuState& c) {
  return c.global_code && !(c.key & key::kUser) ? c.mmu->global_generation : c.mmu->generation;
}

inline uint32_t tlb_index(uint64_t linear) { return static_cast<uint32_t>(linear >> 12) & (TlbSpace::kEntries - 1); }
inline uint32_t victim_index(uint64_t linear) {
  return TlbSpace::kEntries + (static_cast<uint32_t>(linear >> 12 ^ linear >> 24) & (TlbSpace::kVictims - 1));
}
inline uint32_t fetch_index(uint64_t linear) { return static_cast<uint32_t>(linear >> 12) & (TlbSpace::kFetchEntries - 1); }
// Of the current space and view.
inline const TlbEntry& tlb_entry(const CpuState& c, uint64_t linear) { return reinterpret_cast<const TlbEntry*>(c.tlb)[tlb_index(linear)]; }

// One page of code: the host page that the linear page of `linear` is backed by. Raises #PF; host is null when the page is not RAM.
struct FetchPage {
  uint8_t* host;  // start of the page
  const Slot* slot;
  uint64_t gpa;
};
FetchPage mmu_fetch(CpuState& c, uint64_t linear);

// Where a data access of one page may go directly; null when it is MMIO or may not be written directly
// (code page, read-only slot, clean page of a dirty log). Raises #PF. [linear, linear+size) lies within one page.
struct DataPage {
  uint8_t* host;     // of `linear`, null for MMIO
  const Slot* slot;  // null for MMIO
  uint64_t gpa;      // of `linear`
  bool direct;       // false: a write must be announced with mmu_written()
};
DataPage mmu_resolve(CpuState& c, uint64_t linear, bool write, uint32_t view);
// After a write to RAM that was not direct: dirty log and translated code.
void mmu_written(CpuState& c, const Slot& slot, uint64_t gpa, uint32_t length);

// A walk without side effects (KVM_TRANSLATE, register dumps). False: not mapped.
bool mmu_translate(const CpuState& c, uint64_t linear, uint64_t& gpa);

// Implemented by translate/: bytes of a page with kPageCode changed. `host` may lie anywhere in the page.
void code_written(CpuState& c, uint8_t* host, uint32_t length);

inline uint64_t linear_mask(const CpuState& c) { return code64(c) ? ~uint64_t{0} : 0xffffffffu; }

}  // namespace lodge::engine::soft
