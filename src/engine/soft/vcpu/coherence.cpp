#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/futex.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kPageShift = 12;

// Translations are dropped before the dirty bit is set or after: either way both have happened when the commit returns.
void commit_in_slot(VmContext& vm, const Slot& slot, uint64_t offset, uint64_t length) {
  const uint64_t last = (offset + length - 1) >> kPageShift;
  bool code = false;
  for (uint64_t page = offset >> kPageShift; page <= last; ++page) {
    if (slot.dirty) slot.dirty[page / 64].fetch_or(uint64_t{1} << (page % 64));
    code |= (slot.page_flags[page].load() & kPageCode) != 0;
  }
  if (code) code_invalidate(vm.code, slot.host + offset, length);
}

}  // namespace

void physical_commit(VmContext& vm, uint64_t gpa, uint64_t length) {
  if (length == 0) return;
  const uint64_t last = length - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + (length - 1);
  for (uint32_t i = 0; i < vm.map.count; ++i) {
    const Slot& slot = vm.map.slot[i];
    const uint64_t slot_last = slot.gpa + (slot.size - 1);
    if (last < slot.gpa || gpa > slot_last) continue;
    const uint64_t from = gpa > slot.gpa ? gpa : slot.gpa;
    const uint64_t to = last < slot_last ? last : slot_last;
    commit_in_slot(vm, slot, from - slot.gpa, to - from + 1);
  }
}

bool physical_write(VmContext& vm, uint64_t gpa, const void* from, uint32_t size) {
  const Slot* slot = vm.map.find(gpa);
  if (!slot || (slot->flags & KVM_MEM_READONLY) || slot->size - (gpa - slot->gpa) < size) return false;
  uint8_t* to = slot->host + (gpa - slot->gpa);
  if (size == sizeof(uint32_t)) {
    // Readers on other processors see the old or the new word.
    *reinterpret_cast<volatile uint32_t*>(to) = *static_cast<const uint32_t*>(from);
  } else {
    uint64_t count = size;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  }
  physical_commit(vm, gpa, size);
  return true;
}

void vcpu_request(VcpuContext& vcpu, uint32_t requests) {
  vcpu.cpu->request.fetch_or(requests);
  if (vcpu.blocked.load()) futex_wake_all(vcpu.cpu->request);
}

}  // namespace lodge::engine::soft
