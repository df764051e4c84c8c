#include "engine/soft/vcpu/vcpu.hpp"

#include <sys/prctl.h>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/irqchip/lapic.hpp"
#include "engine/soft/vcpu/futex.hpp"
#include "engine/soft/vcpu/hooks.hpp"
#include "engine/soft/vcpu/loop.hpp"

namespace lodge::engine::soft {

namespace {

// Once a thread: sleeps in HLT end on time. The default slack of 50 us is the size of a timer tick's whole handling.
bool prepare_thread() { return prctl(PR_SET_TIMERSLACK, 1UL) == 0; }

}  // namespace

Result<std::unique_ptr<Vcpu>> SoftVcpu::create(std::shared_ptr<VmCore> vm, uint32_t id) {
  VcpuMemory* memory = TRY(vm->add_vcpu(id));
  std::unique_ptr<SoftVcpu> vcpu(new SoftVcpu(std::move(vm), *memory));
  vcpu->power_on();
  return vcpu;
}

SoftVcpu::SoftVcpu(std::shared_ptr<VmCore> vm, VcpuMemory& memory)
    : vm_(std::move(vm)), memory_(memory), cpu_(memory.cpu), context_(memory.context) {}

// SDM vol. 3, table 9-1; the vector state that XRSTOR calls initial (vol. 1, 13.6).
void SoftVcpu::power_on() {
  constexpr uint16_t kInitialFcw = 0x37f;
  constexpr uint32_t kInitialMxcsr = 0x1f80;
  *reinterpret_cast<uint16_t*>(&memory_.xsave[0]) = kInitialFcw;
  *reinterpret_cast<uint32_t*>(&memory_.xsave[24]) = kInitialMxcsr;
  cpu_reset(cpu_, false);
  mode_changed(cpu_);
  // The processor with id 0 starts; the others wait for INIT and SIPI, where there is a local APIC to receive them.
  mp_state_ = cpu_.id == 0 || !context_.lapic ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
}

void SoftVcpu::kick() {
  kicked_.store(true);
  vcpu_request(context_, kRequestKick);
}

// The loop has an access to complete or an event to deliver before anything else may happen.
bool SoftVcpu::instruction_pending() const { return memory_.replay.count != 0 || cpu_.delivery != Delivery::None; }

// Nothing to execute until an event comes.
bool SoftVcpu::waiting() const {
  if (instruction_pending()) return false;
  if (mp_state_ != KVM_MP_STATE_RUNNABLE) return true;
  if (!cpu_.halted) return false;
  const uint32_t pending = vcpu_hooks.pending_events(&cpu_);
  if ((pending & kEventNmi) && !cpu_.nmi_blocked) return false;
  return !(pending & kEventInterrupt) || !(cpu_.eflags_system & eflags::kIf);
}

// What must happen between two instructions and outside the loop. An unfinished instruction comes first.
void SoftVcpu::take_events() {
  if (instruction_pending()) return;
  if (context_.clock_stale.exchange(0)) {
    quiesce_enter_guest(&cpu_);
    pvclock_update(context_);
    quiesce_leave_guest(&cpu_);
  }
  if (!context_.lapic) return;
  if (context_.lapic->take_init()) {
    cpu_reset(cpu_, true);
    mode_changed(cpu_);
    cpu_.halted = false;
    context_.injected_interrupt = -1;
    mp_state_ = context_.lapic->wait_for_sipi() ? KVM_MP_STATE_INIT_RECEIVED : KVM_MP_STATE_RUNNABLE;
  }
  uint8_t vector = 0;
  if (!context_.lapic->take_sipi(vector)) return;
  if (mp_state_ == KVM_MP_STATE_INIT_RECEIVED) {
    take_startup(vector);
  } else {
    context_.lapic->set_wait_for_sipi(true);  // KVM drops a SIPI that no INIT came before
  }
}

// SDM vol. 3, 8.4.3: real mode at vector * 4096.
void SoftVcpu::take_startup(uint8_t vector) {
  SegmentRegister& cs = cpu_.seg[kCs];
  cs.selector = static_cast<uint16_t>(vector << 8);
  cs.base = static_cast<uint64_t>(vector) << 12;
  cpu_.rip = 0;
  mode_changed(cpu_);
  mp_state_ = KVM_MP_STATE_RUNNABLE;
}

// Until a request or this vCPU's own deadline. With virtual time the wait for a deadline takes none.
void SoftVcpu::sleep() {
  constexpr uint32_t kWakers = kRequestEvent | kRequestKick;
  VmContext& vm = vm_->context();
  context_.blocked.store(1);
  const uint32_t requests = cpu_.request.load();
  if (!(requests & kWakers)) {
    const bool is_virtual = vm_->virtual_clock();
    const uint64_t deadline = is_virtual ? virtual_deadline(context_) : context_.lapic ? context_.lapic->next_deadline_ns() : kNever;
    if (is_virtual && deadline != kNever) {
      clock_skip_to(vm.clock, deadline);
      virtual_time_expire(context_);
    } else {
      timer_set(vm.timers, context_.index, kNever);
      const uint64_t now = clock_now(vm.clock);
      if (deadline > now) futex_wait(cpu_.request, requests, deadline == kNever ? kNever : deadline - now);
    }
  }
  context_.blocked.store(0);
  cpu_.request.fetch_and(~static_cast<uint32_t>(kRequestEvent));
  if (!vm_->virtual_clock()) timers_changed(context_);
}

bool SoftVcpu::take_kick() { return (cpu_.request.fetch_and(~static_cast<uint32_t>(kRequestKick)) & kRequestKick) != 0; }

void SoftVcpu::fill_shared() {
  kvm_run& run = memory_.run;
  run.ready_for_interrupt_injection = context_.lapic != nullptr;
  run.if_flag = (cpu_.eflags_system & eflags::kIf) != 0;
  run.flags = 0;
  run.cr8 = vcpu_hooks.get_cr8(&cpu_);
  run.apic_base = vcpu_hooks.get_apic_base(&cpu_);
}

RunResult SoftVcpu::interrupted() {
  kicked_.store(false);
  memory_.run.exit_reason = KVM_EXIT_INTR;
  return RunResult::Interrupted;
}

RunResult SoftVcpu::exited(uint32_t reason) {
  memory_.run.exit_reason = reason;
  cpu_.exit_reason = reason;
  return RunResult::Exit;
}

Result<RunResult> SoftVcpu::run() {
  static thread_local const bool prepared = prepare_thread();
  static_cast<void>(prepared);
  if (vm_->profile()) TRY(vm_->profile()->attach(cpu_));
  // immediate_exit is a kick that lasts for one call.
  const bool forced = memory_.run.immediate_exit != 0;
  if (forced) cpu_.request.fetch_or(kRequestKick);
  auto result = enter_guest();
  if (forced) {
    if (!kicked_.load()) cpu_.request.fetch_and(~static_cast<uint32_t>(kRequestKick));
    if (kicked_.load()) cpu_.request.fetch_or(kRequestKick);
  }
  fill_shared();
  return result;
}

Result<RunResult> SoftVcpu::enter_guest() {
  for (;;) {
    take_events();
    if (waiting()) {
      if (take_kick()) return interrupted();
      sleep();
      continue;
    }
    if (!instruction_pending()) cpu_.halted = false;  // woken
    // Events may have come while nobody looked.
    cpu_.request.fetch_or(kRequestEvent);
    if (vm_->virtual_clock()) timers_changed(context_);
    switch (run_guest(cpu_, memory_.xsave)) {
      case LoopExit::Exit: count(cpu_, Counter::Exits); return RunResult::Exit;
      case LoopExit::Interrupted: return interrupted();
      case LoopExit::Shutdown:
        // Nothing is left to be finished: an INIT, as chipsets send it, begins anew (SDM vol. 3, 6.15, interrupt 8).
        cpu_.delivery = Delivery::None;
        replay_commit(cpu_);
        return exited(KVM_EXIT_SHUTDOWN);
      case LoopExit::Event: break;
      case LoopExit::Halted:
        count(cpu_, Counter::Halts);
        if (context_.lapic) break;
        // Without an interrupt controller in the driver, waiting is the caller's part.
        cpu_.halted = false;
        return exited(KVM_EXIT_HLT);
    }
  }
}

}  // namespace lodge::engine::soft
