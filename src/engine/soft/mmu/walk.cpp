// Page walks of 32-bit, PAE and 4-level paging (SDM vol. 3, 4.3 to 4.5).
#include "engine/soft/mmu/walk.hpp"

#include "engine/soft/cpu/unwind.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kPresentBit = 1, kWriteBit = 2, kUserBit = 4, kAccessedBit = 32, kDirtyBit = 64, kLargeBit = 128, kGlobalBit = 256,
                   kNxBit = uint64_t{1} << 63;
constexpr uint64_t kAddressMask = ((uint64_t{1} << kPhysicalBits) - 1) & kPageMask;
constexpr uint64_t kReservedHigh = ((uint64_t{1} << 52) - 1) & ~((uint64_t{1} << kPhysicalBits) - 1);

// A paging-structure entry in guest memory. Outside RAM the bus answers all ones, which has reserved bits set.
struct EntryPlace {
  const Slot* slot;
  uint8_t* host;
  uint64_t gpa;
};

EntryPlace place_of(const PhysicalMap& map, uint64_t gpa) {
  const Slot* slot = map.find(gpa);
  return {slot, slot ? slot->host + (gpa - slot->gpa) : nullptr, gpa};
}

template <typename T>
T load(const EntryPlace& place) {
  return place.host ? __atomic_load_n(reinterpret_cast<T*>(place.host), __ATOMIC_RELAXED) : static_cast<T>(~T{0});
}

// Sets bits as the processor does, atomically and only if the entry still reads as the walk saw it. False: walk again.
template <typename T>
bool set_bits(CpuState* c, const EntryPlace& place, T seen, T bits) {
  if ((seen & bits) == bits || !place.host || (place.slot->flags & 2 /* KVM_MEM_READONLY */)) return true;
  if (!__atomic_compare_exchange_n(reinterpret_cast<T*>(place.host), &seen, static_cast<T>(seen | bits), false, __ATOMIC_SEQ_CST,
                                   __ATOMIC_RELAXED))
    return false;
  if (c) mmu_written(*c, *place.slot, place.gpa, sizeof(T));
  return true;
}

struct Level {
  EntryPlace place;
  uint64_t entry;
};

}  // namespace

// The rights check of SDM vol. 3, 4.6.1.
static bool allowed(const CpuState& c, const WalkRequest& request, const WalkResult& result) {
  if (request.user) {
    if (!result.user) return false;
    if (request.write && !result.writable) return false;
    if (request.fetch && result.no_execute) return false;
    return true;
  }
  if (request.fetch) {
    if (result.no_execute) return false;
    return !(result.user && (c.cr4 & cr4::kSmep));
  }
  if (result.user && request.smap) return false;
  return !(request.write && !result.writable && (c.cr0 & cr0::kWp));
}

namespace {

WalkCacheEntry& cached(const CpuState& c, uint64_t linear) {
  return c.mmu->walk_cache[(linear >> 21 ^ c.address_space * 0x55) & (Mmu::kWalkCache - 1)];
}

// The walk's end, if its beginning is known and there is nothing to set or to refuse.
bool walk_from_cache(const CpuState& c, uint64_t linear, const WalkRequest& request, WalkResult& result) {
  const WalkCacheEntry& known = cached(c, linear);
  if (known.region != linear >> 21 || known.generation != c.mmu->walk_generation || known.space != c.address_space) return false;
  result.writable = known.writable;
  result.user = known.user;
  result.no_execute = known.no_execute;
  if (known.table) {
    const uint64_t entry = __atomic_load_n(known.table + (linear >> 12 & 0x1ff), __ATOMIC_RELAXED);
    const bool nx = c.efer & efer::kNx;
    const uint64_t needed = kPresentBit | kAccessedBit | (request.write ? kDirtyBit : 0);
    if ((entry & needed) != needed || (entry & (kReservedHigh | (nx ? 0 : kNxBit)))) return false;
    result.writable = result.writable && (entry & kWriteBit);
    result.user = result.user && (entry & kUserBit);
    result.no_execute = result.no_execute || (nx && (entry & kNxBit));
    result.dirty = entry & kDirtyBit;
    result.global = (entry & kGlobalBit) && (c.cr4 & cr4::kPge);
    result.gpa = (entry & kAddressMask) | (linear & (kPageSize - 1));
    result.page_size = kPageSize;
  } else {
    if (request.write && !known.dirty) return false;
    result.dirty = known.dirty;
    result.global = known.global;
    result.gpa = known.gpa | (linear & 0x1fffff);
    result.page_size = 0x200000;
  }
  result.ok = allowed(c, request, result);
  return result.ok;
}

void keep_walk(CpuState& c, uint64_t linear, const Level* levels, uint32_t depth, const WalkResult& result) {
  const bool large = result.page_size > kPageSize;
  if (!large && (depth != 4 || !levels[3].place.host)) return;
  WalkCacheEntry& entry = cached(c, linear);
  entry = {c.mmu->walk_generation, linear >> 21, c.address_space, true, true, false, result.dirty, result.global, nullptr, 0};
  for (uint32_t i = 0; i < (large ? depth : 3); ++i) {
    entry.writable = entry.writable && (levels[i].entry & kWriteBit);
    entry.user = entry.user && (levels[i].entry & kUserBit);
    entry.no_execute = entry.no_execute || ((c.efer & efer::kNx) && (levels[i].entry & kNxBit));
  }
  if (large)
    entry.gpa = result.gpa & ~uint64_t{0x1fffff};
  else
    entry.table = reinterpret_cast<const uint64_t*>(reinterpret_cast<uint64_t>(levels[3].place.host) & kPageMask);
}

}  // namespace

WalkResult walk(const CpuState& c, const PhysicalMap& map, uint64_t linear, const WalkRequest& request, CpuState* effects) {
  WalkResult result{};
  if (!(c.cr0 & cr0::kPg)) {
    result.ok = true;
    result.gpa = linear & 0xffffffffu;
    result.user = result.writable = result.dirty = true;
    result.page_size = kPageSize;
    return result;
  }
  const bool nx = c.efer & efer::kNx;
  const bool pae = c.cr4 & cr4::kPae;
  const bool by_cache = effects && (c.efer & efer::kLma);
  if (by_cache && walk_from_cache(c, linear, request, result)) return result;
  result = {};
  const uint32_t error_base = (request.write ? pf::kWrite : 0) | (request.user ? pf::kUser : 0) |
                              (request.fetch && ((nx && pae) || (c.cr4 & cr4::kSmep)) ? pf::kFetch : 0);
  for (;;) {  // again when another processor changed an entry under the walk
    Level levels[4];
    uint32_t depth = 0;
    bool writable = true, user = true, no_execute = false;
    uint64_t page_size = 0, base = 0;
    uint32_t error = error_base;
    bool fault = false;

    auto accumulate = [&](uint64_t entry) {
      writable = writable && (entry & kWriteBit);
      user = user && (entry & kUserBit);
      no_execute = no_execute || (nx && pae && (entry & kNxBit));
    };
    auto reserved_fault = [&] {
      error |= pf::kPresent | pf::kReserved;
      fault = true;
    };

    if (!pae) {
      levels[0].place = place_of(map, (c.cr3 & 0xfffff000u) | ((linear >> 22 & 0x3ff) << 2));
      const uint32_t pde = load<uint32_t>(levels[0].place);
      levels[0].entry = pde;
      depth = 1;
      if (!(pde & kPresentBit)) {
        fault = true;
      } else if ((pde & kLargeBit) && (c.cr4 & cr4::kPse)) {
        // PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved.
        if (pde & (1u << 21)) reserved_fault();
        accumulate(pde);
        page_size = uint64_t{1} << 22;
        base = (pde & 0xffc00000u) | (static_cast<uint64_t>(pde >> 13 & 0xff) << 32);
      } else {
        accumulate(pde);
        levels[1].place = place_of(map, (pde & 0xfffff000u) | ((linear >> 12 & 0x3ff) << 2));
        const uint32_t pte = load<uint32_t>(levels[1].place);
        levels[1].entry = pte;
        depth = 2;
        if (!(pte & kPresentBit)) fault = true;
        accumulate(pte);
        page_size = kPageSize;
        base = pte & 0xfffff000u;
      }
    } else {
      const bool four_level = c.efer & efer::kLma;
      const uint64_t reserved_always = kReservedHigh | (nx ? 0 : kNxBit) | (four_level ? 0 : uint64_t{0x7ff} << 52);
      uint64_t table;
      int shift;
      if (four_level) {
        table = c.cr3 & kAddressMask;
        shift = 39;
      } else {
        const uint64_t pdpte = c.pdpte[linear >> 30 & 3];
        if (!(pdpte & kPresentBit)) {
          result.error_code = error;
          return result;
        }
        table = pdpte & kAddressMask;
        shift = 21;
      }
      for (;; shift -= 9) {
        Level& level = levels[depth++];
        level.place = place_of(map, table | ((linear >> shift & 0x1ff) << 3));
        const uint64_t entry = level.entry = load<uint64_t>(level.place);
        if (!(entry & kPresentBit)) {
          fault = true;
          break;
        }
        uint64_t reserved = reserved_always;
        if (shift == 39) reserved |= kLargeBit;
        const bool leaf = shift == 12 || ((entry & kLargeBit) && shift != 39);
        if (leaf && shift > 12) reserved |= ((uint64_t{1} << shift) - 1) & ~uint64_t{0x1fff};  // bit 12 is PAT
        accumulate(entry);
        if (entry & reserved) {
          reserved_fault();
          break;
        }
        if (leaf) {
          page_size = uint64_t{1} << shift;
          base = entry & kAddressMask & ~(page_size - 1);
          break;
        }
        table = entry & kAddressMask;
      }
    }

    if (fault) {
      result.error_code = error;
      return result;
    }
    result.gpa = base | (linear & (page_size - 1));
    result.page_size = page_size;
    result.writable = writable;
    result.user = user;
    result.no_execute = no_execute;
    if (!allowed(c, request, result)) {
      result.error_code = error | pf::kPresent;
      return result;
    }
    const uint64_t leaf_entry = levels[depth - 1].entry;
    result.dirty = (leaf_entry & kDirtyBit) || request.write;
    result.global = (leaf_entry & kGlobalBit) && (c.cr4 & cr4::kPge);
    if (request.peek) {
      for (uint32_t i = 0; i < depth; ++i)
        if (!(levels[i].entry & kAccessedBit)) return result;
    } else if (effects) {
      bool stable = true;
      for (uint32_t i = 0; i < depth && stable; ++i) {
        const uint64_t bits = kAccessedBit | (i + 1 == depth && request.write ? kDirtyBit : 0);
        stable = pae ? set_bits<uint64_t>(effects, levels[i].place, levels[i].entry, bits)
                     : set_bits<uint32_t>(effects, levels[i].place, static_cast<uint32_t>(levels[i].entry), static_cast<uint32_t>(bits));
      }
      if (!stable) continue;
    }
    if (by_cache) keep_walk(*effects, linear, levels, depth, result);
    result.ok = true;
    return result;
  }
}

bool mmu_load_pdptes(CpuState& c, uint64_t cr3) {
  const PhysicalMap& map = *c.mmu->map;
  uint64_t pdpte[4];
  for (uint32_t i = 0; i < 4; ++i) {
    pdpte[i] = load<uint64_t>(place_of(map, (cr3 & 0xffffffe0u) + i * 8));
    // SDM vol. 3, 4.4.1: bits 2:1, 8:5 and those above the physical width are reserved.
    if ((pdpte[i] & kPresentBit) && (pdpte[i] & (0x1e6 | ~((uint64_t{1} << kPhysicalBits) - 1)))) return false;
  }
  for (uint32_t i = 0; i < 4; ++i) c.pdpte[i] = pdpte[i];
  return true;
}

bool mmu_translate(const CpuState& c, uint64_t linear, uint64_t& gpa) {
  // Rights do not matter here: a supervisor read with SMAP off passes wherever a translation exists.
  const WalkResult result = walk(c, *c.mmu->map, linear, {}, nullptr);
  gpa = result.gpa;
  return result.ok;
}

}  // namespace lodge::engine::soft
