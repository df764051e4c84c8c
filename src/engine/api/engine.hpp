// The boundary to the driver, in KVM's terms.
//
// Everything above this header speaks to the processor through a System (one per host and engine), its VMs
// and their vCPUs. Structures are those of <linux/kvm.h>; what a call does, what it returns and in which order
// is what Linux's Documentation/virt/kvm/api.rst says of the ioctl of the same name, unless a comment here
// says more. Two implementations stand behind it: engine/kvm (the kernel's) and engine/soft (Lodge's own).
// Nothing outside engine/ asks which one runs.
//
// The interrupt controller (two 8259A, IOAPIC, local APICs) and the 8254 belong to the driver.
//
// Threads: a Vcpu is used by one thread at a time, except kick(), which any thread may call. Vm's calls may
// come from any thread. All of a VM's vCPUs must be out of run() when memory regions change.
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "memory/coherence.hpp"

namespace lodge::engine {

// How a run() ended. Exit: the kvm_run structure says why (exit_reason and its union). Interrupted: a kick,
// a signal or immediate_exit came first (KVM_RUN's EINTR); the state is consistent and can be saved.
enum class RunResult { Exit, Interrupted };

// The contents of kvm_xsave, which itself ends in a flexible array and so cannot be the value of a Result.
struct Xsave {
  uint32_t region[1024];
};

class Vcpu {
 public:
  virtual ~Vcpu() = default;

  // The page shared with the driver: exit reasons, I/O data, immediate_exit.
  [[nodiscard]] virtual kvm_run& shared() = 0;

  // Enters guest mode until an exit. An instruction that reads a port or MMIO completes on the next run(),
  // with the data that the caller left in shared(); one that is split exits several times. With
  // shared().immediate_exit set, run() completes the pending instruction, if any, and is Interrupted.
  [[nodiscard]] virtual Result<RunResult> run() = 0;

  // Makes a run() in progress, or else the next one, return Interrupted soon, within a bounded number of
  // guest instructions. Any thread.
  virtual void kick() = 0;

  [[nodiscard]] virtual Result<kvm_regs> get_regs() = 0;
  [[nodiscard]] virtual Result<> set_regs(const kvm_regs& regs) = 0;
  [[nodiscard]] virtual Result<kvm_sregs> get_sregs() = 0;
  [[nodiscard]] virtual Result<> set_sregs(const kvm_sregs& sregs) = 0;
  [[nodiscard]] virtual Result<Xsave> get_xsave() = 0;  // x87, SSE and AVX in the standard XSAVE layout
  [[nodiscard]] virtual Result<> set_xsave(const Xsave& xsave) = 0;
  [[nodiscard]] virtual Result<kvm_xcrs> get_xcrs() = 0;
  [[nodiscard]] virtual Result<> set_xcrs(const kvm_xcrs& xcrs) = 0;
  [[nodiscard]] virtual Result<kvm_debugregs> get_debugregs() = 0;
  [[nodiscard]] virtual Result<> set_debugregs(const kvm_debugregs& debugregs) = 0;
  [[nodiscard]] virtual Result<kvm_vcpu_events> get_vcpu_events() = 0;
  [[nodiscard]] virtual Result<> set_vcpu_events(const kvm_vcpu_events& events) = 0;
  [[nodiscard]] virtual Result<kvm_mp_state> get_mp_state() = 0;
  [[nodiscard]] virtual Result<> set_mp_state(const kvm_mp_state& state) = 0;
  [[nodiscard]] virtual Result<kvm_lapic_state> get_lapic() = 0;
  [[nodiscard]] virtual Result<> set_lapic(const kvm_lapic_state& lapic) = 0;
  // Fills in .data of each entry (get) or writes it (set). The count of leading entries that worked, as the
  // ioctl returns it: fewer than entries.size() means that entries[result] was refused.
  [[nodiscard]] virtual Result<size_t> get_msrs(std::span<kvm_msr_entry> entries) = 0;
  [[nodiscard]] virtual Result<size_t> set_msrs(std::span<const kvm_msr_entry> entries) = 0;
  [[nodiscard]] virtual Result<> set_cpuid2(std::span<const kvm_cpuid_entry2> entries) = 0;
  [[nodiscard]] virtual Result<> set_guest_debug(const kvm_guest_debug& debug) = 0;
  [[nodiscard]] virtual Result<> nmi() = 0;
  // KVM_TRANSLATE: a linear address through the current page tables, without side effects.
  [[nodiscard]] virtual Result<kvm_translation> translate(uint64_t linear) = 0;
};

// A device's interrupt as an object (irqfd). signal() is a direct call in the soft engine and an eventfd
// write on the kernel's; it raises an edge on the GSI (or sends the MSI that the GSI is routed to).
class InterruptEvent {
 public:
  virtual ~InterruptEvent() = default;
  virtual void signal() = 0;                 // any thread
  [[nodiscard]] virtual int fd() const = 0;  // an eventfd with the same effect, for other processes and io_uring
};

// A doorbell (ioeventfd): guest writes that match do not leave run() but call the handler.
struct Doorbell {
  uint64_t address = 0;  // guest-physical, or a port with KVM_IOEVENTFD_FLAG_PIO
  uint32_t length = 0;   // 0 (any), 1, 2, 4, 8
  uint64_t datamatch = 0;
  uint32_t flags = 0;  // KVM_IOEVENTFD_FLAG_DATAMATCH, KVM_IOEVENTFD_FLAG_PIO
  int eventfd = -1;    // the caller's, which counts the writes; -1: one of the doorbell's own
};
class DoorbellEvent {
 public:
  virtual ~DoorbellEvent() = default;        // destroying it detaches the doorbell
  [[nodiscard]] virtual int fd() const = 0;  // the eventfd that counts the matching writes, or a duplicate of it
};

class Vm : public memory::WriteObserver {
 public:
  // KVM_SET_USER_MEMORY_REGION. A size of 0 deletes the slot. Flags: KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY.
  // The host memory stays the caller's and must outlive the slot.
  [[nodiscard]] virtual Result<> set_user_memory_region(const kvm_userspace_memory_region& region) = 0;
  // KVM_GET_DIRTY_LOG: one bit a page of the slot, least significant first; reading clears the log.
  [[nodiscard]] virtual Result<std::vector<uint64_t>> get_dirty_log(uint32_t slot) = 0;

  // The vCPUs must be created after create_irqchip().
  [[nodiscard]] virtual Result<std::unique_ptr<Vcpu>> create_vcpu(uint32_t id) = 0;
  [[nodiscard]] virtual Result<> create_irqchip() = 0;
  [[nodiscard]] virtual Result<> create_pit2(const kvm_pit_config& config) = 0;

  [[nodiscard]] virtual Result<> irq_line(uint32_t gsi, bool level) = 0;
  [[nodiscard]] virtual Result<> signal_msi(const kvm_msi& msi) = 0;
  [[nodiscard]] virtual Result<> set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) = 0;
  [[nodiscard]] virtual Result<kvm_irqchip> get_irqchip(uint32_t chip_id) = 0;
  [[nodiscard]] virtual Result<> set_irqchip(const kvm_irqchip& chip) = 0;
  [[nodiscard]] virtual Result<kvm_pit_state2> get_pit2() = 0;
  [[nodiscard]] virtual Result<> set_pit2(const kvm_pit_state2& pit) = 0;
  [[nodiscard]] virtual Result<kvm_clock_data> get_clock() = 0;
  [[nodiscard]] virtual Result<> set_clock(const kvm_clock_data& clock) = 0;

  [[nodiscard]] virtual Result<std::unique_ptr<InterruptEvent>> create_interrupt(uint32_t gsi) = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<DoorbellEvent>> create_doorbell(const Doorbell& doorbell) = 0;
};

class System {
 public:
  virtual ~System() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;                   // "kvm" or "soft"
  [[nodiscard]] virtual int check_extension(uint32_t capability) const = 0;  // KVM_CAP_*, 0: not there
  // KVM_GET_SUPPORTED_CPUID: everything that the engine carries out.
  [[nodiscard]] virtual Result<std::vector<kvm_cpuid_entry2>> get_supported_cpuid() = 0;
  [[nodiscard]] virtual Result<std::vector<uint32_t>> get_msr_index_list() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Vm>> create_vm() = 0;
};

}  // namespace lodge::engine
