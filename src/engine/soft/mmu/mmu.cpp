#include "engine/soft/mmu/mmu.hpp"

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

// TlbSpace::large_filter and code_filter, and those of Mmu.
uint64_t large_bit(uint64_t linear) { return uint64_t{1} << (linear >> 30 & 63); }
uint64_t& code_word(uint64_t (&filter)[16], uint64_t linear) { return filter[linear >> 18 & 15]; }
uint64_t code_bit(uint64_t linear) { return uint64_t{1} << (linear >> 12 & 63); }

void empty(TlbEntry& entry) { entry.read_tag = entry.write_tag = entry.code_write_tag = Mmu::kNoTag; }

void list(TlbSpace& space, uint32_t entry) {
  if (space.filled_count < TlbSpace::kListed) space.filled[space.filled_count] = static_cast<uint16_t>(entry);
  ++space.filled_count;
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
  if (result.page_size > kPageSize) space.large_filter |= large_bit(linear);
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

FetchPage mmu_fetch(CpuState& c, uint64_t linear) {
  const bool user = c.cpl == 3;
  TlbSpace& space = current(c);
  const auto index = fetch_index(linear);
  FetchEntry& entry = space.fetch[user][index];
  if (entry.tag == (linear & kPageMask)) return {entry.host, entry.slot, entry.gpa};
  count(c, Counter::FetchWalks);
  const WalkResult result = walk(c, *c.mmu->map, linear, {.fetch = true, .user = user}, &c);
  if (!result.ok) raise_page_fault(c, linear, result.error_code);
  const uint64_t gpa = result.gpa & kPageMask;
  const Slot* slot = c.mmu->map->find(gpa);
  if (!slot) return {nullptr, nullptr, gpa};
  const bool large = result.page_size > kPageSize;
  if (large) space.large_filter |= large_bit(linear);
  const bool supervisor = !(c.key & key::kUser);
  if (supervisor && c.global_code && !result.global) {
    c.global_code = false;
    jump_context_changed(c);
  }
  const bool global = supervisor && c.global_code;
  if (global && large) c.mmu->global_large_filter |= large_bit(linear);
  code_word(global ? c.mmu->global_code_filter : space.code_filter, linear) |= code_bit(linear);
  if (entry.tag == Mmu::kNoTag) list(space, kFetchFrom + user * TlbSpace::kFetchEntries + index);
  entry = {linear & kPageMask, slot->host + (gpa - slot->gpa), slot, gpa};
  return {entry.host, entry.slot, gpa};
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

// What is remembered elsewhere by linear address.
void code_moved(CpuState& c, uint32_t index) {
  Mmu& mmu = *c.mmu;
  mmu.space[index].generation = ++mmu.generations;
  jump_contexts_drop(c, index);
  if (index != c.address_space) return;
  mmu.generation = mmu.space[index].generation;
  jump_context_changed(c);
}

void global_code_moved(CpuState& c) {
  Mmu& mmu = *c.mmu;
  for (uint64_t& word : mmu.global_code_filter) word = 0;
  mmu.global_large_filter = 0;
  mmu.global_generation = ++mmu.generations;
  jump_contexts_drop(c, kAddressSpaces);
  jump_context_changed(c);
}

void flush_space(CpuState& c, uint32_t index) {
  count(c, Counter::TlbFlushes);
  ++c.mmu->walk_generation;
  TlbSpace& space = c.mmu->space[index];
  for_filled(space, [](TlbEntry& entry) { empty(entry); }, [](FetchEntry& entry) { entry.tag = Mmu::kNoTag; });
  space.filled_count = 0;
  space.large_filter = 0;
  for (uint64_t& word : space.code_filter) word = 0;
  code_moved(c, index);
}

void flush_page(CpuState& c, uint32_t index, uint64_t linear) {
  ++c.mmu->walk_generation;
  TlbSpace& space = c.mmu->space[index];
  const uint64_t tag = linear & kPageMask;
  if (space.large_filter & large_bit(linear)) {
    for_filled(
        space,
        [&](TlbEntry& entry) {
          if (entry.read_tag != Mmu::kNoTag && !((entry.read_tag ^ linear) >> 30)) empty(entry);
        },
        [&](FetchEntry& entry) {
          if (!((entry.tag ^ linear) >> 30)) entry.tag = Mmu::kNoTag;
        });
    return code_moved(c, index);
  }
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
  if (code_word(space.code_filter, linear) & code_bit(linear)) code_moved(c, index);
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
    if (!mmu.named[index]) mmu.space[index].filled_count = TlbSpace::kListed + 1;  // zeros are no empty entries
    mmu.named[index] = static_cast<uint16_t>(pcid + 1);
    keep = false;
  }
  if (!keep) flush_space(c, index);
  activate(c, index);
}

void mmu_flush_all(CpuState& c) {
  c.global_code = c.cr4 & cr4::kPge;
  global_code_moved(c);
  for (uint32_t i = 0; i < kAddressSpaces; ++i)
    if (c.mmu->named[i]) flush_space(c, i);
  mmu_load_cr3(c, true);
}

void mmu_flush_page(CpuState& c, uint64_t linear) {
  count(c, Counter::PageFlushes);
  Mmu& mmu = *c.mmu;
  if ((code_word(mmu.global_code_filter, linear) & code_bit(linear)) || (mmu.global_large_filter & large_bit(linear))) global_code_moved(c);
  for (uint32_t i = 0; i < kAddressSpaces; ++i)
    if (c.mmu->named[i]) flush_page(c, i, linear);
}

void mmu_flush_pcid(CpuState& c, uint32_t pcid) {
  const uint32_t index = space_of(*c.mmu, pcid);
  if (index != kAddressSpaces) flush_space(c, index);
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
