// A vCPU of the software engine: KVM_RUN around the loop (vcpu.cpp) and KVM's get and set calls (state_io.cpp).
#pragma once

#include <memory>

#include "engine/soft/vcpu/vcpu_memory.hpp"
#include "engine/soft/vcpu/vm.hpp"

namespace lodge::engine::soft {

class SoftVcpu final : public Vcpu {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Vcpu>> create(std::shared_ptr<VmCore> vm, uint32_t id);

  [[nodiscard]] kvm_run& shared() override { return memory_.run; }
  [[nodiscard]] Result<RunResult> run() override;
  void kick() override;

  [[nodiscard]] Result<kvm_regs> get_regs() override;
  [[nodiscard]] Result<> set_regs(const kvm_regs& regs) override;
  [[nodiscard]] Result<kvm_sregs> get_sregs() override;
  [[nodiscard]] Result<> set_sregs(const kvm_sregs& sregs) override;
  [[nodiscard]] Result<Xsave> get_xsave() override;
  [[nodiscard]] Result<> set_xsave(const Xsave& xsave) override;
  [[nodiscard]] Result<kvm_xcrs> get_xcrs() override;
  [[nodiscard]] Result<> set_xcrs(const kvm_xcrs& xcrs) override;
  [[nodiscard]] Result<kvm_debugregs> get_debugregs() override;
  [[nodiscard]] Result<> set_debugregs(const kvm_debugregs& debugregs) override;
  [[nodiscard]] Result<kvm_vcpu_events> get_vcpu_events() override;
  [[nodiscard]] Result<> set_vcpu_events(const kvm_vcpu_events& events) override;
  [[nodiscard]] Result<kvm_mp_state> get_mp_state() override;
  [[nodiscard]] Result<> set_mp_state(const kvm_mp_state& state) override;
  [[nodiscard]] Result<kvm_lapic_state> get_lapic() override;
  [[nodiscard]] Result<> set_lapic(const kvm_lapic_state& lapic) override;
  [[nodiscard]] Result<size_t> get_msrs(std::span<kvm_msr_entry> entries) override;
  [[nodiscard]] Result<size_t> set_msrs(std::span<const kvm_msr_entry> entries) override;
  [[nodiscard]] Result<> set_cpuid2(std::span<const kvm_cpuid_entry2> entries) override;
  [[nodiscard]] Result<> set_guest_debug(const kvm_guest_debug& debug) override;
  [[nodiscard]] Result<> nmi() override;
  [[nodiscard]] Result<kvm_translation> translate(uint64_t linear) override;

 private:
  SoftVcpu(std::shared_ptr<VmCore> vm, VcpuMemory& memory);
  void power_on();

  // --- vcpu.cpp
  [[nodiscard]] bool instruction_pending() const;
  [[nodiscard]] bool waiting() const;
  void take_events();
  void take_startup(uint8_t vector);
  void sleep();
  [[nodiscard]] Result<RunResult> enter_guest();
  [[nodiscard]] bool take_kick();
  RunResult interrupted();
  RunResult exited(uint32_t reason);
  void fill_shared();

  // --- state_io.cpp
  void load_segments(const kvm_sregs& sregs);
  void privilege_changed();
  [[nodiscard]] bool set_msr(uint32_t index, uint64_t value);
  void set_host_tsc(uint64_t value);

  std::shared_ptr<VmCore> vm_;
  VcpuMemory& memory_;  // vm_'s
  CpuState& cpu_;
  VcpuContext& context_;
  // KVM_MP_STATE_RUNNABLE, UNINITIALIZED or INIT_RECEIVED; HALTED is cpu_.halted, SIPI_RECEIVED ends at once.
  uint32_t mp_state_ = KVM_MP_STATE_RUNNABLE;
  std::atomic<bool> kicked_ = false;  // by kick(), as opposed to immediate_exit
};

}  // namespace lodge::engine::soft
