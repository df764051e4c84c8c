// The interrupt controller of a VM: the 8259 pair, the IOAPIC, the local APICs, the 8254 and what connects them (in
// KVM's terms the in-kernel irqchip and PIT).
//
// Threads: everything here may be called from any thread at any time, except for what names a vCPU (ports excepted):
// mmio_*, take_interrupt, has_interrupt and lapic(id)'s registers belong to that vCPU's thread; attach and detach need
// the vCPU stopped. Locks: one each for routing, 8259s, IOAPIC and PIT; none is held while another is taken, nor while
// a callback (wake, pit_changed) runs. VmHost::now_ns is the one callback that may run under the PIT's lock.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/soft/irqchip/i8254.hpp"
#include "engine/soft/irqchip/i8259.hpp"
#include "engine/soft/irqchip/ioapic.hpp"
#include "engine/soft/irqchip/lapic.hpp"
#include "engine/soft/irqchip/routing.hpp"
#include "engine/soft/irqchip/spinlock.hpp"

namespace lodge::engine::soft {

struct VmHost {
  uint64_t (*now_ns)(void* context) = nullptr;   // the VM's monotonic clock; must not call back
  void (*pit_changed)(void* context) = nullptr;  // next_pit_deadline_ns() may have changed: look again
  void* context = nullptr;
};

class IrqChip {
 public:
  static constexpr uint32_t kMostVcpus = 256;  // APIC IDs 0-255
  // Sources whose levels are ORed at a pin. 0 is user space (KVM_IRQ_LINE); the caller numbers the others below 31.
  static constexpr uint32_t kUserSource = 0;
  static constexpr uint32_t kPitSource = 31;

  explicit IrqChip(const VmHost& host);
  IrqChip(const IrqChip&) = delete;
  IrqChip& operator=(const IrqChip&) = delete;

  // The vCPU with this APIC ID (below kMostVcpus) from now on takes part. The Lapic lives as long as the IrqChip.
  Lapic& attach_vcpu(uint32_t id, bool bootstrap, const VcpuEvents& events);
  void detach_vcpu(uint32_t id);
  [[nodiscard]] Lapic& lapic(uint32_t id) { return lapics_[id]; }

  // --- Interrupt sources ---
  void set_irq(uint32_t source, uint32_t gsi, bool level);
  // A write of data to an MSI address. True if a local APIC accepted it.
  bool signal_msi(uint64_t address, uint32_t data);
  bool deliver(const InterruptMessage& message);                                       // shorthand None only
  [[nodiscard]] bool set_routing(const kvm_irq_routing_entry* entries, size_t count);  // false: EINVAL

  // --- The vCPU loop ---
  // A vCPU may take an interrupt: from the 8259s through LINT0, or from its local APIC.
  [[nodiscard]] bool has_interrupt(uint32_t vcpu) const;
  // The acknowledge cycle; the 8259s first, as in KVM. The vector, or -1 if there is none (any more).
  [[nodiscard]] int take_interrupt(uint32_t vcpu);

  // --- The guest's accesses: false if the address is not the irqchip's ---
  // A wide access is split into bytes, as on the ISA bus. Sizes 1, 2, 4.
  [[nodiscard]] bool port_read(uint16_t port, unsigned size, uint32_t& value);
  [[nodiscard]] bool port_write(uint16_t port, unsigned size, uint32_t value);
  // Sizes 1, 2, 4, 8.
  [[nodiscard]] bool mmio_read(uint32_t vcpu, uint64_t gpa, unsigned size, uint64_t& value);
  [[nodiscard]] bool mmio_write(uint32_t vcpu, uint64_t gpa, unsigned size, uint64_t value);

  // --- The 8254 ---
  void create_pit(bool port_b);  // KVM_CREATE_PIT2; port_b: own port 0x61 (KVM_PIT_SPEAKER_DUMMY)
  [[nodiscard]] bool has_pit() const { return has_pit_.load(std::memory_order_acquire); }
  void set_pit_reinject(bool reinject);
  [[nodiscard]] uint64_t next_pit_deadline_ns();  // UINT64_MAX: none
  void expire_pit(uint64_t now_ns);

  // --- State, in KVM's layouts ---
  [[nodiscard]] bool get_irqchip(kvm_irqchip& chip);  // chip.chip_id says which; false: no such chip
  [[nodiscard]] bool set_irqchip(const kvm_irqchip& chip);
  void get_pit(kvm_pit_state2& state);
  void set_pit(const kvm_pit_state2& state);

 private:
  // The vCPUs to wake once all locks are dropped.
  struct WakeSet {
    uint64_t bits[kMostVcpus / 64] = {};
  };
  struct PicChanges {  // seen under the PIC lock, acted upon after it
    bool output_rose = false;
    bool irq0_completed = false;
    bool irq0_unmasked = false;
  };
  struct SinkContext {
    IrqChip* chip;
    WakeSet wakes;
  };

  [[nodiscard]] uint64_t now() const { return host_.now_ns(host_.context); }
  template <typename Function>
  void for_each_vcpu(Function&& function);
  void wake(const WakeSet& wakes);

  static bool sink_deliver(void* context, const InterruptMessage& message);
  bool dispatch(const InterruptMessage& message, uint32_t source_id, WakeSet& wakes);
  bool dispatch_lowest_priority(const InterruptMessage& message, WakeSet& wakes);
  bool accept(uint32_t vcpu, const InterruptMessage& message, WakeSet& wakes);
  void send_ipi(uint32_t source_id, const InterruptMessage& message);
  void end_of_interrupt(uint8_t vector, bool level_triggered);

  void set_pic_irq(uint32_t source, uint8_t irq, bool level);
  void set_ioapic_pin(uint32_t source, uint8_t pin, bool level);
  [[nodiscard]] PicChanges collect_pic_changes();
  void apply(const PicChanges& changes);
  void write_ioapic(uint64_t gpa, uint32_t value);
  [[nodiscard]] bool irq0_masked_at_ioapic() const;
  void track_irq0_vector();

  [[nodiscard]] bool owns_port(uint16_t port) const;
  [[nodiscard]] bool owns_pit_port(uint16_t port) const;
  [[nodiscard]] uint8_t read_port(uint16_t port);
  void write_port(uint16_t port, uint8_t value);
  void acknowledge_irq0();
  void pulse_irq0();

  const VmHost host_;
  const LapicBus bus_;
  Lapic lapics_[kMostVcpus];
  std::atomic<uint64_t> present_[kMostVcpus / 64] = {};
  std::atomic<uint32_t> last_lowest_{kMostVcpus - 1};  // the winner of the last arbitration

  Spinlock routing_lock_;
  RoutingTable routing_;
  std::atomic<uint32_t> irq0_pins_{1};  // the IOAPIC pins that GSI 0 leads to

  Spinlock pic_lock_;
  I8259Pair pic_;
  uint32_t pic_sources_[16];
  std::atomic<bool> pic_output_{false};

  Spinlock ioapic_lock_;
  Ioapic ioapic_;
  uint32_t ioapic_sources_[Ioapic::kPins];
  std::atomic<uint32_t> irq0_vector_{0};  // the vector of GSI 0 at the IOAPIC; its EOI acknowledges a PIT tick

  Spinlock pit_lock_;
  I8254 pit_;
  std::atomic<bool> has_pit_{false};
  bool pit_port_b_ = false;
};

}  // namespace lodge::engine::soft
