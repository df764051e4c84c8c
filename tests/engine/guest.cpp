#include "guest.hpp"

#include <condition_variable>
#include <mutex>
#include <ostream>

namespace lodge::engine::suite {

namespace {

constexpr uint64_t kCr0Pe = 1, kCr0Ne = 0x20, kCr0Et = 0x10, kCr0Mp = 2, kCr0Wp = 0x10000, kCr0Pg = 0x80000000;
constexpr uint64_t kCr4Pae = 0x20, kCr4Osfxsr = 0x200, kCr4Osxmmexcpt = 0x400;
constexpr uint64_t kEferSce = 1, kEferLme = 0x100, kEferLma = 0x400, kEferNxe = 0x800;

constexpr uint8_t kInterruptGate32 = 0x8e;  // and 64-bit
constexpr uint8_t kInterruptGate16 = 0x86;

kvm_segment flat_segment(uint16_t selector, uint8_t type, uint8_t dpl, bool db, bool l) {
  kvm_segment segment = {};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.dpl = dpl;
  segment.db = db;
  segment.s = 1;
  segment.l = l;
  segment.g = 1;
  return segment;
}

kvm_segment segment16(uint16_t selector, uint8_t type) {
  kvm_segment segment = flat_segment(selector, type, 0, false, false);
  segment.limit = 0xffff;
  segment.g = 0;
  return segment;
}

bool pushes_error(int vector) { return vector == DF || (vector >= TS && vector <= PF) || vector == AC || vector == 21; }

template <typename T>
void compare(std::string& lines, const char* name, const T& expected, const T& actual) {
  if (expected != actual) lines += fmt::format("{}: expected {:#x}, is {:#x}\n", name, expected, actual);
}

void compare_segment(std::string& lines, const char* name, const kvm_segment& e, const kvm_segment& a) {
  const auto text = [](const kvm_segment& s) {
    return fmt::format("{:#x} base {:#x} limit {:#x} type {} s {} dpl {} p {} db {} l {} g {} avl {} unusable {}", s.selector, s.base,
                       s.limit, s.type, s.s, s.dpl, s.present, s.db, s.l, s.g, s.avl, s.unusable);
  };
  // What an unusable segment holds beside its selector is nobody's business.
  if (e.unusable && a.unusable) {
    compare(lines, name, e.selector, a.selector);
    return;
  }
  if (text(e) != text(a)) lines += fmt::format("{}: expected {}, is {}\n", name, text(e), text(a));
}

}  // namespace

const char* name_of(Mode mode) {
  switch (mode) {
    case Mode::Real: return "Real";
    case Mode::Protected16: return "Protected16";
    case Mode::Protected32: return "Protected32";
    case Mode::Pae: return "Pae";
    case Mode::Long: return "Long";
    case Mode::Compatibility: return "Compatibility";
  }
  return "?";
}

std::string difference(const State& e, const State& a) {
  std::string lines;
#define FIELD(part, field) compare(lines, #part "." #field, static_cast<uint64_t>(e.part.field), static_cast<uint64_t>(a.part.field))
  FIELD(regs, rax);
  FIELD(regs, rbx);
  FIELD(regs, rcx);
  FIELD(regs, rdx);
  FIELD(regs, rsi);
  FIELD(regs, rdi);
  FIELD(regs, rsp);
  FIELD(regs, rbp);
  FIELD(regs, r8);
  FIELD(regs, r9);
  FIELD(regs, r10);
  FIELD(regs, r11);
  FIELD(regs, r12);
  FIELD(regs, r13);
  FIELD(regs, r14);
  FIELD(regs, r15);
  FIELD(regs, rip);
  FIELD(regs, rflags);
  FIELD(sregs, cr0);
  FIELD(sregs, cr2);
  FIELD(sregs, cr3);
  FIELD(sregs, cr4);
  FIELD(sregs, cr8);
  FIELD(sregs, efer);
  FIELD(sregs, apic_base);
  FIELD(sregs, gdt.base);
  FIELD(sregs, gdt.limit);
  FIELD(sregs, idt.base);
  FIELD(sregs, idt.limit);
  FIELD(debugregs, db[0]);
  FIELD(debugregs, db[1]);
  FIELD(debugregs, db[2]);
  FIELD(debugregs, db[3]);
  FIELD(debugregs, dr6);
  FIELD(debugregs, dr7);
  FIELD(events, exception.injected);
  FIELD(events, interrupt.injected);
  FIELD(events, interrupt.shadow);
  FIELD(events, nmi.injected);
  FIELD(events, nmi.pending);
  FIELD(events, nmi.masked);
#undef FIELD
  compare_segment(lines, "cs", e.sregs.cs, a.sregs.cs);
  compare_segment(lines, "ds", e.sregs.ds, a.sregs.ds);
  compare_segment(lines, "es", e.sregs.es, a.sregs.es);
  compare_segment(lines, "fs", e.sregs.fs, a.sregs.fs);
  compare_segment(lines, "gs", e.sregs.gs, a.sregs.gs);
  compare_segment(lines, "ss", e.sregs.ss, a.sregs.ss);
  compare_segment(lines, "tr", e.sregs.tr, a.sregs.tr);
  compare_segment(lines, "ldt", e.sregs.ldt, a.sregs.ldt);
  // The legacy region: x87 and SSE. Its bytes 8..23 are the last x87 instruction's and operand's addresses.
  for (unsigned word = 0; word < 128; ++word)
    if ((word < 2 || word >= 6) && word < 116 && e.xsave.region[word] != a.xsave.region[word])
      lines += fmt::format("xsave word {}: expected {:#x}, is {:#x}\n", word, e.xsave.region[word], a.xsave.region[word]);
  return lines;
}

std::ostream& operator<<(std::ostream& out, const Stop& stop) {
  return out << fmt::format("{{reported {}, vector {}, exit reason {}, interrupted {}}}", stop.reported, stop.vector, stop.exit_reason,
                            stop.interrupted);
}

Guest::Guest(Mode mode, unsigned vcpus) : mode_(mode) {
  memory_ = must(memory::GuestMemory::create({{0, kRamSize}}));
  vm_ = must(system().create_vm());
  must(vm_->create_irqchip());
  memory_->set_observer(vm_.get());
  kvm_userspace_memory_region region = {};
  region.memory_size = kRamSize;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory_->regions()[0].host);
  must(vm_->set_user_memory_region(region));
  load_tables();
  auto cpuid = must(system().get_supported_cpuid());
  for (unsigned index = 0; index < vcpus; ++index) {
    vcpus_.push_back(must(vm_->create_vcpu(index)));
    for (kvm_cpuid_entry2& entry : cpuid)
      if (entry.function == 1) entry.ebx = (entry.ebx & 0x00ffffff) | index << 24;
    must(vcpus_.back()->set_cpuid2(cpuid));
  }
  set_mode(0);
}

Guest::~Guest() {
  vcpus_.clear();
  memory_->set_observer(nullptr);
  vm_.reset();
}

void Guest::write(uint64_t gpa, std::span<const std::byte> bytes) {
  if (!memory_->write(gpa, bytes)) throw std::runtime_error(fmt::format("{:#x} is no guest RAM", gpa));
}
void Guest::write64(uint64_t gpa, uint64_t value) { write(gpa, std::as_bytes(std::span(&value, 1))); }
void Guest::write32(uint64_t gpa, uint32_t value) { write(gpa, std::as_bytes(std::span(&value, 1))); }
void Guest::write8(uint64_t gpa, uint8_t value) { write(gpa, std::as_bytes(std::span(&value, 1))); }

namespace {
template <typename T>
T peek(const memory::GuestMemory& memory, uint64_t gpa) {
  T value = {};
  if (!memory.read(gpa, std::as_writable_bytes(std::span(&value, 1)))) throw std::runtime_error(fmt::format("{:#x} is no guest RAM", gpa));
  return value;
}
}  // namespace
uint64_t Guest::read64(uint64_t gpa) const { return peek<uint64_t>(*memory_, gpa); }
uint32_t Guest::read32(uint64_t gpa) const { return peek<uint32_t>(*memory_, gpa); }
uint16_t Guest::read16(uint64_t gpa) const { return peek<uint16_t>(*memory_, gpa); }
uint8_t Guest::read8(uint64_t gpa) const { return peek<uint8_t>(*memory_, gpa); }

void Guest::set_gate(unsigned vector, uint64_t offset, uint16_t selector, uint8_t type, uint8_t ist) {
  const uint64_t low =
      (offset & 0xffff) | uint64_t{selector} << 16 | uint64_t{ist} << 32 | uint64_t{type} << 40 | (offset >> 16 & 0xffff) << 48;
  if (mode_ == Mode::Long || mode_ == Mode::Compatibility) {
    write64(kIdt + vector * 16, low);
    write64(kIdt + vector * 16 + 8, offset >> 32);
  } else if (mode_ == Mode::Real) {
    write32(vector * 4, static_cast<uint32_t>(uint32_t{selector} << 16 | offset));
  } else {
    write64(kIdt + vector * 8, low);
  }
}

void Guest::load_tables() {
  // OUT to kFaultPort, then a jump back to it, so that a guest that goes on reports again.
  constexpr uint8_t kHandler[] = {0xe6, kFaultPort, 0xeb, 0xfc};
  for (unsigned vector = 0; vector < 256; ++vector) {
    const uint64_t handler = kHandlers + vector * 16;
    write(handler, std::as_bytes(std::span(kHandler)));
    switch (mode_) {
      case Mode::Real: set_gate(vector, handler, 0, 0); break;
      case Mode::Protected16: set_gate(vector, handler, kCode16, kInterruptGate16); break;
      case Mode::Protected32:
      case Mode::Pae: set_gate(vector, handler, kCode32, kInterruptGate32); break;
      case Mode::Long:
      case Mode::Compatibility: set_gate(vector, handler, kCode64, kInterruptGate32); break;
    }
  }
  set_descriptor(kCode64, 0x00af9b000000ffff);
  set_descriptor(kFlatData, 0x00cf93000000ffff);
  set_descriptor(kUserCode32, 0x00cffb000000ffff);
  set_descriptor(kUserData, 0x00cff3000000ffff);
  set_descriptor(kUserCode64, 0x00affb000000ffff);
  set_descriptor(kCode32, 0x00cf9b000000ffff);
  set_descriptor(kCode16, 0x00009b000000ffff);
  set_descriptor(kData16, 0x000093000000ffff);
  set_descriptor(kTaskSelector, 0x67 | kTss << 16 | uint64_t{0x8b} << 40);
  if (mode_ == Mode::Long || mode_ == Mode::Compatibility) {
    write64(kTss + 4, kRsp0);
    write64(kTss + 0x24, kIst1);
    write32(kTss + 0x64, 0x68u << 16);  // the map of I/O ports begins beyond the limit: ring 3 may use none
    load_long_tables();
  } else {
    write32(kTss + 0x64, 0x68u << 16);
    write32(kTss + 4, kRsp0);
    write32(kTss + 8, kFlatData);
    if (mode_ == Mode::Pae) load_long_tables();
  }
}

// Four levels; with PAE the PDPT of the same tables, whose entries then hold no rights.
void Guest::load_long_tables() {
  const uint64_t table = kP | (mode_ == Mode::Pae ? 0 : kRw | kUs | kA);
  const uint64_t directory = kP | kRw | kUs | kA;
  write64(kPml4, kPdpt | directory);
  write64(kPdpt, kPdLow | table);
  write64(kPdpt + 3 * 8, kPdHigh | table);
  write64(kPdLow, kPtLow | directory);
  write64(kPdLow + 8, kPtData | directory);
  for (uint64_t page = 0; page < kRamSize; page += 0x1000) write64(pte_address(page), page | kP | kRw | kA | kD);
  for (uint64_t entry = 0; entry < 512; ++entry)
    write64(kPdHigh + entry * 8, (uint64_t{0xc0000000} + (entry << 21)) | kP | kRw | kA | kD | kPs | kPcd);
}

void Guest::set_mode(unsigned index) {
  change_sregs(
      [&](kvm_sregs& s) {
        s.gdt.base = kGdt;
        s.gdt.limit = kGdtLimit;
        s.cr4 |= kCr4Osfxsr | kCr4Osxmmexcpt;
        if (mode_ == Mode::Real) {
          s.cs.base = 0;
          s.cs.selector = 0;
          s.idt.base = 0;
          s.idt.limit = 0x3ff;
          return;
        }
        const bool long_mode = mode_ == Mode::Long || mode_ == Mode::Compatibility;
        s.idt.base = kIdt;
        s.idt.limit = long_mode ? 0xfff : 0x7ff;
        s.cr0 = kCr0Pe | kCr0Mp | kCr0Et | kCr0Ne | kCr0Wp;
        kvm_segment task = {};
        task.base = kTss;
        task.limit = 0x67;
        task.selector = kTaskSelector;
        task.type = 11;
        task.present = 1;
        s.tr = task;
        s.ldt = {};
        s.ldt.unusable = 1;
        kvm_segment data = flat_segment(kFlatData, 3, 0, true, false);
        if (mode_ == Mode::Protected16) {
          s.cs = segment16(kCode16, 11);
          data = segment16(kData16, 3);
        } else if (mode_ == Mode::Long) {
          s.cs = flat_segment(kCode64, 11, 0, false, true);
        } else {
          s.cs = flat_segment(kCode32, 11, 0, true, false);
        }
        s.ds = s.es = s.fs = s.gs = s.ss = data;
        if (long_mode || mode_ == Mode::Pae) {
          s.cr4 |= kCr4Pae;
          s.cr0 |= kCr0Pg;
          s.cr3 = long_mode ? kPml4 : kPdpt;
          s.efer = long_mode ? kEferSce | kEferLme | kEferLma | kEferNxe : kEferNxe;
        }
      },
      index);
  change_regs(
      [&](kvm_regs& r) {
        r = {};
        r.rip = kCode;
        r.rsp = kStack;
        r.rflags = kFlagsFixed;
      },
      index);
}

void Guest::load(std::span<const std::byte> code, uint64_t address) {
  write(address, code);
  for (uint64_t after = 0; after < 32; ++after) write8(address + code.size() + after, 0xcc);
  change_regs([&](kvm_regs& r) { r.rip = address; });
}

void Guest::change_regs(const std::function<void(kvm_regs&)>& change, unsigned index) {
  kvm_regs regs = must(vcpu(index).get_regs());
  change(regs);
  must(vcpu(index).set_regs(regs));
}
void Guest::change_sregs(const std::function<void(kvm_sregs&)>& change, unsigned index) {
  kvm_sregs sregs = must(vcpu(index).get_sregs());
  change(sregs);
  must(vcpu(index).set_sregs(sregs));
}
kvm_regs Guest::regs(unsigned index) { return must(vcpu(index).get_regs()); }
kvm_sregs Guest::sregs(unsigned index) { return must(vcpu(index).get_sregs()); }
State Guest::state(unsigned index) {
  Vcpu& cpu = vcpu(index);
  return {must(cpu.get_regs()), must(cpu.get_sregs()), must(cpu.get_debugregs()), must(cpu.get_vcpu_events()), must(cpu.get_xsave())};
}
void Guest::set_msr(uint32_t index, uint64_t value) {
  const kvm_msr_entry entry = {index, 0, value};
  if (must(vcpu().set_msrs({&entry, 1})) != 1) throw std::runtime_error(fmt::format("MSR {:#x} was refused", index));
}
uint64_t Guest::msr(uint32_t index) {
  kvm_msr_entry entry = {index, 0, 0};
  if (must(vcpu().get_msrs({&entry, 1})) != 1) throw std::runtime_error(fmt::format("MSR {:#x} was refused", index));
  return entry.data;
}

void Guest::enter_user(std::span<const std::byte> code) {
  load(code, kUserCode);
  const bool paged = mode_ == Mode::Long || mode_ == Mode::Compatibility || mode_ == Mode::Pae;
  if (paged) {
    make_user(kUserCode);
    make_user(kUserStack - 0x1000);
  }
  change_sregs([&](kvm_sregs& s) {
    s.cs = mode_ == Mode::Long ? flat_segment(kUserCode64, 11, 3, false, true) : flat_segment(kUserCode32, 11, 3, true, false);
    s.ss = s.ds = s.es = s.fs = s.gs = flat_segment(kUserData, 3, 3, true, false);
  });
  change_regs([](kvm_regs& r) { r.rsp = kUserStack; });
}

Stop Guest::run_once(unsigned index) {
  const Watchdog watchdog(vcpu(index));
  Stop stop;
  if (must(vcpu(index).run()) == RunResult::Interrupted) {
    stop.interrupted = true;
    return stop;
  }
  const kvm_run& run = vcpu(index).shared();
  stop.exit_reason = run.exit_reason;
  return stop;
}

void Guest::complete(unsigned index) {
  vcpu(index).shared().immediate_exit = 1;
  const RunResult result = must(vcpu(index).run());
  vcpu(index).shared().immediate_exit = 0;
  EXPECT_EQ(result, RunResult::Interrupted) << "a run() with immediate_exit entered the guest";
}

Stop Guest::run(unsigned index) {
  Stop stop = run_once(index);
  const kvm_run& run = vcpu(index).shared();
  if (stop.interrupted || run.exit_reason != KVM_EXIT_IO || run.io.direction != KVM_EXIT_IO_OUT) return stop;
  if (run.io.port != kFaultPort && run.io.port != kReportPort) return stop;
  stop.reported = run.io.port == kReportPort;
  complete(index);
  if (stop.reported) return stop;
  const kvm_regs regs = must(vcpu(index).get_regs());
  stop.vector = static_cast<int>((regs.rip - kHandlers) / 16);
  // The state is to be that of the handler's first instruction.
  change_regs([&](kvm_regs& r) { r.rip = kHandlers + static_cast<uint64_t>(stop.vector) * 16; }, index);
  return stop;
}

Frame Guest::frame(int vector) {
  const kvm_regs r = regs();
  const kvm_sregs s = sregs();
  Frame frame = {};
  uint64_t at = r.rsp;
  if (mode_ == Mode::Real || mode_ == Mode::Protected16) {
    at = s.ss.base + (at & 0xffff);
    if (mode_ == Mode::Protected16 && pushes_error(vector)) {
      frame.error = read16(at);
      at += 2;
    }
    frame.rip = read16(at);
    frame.cs = read16(at + 2);
    frame.rflags = read16(at + 4);
  } else if (mode_ == Mode::Long || mode_ == Mode::Compatibility) {
    if (pushes_error(vector)) {
      frame.error = read64(at);
      at += 8;
    }
    frame = {read64(at), read64(at + 8), read64(at + 16), read64(at + 24), read64(at + 32), frame.error};
  } else {
    if (pushes_error(vector)) {
      frame.error = read32(at);
      at += 4;
    }
    frame = {read32(at), read32(at + 4) & 0xffff, read32(at + 8), 0, 0, frame.error};
    if ((frame.cs & 3) != 0) {
      frame.rsp = read32(at + 12);
      frame.ss = read32(at + 16) & 0xffff;
    }
  }
  return frame;
}

Watchdog::Watchdog(Vcpu& vcpu, std::chrono::seconds limit)
    : thread_([&vcpu, limit](const std::stop_token& token) {
        std::mutex mutex;
        std::condition_variable_any over;
        std::unique_lock lock(mutex);
        if (!over.wait_for(lock, token, limit, [&] { return token.stop_requested(); })) vcpu.kick();
      }) {}

Watchdog::~Watchdog() = default;

}  // namespace lodge::engine::suite
