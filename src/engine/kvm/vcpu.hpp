// A vCPU of the kernel's engine: its descriptor, its kvm_run page and the kick.
#pragma once

#include <sys/types.h>

#include <atomic>

#include "base/fd.hpp"
#include "engine/api/engine.hpp"

namespace lodge::engine::kvm {

class KvmVcpu final : public Vcpu {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Vcpu>> create(int vm_fd, uint32_t id, size_t run_size);
  ~KvmVcpu() override;
  KvmVcpu(const KvmVcpu&) = delete;
  KvmVcpu& operator=(const KvmVcpu&) = delete;

  [[nodiscard]] kvm_run& shared() override { return *run_; }
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
  KvmVcpu(Fd fd, kvm_run* run, size_t run_size) : fd_(std::move(fd)), run_(run), run_size_(run_size) {}

  Fd fd_;
  kvm_run* run_;
  size_t run_size_;
  std::atomic<bool> kicked_ = false;  // a kick that no run() has answered yet
  std::atomic<pid_t> thread_ = 0;     // the thread in run(), 0 outside
};

}  // namespace lodge::engine::kvm
