// The local APIC of one vCPU: xAPIC page, x2APIC MSRs, IA32_APIC_BASE, timer (SDM vol. 3, chapter 11).
//
// As KVM offers it: version 0x14 with six LVT entries, no directed EOI (the SVR's suppress bit is not there), no CMCI,
// a bus clock of 1 GHz (a timer tick is the divide configuration in nanoseconds), LINT0 of the boot processor in ExtINT mode
// after reset, and periods of the periodic timer no shorter than 200 us.
//
// Threads: what is marked "any thread" may be called at any time from anywhere; it touches atomics only (IRR, TMR, pending
// events) and reads the registers that decide on acceptance. All else belongs to the thread that runs the vCPU (or to
// whoever holds the vCPU stopped). Calls out (VcpuEvents, LapicBus) are made without locks.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstdint>

#include "engine/soft/irqchip/message.hpp"

namespace lodge::engine::soft {

// Implemented by the vCPU.
struct VcpuEvents {
  // Something may be pending: leave guest mode or HLT soon and look. Any thread, the vCPU's own included.
  void (*wake)(void* vcpu) = nullptr;
  // IA32_TIME_STAMP_COUNTER as the guest reads it now; called on the vCPU's own thread. Only for the TSC-deadline mode.
  uint64_t (*guest_tsc)(void* vcpu) = nullptr;
  void* vcpu = nullptr;
};

// The rest of the VM as a local APIC sees it.
struct LapicBus {
  uint64_t (*now_ns)(void* context) = nullptr;  // the VM's monotonic clock
  void (*send)(void* context, uint32_t source_id, const InterruptMessage& message) = nullptr;
  void (*end_of_interrupt)(void* context, uint8_t vector, bool level_triggered) = nullptr;
  void* context = nullptr;
};

struct LapicFeatures {  // after the vCPU's CPUID
  bool x2apic = true;
  bool tsc_deadline = true;
  uint8_t physical_address_bits = 46;
  uint64_t tsc_khz = 1000000;
};

class Lapic {
 public:
  static constexpr uint32_t kMsrApicBase = 0x1b;
  static constexpr uint32_t kMsrTscDeadline = 0x6e0;
  static constexpr uint32_t kMsrX2apicFirst = 0x800;
  static constexpr uint32_t kMsrX2apicLast = 0x8ff;
  static constexpr uint64_t kDefaultBase = 0xfee00000;

  // The entries of the local vector table, by register number.
  enum class Lvt : uint8_t { Timer = 0x32, Thermal = 0x33, Performance = 0x34, Lint0 = 0x35, Lint1 = 0x36, Error = 0x37 };

  Lapic();  // not inline: 256 of them in a row would be cleared by memset()
  void attach(uint32_t id, bool bootstrap, const VcpuEvents& events, const LapicBus& bus);
  void set_features(const LapicFeatures& features);
  [[nodiscard]] uint32_t id() const { return id_; }
  // The state after power-up; an application processor then waits for a SIPI.
  void reset();

  // --- Any thread ---
  // Takes a message that is addressed to this APIC. False if it refuses: disabled, illegal vector, ExtINT. The caller
  // wakes the vCPU either way (an illegal vector can raise the error interrupt), once it holds no lock.
  bool accept(const InterruptMessage& message);
  [[nodiscard]] bool matches(const InterruptMessage& message) const;  // the destination, shorthands aside
  [[nodiscard]] bool hardware_enabled() const;
  [[nodiscard]] bool enabled() const;                // hardware and software: takes fixed interrupts
  [[nodiscard]] uint8_t processor_priority() const;  // PPR
  [[nodiscard]] bool accepts_extint() const;         // the 8259's INTR reaches this processor
  [[nodiscard]] bool lint0_rise();                   // INTR rose; true: wake the vCPU
  // An interrupt of this processor's own sources (thermal, performance counters, LINT1).
  bool deliver_local(Lvt entry);
  void wake() const { events_.wake(events_.vcpu); }
  [[nodiscard]] bool event_pending() const;  // NMI, SMI, INIT or a SIPI that may be taken

  // --- The vCPU's thread: events ---
  [[nodiscard]] int pending_interrupt() const;  // the highest vector above PPR, or -1. The 8259 is the IrqChip's part.
  void acknowledge(uint8_t vector);             // IRR to ISR
  [[nodiscard]] bool take_nmi();
  [[nodiscard]] bool take_smi();
  // Resets the APIC as INIT does. The vCPU does the rest; an application processor then waits for a SIPI.
  [[nodiscard]] bool take_init();
  // A SIPI is taken only while waiting for one; others are dropped.
  [[nodiscard]] bool take_sipi(uint8_t& vector);
  [[nodiscard]] bool wait_for_sipi() const { return wait_for_sipi_.load(std::memory_order_relaxed); }
  void set_wait_for_sipi(bool waits) { wait_for_sipi_.store(waits, std::memory_order_relaxed); }

  // --- The vCPU's thread: registers ---
  [[nodiscard]] uint8_t cr8() const;
  void set_cr8(uint8_t value);  // 0-15
  [[nodiscard]] static bool owns_msr(uint32_t msr);
  [[nodiscard]] bool read_msr(uint32_t msr, uint64_t& value);  // false: #GP(0)
  [[nodiscard]] bool write_msr(uint32_t msr, uint64_t value);  // false: #GP(0)
  [[nodiscard]] bool owns(uint64_t gpa) const;                 // the xAPIC page, in xAPIC mode
  [[nodiscard]] uint64_t mmio_read(uint64_t gpa, unsigned size);
  void mmio_write(uint64_t gpa, unsigned size, uint64_t value);
  [[nodiscard]] uint64_t base() const { return base_.load(std::memory_order_relaxed); }
  // For KVM_SET_SREGS and KVM_SET_MSRS: any valid mode, without the guest's rules on transitions. False: invalid.
  bool load_base(uint64_t value);

  // --- The vCPU's thread: time ---
  [[nodiscard]] uint64_t next_deadline_ns() const { return deadline_ns_; }  // UINT64_MAX: none
  void expire(uint64_t now_ns);                                             // fires the timer if it is due
  void tsc_changed();                                                       // the guest's TSC was set: a TSC deadline moves with it

  // KVM_GET_LAPIC and KVM_SET_LAPIC. In x2APIC mode the ID stands in bits 31:24, as without KVM_CAP_X2APIC_API.
  void get_state(kvm_lapic_state& state) const;
  void set_state(const kvm_lapic_state& state);

 private:
  static constexpr uint32_t kRegisters = KVM_APIC_REG_SIZE / 16;
  enum class TimerMode : uint8_t { OneShot = 0, Periodic = 1, TscDeadline = 2, Reserved = 3 };

  [[nodiscard]] uint32_t reg(uint32_t index) const { return registers_[index].load(std::memory_order_relaxed); }
  void set_reg(uint32_t index, uint32_t value) { registers_[index].store(value, std::memory_order_relaxed); }
  [[nodiscard]] bool x2apic_mode() const;
  [[nodiscard]] int highest(uint32_t first_register) const;
  void reset_registers(bool init);
  void enter_x2apic();
  void change_mode(uint64_t old_base, uint64_t new_base);
  [[nodiscard]] bool valid_base(uint64_t value) const;
  [[nodiscard]] bool write_base(uint64_t value);

  [[nodiscard]] bool read_register(uint32_t index, uint32_t& value) const;
  [[nodiscard]] bool write_register(uint32_t index, uint32_t value);
  [[nodiscard]] bool read_x2apic(uint32_t index, uint64_t& value) const;
  [[nodiscard]] bool write_x2apic(uint32_t index, uint64_t value);
  void write_svr(uint32_t value);
  void write_lvt(uint32_t index, uint32_t value);
  void write_esr();
  void end_of_interrupt();
  void send_ipi();
  void self_ipi(uint8_t vector);
  void update_ppr();
  void wake_if_pending();
  bool accept_vector(uint8_t vector, bool level_triggered);
  void accept_init();
  void report_error(uint32_t bit);

  [[nodiscard]] TimerMode timer_mode() const;
  [[nodiscard]] uint32_t divide() const;
  [[nodiscard]] uint32_t current_count(uint64_t now_ns) const;
  void write_timer_lvt(uint32_t value);
  void write_divide(uint32_t value);
  void start_timer(uint32_t count);
  void disarm_timer();
  void write_tsc_deadline(uint64_t value);
  void arm_tsc_deadline();

  uint32_t id_ = 0;
  bool bootstrap_ = false;
  VcpuEvents events_;
  LapicBus bus_;
  LapicFeatures features_;

  std::atomic<uint64_t> base_{0};
  std::atomic<uint32_t> registers_[kRegisters];  // as in the xAPIC page; ICR2 holds all 32 bits of an x2APIC's ICR
  std::atomic<uint32_t> events_pending_{0};
  std::atomic<uint32_t> errors_{0};  // collected for the next write to the ESR
  std::atomic<uint8_t> sipi_vector_{0};
  std::atomic<bool> wait_for_sipi_{false};

  uint64_t deadline_ns_ = UINT64_MAX;
  uint64_t period_ns_ = 0;
  uint64_t tsc_deadline_ = 0;
};

}  // namespace lodge::engine::soft
