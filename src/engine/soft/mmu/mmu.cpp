#include "engine/soft/mmu/mmu.hpp"

#include <iterator>

#include "engine/soft/cpu/access.hpp"
#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/mmu/walk.hpp"
#include "engine/soft/vcpu/replay.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kReadOnlySlot = 2;  // KVM_MEM_READONLY

// Plain copies whose parts of 1, 2, 4 and 8 bytes are single accesses, as the guest's other processors may count on.
void copy(void* to, const void* from, uint32_t size) {
  switch (size) {
    case 1: *static_cast<uint8_t*>(to) = *static_cast<const volatile uint8_t*>(from); return;
    case 2: __builtin_memcpy(to, from, 2); return;
    case 4: __builtin_memcpy(to, from, 4); return;
    case 8: __builtin_memcpy(to, from, 8); return;
    default: {
      void* t = to;
      const void* f = from;
      uint64_t n = size;
      asm volatile("rep movsb" : "+D"(t), "+S"(f), "+c"(n) : : "memory");
    }
  }
}

TlbSpace& current(CpuState& c) { return c.mmu->space[c.address_space]; }

// The data entry for a page, perhaps another page's.
TlbEntry& entry_of(CpuState& c, uint64_t linear, uint32_t view) { return current(c).tlb[view][tlb_index(linear)]; }

// A large page in a filter: pages of different sizes do not count for each other.
uint64_t large_number(uint64_t linear, uint32_t shift) { return linear >> shift | static_cast<uint64_t>(shift) << 57; }

void empty(TlbEntry& entry) { entry.read_tag = entry.write_tag = entry.code_write_tag = Mmu::kNoTag; }

void list(TlbSpace& space, uint32_t entry) {
  if (space.filled_count < TlbSpace::kListed) space.filled[space.filled_count] = static_cast<uint16_t>(entry);
  ++space.filled_count;
}

// The number of a large page that entries of the space are made from.
uint64_t large_page(TlbSpace& space, uint64_t linear, uint64_t page_size) {
  for (uint32_t i = 0; i < std::size(kLargeShifts); ++i) {
    if (uint64_t{1} << kLargeShifts[i] != page_size) continue;
    space.large_shifts |= static_cast<uint8_t>(1u << i);
    return large_number(linear, kLargeShifts[i]);
  }
  __builtin_unreachable();
}

constexpr uint32_t kFetchFrom = kViewCount * TlbSpace::kAll;

enum class Writing { Direct, Code, Announced };

Writing way_of_writing(const Slot& slot, uint64_t gpa) {
  if (slot.flags & kReadOnlySlot) return Writing::Announced;
  const uint64_t page = (gpa - slot.gpa) >> 12;
  if (slot.dirty && !(slot.dirty[page >> 6].load(std::memory_order_relaxed) >> (page & 63) & 1)) return Writing::Announced;
  const bool code = slot.page_flags && (slot.page_flags[page].load(std::memory_order_seq_cst) & kPageCode);
  return code ? Writing::Code : Writing::Direct;
}

// MMIO goes out in pieces of at most eight bytes, however aligned, as KVM splits it.
uint32_t piece_size(uint32_t left) { return left < 8 ? left : 8; }

}  // namespace

DataPage mmu_resolve(CpuState& c, uint64_t linear, bool write, uint32_t view) {
  count(c, Counter::DataWalks);
  const WalkRequest request{.write = write, .user = view == kViewUser, .smap = view == kViewSupervisorSmap};
  const WalkResult result = walk(c, *c.mmu->map, linear, request, &c);
  if (!result.ok) raise_page_fault(c, linear, result.error_code);

  const Slot* slot = c.mmu->map->find(result.gpa);
  if (!slot || (write && (slot->flags & kReadOnlySlot))) return {nullptr, nullptr, result.gpa, false};
  uint8_t* const host = slot->host + (result.gpa - slot->gpa);

  TlbSpace& space = current(c);
  if (result.page_size > kPageSize) space.large.add(large_page(space, linear, result.page_size));
  TlbEntry& entry = space.tlb[view][tlb_index(linear)];
  const uint64_t tag = linear & kPageMask;
  if (entry.read_tag == Mmu::kNoTag) {
    list(space, view * TlbSpace::kAll + tlb_index(linear));
  } else if (entry.read_tag != tag) {
    TlbEntry& victim = space.tlb[view][victim_index(entry.read_tag)];
    if (victim.read_tag == Mmu::kNoTag) list(space, view * TlbSpace::kAll + victim_index(entry.read_tag));
    victim = entry;
  }
  TlbEntry& stale = space.tlb[view][victim_index(tag)];
  if (stale.read_tag == tag) empty(stale);
  const Writing writing = way_of_writing(*slot, result.gpa);
  const bool direct = writing == Writing::Direct;
  // A page whose own entry is not dirty yet must be walked again for its first write.
  const bool may_write = write || (result.dirty && result.writable);
  entry.read_tag = tag;
  entry.write_tag = may_write && direct ? tag : Mmu::kNoTag;
  entry.code_write_tag = may_write && writing == Writing::Code ? tag : Mmu::kNoTag;
  entry.addend = reinterpret_cast<uint64_t>(host) - linear;
  return {host, slot, result.gpa, direct};
}

void mmu_written(CpuState& c, const Slot& slot, uint64_t gpa, uint32_t length) {
  const uint64_t page = (gpa - slot.gpa) >> 12;
  if (slot.dirty) slot.dirty[page >> 6].fetch_or(uint64_t{1} << (page & 63), std::memory_order_relaxed);
  if (slot.page_flags && (slot.page_flags[page].load(std::memory_order_seq_cst) & kPageCode))
    code_written(c, slot.host + (gpa - slot.gpa), length);
}

namespace {

// What a walk of code found, or no slot.
FetchEntry fetched(const CpuState& c, uint64_t linear, const WalkResult& result) {
  const uint64_t gpa = result.gpa & kPageMask;
  const Slot* const slot = c.mmu->map->find(gpa);
  return {linear & kPageMask, slot ? slot->host + (gpa - slot->gpa) : nullptr, slot, gpa};
}

// `code`: the space's, or the global code's.
template <typename Pages>
void keep_fetched(TlbSpace& space, Pages& code, const FetchEntry& found, bool user, uint64_t page_size) {
  const auto index = fetch_index(found.tag);
  FetchEntry& entry = space.fetch[user][index];
  if (entry.tag == Mmu::kNoTag) list(space, kFetchFrom + user * TlbSpace::kFetchEntries + index);
  entry = found;
  code.small.add(found.tag >> 12);
  if (page_size == kPageSize) return;
  const uint64_t large = large_page(space, found.tag, page_size);
  space.large.add(large);
  code.large.add(large);
}

// The supervisor has code that is not global. What was fetched as such belongs to the address spaces from now on, as soon as it is fetched
// again.
void end_global_code(CpuState& c) {
  c.global_code = false;
  for (TlbSpace& space : c.mmu->space)
    for (FetchEntry& entry : space.fetch[0]) entry.tag = Mmu::kNoTag;
  jump_context_changed(c);
}

}  // namespace

FetchPage mmu_fetch(CpuState& c, uint64_t linear) {
  const bool user = c.cpl == 3;
  TlbSpace& space = current(c);
  const FetchEntry& entry = space.fetch[user][fetch_index(linear)];
  if (entry.tag == (linear & kPageMask)) return {entry.host, entry.slot, entry.gpa};
  count(c, Counter::FetchWalks);
  const WalkResult result = walk(c, *c.mmu->map, linear, {.fetch = true, .user = user}, &c);
  if (!result.ok) raise_page_fault(c, linear, result.error_code);
  const FetchEntry found = fetched(c, linear, result);
  if (!found.slot) return {nullptr, nullptr, found.gpa};
  if (!user && c.global_code && !result.global) end_global_code(c);
  if (!user && c.global_code) {
    keep_fetched(space, c.mmu->global_code, found, user, result.page_size);
  } else {
    keep_fetched(space, space.code, found, user, result.page_size);
    if (space.code_places < TlbSpace::kCodePlaces) space.code_place[space.code_places] = {found.tag | user, found.host};
    if (space.code_places <= TlbSpace::kCodePlaces) ++space.code_places;
  }
  return {found.host, found.slot, found.gpa};
}

namespace {

void read_page(CpuState& c, uint64_t linear, uint8_t* into, uint32_t size, uint32_t view) {
  const TlbEntry& entry = entry_of(c, linear, view);
  if (entry.read_tag == (linear & kPageMask)) {
    copy(into, reinterpret_cast<const void*>(linear + entry.addend), size);
    return;
  }
  const DataPage page = mmu_resolve(c, linear, false, view);
  if (page.host) {
    copy(into, page.host, size);
    return;
  }
  for (uint32_t done = 0; done < size;) {
    const uint32_t piece = piece_size(size - done);
    const uint64_t value = replay_mmio_read(c, page.gpa + done, piece);
    copy(into + done, &value, piece);
    done += piece;
  }
}

void write_page(CpuState& c, uint64_t linear, const uint8_t* from, uint32_t size, uint32_t view) {
  const TlbEntry& entry = entry_of(c, linear, view);
  if (entry.write_tag == (linear & kPageMask)) {
    copy(reinterpret_cast<void*>(linear + entry.addend), from, size);
    return;
  }
  const DataPage page = mmu_resolve(c, linear, true, view);
  if (page.host) {
    copy(page.host, from, size);
    if (!page.direct) mmu_written(c, *page.slot, page.gpa, size);
    return;
  }
  for (uint32_t done = 0; done < size;) {
    const uint32_t piece = piece_size(size - done);
    uint64_t value = 0;
    copy(&value, from + done, piece);
    replay_mmio_write(c, page.gpa + done, piece, value);
    done += piece;
  }
}

uint32_t room_in_page(uint64_t linear) { return static_cast<uint32_t>(kPageSize - (linear & (kPageSize - 1))); }

template <typename PageOperation>
void by_page(CpuState& c, uint64_t linear, uint32_t size, PageOperation operation) {
  uint32_t done = 0;
  while (done < size) {
    // Behind the last byte of 4 GiB code that is not 64-bit code comes the first.
    const uint64_t at = (linear + done) & (long_mode(c) && (code64(c) || linear >> 32) ? ~uint64_t{0} : 0xffffffffu);
    const uint32_t room = room_in_page(at);
    const uint32_t part = size - done < room ? size - done : room;
    operation(at, done, part);
    done += part;
  }
}

void probe(CpuState& c, uint64_t linear, uint32_t size, uint32_t view) {
  by_page(c, linear, size, [&](uint64_t at, uint32_t, uint32_t) {
    if (entry_of(c, at, view).write_tag != (at & kPageMask)) mmu_resolve(c, at, true, view);
  });
}

void write_view(CpuState& c, uint64_t linear, const void* from, uint32_t size, uint32_t view) {
  if (size > room_in_page(linear)) probe(c, linear, size, view);  // a fault on the second page leaves the first unchanged
  by_page(c, linear, size,
          [&](uint64_t at, uint32_t done, uint32_t part) { write_page(c, at, static_cast<const uint8_t*>(from) + done, part, view); });
}

void read_view(CpuState& c, uint64_t linear, void* into, uint32_t size, uint32_t view) {
  by_page(c, linear, size,
          [&](uint64_t at, uint32_t done, uint32_t part) { read_page(c, at, static_cast<uint8_t*>(into) + done, part, view); });
}

// The processor's own accesses are supervisor accesses even at CPL 3; SMAP applies to them whatever EFLAGS.AC says.
uint32_t system_view(const CpuState& c) { return c.cr4 & cr4::kSmap ? kViewSupervisorSmap : kViewSupervisor; }

}  // namespace

void mmu_read(CpuState& c, uint64_t linear, void* into, uint32_t size) { read_view(c, linear, into, size, c.view); }
void mmu_write(CpuState& c, uint64_t linear, const void* from, uint32_t size) { write_view(c, linear, from, size, c.view); }
void mmu_read_system(CpuState& c, uint64_t linear, void* into, uint32_t size) { read_view(c, linear, into, size, system_view(c)); }
void mmu_write_system(CpuState& c, uint64_t linear, const void* from, uint32_t size) { write_view(c, linear, from, size, system_view(c)); }
void mmu_probe_write(CpuState& c, uint64_t linear, uint32_t size, bool system) { probe(c, linear, size, system ? system_view(c) : c.view); }

void mmu_or_system(CpuState& c, uint64_t linear, uint8_t bits) {
  const DataPage page = mmu_resolve(c, linear, true, system_view(c));
  if (page.host) {
    __atomic_fetch_or(page.host, bits, __ATOMIC_SEQ_CST);
    if (!page.direct) mmu_written(c, *page.slot, page.gpa, 1);
    return;
  }
  replay_mmio_write(c, page.gpa, 1, replay_mmio_read(c, page.gpa, 1) | bits);
}

namespace {

// Calls with a reference to each entry that may hold something: the data entries' and the fetch entries'.
template <typename Data, typename Fetch>
void for_filled(TlbSpace& space, Data data, Fetch fetch) {
  if (space.filled_count <= TlbSpace::kListed) {
    for (uint32_t i = 0; i < space.filled_count; ++i) {
      const uint32_t entry = space.filled[i];
      if (entry < kFetchFrom)
        data(space.tlb[entry / TlbSpace::kAll][entry % TlbSpace::kAll]);
      else
        fetch(space.fetch[(entry - kFetchFrom) / TlbSpace::kFetchEntries][(entry - kFetchFrom) % TlbSpace::kFetchEntries]);
    }
    return;
  }
  for (auto& view : space.tlb)
    for (TlbEntry& entry : view) data(entry);
  for (auto& side : space.fetch)
    for (FetchEntry& entry : side) fetch(entry);
}

// What is remembered of code by linear address.
void code_moved(CpuState& c, uint32_t index) {
  Mmu& mmu = *c.mmu;
  count(c, Counter::CodeMoves);
  mmu.space[index].generation = ++mmu.generations;
  jump_contexts_drop(c, index);
  if (index != c.address_space) return;
  mmu.generation = mmu.space[index].generation;
  jump_context_changed(c);
}

// Whether the current space's code lies there still, by the page tables as they are now. Then it is cached again, as a processor may do at
// any time with what counts as accessed (SDM vol. 3, 4.10.2.3).
bool found_again(CpuState& c, const CodePlace& place) {
  const bool user = place.page & 1;
  const uint64_t linear = place.page & kPageMask;
  TlbSpace& space = current(c);
  const FetchEntry& entry = space.fetch[user][fetch_index(linear)];
  if (entry.tag == linear) return entry.host == place.host;
  const WalkResult result = walk(c, *c.mmu->map, linear, {.fetch = true, .user = user, .peek = true}, &c);
  if (!result.ok) return false;
  const FetchEntry found = fetched(c, linear, result);
  if (found.host != place.host) return false;
  keep_fetched(space, space.code, found, user, result.page_size);
  return true;
}

// After a flush of a page of the current space, or of all.
void look_for_code(CpuState& c, bool all) {
  TlbSpace& space = current(c);
  if (space.code_places > TlbSpace::kCodePlaces) {
    if (all) space.code_places = 0;
    return code_moved(c, c.address_space);
  }
  uint32_t kept = 0;
  bool moved = false;
  for (uint32_t i = 0; i < space.code_places; ++i) {
    if (found_again(c, space.code_place[i])) {
      space.code_place[kept++] = space.code_place[i];
      continue;
    }
    moved = true;
    if (all) break;  // nothing of the others is cached
  }
  space.code_places = kept;
  if (moved) code_moved(c, c.address_space);
}

void global_code_moved(CpuState& c) {
  Mmu& mmu = *c.mmu;
  count(c, Counter::CodeMoves);
  mmu.global_code.clear();
  mmu.global_generation = ++mmu.generations;
  jump_contexts_drop(c, kAddressSpaces);
  jump_context_changed(c);
}

// look_for_code() or forget_code() is to follow.
void empty_space(CpuState& c, uint32_t index) {
  count(c, Counter::TlbFlushes);
  ++c.mmu->walk_generation;
  TlbSpace& space = c.mmu->space[index];
  for_filled(space, [](TlbEntry& entry) { empty(entry); }, [](FetchEntry& entry) { entry.tag = Mmu::kNoTag; });
  space.filled_count = 0;
  space.large.clear();
  space.code.clear();
  space.large_shifts = 0;
}

void forget_code(CpuState& c, uint32_t index) {
  c.mmu->space[index].code_places = 0;
  code_moved(c, index);
}

// All entries that were made from a large page.
void empty_large(TlbSpace& space, uint64_t linear, uint32_t shift) {
  for_filled(
      space,
      [&](TlbEntry& entry) {
        if (entry.read_tag != Mmu::kNoTag && !((entry.read_tag ^ linear) >> shift)) empty(entry);
      },
      [&](FetchEntry& entry) {
        if (entry.tag != Mmu::kNoTag && !((entry.tag ^ linear) >> shift)) entry.tag = Mmu::kNoTag;
      });
}

void flush_page(CpuState& c, uint32_t index, uint64_t linear) {
  ++c.mmu->walk_generation;
  TlbSpace& space = c.mmu->space[index];
  const uint64_t tag = linear & kPageMask;
  for (auto& view : space.tlb) {
    TlbEntry& entry = view[tlb_index(linear)];
    if (entry.read_tag == tag) empty(entry);
    TlbEntry& victim = view[victim_index(linear)];
    if (victim.read_tag == tag) empty(victim);
  }
  for (auto& side : space.fetch) {
    FetchEntry& entry = side[fetch_index(linear)];
    if (entry.tag == tag) entry.tag = Mmu::kNoTag;
  }
  bool code = space.code.small.may_hold(linear >> 12);
  for (uint32_t shifts = space.large_shifts; shifts; shifts &= shifts - 1) {
    const uint32_t shift = kLargeShifts[__builtin_ctz(shifts)];
    const uint64_t large = large_number(linear, shift);
    if (space.large.may_hold(large)) empty_large(space, linear, shift);
    code = code || space.code.large.may_hold(large);
  }
  if (!code) return;
  if (index == c.address_space)
    look_for_code(c, false);
  else
    code_moved(c, index);
}

// Whether code of the supervisor may have been fetched from global pages that INVLPG of the address drops.
bool is_global_code(const Mmu& mmu, uint64_t linear) {
  if (mmu.global_code.small.may_hold(linear >> 12)) return true;
  for (const uint32_t shift : kLargeShifts)
    if (mmu.global_code.large.may_hold(large_number(linear, shift))) return true;
  return false;
}

uint32_t current_pcid(const CpuState& c) { return c.cr4 & cr4::kPcide ? c.cr3 & 0xfff : 0; }

// kAddressSpaces: none.
uint32_t space_of(const Mmu& mmu, uint32_t pcid) {
  for (uint32_t i = 0; i < kAddressSpaces; ++i)
    if (mmu.named[i] == pcid + 1) return i;
  return kAddressSpaces;
}

void activate(CpuState& c, uint32_t index) {
  Mmu& mmu = *c.mmu;
  mmu.last_use[index] = ++mmu.uses;
  c.address_space = index;
  c.tlb_views = reinterpret_cast<uint64_t>(mmu.space[index].tlb);
  c.tlb_view_size = sizeof mmu.space[index].tlb[0];
  c.tlb = c.tlb_views + c.view * c.tlb_view_size;
  mmu.generation = mmu.space[index].generation;
  jump_context_changed(c);
}

}  // namespace

void mmu_load_cr3(CpuState& c, bool keep) {
  Mmu& mmu = *c.mmu;
  const uint32_t pcid = current_pcid(c);
  uint32_t index = space_of(mmu, pcid);
  if (index == kAddressSpaces) {
    index = 0;
    for (uint32_t i = 1; i < kAddressSpaces; ++i)
      if (mmu.last_use[i] < mmu.last_use[index]) index = i;
    if (!mmu.named[index]) {
      mmu.space[index].filled_count = TlbSpace::kListed + 1;  // zeros are no empty entries
      mmu.space[index].generation = ++mmu.generations;        // nor a generation of its own
    }
    mmu.named[index] = static_cast<uint16_t>(pcid + 1);
    keep = false;
  }
  if (!keep) empty_space(c, index);
  activate(c, index);
  if (!keep) look_for_code(c, true);
}

void mmu_flush_all(CpuState& c) {
  c.global_code = c.cr4 & cr4::kPge;
  global_code_moved(c);
  for (uint32_t i = 0; i < kAddressSpaces; ++i)
    if (c.mmu->named[i]) empty_space(c, i), forget_code(c, i);
  mmu_load_cr3(c, true);
}

void mmu_flush_data(CpuState& c) {
  for (uint32_t i = 0; i < kAddressSpaces; ++i) {
    if (!c.mmu->named[i]) continue;
    TlbSpace& space = c.mmu->space[i];
    for_filled(space, [](TlbEntry& entry) { empty(entry); }, [](FetchEntry&) {});
    if (space.filled_count > TlbSpace::kListed) continue;
    uint32_t left = 0;
    for (uint32_t k = 0; k < space.filled_count; ++k)
      if (space.filled[k] >= kFetchFrom) space.filled[left++] = space.filled[k];
    space.filled_count = left;
  }
}

void mmu_flush_page(CpuState& c, uint64_t linear) {
  count(c, Counter::PageFlushes);
  Mmu& mmu = *c.mmu;
  if (is_global_code(mmu, linear)) global_code_moved(c);
  for (uint32_t i = 0; i < kAddressSpaces; ++i)
    if (c.mmu->named[i]) flush_page(c, i, linear);
}

void mmu_flush_pcid(CpuState& c, uint32_t pcid) {
  const uint32_t index = space_of(*c.mmu, pcid);
  if (index == kAddressSpaces) return;
  empty_space(c, index);
  if (index == c.address_space)
    look_for_code(c, true);
  else
    forget_code(c, index);
}

void mmu_flush_page_pcid(CpuState& c, uint32_t pcid, uint64_t linear) {
  const uint32_t index = space_of(*c.mmu, pcid);
  if (index != kAddressSpaces) flush_page(c, index, linear);
}

void mmu_protect(CpuState& c, const uint8_t* host_page) {
  for (uint32_t i = 0; i < kAddressSpaces; ++i) {
    if (!c.mmu->named[i]) continue;
    for_filled(
        c.mmu->space[i],
        [&](TlbEntry& entry) {
          if (entry.write_tag + entry.addend != reinterpret_cast<uint64_t>(host_page)) return;
          entry.code_write_tag = entry.write_tag;
          entry.write_tag = Mmu::kNoTag;
        },
        [](FetchEntry&) {});
  }
}

}  // namespace lodge::engine::soft
