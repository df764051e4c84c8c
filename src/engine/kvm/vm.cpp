#include "engine/kvm/vm.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "engine/kvm/abi.hpp"
#include "engine/kvm/device.hpp"
#include "engine/kvm/event.hpp"
#include "engine/kvm/vcpu.hpp"

namespace lodge::engine::kvm {

namespace {

constexpr uint64_t kPageShift = 12;
constexpr uint64_t kPagesPerWord = 64;

// Intel processors without "unrestricted guest" need a page table and a TSS of KVM's own in guest-physical memory.
// They lie above the local APICs and below the 16 MiB at the top of 4 GiB that firmware may take.
constexpr uint64_t kIdentityMapAddress = 0xfeffc000;                 // one page
constexpr unsigned long kTssAddress = kIdentityMapAddress + 0x1000;  // three pages

}  // namespace

Result<std::unique_ptr<Vm>> KvmVm::create(Fd fd, size_t run_size) {
  // Before the first vCPU, as KVM_SET_IDENTITY_MAP_ADDR demands.
  TRY(call(fd.get(), KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", &kIdentityMapAddress));
  TRY(call(fd.get(), KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", kTssAddress));
  return std::unique_ptr<Vm>(new KvmVm(std::move(fd), run_size));
}

void KvmVm::commit_write(uint64_t guest_physical, uint64_t length) noexcept {
  if (length == 0) return;
  const std::shared_lock lock(slots_mutex_);
  for (auto& [id, slot] : slots_) {
    if (slot.written.empty()) continue;
    const uint64_t size = slot.pages << kPageShift;
    const uint64_t first = std::max(guest_physical, slot.guest_physical);
    const uint64_t last = std::min(guest_physical + (length - 1), slot.guest_physical + (size - 1));
    if (first > last) continue;
    const uint64_t last_page = (last - slot.guest_physical) >> kPageShift;
    for (uint64_t page = (first - slot.guest_physical) >> kPageShift; page <= last_page; ++page)
      slot.written[page / kPagesPerWord].fetch_or(uint64_t{1} << (page % kPagesPerWord), std::memory_order_release);
  }
}

Result<> KvmVm::set_user_memory_region(const kvm_userspace_memory_region& region) {
  const std::unique_lock lock(slots_mutex_);
  kvm_userspace_memory_region copy = region;
  TRY(call(fd_->get(), KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", &copy));
  if (region.memory_size == 0) {
    slots_.erase(region.slot);
    return {};
  }
  Slot& slot = slots_[region.slot];
  const uint64_t pages = region.memory_size >> kPageShift;
  const bool logs = (region.flags & KVM_MEM_LOG_DIRTY_PAGES) != 0;
  // A slot that moves or keeps its log keeps what the log holds, as the kernel's does.
  if (!logs) {
    slot.written = std::vector<std::atomic<uint64_t>>();
  } else if (slot.written.empty()) {
    slot.written = std::vector<std::atomic<uint64_t>>((pages + kPagesPerWord - 1) / kPagesPerWord);
  }
  slot.guest_physical = region.guest_phys_addr;
  slot.pages = pages;
  return {};
}

Result<std::vector<uint64_t>> KvmVm::get_dirty_log(uint32_t slot) {
  const std::shared_lock lock(slots_mutex_);
  const auto found = slots_.find(slot);
  if (found == slots_.end()) return fail(ErrorKind::Internal, "get_dirty_log: there is no memory slot {}", slot);
  std::vector<uint64_t> bits((found->second.pages + kPagesPerWord - 1) / kPagesPerWord);
  kvm_dirty_log log = {};
  log.slot = slot;
  log.dirty_bitmap = bits.data();
  TRY(call(fd_->get(), KVM_GET_DIRTY_LOG, "KVM_GET_DIRTY_LOG", &log));
  for (size_t word = 0; word < found->second.written.size(); ++word)
    bits[word] |= found->second.written[word].exchange(0, std::memory_order_acquire);
  return bits;
}

Result<std::unique_ptr<Vcpu>> KvmVm::create_vcpu(uint32_t id) { return KvmVcpu::create(fd_->get(), id, run_size_); }

Result<> KvmVm::create_irqchip() {
  TRY(call(fd_->get(), KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", 0UL));
  return {};
}

Result<> KvmVm::create_pit2(const kvm_pit_config& config) {
  TRY(call(fd_->get(), KVM_CREATE_PIT2, "KVM_CREATE_PIT2", &config));
  return {};
}

Result<> KvmVm::irq_line(uint32_t gsi, bool level) {
  kvm_irq_level line = {};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  TRY(call(fd_->get(), KVM_IRQ_LINE, "KVM_IRQ_LINE", &line));
  return {};
}

Result<> KvmVm::signal_msi(const kvm_msi& msi) {
  // A message that no local APIC takes is no error: the guest's own business, as on the bus. The kernel says -1 (EPERM) then.
  const auto sent = call(fd_->get(), KVM_SIGNAL_MSI, "KVM_SIGNAL_MSI", &msi);
  if (!sent && sent.error().os_errno != EPERM) return std::unexpected(sent.error());
  return {};
}

Result<> KvmVm::set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) {
  std::vector<uint64_t> bytes((sizeof(IrqRoutingHeader) + entries.size_bytes() + 7) / 8);
  auto* routing = reinterpret_cast<IrqRoutingHeader*>(bytes.data());
  routing->nr = static_cast<uint32_t>(entries.size());
  if (!entries.empty()) std::memcpy(routing + 1, entries.data(), entries.size_bytes());
  TRY(call(fd_->get(), kSetGsiRouting, "KVM_SET_GSI_ROUTING", routing));
  return {};
}

Result<kvm_irqchip> KvmVm::get_irqchip(uint32_t chip_id) {
  kvm_irqchip chip = {};
  chip.chip_id = chip_id;
  TRY(call(fd_->get(), KVM_GET_IRQCHIP, "KVM_GET_IRQCHIP", &chip));
  return chip;
}

Result<> KvmVm::set_irqchip(const kvm_irqchip& chip) {
  kvm_irqchip copy = chip;
  TRY(call(fd_->get(), KVM_SET_IRQCHIP, "KVM_SET_IRQCHIP", &copy));
  return {};
}

Result<kvm_pit_state2> KvmVm::get_pit2() {
  kvm_pit_state2 pit = {};
  TRY(call(fd_->get(), KVM_GET_PIT2, "KVM_GET_PIT2", &pit));
  return pit;
}

Result<> KvmVm::set_pit2(const kvm_pit_state2& pit) {
  TRY(call(fd_->get(), KVM_SET_PIT2, "KVM_SET_PIT2", &pit));
  return {};
}

Result<kvm_clock_data> KvmVm::get_clock() {
  kvm_clock_data clock = {};
  TRY(call(fd_->get(), KVM_GET_CLOCK, "KVM_GET_CLOCK", &clock));
  return clock;
}

Result<> KvmVm::set_clock(const kvm_clock_data& clock) {
  TRY(call(fd_->get(), KVM_SET_CLOCK, "KVM_SET_CLOCK", &clock));
  return {};
}

Result<std::unique_ptr<InterruptEvent>> KvmVm::create_interrupt(uint32_t gsi) { return create_irqfd(fd_, gsi); }
Result<std::unique_ptr<DoorbellEvent>> KvmVm::create_doorbell(const Doorbell& doorbell) { return create_ioeventfd(fd_, doorbell); }

}  // namespace lodge::engine::kvm
