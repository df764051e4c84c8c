#include "machine/firmware_memory.hpp"

#include <cstring>

#include "base/log.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

using devices::chipset::ShadowArea;
using devices::chipset::ShadowControl;
using devices::chipset::ShadowState;

std::byte* FirmwareMemory::rom_at(uint32_t address) const {
  return address >= kEnd - kLowCopyBytes ? rom_.data() + rom_.size() - (kEnd - address) : nullptr;
}

unsigned FirmwareMemory::area_of(uint64_t address) {
  for (unsigned i = 0; i < ShadowControl::kAreas; ++i)
    if (address - ShadowControl::area(i).base < ShadowControl::area(i).size) return i;
  return 0;  // not reached: the areas fill the range
}

Result<> FirmwareMemory::start() {
  MutexLock lock(mutex_);
  const uint32_t last = first_slot_ + ShadowControl::kAreas;
  TRY(vm_.set_user_memory_region({.slot = last,
                                  .flags = KVM_MEM_READONLY,
                                  .guest_phys_addr = kAbove4G - rom_.size(),
                                  .memory_size = rom_.size(),
                                  .userspace_addr = reinterpret_cast<uint64_t>(rom_.data())}));
  for (unsigned i = 0; i < ShadowControl::kAreas; ++i) TRY(show(i));
  return {};
}

// The slot of an area as its state wants it: a slot's kind and place cannot be changed, so it goes first.
Result<> FirmwareMemory::show(unsigned index) {
  const ShadowArea area = ShadowControl::area(index);
  const ShadowState state = states_[index];
  kvm_userspace_memory_region region{
      .slot = first_slot_ + index, .flags = 0, .guest_phys_addr = area.base, .memory_size = 0, .userspace_addr = 0};
  if (shown_[index]) TRY(vm_.set_user_memory_region(region));
  shown_[index] = false;
  const std::byte* host = state.reads ? memory_.span(area.base, area.size).data() : rom_at(area.base);
  if (!host) return {};
  region.flags = state.reads && state.writes ? 0 : KVM_MEM_READONLY;
  region.memory_size = area.size;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  TRY(vm_.set_user_memory_region(region));
  shown_[index] = true;
  return {};
}

void FirmwareMemory::set(const ShadowArea& area, ShadowState state) {
  MutexLock lock(mutex_);
  const unsigned index = area_of(area.base);
  const ShadowState before = std::exchange(states_[index], state);
  const auto same_slot = [](ShadowState a, ShadowState b) { return a.reads == b.reads && (!a.reads || a.writes == b.writes); };
  if (same_slot(before, state)) return;
  if (const auto shown = show(index); !shown) log::error("memory at {:#x}: {}", area.base, shown.error().message);
}

uint64_t FirmwareMemory::read(uint64_t, unsigned) { return ~uint64_t{0}; }

void FirmwareMemory::write(uint64_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  std::array<std::byte, sizeof value> bytes{};
  std::memcpy(bytes.data(), &value, sizeof value);
  for (unsigned i = 0; i < size; ++i) {
    const uint64_t address = kBase + offset + i;
    if (states_[area_of(address)].writes) static_cast<void>(memory_.write(address, std::span(bytes).subspan(i, 1)));
  }
}

}  // namespace lodge::machine
