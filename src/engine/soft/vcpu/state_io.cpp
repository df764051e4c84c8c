// KVM's get and set calls: the vCPU's state in the structures of <linux/kvm.h>. What is checked is what KVM checks; what it
// refuses comes back as an Error with os_errno EINVAL.
#include <cstring>

#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/descriptor.hpp"
#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/cpu/system.hpp"
#include "engine/soft/irqchip/lapic.hpp"
#include "engine/soft/mmu/mmu.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/vcpu/hooks.hpp"
#include "engine/soft/vcpu/vcpu.hpp"

namespace lodge::engine::soft {

namespace {

std::unexpected<Error> invalid(const char* what) { return os_fail(what, EINVAL); }

// --- segments

kvm_segment to_kvm(const SegmentRegister& s) {
  kvm_segment result = {};
  result.base = s.base;
  result.limit = s.limit;
  result.selector = s.selector;
  result.type = s.attributes & 15;
  result.s = (s.attributes >> 4) & 1;
  result.dpl = (s.attributes >> 5) & 3;
  result.present = (s.attributes >> 7) & 1;
  result.avl = (s.attributes >> 12) & 1;
  result.l = (s.attributes >> 13) & 1;
  result.db = (s.attributes >> 14) & 1;
  result.g = (s.attributes >> 15) & 1;
  result.unusable = !result.present;
  return result;
}

SegmentRegister from_kvm(const kvm_segment& s) {
  const bool present = s.present && !s.unusable;
  const unsigned attributes = (s.type & 15u) | (s.s & 1u) << 4 | (s.dpl & 3u) << 5 | (present ? 1u : 0u) << 7 | (s.avl & 1u) << 12 |
                              (s.l & 1u) << 13 | (s.db & 1u) << 14 | (s.g & 1u) << 15;
  return {s.base, s.limit, s.selector, static_cast<uint16_t>(attributes)};
}

kvm_dtable to_kvm(const DescriptorTable& t) {
  kvm_dtable result = {};
  result.base = t.base;
  result.limit = static_cast<uint16_t>(t.limit);
  return result;
}

// --- control registers

constexpr uint64_t kCr0Known = cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs | cr0::kEt | cr0::kNe | cr0::kWp | cr0::kAm | cr0::kNw | cr0::kCd |
                               static_cast<uint64_t>(cr0::kPg);
constexpr uint64_t kCr4Known = cr4::kVme | cr4::kPvi | cr4::kTsd | cr4::kDe | cr4::kPse | cr4::kPae | cr4::kMce | cr4::kPge | cr4::kPce |
                               cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kUmip | cr4::kFsgsbase | cr4::kPcide | cr4::kOsxsave | cr4::kSmep |
                               cr4::kSmap;
constexpr uint64_t kEferKnown = efer::kSce | efer::kLme | efer::kLma | efer::kNx | (1u << 14);  // bit 14: FFXSR, AMD

bool paging(const kvm_sregs& s) { return (s.cr0 & cr0::kPg) != 0; }

bool valid_cr0(uint64_t value) {
  if (value & ~kCr0Known & ~uint64_t{0xffffffff}) return false;
  if ((value & cr0::kPg) && !(value & cr0::kPe)) return false;
  return !(value & cr0::kNw) || (value & cr0::kCd);
}

// SDM vol. 3, 4.1.2 and 9.8.5: the combinations that no sequence of instructions reaches.
bool valid_sregs(const kvm_sregs& s) {
  if (!valid_cr0(s.cr0) || (s.cr4 & ~kCr4Known) || (s.efer & ~kEferKnown)) return false;
  if ((s.efer & efer::kLme) && paging(s)) {
    if (!(s.cr4 & cr4::kPae) || !(s.efer & efer::kLma)) return false;
    if (s.cr3 >> kPhysicalBits & ~(uint64_t{1} << (63 - kPhysicalBits))) return false;
    return !(s.cs.l && s.cs.db);
  }
  // Outside long mode neither LMA nor 64-bit code nor PCIDs exist.
  return !(s.efer & efer::kLma) && !s.cs.l && !(s.cr4 & cr4::kPcide);
}

bool pae_paging(const CpuState& c) { return (c.cr0 & cr0::kPg) && (c.cr4 & cr4::kPae) && !(c.efer & efer::kLma); }

// --- XSAVE area (SDM vol. 1, 13.4)

constexpr uint32_t kFswOffset = 2, kFipOffset = 8, kFdpOffset = 16, kFopOffset = 6, kMxcsrOffset = 24, kMxcsrMaskOffset = 28,
                   kHeaderOffset = 512, kXsaveBytes = 832;
constexpr uint64_t kXsaveComponents = 7;  // x87, SSE, AVX
constexpr uint32_t kMxcsrMask = 0xffff;
constexpr uint16_t kInitialFcw = 0x37f;
constexpr uint32_t kInitialMxcsr = 0x1f80;

template <typename T>
T peek(const void* area, uint32_t offset) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(area) + offset, sizeof value);
  return value;
}
template <typename T>
void poke(void* area, uint32_t offset, T value) {
  std::memcpy(static_cast<uint8_t*>(area) + offset, &value, sizeof value);
}

void clear_bytes(void* area, uint32_t first, uint32_t end) { std::memset(static_cast<uint8_t*>(area) + first, 0, end - first); }

// Components whose XSTATE_BV bit is clear are in their initial state, whatever the area says. MXCSR is no part of that: XSAVE writes
// it and XRSTOR reads it with either bit (SDM vol. 1, 13.7 and 13.8).
void write_initial_components(void* area) {
  const auto present = peek<uint64_t>(area, kHeaderOffset);
  if (!(present & 1)) {
    clear_bytes(area, 0, kMxcsrOffset);
    clear_bytes(area, 32, 160);
    poke(area, 0, kInitialFcw);
  }
  if (!(present & 2)) clear_bytes(area, 160, 416);
  if (!(present & 4)) clear_bytes(area, 576, kXsaveBytes);
}

}  // namespace

// --- registers

Result<kvm_regs> SoftVcpu::get_regs() {
  kvm_regs regs = {};
  regs.rax = cpu_.gpr[kRax];
  regs.rbx = cpu_.gpr[kRbx];
  regs.rcx = cpu_.gpr[kRcx];
  regs.rdx = cpu_.gpr[kRdx];
  regs.rsi = cpu_.gpr[kRsi];
  regs.rdi = cpu_.gpr[kRdi];
  regs.rsp = cpu_.gpr[kRsp];
  regs.rbp = cpu_.gpr[kRbp];
  for (int i = 0; i < 8; ++i) (&regs.r8)[i] = cpu_.gpr[kR8 + i];
  regs.rip = cpu_.rip;
  regs.rflags = get_eflags(cpu_);
  return regs;
}

Result<> SoftVcpu::set_regs(const kvm_regs& regs) {
  cpu_.gpr[kRax] = regs.rax;
  cpu_.gpr[kRbx] = regs.rbx;
  cpu_.gpr[kRcx] = regs.rcx;
  cpu_.gpr[kRdx] = regs.rdx;
  cpu_.gpr[kRsi] = regs.rsi;
  cpu_.gpr[kRdi] = regs.rdi;
  cpu_.gpr[kRsp] = regs.rsp;
  cpu_.gpr[kRbp] = regs.rbp;
  for (int i = 0; i < 8; ++i) cpu_.gpr[kR8 + i] = (&regs.r8)[i];
  cpu_.rip = regs.rip;
  set_eflags(cpu_, static_cast<uint32_t>(regs.rflags));
  privilege_changed();
  return {};
}

// CPL is SS.DPL, as for VMX and SVM; in real mode 0, in virtual-8086 mode 3.
void SoftVcpu::privilege_changed() {
  if (!protected_mode(cpu_))
    cpu_.cpl = 0;
  else if (v86_mode(cpu_))
    cpu_.cpl = 3;
  else
    cpu_.cpl = (cpu_.seg[kSs].attributes >> attr::kDplShift) & 3;
  mode_changed(cpu_);
}

Result<kvm_sregs> SoftVcpu::get_sregs() {
  kvm_sregs sregs = {};
  sregs.cs = to_kvm(cpu_.seg[kCs]);
  sregs.ds = to_kvm(cpu_.seg[kDs]);
  sregs.es = to_kvm(cpu_.seg[kEs]);
  sregs.fs = to_kvm(cpu_.seg[kFs]);
  sregs.gs = to_kvm(cpu_.seg[kGs]);
  sregs.ss = to_kvm(cpu_.seg[kSs]);
  sregs.tr = to_kvm(cpu_.tr);
  sregs.ldt = to_kvm(cpu_.ldtr);
  sregs.gdt = to_kvm(cpu_.gdtr);
  sregs.idt = to_kvm(cpu_.idtr);
  sregs.cr0 = cpu_.cr0;
  sregs.cr2 = cpu_.cr2;
  sregs.cr3 = cpu_.cr3;
  sregs.cr4 = cpu_.cr4;
  sregs.cr8 = vcpu_hooks.get_cr8(&cpu_);
  sregs.efer = cpu_.efer;
  sregs.apic_base = vcpu_hooks.get_apic_base(&cpu_);
  if (cpu_.delivery == Delivery::Interrupt)
    sregs.interrupt_bitmap[cpu_.delivering.vector / 64] |= uint64_t{1} << (cpu_.delivering.vector % 64);
  if (context_.injected_interrupt >= 0)
    sregs.interrupt_bitmap[context_.injected_interrupt / 64] |= uint64_t{1} << (context_.injected_interrupt % 64);
  return sregs;
}

void SoftVcpu::load_segments(const kvm_sregs& sregs) {
  cpu_.seg[kCs] = from_kvm(sregs.cs);
  cpu_.seg[kDs] = from_kvm(sregs.ds);
  cpu_.seg[kEs] = from_kvm(sregs.es);
  cpu_.seg[kFs] = from_kvm(sregs.fs);
  cpu_.seg[kGs] = from_kvm(sregs.gs);
  cpu_.seg[kSs] = from_kvm(sregs.ss);
  cpu_.tr = from_kvm(sregs.tr);
  cpu_.ldtr = from_kvm(sregs.ldt);
  cpu_.gdtr = {sregs.gdt.base, sregs.gdt.limit, 0};
  cpu_.idtr = {sregs.idt.base, sregs.idt.limit, 0};
}

Result<> SoftVcpu::set_sregs(const kvm_sregs& sregs) {
  if (!valid_sregs(sregs)) return invalid("KVM_SET_SREGS: CR0, CR3, CR4, EFER and CS do not go together");
  if (context_.lapic && !context_.lapic->load_base(sregs.apic_base)) return invalid("KVM_SET_SREGS: APIC base");
  context_.apic_base = sregs.apic_base;
  load_segments(sregs);
  cpu_.cr0 = sregs.cr0 | cr0::kEt;
  cpu_.cr2 = sregs.cr2;
  cpu_.cr3 = sregs.cr3;
  cpu_.cr4 = sregs.cr4;
  cpu_.efer = sregs.efer;
  vcpu_hooks.set_cr8(&cpu_, sregs.cr8 & 15);
  context_.injected_interrupt = -1;
  for (int vector = 0; vector < KVM_NR_INTERRUPTS; ++vector)
    if (sregs.interrupt_bitmap[vector / 64] >> (vector % 64) & 1) context_.injected_interrupt = vector;
  privilege_changed();
  mmu_flush_all(cpu_);
  // The PDPTEs are the memory's at this moment; KVM does not refuse bad ones here either.
  if (pae_paging(cpu_)) static_cast<void>(mmu_load_pdptes(cpu_, cpu_.cr3));
  return {};
}

// --- vector state

Result<Xsave> SoftVcpu::get_xsave() {
  Xsave xsave = {};
  std::memcpy(xsave.region, memory_.xsave, kXsaveBytes);
  write_initial_components(xsave.region);
  x87_settle(cpu_, peek<uint16_t>(xsave.region, kFswOffset));
  const bool waiting_error = peek<uint16_t>(xsave.region, kFswOffset) & 0x80;
  const bool saved = waiting_error || !vendor_is_amd(cpu_);  // as XSAVE does it (translate/runtime_xstate.cpp)
  poke(xsave.region, kFopOffset, static_cast<uint16_t>(saved ? cpu_.x87_opcode : 0));
  poke(xsave.region, kFipOffset, saved ? cpu_.x87_ip : 0);
  poke(xsave.region, kFdpOffset, saved ? cpu_.x87_dp : 0);
  poke(xsave.region, kMxcsrMaskOffset, kMxcsrMask);
  // All of it is spelled out, so all of it may count.
  poke(xsave.region, kHeaderOffset, kXsaveComponents);
  return xsave;
}

Result<> SoftVcpu::set_xsave(const Xsave& xsave) {
  if (peek<uint64_t>(xsave.region, kHeaderOffset) & ~kXsaveComponents) return invalid("KVM_SET_XSAVE: components that are not offered");
  for (uint32_t offset = kHeaderOffset + 8; offset < kHeaderOffset + 64; offset += 8)
    if (peek<uint64_t>(xsave.region, offset)) return invalid("KVM_SET_XSAVE: not the standard format");
  if (peek<uint32_t>(xsave.region, kMxcsrOffset) & ~kMxcsrMask) return invalid("KVM_SET_XSAVE: reserved bits of MXCSR");
  std::memcpy(memory_.xsave, xsave.region, kXsaveBytes);
  write_initial_components(memory_.xsave);
  if (!(peek<uint64_t>(xsave.region, kHeaderOffset) & 6)) poke(memory_.xsave, kMxcsrOffset, kInitialMxcsr);
  cpu_.x87_opcode = peek<uint16_t>(memory_.xsave, kFopOffset);
  cpu_.x87_ip = peek<uint64_t>(memory_.xsave, kFipOffset);
  cpu_.x87_dp = peek<uint64_t>(memory_.xsave, kFdpOffset);
  x87_loaded(cpu_);
  poke(memory_.xsave, kHeaderOffset, kXsaveComponents);
  return {};
}

Result<kvm_xcrs> SoftVcpu::get_xcrs() {
  kvm_xcrs xcrs = {};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].xcr = 0;
  xcrs.xcrs[0].value = cpu_.xcr0;
  return xcrs;
}

Result<> SoftVcpu::set_xcrs(const kvm_xcrs& xcrs) {
  if (xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags) return invalid("KVM_SET_XCRS");
  for (uint32_t i = 0; i < xcrs.nr_xcrs; ++i) {
    if (xcrs.xcrs[i].xcr != 0) continue;
    const uint64_t value = xcrs.xcrs[i].value;
    // x87 always, AVX only with SSE (SDM vol. 1, 13.3).
    if (!(value & 1) || (value & ~kXsaveComponents) || (value & 6) == 4) return invalid("KVM_SET_XCRS: XCR0");
    cpu_.xcr0 = value;
    mode_changed(cpu_);
  }
  return {};
}

// --- debug registers and events

Result<kvm_debugregs> SoftVcpu::get_debugregs() {
  kvm_debugregs result = {};
  for (int i = 0; i < 4; ++i) result.db[i] = cpu_.dr[i];
  result.dr6 = cpu_.dr[6];
  result.dr7 = cpu_.dr[7];
  return result;
}

Result<> SoftVcpu::set_debugregs(const kvm_debugregs& debugregs) {
  if (debugregs.flags || debugregs.dr6 >> 32 || debugregs.dr7 >> 32) return invalid("KVM_SET_DEBUGREGS");
  for (int i = 0; i < 4; ++i) cpu_.dr[i] = debugregs.db[i];
  cpu_.dr[6] = debugregs.dr6 | dr6::kFixed;
  cpu_.dr[7] = debugregs.dr7 | dr7::kFixed;
  mode_changed(cpu_);
  return {};
}

Result<kvm_vcpu_events> SoftVcpu::get_vcpu_events() {
  kvm_vcpu_events events = {};
  if (cpu_.delivery == Delivery::Exception) {
    events.exception.injected = 1;
    events.exception.nr = cpu_.delivering.vector;
    events.exception.has_error_code = cpu_.delivering.has_error_code;
    events.exception.error_code = cpu_.delivering.error_code;
  }
  if (cpu_.delivery == Delivery::Interrupt || context_.injected_interrupt >= 0) {
    events.interrupt.injected = 1;
    events.interrupt.nr = cpu_.delivery == Delivery::Interrupt ? cpu_.delivering.vector : static_cast<uint8_t>(context_.injected_interrupt);
  }
  events.nmi.injected = cpu_.delivery == Delivery::Nmi;
  events.interrupt.shadow =
      ((cpu_.shadow & kShadowSti) ? KVM_X86_SHADOW_INT_STI : 0) | ((cpu_.shadow & kShadowMovSs) ? KVM_X86_SHADOW_INT_MOV_SS : 0);
  // NMIs that the local APIC still holds are counted too.
  static_cast<void>(vcpu_hooks.pending_events(&cpu_));
  events.nmi.pending = static_cast<uint8_t>(context_.nmis.load());
  events.nmi.masked = cpu_.nmi_blocked;
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return events;
}

Result<> SoftVcpu::set_vcpu_events(const kvm_vcpu_events& events) {
  constexpr uint32_t kKnown =
      KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SMM;
  if (events.flags & ~kKnown) return invalid("KVM_SET_VCPU_EVENTS: unknown flags");
  if ((events.flags & KVM_VCPUEVENT_VALID_SMM) && (events.smi.smm || events.smi.pending))
    return invalid("KVM_SET_VCPU_EVENTS: there is no system management mode");
  if (events.exception.injected && (events.exception.nr > 31 || events.exception.nr == kNmi))
    return invalid("KVM_SET_VCPU_EVENTS: the vector of the exception");
  cpu_.delivery = Delivery::None;
  if (events.nmi.injected) cpu_.delivery = Delivery::Nmi;
  if (events.exception.injected) {
    cpu_.delivery = Delivery::Exception;
    cpu_.delivering = {};
    cpu_.delivering.vector = events.exception.nr;
    cpu_.delivering.has_error_code = events.exception.has_error_code != 0;
    cpu_.delivering.error_code = events.exception.error_code;
    cpu_.delivering.cr2 = cpu_.cr2;  // its page fault has set CR2 already
  }
  context_.injected_interrupt = events.interrupt.injected ? events.interrupt.nr : -1;
  if (events.flags & KVM_VCPUEVENT_VALID_SHADOW)
    cpu_.shadow = static_cast<uint8_t>((events.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? kShadowSti : 0) |
                                       (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? kShadowMovSs : 0));
  cpu_.nmi_blocked = events.nmi.masked != 0;
  if (events.flags & KVM_VCPUEVENT_VALID_NMI_PENDING) context_.nmis.store(events.nmi.pending > 2 ? 2 : events.nmi.pending);
  return {};
}

Result<kvm_mp_state> SoftVcpu::get_mp_state() {
  kvm_mp_state state = {};
  state.mp_state = mp_state_ == KVM_MP_STATE_RUNNABLE && cpu_.halted ? static_cast<uint32_t>(KVM_MP_STATE_HALTED) : mp_state_;
  return state;
}

// With no local APIC there is nobody to wake an application processor; KVM refuses then too.
Result<> SoftVcpu::set_mp_state(const kvm_mp_state& state) {
  if (!context_.lapic && state.mp_state != KVM_MP_STATE_RUNNABLE) return invalid("KVM_SET_MP_STATE without a local APIC");
  switch (state.mp_state) {
    case KVM_MP_STATE_RUNNABLE:
    case KVM_MP_STATE_HALTED:
      mp_state_ = KVM_MP_STATE_RUNNABLE;
      cpu_.halted = state.mp_state == KVM_MP_STATE_HALTED;
      break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      mp_state_ = state.mp_state;
      cpu_.halted = false;
      break;
    // The vector lies with the local APIC, whose saved state has none: KVM keeps it in kvm_vcpu_events.
    default: return invalid("KVM_SET_MP_STATE");
  }
  if (context_.lapic) context_.lapic->set_wait_for_sipi(mp_state_ != KVM_MP_STATE_RUNNABLE);
  return {};
}

// --- local APIC, MSRs, CPUID

Result<kvm_lapic_state> SoftVcpu::get_lapic() {
  if (!context_.lapic) return invalid("KVM_GET_LAPIC without KVM_CREATE_IRQCHIP");
  kvm_lapic_state state = {};
  context_.lapic->get_state(state);
  return state;
}

Result<> SoftVcpu::set_lapic(const kvm_lapic_state& lapic) {
  if (!context_.lapic) return invalid("KVM_SET_LAPIC without KVM_CREATE_IRQCHIP");
  context_.lapic->set_state(lapic);
  timers_changed(context_);
  cpu_.request.fetch_or(kRequestEvent);
  return {};
}

Result<size_t> SoftVcpu::get_msrs(std::span<kvm_msr_entry> entries) {
  size_t worked = 0;
  for (kvm_msr_entry& entry : entries) {
    uint64_t value = 0;
    if (!msr_read(cpu_, entry.index, value, true)) break;
    entry.data = value;
    ++worked;
  }
  return worked;
}

Result<size_t> SoftVcpu::set_msrs(std::span<const kvm_msr_entry> entries) {
  size_t worked = 0;
  for (const kvm_msr_entry& entry : entries) {
    if (!set_msr(entry.index, entry.data)) break;
    ++worked;
  }
  mode_changed(cpu_);
  return worked;
}

bool SoftVcpu::set_msr(uint32_t index, uint64_t value) {
  constexpr uint32_t kMsrTsc = 0x10;
  if (index == kMsrTsc) {
    set_host_tsc(value);
    return true;
  }
  if (index == Lapic::kMsrApicBase && context_.lapic) return context_.lapic->load_base(value);
  return msr_write(cpu_, index, value, true);
}

// A restored VM sets its vCPUs' TSCs one after the other, from values read one after the other. As in KVM, a value within a
// second of what the last one set implies is taken to mean the same TSC.
void SoftVcpu::set_host_tsc(uint64_t value) {
  VmContext& vm = vm_->context();
  const uint64_t second = vm.clock.khz * 1000;
  uint64_t offset = value - clock_counter(vm.clock);
  const uint64_t common = vm.tsc_offset.load();
  if (offset - common + second <= 2 * second)
    offset = common;
  else
    vm.tsc_offset.store(offset);
  set_tsc_offset(context_, offset);
  if (!context_.lapic) return;
  context_.lapic->tsc_changed();
  timers_changed(context_);
}

Result<> SoftVcpu::set_cpuid2(std::span<const kvm_cpuid_entry2> entries) {
  if (entries.size() > VcpuContext::kMaxCpuid) return os_fail("KVM_SET_CPUID2: too many entries", E2BIG);
  if (!entries.empty()) std::memcpy(context_.cpuid, entries.data(), entries.size_bytes());
  context_.cpuid_count = static_cast<uint32_t>(entries.size());
  // What a fresh processor has in EDX (SDM vol. 3, table 9-1) is known only now.
  if (context_.lapic) {
    constexpr uint32_t kX2apic = 1u << 21, kTscDeadline = 1u << 24;
    uint32_t leaf[4] = {};
    vcpu_hooks.cpuid(&cpu_, 1, 0, leaf);
    context_.lapic->set_features(
        {.x2apic = (leaf[2] & kX2apic) != 0, .tsc_deadline = (leaf[2] & kTscDeadline) != 0, .tsc_khz = vm_->context().clock.khz});
  }
  return {};
}

// --- debugging

Result<> SoftVcpu::set_guest_debug(const kvm_guest_debug& debug) {
  constexpr uint32_t kOffered = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  if (debug.control & ~kOffered) return invalid("KVM_SET_GUEST_DEBUG: only single steps are offered");
  cpu_.guest_debug_step = (debug.control & kOffered) == kOffered;
  return {};
}

Result<> SoftVcpu::nmi() {
  uint32_t pending = context_.nmis.load();
  while (pending < 2 && !context_.nmis.compare_exchange_weak(pending, pending + 1)) {
  }
  vcpu_request(context_, kRequestEvent);
  return {};
}

Result<kvm_translation> SoftVcpu::translate(uint64_t linear) {
  kvm_translation result = {};
  result.linear_address = linear;
  uint64_t gpa = 0;
  result.valid = mmu_translate(cpu_, linear, gpa);
  result.physical_address = result.valid ? gpa : UINT64_MAX;
  // As in KVM, rights are not told.
  result.writeable = 1;
  result.usermode = 0;
  return result;
}

}  // namespace lodge::engine::soft
