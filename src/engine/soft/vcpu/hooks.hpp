// The way from the freestanding core to the engine around it. Filled in by vcpu/; everything here may be called from
// guest mode, keeps the vector registers intact and may unwind where it says so.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// pending_events()
enum EventBits : uint32_t {
  kEventNmi = 1,
  kEventInterrupt = 2,  // one is deliverable if IF and the shadow allow
  kEventLeave = 4,      // INIT, SIPI, or a change that vcpu/ must handle outside the loop: run_guest returns LoopExit::Event
};

struct VcpuHooks {
  // The driver's own chips (PIC, PIT, IOAPIC, local APIC) and doorbells. False: not theirs; the access becomes an exit
  // (vcpu/replay.hpp). `size` 1, 2, 4 or 8; values little-endian in the low bytes.
  bool (*chip_port_read)(CpuState* c, uint16_t port, uint32_t size, uint32_t* value);
  bool (*chip_port_write)(CpuState* c, uint16_t port, uint32_t size, uint32_t value);
  bool (*chip_mmio_read)(CpuState* c, uint64_t gpa, uint32_t size, uint64_t* value);
  bool (*chip_mmio_write)(CpuState* c, uint64_t gpa, uint32_t size, uint64_t value);

  // Events for this vCPU, looked at between instructions when a request bit is set or interrupts became possible.
  // pending_events: a set of EventBits. acknowledge_interrupt: the vector to deliver now (IRR to ISR, or the 8259's INTA), -1 if it went
  // away.
  uint32_t (*pending_events)(CpuState* c);
  int32_t (*acknowledge_interrupt)(CpuState* c);
  bool (*take_nmi)(CpuState* c);
  // Virtual clock only: called when the budget is used up; fires timers due now and sets the next budget.
  void (*virtual_time)(CpuState* c);

  // Local APIC. Task priority as CR8 (0-15).
  uint64_t (*get_cr8)(CpuState* c);
  void (*set_cr8)(CpuState* c, uint64_t value);
  uint64_t (*get_apic_base)(CpuState* c);
  bool (*set_apic_base)(CpuState* c, uint64_t value);               // false: #GP
  bool (*read_x2apic)(CpuState* c, uint32_t msr, uint64_t* value);  // msr 0x800-0x8ff; false: #GP
  bool (*write_x2apic)(CpuState* c, uint32_t msr, uint64_t value);
  uint64_t (*get_tsc_deadline)(CpuState* c);
  void (*set_tsc_deadline)(CpuState* c, uint64_t value);

  // Time. guest_tsc is what RDTSC returns.
  uint64_t (*guest_tsc)(CpuState* c);
  void (*set_guest_tsc)(CpuState* c, uint64_t value);
  // KVM's paravirtual MSRs 0x4b564d00-... and 0x11, 0x12. False: #GP.
  bool (*read_kvm_msr)(CpuState* c, uint32_t msr, uint64_t* value);
  bool (*write_kvm_msr)(CpuState* c, uint32_t msr, uint64_t value);
  // VMCALL/VMMCALL with KVM's calling convention; the result goes to RAX.
  uint64_t (*hypercall)(CpuState* c, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3);

  // CPUID's table as set by KVM_SET_CPUID2: registers[0..3] = EAX, EBX, ECX, EDX.
  void (*cpuid)(CpuState* c, uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);
};

}  // namespace lodge::engine::soft
