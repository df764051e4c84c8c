// What the processor sees from 0xC0000 to 1 MiB and below 4 GiB on a board with firmware: the ROM at the very end of 4 GiB, its last 128
// KiB once more below 1 MiB, and main memory in its place where the chipset says so (devices/chipset/shadow_control.hpp).
//
// An area that reads from ROM or memory is a slot of the driver, so that code runs there; a write that may not go where reads come from
// leaves guest mode and ends here.
//
// Threads: set() from a vCPU's thread outside guest mode, reads and writes from any; start() before the first of them runs.
#pragma once

#include <array>
#include <span>

#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/chipset/shadow_control.hpp"
#include "engine/api/engine.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {

class FirmwareMemory final : public devices::MmioDevice {
 public:
  static constexpr uint32_t kSlots = devices::chipset::ShadowControl::kAreas + 1;
  static constexpr uint64_t kBase = 0xc0000, kEnd = 0x100000;
  static constexpr uint64_t kLowCopyBytes = 128 << 10;

  // `rom`: a whole number of pages, at least 128 KiB; it outlives this object, as `memory` does, which holds
  // [kBase, kEnd). Slots `first_slot` and on are this object's.
  FirmwareMemory(engine::Vm& vm, memory::GuestMemory& memory, std::span<std::byte> rom, uint32_t first_slot)
      : vm_(vm), memory_(memory), rom_(rom), first_slot_(first_slot) {}

  // The machine's state after power-on: ROM everywhere.
  [[nodiscard]] Result<> start() LODGE_EXCLUDES(mutex_);
  void set(const devices::chipset::ShadowArea& area, devices::chipset::ShadowState state) LODGE_EXCLUDES(mutex_);

  // What no slot answers, at offsets from kBase.
  uint64_t read(uint64_t offset, unsigned size) override;
  void write(uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);

 private:
  [[nodiscard]] Result<> show(unsigned area) LODGE_REQUIRES(mutex_);
  [[nodiscard]] std::byte* rom_at(uint32_t address) const;
  [[nodiscard]] static unsigned area_of(uint64_t address);

  engine::Vm& vm_;
  memory::GuestMemory& memory_;
  const std::span<std::byte> rom_;
  const uint32_t first_slot_;
  Mutex mutex_;
  std::array<devices::chipset::ShadowState, devices::chipset::ShadowControl::kAreas> states_ LODGE_GUARDED_BY(mutex_) = {};
  std::array<bool, devices::chipset::ShadowControl::kAreas> shown_ LODGE_GUARDED_BY(mutex_) = {};
};

}  // namespace lodge::machine
