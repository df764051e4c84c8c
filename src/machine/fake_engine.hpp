// An engine for tests of the machine: its vCPUs run no code but give back a list of exits.
#pragma once

#include <array>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/api/engine.hpp"

namespace lodge::machine::fake {

// One exit of run().
struct Exit {
  uint32_t reason;
  uint16_t port = 0;
  uint8_t size = 1;
  bool out = true;
  uint32_t value = 0;
};
inline Exit out(uint16_t port, uint8_t size, uint32_t value) { return {KVM_EXIT_IO, port, size, true, value}; }
inline Exit in(uint16_t port, uint8_t size) { return {KVM_EXIT_IO, port, size, false, 0}; }

struct Script {
  std::vector<std::vector<Exit>> boots;     // of vCPU 0; each new VM takes the next one
  bool halted_with_interrupts_off = false;  // afterwards: what get_mp_state() and get_regs() say
  std::vector<uint32_t> read;               // what the guest's IN instructions got
  std::vector<std::pair<uint32_t, bool>> lines;
  std::map<uint32_t, kvm_userspace_memory_region> slots;  // of the VM that was made last
  size_t next_boot = 0;
  kvm_regs entry{};
  kvm_sregs entry_sregs{};
};

class Vcpu final : public engine::Vcpu {
 public:
  Vcpu(Script& script, std::vector<Exit> exits) : script_(script), exits_(std::move(exits)) {}

  kvm_run& shared() override { return *reinterpret_cast<kvm_run*>(page_.data()); }
  Result<engine::RunResult> run() override {
    finish_input();
    if (next_ < exits_.size()) {
      give(exits_[next_++]);
      return engine::RunResult::Exit;
    }
    std::unique_lock lock(mutex_);
    kicked_condition_.wait(lock, [this] { return kicked_; });
    kicked_ = false;
    return engine::RunResult::Interrupted;
  }
  void kick() override {
    const std::lock_guard lock(mutex_);
    kicked_ = true;
    kicked_condition_.notify_all();
  }

  Result<kvm_regs> get_regs() override {
    kvm_regs regs = script_.entry;
    regs.rflags = script_.halted_with_interrupts_off ? 2 : 0x202;
    return regs;
  }
  Result<> set_regs(const kvm_regs& regs) override {
    script_.entry = regs;
    return {};
  }
  Result<kvm_sregs> get_sregs() override { return kvm_sregs{}; }
  Result<> set_sregs(const kvm_sregs& sregs) override {
    script_.entry_sregs = sregs;
    return {};
  }
  Result<kvm_mp_state> get_mp_state() override { return kvm_mp_state{KVM_MP_STATE_HALTED}; }
  Result<> set_mp_state(const kvm_mp_state&) override { return {}; }
  Result<engine::Xsave> get_xsave() override { return engine::Xsave{}; }
  Result<> set_xsave(const engine::Xsave&) override { return {}; }
  Result<kvm_xcrs> get_xcrs() override { return kvm_xcrs{}; }
  Result<> set_xcrs(const kvm_xcrs&) override { return {}; }
  Result<kvm_debugregs> get_debugregs() override { return kvm_debugregs{}; }
  Result<> set_debugregs(const kvm_debugregs&) override { return {}; }
  Result<kvm_vcpu_events> get_vcpu_events() override { return kvm_vcpu_events{}; }
  Result<> set_vcpu_events(const kvm_vcpu_events&) override { return {}; }
  Result<kvm_lapic_state> get_lapic() override { return kvm_lapic_state{}; }
  Result<> set_lapic(const kvm_lapic_state&) override { return {}; }
  Result<size_t> get_msrs(std::span<kvm_msr_entry>) override { return 0; }
  Result<size_t> set_msrs(std::span<const kvm_msr_entry>) override { return 0; }
  Result<> set_cpuid2(std::span<const kvm_cpuid_entry2>) override { return {}; }
  Result<> set_guest_debug(const kvm_guest_debug&) override { return {}; }
  Result<> nmi() override { return {}; }
  Result<kvm_translation> translate(uint64_t linear) override {
    kvm_translation translation{};
    translation.physical_address = linear;
    translation.valid = 1;
    return translation;
  }

 private:
  static constexpr size_t kDataAt = 4096;
  void give(const Exit& exit) {
    kvm_run& run = shared();
    run.exit_reason = exit.reason;
    if (exit.reason != KVM_EXIT_IO) return;
    run.io = {.direction = static_cast<uint8_t>(exit.out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN),
              .size = exit.size,
              .port = exit.port,
              .count = 1,
              .data_offset = kDataAt};
    std::memcpy(page_.data() + kDataAt, &exit.value, sizeof exit.value);
    input_pending_ = !exit.out;
  }
  void finish_input() {
    if (!std::exchange(input_pending_, false)) return;
    uint32_t value = 0;
    std::memcpy(&value, page_.data() + kDataAt, shared().io.size);
    script_.read.push_back(value);
  }

  Script& script_;
  std::vector<Exit> exits_;
  size_t next_ = 0;
  bool input_pending_ = false;
  alignas(kvm_run) std::array<uint8_t, 8192> page_{};
  std::mutex mutex_;
  std::condition_variable kicked_condition_;
  bool kicked_ = false;
};

struct Event final : engine::InterruptEvent {
  void signal() override {}
  int fd() const override { return -1; }
};
struct Bell final : engine::DoorbellEvent {
  int fd() const override { return -1; }
};

class Vm final : public engine::Vm {
 public:
  explicit Vm(Script& script) : script_(script) {
    script.slots.clear();
    if (script.next_boot < script.boots.size()) exits_ = script.boots[script.next_boot++];
  }
  void begin_write(uint64_t, uint64_t) noexcept override {}
  void commit_write(uint64_t, uint64_t) noexcept override {}
  // As KVM has it: a slot that is there is deleted before it becomes another.
  Result<> set_user_memory_region(const kvm_userspace_memory_region& region) override {
    if (region.memory_size == 0) {
      script_.slots.erase(region.slot);
      return {};
    }
    if (!script_.slots.emplace(region.slot, region).second) return fail(ErrorKind::Internal, "slot {} is there already", region.slot);
    return {};
  }
  Result<std::vector<uint64_t>> get_dirty_log(uint32_t) override { return std::vector<uint64_t>{}; }
  Result<std::unique_ptr<engine::Vcpu>> create_vcpu(uint32_t id) override {
    return std::make_unique<Vcpu>(script_, id == 0 ? exits_ : std::vector<Exit>{});
  }
  Result<> create_irqchip() override { return {}; }
  Result<> create_pit2(const kvm_pit_config&) override { return {}; }
  Result<> irq_line(uint32_t gsi, bool level) override {
    const std::lock_guard lock(mutex_);
    script_.lines.emplace_back(gsi, level);
    return {};
  }
  Result<> signal_msi(const kvm_msi&) override { return {}; }
  Result<> set_gsi_routing(std::span<const kvm_irq_routing_entry>) override { return {}; }
  Result<kvm_irqchip> get_irqchip(uint32_t) override { return kvm_irqchip{}; }
  Result<> set_irqchip(const kvm_irqchip&) override { return {}; }
  Result<kvm_pit_state2> get_pit2() override { return kvm_pit_state2{}; }
  Result<> set_pit2(const kvm_pit_state2&) override { return {}; }
  Result<kvm_clock_data> get_clock() override { return kvm_clock_data{}; }
  Result<> set_clock(const kvm_clock_data&) override { return {}; }
  Result<std::unique_ptr<engine::InterruptEvent>> create_interrupt(uint32_t) override { return std::make_unique<Event>(); }
  Result<std::unique_ptr<engine::DoorbellEvent>> create_doorbell(const engine::Doorbell&) override { return std::make_unique<Bell>(); }

 private:
  Script& script_;
  std::vector<Exit> exits_;
  std::mutex mutex_;
};

class System final : public engine::System {
 public:
  explicit System(Script& script) : script_(script) {}
  std::string_view name() const override { return "fake"; }
  int check_extension(uint32_t capability) const override { return capability == KVM_CAP_MAX_VCPUS ? 4 : 0; }
  Result<std::vector<kvm_cpuid_entry2>> get_supported_cpuid() override { return std::vector<kvm_cpuid_entry2>{}; }
  Result<std::vector<uint32_t>> get_msr_index_list() override { return std::vector<uint32_t>{}; }
  Result<std::unique_ptr<engine::Vm>> create_vm() override { return std::make_unique<Vm>(script_); }

 private:
  Script& script_;
};

}  // namespace lodge::machine::fake
