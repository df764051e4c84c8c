#include "engine/soft/cpu/fake_machine.hpp"

#include <fmt/format.h>

#include <csetjmp>
#include <cstring>

namespace lodge::engine::soft {
namespace {

fake::Machine* machine = nullptr;
jmp_buf* innermost = nullptr;

void check(CpuState& c, uint64_t linear, uint32_t size, bool write) {
  for (const uint64_t at : {linear, linear + size - 1}) {
    const bool absent = at >= fake::kMemory || machine->absent.contains(at >> 12);
    const bool denied = write && machine->read_only.contains(at >> 12);
    if (absent || denied)
      raise_page_fault(c, at == linear ? linear : at & ~0xfffull, (write ? pf::kWrite : 0) | (absent ? 0 : pf::kPresent));
  }
}

}  // namespace

// --- what the core needs around it

extern "C" {

Unwind soft_guarded(CpuState* c, void (*function)(CpuState*, uint64_t), uint64_t argument) {
  jmp_buf here;
  jmp_buf* const outer = innermost;
  innermost = &here;
  const int reason = setjmp(here);
  if (reason == 0) function(c, argument);
  innermost = outer;
  return static_cast<Unwind>(reason);
}

void soft_unwind(CpuState*, Unwind reason) { longjmp(*innermost, static_cast<int>(reason)); }

}  // extern "C"

void mmu_read(CpuState& c, uint64_t linear, void* into, uint32_t size) {
  check(c, linear, size, false);
  memcpy(into, machine->memory.data() + linear, size);
}
void mmu_write(CpuState& c, uint64_t linear, const void* from, uint32_t size) {
  check(c, linear, size, true);
  memcpy(machine->memory.data() + linear, from, size);
}
void mmu_read_system(CpuState& c, uint64_t linear, void* into, uint32_t size) { mmu_read(c, linear, into, size); }
void mmu_write_system(CpuState& c, uint64_t linear, const void* from, uint32_t size) { mmu_write(c, linear, from, size); }
void mmu_probe_write(CpuState& c, uint64_t linear, uint32_t size, bool) { check(c, linear, size, true); }
void mmu_or_system(CpuState& c, uint64_t linear, uint8_t bits) {
  check(c, linear, 1, true);
  machine->memory[linear] |= bits;
}
void mmu_flush_all(CpuState&) { machine->flushes.emplace_back("all"); }
void mmu_load_cr3(CpuState&, bool keep) { machine->flushes.emplace_back(keep ? "load, keep" : "load"); }
void mmu_flush_pcid(CpuState&, uint32_t pcid) { machine->flushes.push_back(fmt::format("pcid {}", pcid)); }
void mmu_flush_page_pcid(CpuState&, uint32_t pcid, uint64_t linear) {
  machine->flushes.push_back(fmt::format("page {:#x} of pcid {}", linear, pcid));
}
void mmu_flush_page(CpuState&, uint64_t linear) { machine->flushes.push_back(fmt::format("page {:#x}", linear)); }
bool mmu_load_pdptes(CpuState&, uint64_t) {
  machine->flushes.emplace_back("pdptes");
  return machine->pdptes_valid;
}

namespace fake {
namespace {

CpuState state;

void install_hooks(VcpuHooks& h) {
  h.get_cr8 = [](CpuState*) { return machine->cr8; };
  h.set_cr8 = [](CpuState*, uint64_t value) { machine->cr8 = value; };
  h.get_apic_base = [](CpuState*) { return machine->apic_base; };
  h.set_apic_base = [](CpuState*, uint64_t value) {
    if (value & 1) return false;
    machine->apic_base = value;
    return true;
  };
  const auto read = [](CpuState*, uint32_t msr, uint64_t* value) {
    const auto it = machine->other_msrs.find(msr);
    if (it == machine->other_msrs.end()) return false;
    *value = it->second;
    return true;
  };
  const auto write = [](CpuState*, uint32_t msr, uint64_t value) {
    const auto it = machine->other_msrs.find(msr);
    if (it == machine->other_msrs.end()) return false;
    it->second = value;
    return true;
  };
  h.read_x2apic = h.read_kvm_msr = read;
  h.write_x2apic = h.write_kvm_msr = write;
  h.get_tsc_deadline = [](CpuState*) { return machine->tsc_deadline; };
  h.set_tsc_deadline = [](CpuState*, uint64_t value) { machine->tsc_deadline = value; };
  h.guest_tsc = [](CpuState*) { return machine->tsc; };
  h.set_guest_tsc = [](CpuState*, uint64_t value) { machine->tsc = value; };
  h.hypercall = [](CpuState*, uint64_t nr, uint64_t a0, uint64_t, uint64_t, uint64_t a3) { return nr * 1000 + a0 * 10 + a3; };
  h.cpuid = [](CpuState*, uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    const auto it = machine->cpuid.find({leaf, subleaf});
    for (uint32_t i = 0; i < 4; ++i) r[i] = it == machine->cpuid.end() ? 0 : it->second[i];
  };
}

void build_gdt(Machine& m) {
  m.set_descriptor(kCode32, descriptor(0, 0xfffff, 0x9a, 0xc));
  m.set_descriptor(kData, descriptor(0, 0xfffff, 0x92, 0xc));
  m.set_descriptor(kUserCode32, descriptor(0, 0xfffff, 0xfa, 0xc));
  m.set_descriptor(kUserData, descriptor(0, 0xfffff, 0xf2, 0xc));
  m.set_descriptor(kCode64, descriptor(0, 0xfffff, 0x9a, 0xa));
  m.set_descriptor(kUserCode64, descriptor(0, 0xfffff, 0xfa, 0xa));
  m.set_descriptor(kConforming, descriptor(0, 0xfffff, 0x9e, 0xc));
  m.set_descriptor(kReadOnly, descriptor(0, 0xfffff, 0xf0, 0xc));
  m.set_descriptor(kAbsentData, descriptor(0, 0xfffff, 0x72, 0xc));
  m.set_descriptor(kExecuteOnly, descriptor(0, 0xfffff, 0xf8, 0xc));
  m.set_descriptor(kCode16, descriptor(0x10000, 0xffff, 0x9a, 0));
  m.set_descriptor(kData16, descriptor(0x8000, 0xffff, 0x92, 0));
  m.set_descriptor(kLdt, descriptor(kLdtBase, 0x1f, 0x82, 0));
  m.set_descriptor(kTss, descriptor(kTssBase, 0x2ff, 0x8b, 0));
  m.set_descriptor(kFreeTss, descriptor(kFreeTssBase, 0x67, 0x89, 0));
  m.set_descriptor(kCallGate, gate(kCode32, 0x1234, 0xec, 2));
  m.set_descriptor(kAbsentCode, descriptor(0, 0xfffff, 0x1a, 0xc));
  m.set_descriptor(kTaskGate, gate(kFreeTss, 0, 0xe5));
  m.set_descriptor(kCallGate64, gate(kCode64, 0x5678, 0xec));
  m.set_descriptor(kAbsentUserStack, descriptor(0, 0xfffff, 0x72, 0xc));
  m.set_descriptor(kExpandDown, descriptor(0, 0xfff, 0xf6, 0x4));
  m.set_descriptor(kCallGate16, gate(kCode16, 0x20, 0x84));
  m.set_descriptor(kBothCode, descriptor(0, 0xfffff, 0x9a, 0xe));
}

}  // namespace

Machine::Machine() : c(state), memory(kMemory) {
  machine = this;
  memset(static_cast<void*>(&c), 0, sizeof c);
  install_hooks(hooks);
  c.hooks = &hooks;
  vendor(true);
  cpuid[{1, 0}] = {0xa10f11, 0, 0xffffffff, 0xffffffff};
  cpuid[{7, 0}] = {0, 0xffffffff, 0xffffffff, 0};
  cpuid[{0xd, 0}] = {7, 576, 832, 0};
  cpuid[{0xd, 1}] = {0xf, 576, 0, 0};
  cpuid[{0x80000001, 0}] = {0, 0, 0, 0xffffffff};
  build_gdt(*this);
  put<uint16_t>(kTssBase + 102, 104);  // no redirection map, I/O map from 104 on
  cpu_reset(c, false);
  flushes.clear();
}

Machine::~Machine() { machine = nullptr; }

void Machine::vendor(bool amd) {
  cpuid[{0, 0}] = amd ? std::array<uint32_t, 4>{0xd, 0x68747541, 0x444d4163, 0x69746e65}
                      : std::array<uint32_t, 4>{0xd, 0x756e6547, 0x6c65746e, 0x49656e69};
}

std::string Machine::run(const std::function<void()>& function) {
  const Unwind reason = soft_guarded(
      &c, [](CpuState*, uint64_t f) { (*reinterpret_cast<const std::function<void()>*>(f))(); }, reinterpret_cast<uint64_t>(&function));
  if (reason == Unwind::None) return "";
  if (reason != Unwind::Exception) return fmt::format("unwind {}", static_cast<uint32_t>(reason));
  static const std::map<int, const char*> kNames = {{kDb, "#DB"},  {kUd, "#UD"}, {kNm, "#NM"}, {kTs, "#TS"}, {kNp, "#NP"},
                                                    {kSs_, "#SS"}, {kGp, "#GP"}, {kPf, "#PF"}, {kDf, "#DF"}};
  const std::string name = kNames.contains(c.exception.vector) ? kNames.at(c.exception.vector) : fmt::format("#{}", c.exception.vector);
  return c.exception.has_error_code ? fmt::format("{}({:#x})", name, c.exception.error_code) : name;
}

void Machine::set_gate32(uint32_t vector, uint32_t selector, uint32_t offset, uint32_t type_dpl_p) {
  put<uint64_t>(kIdt + vector * 8, gate(selector, offset, type_dpl_p));
}

void Machine::set_gate64(uint32_t vector, uint32_t selector, uint64_t offset, uint32_t type_dpl_p, uint32_t ist) {
  put<uint64_t>(kIdt + vector * 16, gate(selector, static_cast<uint32_t>(offset), type_dpl_p, ist));
  put<uint64_t>(kIdt + vector * 16 + 8, offset >> 32);
}

namespace {

void tables(CpuState& c, bool wide) {
  c.gdtr = {kGdt, 0xff, 0};
  c.idtr = {kIdt, wide ? 0xfffu : 0x7ffu, 0};
  c.ldtr = {kLdtBase, 0x1f, kLdt, 0x82};
  c.tr = {kTssBase, 0x2ff, kTss, 0x8b};
}

void flat_data(CpuState& c, uint32_t cpl) {
  const uint32_t data = cpl == 3 ? kUserData | 3 : static_cast<uint32_t>(kData);
  for (const uint32_t i : {kEs, kSs, kDs, kFs, kGs})
    c.seg[i] = {0, 0xffffffff, static_cast<uint16_t>(data), static_cast<uint16_t>(cpl == 3 ? 0xc0f3 : 0xc093)};
  c.cpl = static_cast<uint8_t>(cpl);
  c.gpr[kRsp] = cpl == 3 ? kUserStack : kKernelStack;
  c.rip = 0x100;
  c.next_rip = 0x102;
}

}  // namespace

void Machine::real() {
  cpu_reset(c, true);
  c.seg[kCs] = {0x10000, 0xffff, 0x1000, 0x9b};
  c.seg[kSs].base = 0x20000;
  c.seg[kSs].selector = 0x2000;
  c.gpr[kRsp] = 0x1000;
  c.idtr = {0, 0x3ff, 0};
  c.rip = 0x100;
  c.next_rip = 0x102;
  mode_changed(c);
}

void Machine::protected32(uint32_t cpl) {
  cpu_reset(c, true);
  put<uint32_t>(kTssBase + 4, kKernelStack);  // ESP0
  put<uint32_t>(kTssBase + 8, kData);         // SS0
  tables(c, false);
  flat_data(c, cpl);
  c.cr0 = cr0::kPe | cr0::kEt;
  c.seg[kCs] = cpl == 3 ? SegmentRegister{0, 0xffffffff, kUserCode32 | 3, 0xc0fb} : SegmentRegister{0, 0xffffffff, kCode32, 0xc09b};
  mode_changed(c);
  flushes.clear();
}

void Machine::long64(uint32_t cpl) {
  cpu_reset(c, true);
  put<uint64_t>(kTssBase + 4, kKernelStack);  // RSP0
  tables(c, true);
  flat_data(c, cpl);
  c.cr0 = cr0::kPe | cr0::kEt | cr0::kPg;
  c.cr4 = cr4::kPae;
  c.efer = efer::kLma | efer::kLme | efer::kSce;
  c.seg[kCs] = cpl == 3 ? SegmentRegister{0, 0xffffffff, kUserCode64 | 3, 0xa0fb} : SegmentRegister{0, 0xffffffff, kCode64, 0xa09b};
  mode_changed(c);
  flushes.clear();
}

void Machine::v86(uint32_t iopl) {
  protected32(3);
  c.eflags_system = eflags::kVm | iopl << 12;
  for (const uint32_t i : {kEs, kCs, kSs, kDs, kFs, kGs})
    c.seg[i] = {static_cast<uint64_t>(0x1000 + i * 0x100) << 4, 0xffff, static_cast<uint16_t>(0x1000 + i * 0x100), 0xf3};
  c.gpr[kRsp] = 0x800;
  mode_changed(c);
}

}  // namespace fake
}  // namespace lodge::engine::soft
