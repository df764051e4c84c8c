// A graphics card's memory as a slot of the driver, which logs the pages that the guest writes.
//
// Threads: show() from a vCPU's thread outside guest mode, take_dirty() from any.
#pragma once

#include <memory>
#include <optional>

#include "base/mutex.hpp"
#include "devices/vga/card.hpp"
#include "engine/api/engine.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {

class VideoMemory final : public devices::vga::LinearMemory, public devices::vga::CellWindow {
 public:
  static constexpr uint64_t kMemoryBytes = 16 << 20;

  static constexpr uint32_t kSlots = 2;

  // Slots `slot` and the next one are this object's.
  static Result<std::unique_ptr<VideoMemory>> create(engine::Vm& vm, uint32_t slot);

  [[nodiscard]] std::span<uint8_t> bytes() override;
  void show(std::optional<uint64_t> address) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] devices::vga::DirtyPages take_dirty() override LODGE_EXCLUDES(mutex_);

  [[nodiscard]] std::span<uint8_t> cells() override;
  void show_cells(bool shown) override LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool take_cells_written() override LODGE_EXCLUDES(mutex_);

 private:
  VideoMemory(engine::Vm& vm, uint32_t slot, std::unique_ptr<memory::GuestMemory> memory)
      : vm_(vm), slot_(slot), memory_(std::move(memory)) {}

  engine::Vm& vm_;
  const uint32_t slot_;
  const std::unique_ptr<memory::GuestMemory> memory_;  // not the guest's main memory, so that no device reaches it
  Mutex mutex_;
  bool shown_ LODGE_GUARDED_BY(mutex_) = false, cells_shown_ LODGE_GUARDED_BY(mutex_) = false;
};

}  // namespace lodge::machine
