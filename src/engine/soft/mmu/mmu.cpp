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

uint32_t index_of(uint64_t linear) { return static_cast<uint32_t>(linear >> 12) & (Mmu::kEntries - 1); }

void note_large(Mmu& mmu, uint64_t linear, uint64_t page_size) {
  if (page_size > kPageSize) mmu.large_filter |= uint64_t{1} << (linear >> 30 & 63);
}

bool write_is_direct(const Slot& slot, uint64_t gpa) {
  if (slot.flags & kReadOnlySlot) return false;
  const uint64_t page = (gpa - slot.gpa) >> 12;
  if (slot.page_flags && (slot.page_flags[page].load(std::memory_order_seq_cst) & kPageCode)) return false;
  if (slot.dirty && !(slot.dirty[page >> 6].load(std::memory_order_relaxed) >> (page & 63) & 1)) return false;
  return true;
}

// MMIO goes out in pieces of at most eight bytes, however aligned, as KVM splits it.
uint32_t piece_size(uint32_t left) { return left < 8 ? left : 8; }

}  // namespace

DataPage mmu_resolve(CpuState& c, uint64_t linear, bool write, uint32_t view) {
  const WalkRequest request{.write = write, .user = view == kViewUser, .smap = view == kViewSupervisorSmap};
  const WalkResult result = walk(c, *c.mmu->map, linear, request, &c);
  if (!result.ok) raise_page_fault(c, linear, result.error_code);

  const Slot* slot = c.mmu->map->find(result.gpa);
  if (!slot || (write && (slot->flags & kReadOnlySlot))) return {nullptr, nullptr, result.gpa, false};
  uint8_t* const host = slot->host + (result.gpa - slot->gpa);

  Mmu& mmu = *c.mmu;
  note_large(mmu, linear, result.page_size);
  TlbEntry& entry = mmu.tlb[view][index_of(linear)];
  const uint64_t tag = linear & kPageMask;
  const bool direct = write_is_direct(*slot, result.gpa);
  // A page whose own entry is not dirty yet must be walked again for its first write.
  const bool may_write = direct && (write || (result.dirty && result.writable));
  entry.read_tag = tag;
  entry.write_tag = may_write ? tag : Mmu::kNoTag;
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
  FetchEntry& entry = c.mmu->fetch[user][(linear >> 12) & (Mmu::kFetchEntries - 1)];
  if (entry.tag == (linear & kPageMask)) return {entry.host, entry.slot, entry.gpa};
  const WalkResult result = walk(c, *c.mmu->map, linear, {.fetch = true, .user = user}, &c);
  if (!result.ok) raise_page_fault(c, linear, result.error_code);
  const uint64_t gpa = result.gpa & kPageMask;
  const Slot* slot = c.mmu->map->find(gpa);
  if (!slot) return {nullptr, nullptr, gpa};
  note_large(*c.mmu, linear, result.page_size);
  entry = {linear & kPageMask, slot->host + (gpa - slot->gpa), slot, gpa};
  return {entry.host, entry.slot, gpa};
}

namespace {

void read_page(CpuState& c, uint64_t linear, uint8_t* into, uint32_t size, uint32_t view) {
  const TlbEntry& entry = c.mmu->tlb[view][index_of(linear)];
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
  const TlbEntry& entry = c.mmu->tlb[view][index_of(linear)];
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
    const uint64_t at = (linear + done) & (long_mode(c) ? ~uint64_t{0} : 0xffffffffu);
    const uint32_t room = room_in_page(at);
    const uint32_t part = size - done < room ? size - done : room;
    operation(at, done, part);
    done += part;
  }
}

void probe(CpuState& c, uint64_t linear, uint32_t size, uint32_t view) {
  by_page(c, linear, size, [&](uint64_t at, uint32_t, uint32_t) {
    if (c.mmu->tlb[view][index_of(at)].write_tag != (at & kPageMask)) mmu_resolve(c, at, true, view);
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

void mmu_flush_all(CpuState& c) {
  Mmu& mmu = *c.mmu;
  for (auto& view : mmu.tlb)
    for (TlbEntry& entry : view) entry.read_tag = entry.write_tag = Mmu::kNoTag;
  for (auto& side : mmu.fetch)
    for (FetchEntry& entry : side) entry.tag = Mmu::kNoTag;
  mmu.large_filter = 0;
  ++mmu.generation;
  jump_context_changed(c, true);
}

// Entries do not know whether they are global; flushing more than asked is allowed (SDM vol. 3, 4.10.4.1).
void mmu_flush_non_global(CpuState& c) { mmu_flush_all(c); }

void mmu_flush_page(CpuState& c, uint64_t linear) {
  Mmu& mmu = *c.mmu;
  if (mmu.large_filter >> (linear >> 30 & 63) & 1) return mmu_flush_all(c);
  const uint64_t tag = linear & kPageMask;
  for (auto& view : mmu.tlb) {
    TlbEntry& entry = view[index_of(linear)];
    if (entry.read_tag == tag || entry.write_tag == tag) entry.read_tag = entry.write_tag = Mmu::kNoTag;
  }
  for (auto& side : mmu.fetch) {
    FetchEntry& entry = side[(linear >> 12) & (Mmu::kFetchEntries - 1)];
    if (entry.tag == tag) entry.tag = Mmu::kNoTag;
  }
  ++mmu.generation;
  jump_context_changed(c, true);
}

}  // namespace lodge::engine::soft
