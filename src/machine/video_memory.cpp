#include "machine/video_memory.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace lodge::machine {

Result<std::unique_ptr<VideoMemory>> VideoMemory::create(engine::Vm& vm, uint32_t slot) {
  auto memory = TRY(memory::GuestMemory::create({{0, kMemoryBytes}, {kMemoryBytes, CellWindow::kBytes}}));
  return std::unique_ptr<VideoMemory>(new VideoMemory(vm, slot, std::move(memory)));
}

std::span<uint8_t> VideoMemory::bytes() {
  const memory::GuestMemory::Region& region = memory_->regions()[0];
  return {reinterpret_cast<uint8_t*>(region.host), region.size};
}

void VideoMemory::show(std::optional<uint64_t> address) {
  MutexLock lock(mutex_);
  kvm_userspace_memory_region region{
      .slot = slot_, .flags = 0, .guest_phys_addr = 0, .memory_size = 0, .userspace_addr = reinterpret_cast<uint64_t>(bytes().data())};
  const auto set = [&] {
    if (const auto done = vm_.set_user_memory_region(region); !done) log::error("the graphics card's memory: {}", done.error().message);
    return region.memory_size != 0;
  };
  if (shown_) shown_ = set();
  if (!address) return;
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  region.guest_phys_addr = *address;
  region.memory_size = kMemoryBytes;
  shown_ = set();
}

devices::vga::DirtyPages VideoMemory::take_dirty() {
  MutexLock lock(mutex_);
  if (!shown_) return devices::vga::DirtyPages((kMemoryBytes >> 12) / 64);  // nothing was written there
  auto log = vm_.get_dirty_log(slot_);
  if (log) return std::move(*log);
  log::debug("the graphics card's memory: {}", log.error().message);
  return {};
}

// --- The text window

std::span<uint8_t> VideoMemory::cells() {
  const memory::GuestMemory::Region& region = memory_->regions()[1];
  return {reinterpret_cast<uint8_t*>(region.host), region.size};
}

void VideoMemory::show_cells(bool shown) {
  MutexLock lock(mutex_);
  const auto done = vm_.set_user_memory_region({.slot = slot_ + 1,
                                                .flags = shown ? uint32_t{KVM_MEM_LOG_DIRTY_PAGES} : 0,
                                                .guest_phys_addr = CellWindow::kBase,
                                                .memory_size = shown ? CellWindow::kBytes : 0,
                                                .userspace_addr = reinterpret_cast<uint64_t>(cells().data())});
  if (!done) log::error("the graphics card's text window: {}", done.error().message);
  cells_shown_ = shown && done;
}

bool VideoMemory::take_cells_written() {
  MutexLock lock(mutex_);
  if (!cells_shown_) return false;
  const auto log = vm_.get_dirty_log(slot_ + 1);
  return !log || std::ranges::any_of(*log, [](uint64_t word) { return word != 0; });
}

}  // namespace lodge::machine
