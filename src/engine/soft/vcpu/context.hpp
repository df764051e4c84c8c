// What guest mode needs of the VM and the vCPU around a CpuState: plain data that the freestanding hooks and the ordinary C++ around
// them share. CpuState::vcpu points to the VcpuContext.
//
// Everything here lives until the VM ends, that of a destroyed vCPU too, so that other threads need no lock to
// request something of a vCPU.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <cstdint>

#include "engine/soft/cpu/state.hpp"
#include "engine/soft/mmu/physical.hpp"
#include "engine/soft/vcpu/clock.hpp"
#include "engine/soft/vcpu/invalidate.hpp"
#include "engine/soft/vcpu/quiesce.hpp"
#include "engine/soft/vcpu/timers.hpp"

namespace lodge::engine::soft {

class IrqChip;
class Lapic;
struct VmContext;

struct VcpuContext {
  CpuState* cpu;
  VmContext* vm;
  Participant* participant;
  Lapic* lapic;  // null without an in-driver interrupt controller
  uint32_t index;

  std::atomic<uint32_t> blocked;      // 1 while the thread sleeps on cpu->request
  std::atomic<uint32_t> clock_stale;  // KVM_SET_CLOCK came: the pvclock page is to be written again
  std::atomic<uint32_t> nmis;         // pending, two at most; those in the local APIC are moved here
  std::atomic<uint64_t> tsc_offset;   // guest TSC = counter + offset

  // KVM_SET_VCPU_EVENTS gave an interrupt that was acknowledged but not delivered. -1: none. The vCPU's thread only.
  int32_t injected_interrupt;

  // Without an in-driver interrupt controller: what KVM keeps of the APIC then.
  uint64_t cr8, apic_base;

  static constexpr uint32_t kMaxCpuid = 256;
  uint32_t cpuid_count;
  kvm_cpuid_entry2 cpuid[kMaxCpuid];
};

struct DoorbellEntry {
  uint64_t address, datamatch;
  uint32_t length, flags;
  int fd;
};
// Changes with no vCPU in guest mode only.
struct Doorbells {
  static constexpr uint32_t kMax = 1024;
  uint32_t count;
  DoorbellEntry entry[kMax];
};

struct VmContext {
  PhysicalMap map;
  CodeCache* code;
  IrqChip* chip;  // null without an in-driver interrupt controller
  Quiesce quiesce;
  Clock clock;
  Timers timers;
  Doorbells doorbells;
  std::atomic<VcpuContext*> vcpu[kMaxVcpus];
  // The last offset that KVM_SET_MSRS chose, and whether all vCPUs have the same (PVCLOCK_TSC_STABLE_BIT).
  std::atomic<uint64_t> tsc_offset;
  std::atomic<bool> tsc_unstable;
};

inline VcpuContext& context_of(CpuState* cpu) { return *static_cast<VcpuContext*>(cpu->vcpu); }

// Sets request bits and wakes the thread if it sleeps. Any thread, in guest mode too. The vCPU's thread announces its sleep before
// it looks at the bits; this sets the bits before it looks for a sleeper.
void vcpu_request(VcpuContext& vcpu, uint32_t requests);

// Guest memory as devices inside the driver see it. physical_commit is WriteObserver::commit_write: dirty log and
// translated code. False: not RAM (or not writable). In guest mode, or with the memory slots locked.
bool physical_write(VmContext& vm, uint64_t gpa, const void* from, uint32_t size);
void physical_commit(VmContext& vm, uint64_t gpa, uint64_t length);

// KVM's paravirtual clock (Documentation/virt/kvm/x86/msr.rst): writes the vCPU's page, if it has given one.
void pvclock_update(VcpuContext& vcpu);
// The same of the wall clock at guest-physical `gpa`.
void pvclock_write_wall_clock(VcpuContext& vcpu, uint64_t gpa);

// The guest's TSC, and setting it for this vCPU alone.
uint64_t guest_tsc(const VcpuContext& vcpu);
void set_tsc_offset(VcpuContext& vcpu, uint64_t offset);

// After a change of the chips' deadlines: the timer thread's entries, or with virtual time the vCPU's budget.
void timers_changed(VcpuContext& vcpu);
void pit_deadline_changed(VmContext& vm);
// Lets everything expire that is due with virtual time.
void virtual_time_expire(VcpuContext& vcpu);
// Virtual time: the earliest deadline of any chip.
uint64_t virtual_deadline(const VcpuContext& vcpu);

// The table of hooks.cpp. One for all vCPUs.
extern VcpuHooks vcpu_hooks;

}  // namespace lodge::engine::soft
