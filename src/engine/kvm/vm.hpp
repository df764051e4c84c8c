// A VM of the kernel's engine, with its slots' dirty log.
#pragma once

#include <atomic>
#include <map>
#include <shared_mutex>

#include "base/fd.hpp"
#include "engine/api/engine.hpp"

namespace lodge::engine::kvm {

class KvmVm final : public Vm {
 public:
  // `fd` is fresh from KVM_CREATE_VM.
  [[nodiscard]] static Result<std::unique_ptr<Vm>> create(Fd fd, size_t run_size);

  // Lodge's own devices write through the host's mapping, which the kernel's dirty log does not see.
  void begin_write(uint64_t, uint64_t) noexcept override {}
  void commit_write(uint64_t guest_physical, uint64_t length) noexcept override;

  [[nodiscard]] Result<> set_user_memory_region(const kvm_userspace_memory_region& region) override;
  [[nodiscard]] Result<std::vector<uint64_t>> get_dirty_log(uint32_t slot) override;
  [[nodiscard]] Result<std::unique_ptr<Vcpu>> create_vcpu(uint32_t id) override;
  [[nodiscard]] Result<> create_irqchip() override;
  [[nodiscard]] Result<> create_pit2(const kvm_pit_config& config) override;
  [[nodiscard]] Result<> irq_line(uint32_t gsi, bool level) override;
  [[nodiscard]] Result<> signal_msi(const kvm_msi& msi) override;
  [[nodiscard]] Result<> set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) override;
  [[nodiscard]] Result<kvm_irqchip> get_irqchip(uint32_t chip_id) override;
  [[nodiscard]] Result<> set_irqchip(const kvm_irqchip& chip) override;
  [[nodiscard]] Result<kvm_pit_state2> get_pit2() override;
  [[nodiscard]] Result<> set_pit2(const kvm_pit_state2& pit) override;
  [[nodiscard]] Result<kvm_clock_data> get_clock() override;
  [[nodiscard]] Result<> set_clock(const kvm_clock_data& clock) override;
  [[nodiscard]] Result<std::unique_ptr<InterruptEvent>> create_interrupt(uint32_t gsi) override;
  [[nodiscard]] Result<std::unique_ptr<DoorbellEvent>> create_doorbell(const Doorbell& doorbell) override;

 private:
  struct Slot {
    uint64_t guest_physical = 0;
    uint64_t pages = 0;
    std::vector<std::atomic<uint64_t>> written;  // pages that devices wrote since the last harvest; empty: no log
  };

  KvmVm(Fd fd, size_t run_size) : fd_(std::make_shared<const Fd>(std::move(fd))), run_size_(run_size) {}

  std::shared_ptr<const Fd> fd_;  // shared with the events, which detach themselves from it
  size_t run_size_;
  std::shared_mutex slots_mutex_;  // shared: device writes; exclusive: the slots change
  std::map<uint32_t, Slot> slots_;
};

}  // namespace lodge::engine::kvm
