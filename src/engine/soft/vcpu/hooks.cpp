// The core's way out, carried out: chips, doorbells, events, the APIC's registers, time, KVM's MSRs, CPUID. Guest mode: general registers
// only, nothing blocks.
#include "engine/soft/vcpu/hooks.hpp"

#include "base/fnv1a.hpp"
#include "engine/soft/irqchip/irqchip.hpp"
#include "engine/soft/state_record.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/futex.hpp"
#include "engine/soft/vcpu/offsets.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint32_t kMsrKvmWallClockOld = 0x11, kMsrKvmSystemTimeOld = 0x12;
constexpr uint32_t kMsrKvmWallClock = 0x4b564d00, kMsrKvmSystemTime = 0x4b564d01, kMsrKvmAsyncPfEn = 0x4b564d02,
                   kMsrKvmStealTime = 0x4b564d03, kMsrKvmEoiEn = 0x4b564d04, kMsrKvmPollControl = 0x4b564d05,
                   kMsrKvmAsyncPfInt = 0x4b564d06;

// --- doorbells

bool doorbell_matches(const DoorbellEntry& entry, bool port, uint64_t address, uint32_t size, uint64_t value) {
  if (((entry.flags & KVM_IOEVENTFD_FLAG_PIO) != 0) != port || entry.address != address) return false;
  if (entry.length != 0 && entry.length != size) return false;
  if (entry.length == 0 || !(entry.flags & KVM_IOEVENTFD_FLAG_DATAMATCH)) return true;
  const uint64_t mask = size == 8 ? UINT64_MAX : (uint64_t{1} << (8 * size)) - 1;
  return ((value ^ entry.datamatch) & mask) == 0;
}

bool ring_doorbell(const VmContext& vm, bool port, uint64_t address, uint32_t size, uint64_t value) {
  for (uint32_t i = 0; i < vm.doorbells.count; ++i) {
    const DoorbellEntry& entry = vm.doorbells.entry[i];
    if (!doorbell_matches(entry, port, address, size, value)) continue;
    const uint64_t one = 1;
    raw_syscall(SYS_write, entry.fd, reinterpret_cast<long>(&one), sizeof one);
    return true;
  }
  return false;
}

// --- chips

bool chip_port_read(CpuState* c, uint16_t port, uint32_t size, uint32_t* value) {
  IrqChip* chip = context_of(c).vm->chip;
  return chip && chip->port_read(port, size, *value);
}

bool chip_port_write(CpuState* c, uint16_t port, uint32_t size, uint32_t value) {
  const VmContext& vm = *context_of(c).vm;
  if (ring_doorbell(vm, true, port, size, value)) return true;
  return vm.chip && vm.chip->port_write(port, size, value);
}

bool chip_mmio_read(CpuState* c, uint64_t gpa, uint32_t size, uint64_t* value) {
  IrqChip* chip = context_of(c).vm->chip;
  return chip && chip->mmio_read(c->id, gpa, size, *value);
}

bool chip_mmio_write(CpuState* c, uint64_t gpa, uint32_t size, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  if (ring_doorbell(*vcpu.vm, false, gpa, size, value)) return true;
  if (!vcpu.vm->chip || !vcpu.vm->chip->mmio_write(c->id, gpa, size, value)) return false;
  timers_changed(vcpu);
  return true;
}

// --- events

// The local APIC keeps NMIs, INIT and SIPIs as flags; only the latter two make the vCPU leave its loop.
bool take_lapic_events(VcpuContext& vcpu) {
  Lapic& lapic = *vcpu.lapic;
  if (!lapic.event_pending()) return false;
  if (lapic.take_nmi() && vcpu.nmis.load() < 2) vcpu.nmis.fetch_add(1);
  static_cast<void>(lapic.take_smi());  // no system management mode: nothing answers
  return lapic.event_pending();
}

uint32_t pending_events(CpuState* c) {
  VcpuContext& vcpu = context_of(c);
  uint32_t events = 0;
  if (vcpu.lapic) {
    const Clock& clock = vcpu.vm->clock;
    // With virtual time deadlines are met at their instruction only, by virtual_time().
    if (!clock.picoseconds && vcpu.lapic->next_deadline_ns() != kNever && vcpu.lapic->next_deadline_ns() <= clock_now(clock)) {
      vcpu.lapic->expire(clock_now(clock));
      timers_changed(vcpu);
    }
    if (take_lapic_events(vcpu)) events |= kEventLeave;
    if (vcpu.vm->chip->has_interrupt(c->id)) events |= kEventInterrupt;
  }
  if (vcpu.injected_interrupt >= 0) events |= kEventInterrupt;
  if (vcpu.nmis.load() != 0) events |= kEventNmi;
  if (vcpu.clock_stale.load() != 0) events |= kEventLeave;
  return events;
}

int32_t acknowledge_interrupt(CpuState* c) {
  VcpuContext& vcpu = context_of(c);
  if (vcpu.injected_interrupt >= 0) {
    const int32_t vector = vcpu.injected_interrupt;
    vcpu.injected_interrupt = -1;
    return vector;
  }
  return vcpu.lapic ? vcpu.vm->chip->take_interrupt(c->id) : -1;
}

bool take_nmi(CpuState* c) {
  VcpuContext& vcpu = context_of(c);
  if (vcpu.nmis.load() == 0) return false;
  vcpu.nmis.fetch_sub(1);
  return true;
}

uint64_t hash_of(const void* data, size_t size) { return fnv1a(std::span(static_cast<const std::byte*>(data), size)); }

void trace_state(CpuState& c, Clock& clock) {
  StateRecord record = {};
  record.instructions = c.instructions;
  record.rip = c.rip;
  for (uint32_t r = 0; r < 16; ++r) record.gpr[r] = c.gpr[r];
  record.rflags = get_eflags(c);
  record.cr[0] = c.cr0, record.cr[2] = c.cr2, record.cr[3] = c.cr3, record.cr[4] = c.cr4;
  record.efer = c.efer;
  uint16_t selectors[6];
  for (uint32_t s = 0; s < 6; ++s) {
    record.base[s] = c.seg[s].base;
    selectors[s] = c.seg[s].selector;
  }
  record.selectors = hash_of(selectors, sizeof selectors);
  soft_xsave(c.bounce);
  // Without x87's pointers and opcode, which are the host's, and the header.
  record.vector =
      hash_of(c.bounce, 6) ^ hash_of(c.bounce + 24, 4) * 3 ^ hash_of(c.bounce + 32, 128 + 256) * 5 ^ hash_of(c.bounce + 576, 256) * 7;
  raw_syscall(SYS_write, clock.trace, reinterpret_cast<long>(&record), sizeof record);
  clock.trace_next += clock.trace_every;
}

void virtual_time(CpuState* c) {
  Clock& clock = context_of(c).vm->clock;
  if (clock.trace >= 0 && c->instructions >= clock.trace_next) trace_state(*c, clock);
  virtual_time_expire(context_of(c));
  timers_changed(context_of(c));
  // The local APIC wakes nobody for its own timer: the vCPU's thread is the one that expires it.
  c->request.fetch_or(kRequestEvent);
}

// --- local APIC

uint64_t get_cr8(CpuState* c) {
  const VcpuContext& vcpu = context_of(c);
  return vcpu.lapic ? vcpu.lapic->cr8() : vcpu.cr8;
}

void set_cr8(CpuState* c, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  if (!vcpu.lapic) {
    vcpu.cr8 = value;
    return;
  }
  vcpu.lapic->set_cr8(static_cast<uint8_t>(value));
  // A lower priority can make an interrupt deliverable.
  c->request.fetch_or(kRequestEvent);
}

uint64_t get_apic_base(CpuState* c) {
  const VcpuContext& vcpu = context_of(c);
  return vcpu.lapic ? vcpu.lapic->base() : vcpu.apic_base;
}

bool set_apic_base(CpuState* c, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  if (!vcpu.lapic) {
    vcpu.apic_base = value;
    return true;
  }
  if (!vcpu.lapic->write_msr(Lapic::kMsrApicBase, value)) return false;
  timers_changed(vcpu);
  return true;
}

bool read_x2apic(CpuState* c, uint32_t msr, uint64_t* value) {
  const VcpuContext& vcpu = context_of(c);
  return vcpu.lapic && vcpu.lapic->read_msr(msr, *value);
}

bool write_x2apic(CpuState* c, uint32_t msr, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  if (!vcpu.lapic || !vcpu.lapic->write_msr(msr, value)) return false;
  timers_changed(vcpu);
  c->request.fetch_or(kRequestEvent);
  return true;
}

uint64_t get_tsc_deadline(CpuState* c) {
  uint64_t value = 0;
  const VcpuContext& vcpu = context_of(c);
  return vcpu.lapic && vcpu.lapic->read_msr(Lapic::kMsrTscDeadline, value) ? value : 0;
}

void set_tsc_deadline(CpuState* c, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  if (!vcpu.lapic || !vcpu.lapic->write_msr(Lapic::kMsrTscDeadline, value)) return;
  timers_changed(vcpu);
}

// --- time and KVM's MSRs

uint64_t hook_guest_tsc(CpuState* c) { return guest_tsc(context_of(c)); }

void set_guest_tsc(CpuState* c, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  set_tsc_offset(vcpu, value - clock_counter(vcpu.vm->clock));
  if (!vcpu.lapic) return;
  vcpu.lapic->tsc_changed();
  timers_changed(vcpu);
}

bool read_kvm_msr(CpuState* c, uint32_t msr, uint64_t* value) {
  const Msrs& msrs = c->msrs;
  switch (msr) {
    case kMsrKvmWallClockOld:
    case kMsrKvmWallClock: *value = msrs.kvm_wall_clock; return true;
    case kMsrKvmSystemTimeOld:
    case kMsrKvmSystemTime: *value = msrs.kvm_system_time; return true;
    case kMsrKvmPollControl: *value = msrs.kvm_poll_control; return true;
    case kMsrKvmAsyncPfEn:
    case kMsrKvmAsyncPfInt:
    case kMsrKvmStealTime:
    case kMsrKvmEoiEn: *value = 0; return true;
    default: return false;
  }
}

// Asynchronous page faults, steal time and paravirtual EOI are not offered: they can be switched off, not on.
bool write_kvm_msr(CpuState* c, uint32_t msr, uint64_t value) {
  VcpuContext& vcpu = context_of(c);
  switch (msr) {
    case kMsrKvmWallClockOld:
    case kMsrKvmWallClock:
      c->msrs.kvm_wall_clock = value;
      pvclock_write_wall_clock(vcpu, value);
      return true;
    case kMsrKvmSystemTimeOld:
    case kMsrKvmSystemTime:
      c->msrs.kvm_system_time = value;
      pvclock_update(vcpu);
      return true;
    case kMsrKvmPollControl:
      if (value > 1) return false;
      c->msrs.kvm_poll_control = value;
      return true;
    case kMsrKvmAsyncPfEn:
    case kMsrKvmAsyncPfInt:
    case kMsrKvmStealTime:
    case kMsrKvmEoiEn: return value == 0;
    default: return false;
  }
}

// Documentation/virt/kvm/x86/hypercalls.rst: none is offered but the one that asks for nothing.
uint64_t hypercall(CpuState* c, uint64_t nr, uint64_t, uint64_t, uint64_t, uint64_t) {
  constexpr int64_t kEnosys = 1000, kEperm = 1;
  constexpr uint64_t kVapicPollIrq = 1;
  if (c->cpl != 0) return static_cast<uint64_t>(-kEperm);
  return nr == kVapicPollIrq ? 0 : static_cast<uint64_t>(-kEnosys);
}

// --- CPUID

const kvm_cpuid_entry2* find_cpuid(const VcpuContext& vcpu, uint32_t leaf, uint32_t subleaf) {
  for (uint32_t i = 0; i < vcpu.cpuid_count; ++i) {
    const kvm_cpuid_entry2& entry = vcpu.cpuid[i];
    if (entry.function != leaf) continue;
    if (!(entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry.index == subleaf) return &entry;
  }
  return nullptr;
}

// Intel's processors answer a leaf beyond the last one with the last basic leaf (SDM vol. 2, CPUID); others with zeros.
const kvm_cpuid_entry2* beyond_last(const VcpuContext& vcpu, uint32_t leaf, uint32_t subleaf) {
  constexpr uint32_t kGenuineIntelEbx = 0x756e6547;
  const kvm_cpuid_entry2* basic = find_cpuid(vcpu, 0, 0);
  if (!basic || basic->ebx != kGenuineIntelEbx || (leaf >> 30) == 1) return nullptr;  // 4000_0000H: the hypervisor's
  const kvm_cpuid_entry2* first = find_cpuid(vcpu, leaf & 0x80000000, 0);
  if (first && leaf <= first->eax) return nullptr;
  return find_cpuid(vcpu, basic->eax, subleaf);
}

// Bytes of the standard XSAVE format for the components in xcr0 (SDM vol. 1, 13.4).
uint32_t xsave_size(uint64_t xcr0) { return xcr0 & 4 ? 832 : 576; }

// The bits that follow the processor's state.
void follow_state(CpuState* c, uint32_t leaf, uint32_t subleaf, uint32_t registers[4]) {
  constexpr uint32_t kEdxApic = 1u << 9, kEcxOsxsave = 1u << 27;
  constexpr uint64_t kApicEnabled = 1 << 11;
  if (leaf == 1) {
    if (!(get_apic_base(c) & kApicEnabled)) registers[3] &= ~kEdxApic;
    registers[2] = (registers[2] & ~kEcxOsxsave) | (c->cr4 & cr4::kOsxsave ? kEcxOsxsave : 0);
  } else if (leaf == 0x80000001 && !(get_apic_base(c) & kApicEnabled)) {
    registers[3] &= ~kEdxApic;
  } else if (leaf == 0xd && subleaf == 0 && registers[0] != 0) {
    registers[1] = xsave_size(c->xcr0);
  } else if (leaf == 0xd && subleaf == 1 && (registers[0] & 0xa)) {
    registers[1] = xsave_size(c->xcr0);  // no supervisor components, and AVX follows the header in the compacted format too
  }
}

void cpuid(CpuState* c, uint32_t leaf, uint32_t subleaf, uint32_t registers[4]) {
  const VcpuContext& vcpu = context_of(c);
  const kvm_cpuid_entry2* entry = find_cpuid(vcpu, leaf, subleaf);
  if (!entry) entry = beyond_last(vcpu, leaf, subleaf);
  registers[0] = entry ? entry->eax : 0;
  registers[1] = entry ? entry->ebx : 0;
  registers[2] = entry ? entry->ecx : 0;
  registers[3] = entry ? entry->edx : 0;
  if (entry) follow_state(c, entry->function, subleaf, registers);
}

}  // namespace

VcpuHooks vcpu_hooks = {
    .chip_port_read = chip_port_read,
    .chip_port_write = chip_port_write,
    .chip_mmio_read = chip_mmio_read,
    .chip_mmio_write = chip_mmio_write,
    .pending_events = pending_events,
    .acknowledge_interrupt = acknowledge_interrupt,
    .take_nmi = take_nmi,
    .virtual_time = virtual_time,
    .get_cr8 = get_cr8,
    .set_cr8 = set_cr8,
    .get_apic_base = get_apic_base,
    .set_apic_base = set_apic_base,
    .read_x2apic = read_x2apic,
    .write_x2apic = write_x2apic,
    .get_tsc_deadline = get_tsc_deadline,
    .set_tsc_deadline = set_tsc_deadline,
    .guest_tsc = hook_guest_tsc,
    .set_guest_tsc = set_guest_tsc,
    .read_kvm_msr = read_kvm_msr,
    .write_kvm_msr = write_kvm_msr,
    .hypercall = hypercall,
    .cpuid = cpuid,
};

void timers_changed(VcpuContext& vcpu) {
  VmContext& vm = *vcpu.vm;
  if (vm.clock.picoseconds) {
    int64_t budget = clock_instructions_until(vm.clock, virtual_deadline(vcpu));
    if (vm.clock.trace >= 0) {
      const auto until_trace = static_cast<int64_t>(vm.clock.trace_next - vcpu.cpu->instructions);
      if (until_trace < budget) budget = until_trace;
    }
    vcpu.cpu->budget = budget;
    return;
  }
  const uint64_t deadline = vcpu.lapic ? vcpu.lapic->next_deadline_ns() : kNever;
  if (vm.timers.deadline[vcpu.index].load(std::memory_order_relaxed) != deadline) timer_set(vm.timers, vcpu.index, deadline);
}

// Until the entry agrees with the chip: another thread may have set an older answer after a newer one.
void pit_deadline_changed(VmContext& vm) {
  if (vm.clock.picoseconds) {
    if (VcpuContext* vcpu = vm.vcpu[0].load()) timers_changed(*vcpu);
    return;
  }
  for (;;) {
    const uint64_t deadline = vm.chip->next_pit_deadline_ns();
    timer_set(vm.timers, kPitTimer, deadline);
    if (vm.chip->next_pit_deadline_ns() == deadline) return;
  }
}

uint64_t virtual_deadline(const VcpuContext& vcpu) {
  if (!vcpu.lapic) return kNever;
  const uint64_t lapic = vcpu.lapic->next_deadline_ns();
  const uint64_t pit = vcpu.vm->chip->next_pit_deadline_ns();
  return lapic < pit ? lapic : pit;
}

void virtual_time_expire(VcpuContext& vcpu) {
  if (!vcpu.lapic) return;
  const uint64_t now = clock_now(vcpu.vm->clock);
  vcpu.lapic->expire(now);
  vcpu.vm->chip->expire_pit(now);
}

}  // namespace lodge::engine::soft
