#include "engine/soft/vcpu/memory_slots.hpp"

#include <algorithm>

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kPageShift = 12;
constexpr uint64_t kPageMask = (uint64_t{1} << kPageShift) - 1;
constexpr uint32_t kKnownFlags = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;

uint64_t bitmap_words(uint64_t bytes) { return ((bytes >> kPageShift) + 63) / 64; }

bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) { return a < b + b_size && b < a + a_size; }

std::unexpected<Error> refuse(int error, uint32_t slot, const char* why) {
  return os_fail(fmt::format("KVM_SET_USER_MEMORY_REGION: slot {}: {}", slot, why), error);
}

}  // namespace

Result<> MemorySlots::check(const kvm_userspace_memory_region& region) const {
  const uint64_t gpa = region.guest_phys_addr;
  const uint64_t size = region.memory_size;
  const uint64_t host = region.userspace_addr;
  if (region.slot >= PhysicalMap::kMaxSlots) return refuse(EINVAL, region.slot, "there are only 512 slots");
  if (region.flags & ~kKnownFlags) return refuse(EINVAL, region.slot, "unknown flags");
  if ((gpa | size | host) & kPageMask) return refuse(EINVAL, region.slot, "not page-aligned");
  if (gpa + size < gpa || host + size < host) return refuse(EINVAL, region.slot, "the range wraps around");
  const auto old = regions_.find(region.slot);
  if (size == 0) {
    if (old == regions_.end()) return refuse(EINVAL, region.slot, "there is no such slot to delete");
    return {};
  }
  // What may change of an existing slot is its place and its log (api.rst, 4.35).
  if (old != regions_.end()) {
    const kvm_userspace_memory_region& before = old->second.parameters;
    if (before.memory_size != size || before.userspace_addr != host || ((before.flags ^ region.flags) & KVM_MEM_READONLY))
      return refuse(EINVAL, region.slot, "its size, host memory and read-only flag are fixed");
  }
  for (const auto& [id, other] : regions_)
    if (id != region.slot && overlap(gpa, size, other.parameters.guest_phys_addr, other.parameters.memory_size))
      return refuse(EEXIST, region.slot, "overlaps another slot");
  return {};
}

Result<> MemorySlots::set(const kvm_userspace_memory_region& region) {
  TRY(check(region));
  if (region.memory_size == 0) {
    remove(region.slot);
    return {};
  }
  Region& entry = regions_[region.slot];
  entry.parameters = region;
  if (!(region.flags & KVM_MEM_LOG_DIRTY_PAGES))
    entry.dirty.reset();
  else if (!entry.dirty)
    entry.dirty = std::make_unique<std::atomic<uint64_t>[]>(bitmap_words(region.memory_size));
  cover(region.userspace_addr, region.memory_size);
  rebuild();
  return {};
}

void MemorySlots::remove(uint32_t id) {
  regions_.erase(id);
  drop_unused_areas();
  rebuild();
}

bool MemorySlots::shown(uint64_t host, uint64_t size) const {
  return std::ranges::any_of(regions_, [&](const auto& item) {
    return overlap(host, size, item.second.parameters.userspace_addr, item.second.parameters.memory_size);
  });
}

// Makes one area of [start, start+size) and all areas that it overlaps, keeping their flags.
void MemorySlots::cover(uint64_t start, uint64_t size) {
  uint64_t end = start + size;
  std::vector<FlagArea> merged;
  for (auto it = areas_.begin(); it != areas_.end();) {
    FlagArea& area = it->second;
    if (!overlap(start, end - start, area.start, area.size)) {
      ++it;
      continue;
    }
    if (area.start <= start && end <= area.start + area.size && merged.empty()) return;
    start = std::min(start, area.start);
    end = std::max(end, area.start + area.size);
    merged.push_back(std::move(area));
    it = areas_.erase(it);
  }
  FlagArea whole{start, end - start, std::make_unique<std::atomic<uint8_t>[]>((end - start) >> kPageShift)};
  for (const FlagArea& part : merged)
    for (uint64_t page = 0; page < part.size >> kPageShift; ++page)
      whole.flags[((part.start - start) >> kPageShift) + page].store(part.flags[page].load());
  areas_.emplace(start, std::move(whole));
}

std::atomic<uint8_t>* MemorySlots::flags_of(uint64_t host) const {
  const FlagArea& area = std::prev(areas_.upper_bound(host))->second;
  return &area.flags[(host - area.start) >> kPageShift];
}

void MemorySlots::drop_unused_areas() {
  std::erase_if(areas_, [&](const auto& item) { return !shown(item.second.start, item.second.size); });
}

void MemorySlots::rebuild() {
  map_.count = 0;
  for (auto& [id, region] : regions_) {
    const kvm_userspace_memory_region& p = region.parameters;
    map_.slot[map_.count++] = {p.guest_phys_addr,          p.memory_size,     reinterpret_cast<uint8_t*>(p.userspace_addr), id, p.flags,
                               flags_of(p.userspace_addr), region.dirty.get()};
  }
  std::sort(map_.slot, map_.slot + map_.count, [](const Slot& a, const Slot& b) { return a.gpa < b.gpa; });
}

Result<std::vector<uint64_t>> MemorySlots::harvest(uint32_t id) {
  const auto found = regions_.find(id);
  if (found == regions_.end() || !found->second.dirty) return os_fail(fmt::format("KVM_GET_DIRTY_LOG: slot {} has no log", id), ENOENT);
  std::vector<uint64_t> bits(bitmap_words(found->second.parameters.memory_size));
  for (size_t word = 0; word < bits.size(); ++word) bits[word] = found->second.dirty[word].exchange(0);
  return bits;
}

}  // namespace lodge::engine::soft
