#include "machine/video_memory.hpp"

#include "base/log.hpp"

namespace lodge::machine {

Result<std::unique_ptr<VideoMemory>> VideoMemory::create(engine::Vm& vm, uint32_t slot) {
  auto memory = TRY(memory::GuestMemory::create({{0, kBytes}}));
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
  region.memory_size = kBytes;
  shown_ = set();
}

devices::vga::DirtyPages VideoMemory::take_dirty() {
  MutexLock lock(mutex_);
  if (!shown_) return devices::vga::DirtyPages((kBytes >> 12) / 64);  // nothing was written there
  auto log = vm_.get_dirty_log(slot_);
  if (log) return std::move(*log);
  log::debug("the graphics card's memory: {}", log.error().message);
  return {};
}

}  // namespace lodge::machine
