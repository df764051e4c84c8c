#include "machine/dump.hpp"

#include <array>
#include <bit>
#include <iterator>
#include <optional>

namespace lodge::machine {

namespace {

using Out = std::back_insert_iterator<std::string>;

void dump_general(Out out, const kvm_regs& r) {
  fmt::format_to(out, "  RIP={:016x} RFLAGS={:08x}\n", r.rip, r.rflags);
  fmt::format_to(out, "  RAX={:016x} RBX={:016x} RCX={:016x} RDX={:016x}\n", r.rax, r.rbx, r.rcx, r.rdx);
  fmt::format_to(out, "  RSI={:016x} RDI={:016x} RBP={:016x} RSP={:016x}\n", r.rsi, r.rdi, r.rbp, r.rsp);
  fmt::format_to(out, "  R8 ={:016x} R9 ={:016x} R10={:016x} R11={:016x}\n", r.r8, r.r9, r.r10, r.r11);
  fmt::format_to(out, "  R12={:016x} R13={:016x} R14={:016x} R15={:016x}\n", r.r12, r.r13, r.r14, r.r15);
}

void dump_segment(Out out, const char* name, const kvm_segment& s) {
  fmt::format_to(out, "  {:<3} ={:04x} base={:016x} limit={:08x} type={:x} s={} dpl={} p={} l={} db={} g={}\n", name,
                 static_cast<unsigned>(s.selector), s.base, s.limit, unsigned{s.type}, unsigned{s.s}, unsigned{s.dpl}, unsigned{s.present},
                 unsigned{s.l}, unsigned{s.db}, unsigned{s.g});
}

void dump_system(Out out, const kvm_sregs& s) {
  dump_segment(out, "CS", s.cs);
  dump_segment(out, "DS", s.ds);
  dump_segment(out, "ES", s.es);
  dump_segment(out, "FS", s.fs);
  dump_segment(out, "GS", s.gs);
  dump_segment(out, "SS", s.ss);
  dump_segment(out, "TR", s.tr);
  dump_segment(out, "LDT", s.ldt);
  fmt::format_to(out, "  GDT base={:016x} limit={:04x}  IDT base={:016x} limit={:04x}\n", s.gdt.base, unsigned{s.gdt.limit}, s.idt.base,
                 unsigned{s.idt.limit});
  fmt::format_to(out, "  CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x} CR8={:x} EFER={:x} APIC_BASE={:x}\n", s.cr0, s.cr2, s.cr3, s.cr4,
                 s.cr8, s.efer, s.apic_base);
}

class Reader {
 public:
  Reader(engine::Vcpu& vcpu, const memory::GuestMemory& memory) : vcpu_(vcpu), memory_(memory) {}
  template <typename T>
  [[nodiscard]] std::optional<T> read(uint64_t linear) {
    std::array<std::byte, sizeof(T)> bytes;
    for (size_t i = 0; i < sizeof(T); ++i) {
      const auto translation = vcpu_.translate(linear + i);
      if (!translation || !translation->valid || !memory_.read(translation->physical_address, std::span(bytes).subspan(i, 1)))
        return std::nullopt;
    }
    return std::bit_cast<T>(bytes);
  }

 private:
  engine::Vcpu& vcpu_;
  const memory::GuestMemory& memory_;
};

void dump_code(Out out, Reader& reader, uint64_t linear) {
  constexpr uint64_t kBefore = 16, kAfter = 32;
  fmt::format_to(out, "  Code:");
  for (uint64_t at = linear - kBefore; at != linear + kAfter; ++at) {
    const auto byte = reader.read<uint8_t>(at);
    const char* form = at == linear ? " <{}>" : " {}";
    fmt::format_to(out, fmt::runtime(form), byte ? fmt::format("{:02x}", *byte) : "??");
  }
  fmt::format_to(out, "\n");
}

void dump_stack(Out out, Reader& reader, uint64_t linear) {
  constexpr unsigned kWords = 64, kAcross = 4;
  for (unsigned i = 0; i < kWords; ++i) {
    if (i % kAcross == 0) fmt::format_to(out, "  {}{:016x}:", i == 0 ? "Stack " : "      ", linear + 8 * i);
    const auto word = reader.read<uint64_t>(linear + 8 * i);
    fmt::format_to(out, " {}{}", word ? fmt::format("{:016x}", *word) : "????????????????", i % kAcross == kAcross - 1 ? "\n" : "");
  }
}

}  // namespace

std::string dump_vcpu(engine::Vcpu& vcpu, const memory::GuestMemory& memory, uint32_t number) {
  std::string text = fmt::format("vcpu{}:\n", number);
  const Out out = std::back_inserter(text);
  const auto regs = vcpu.get_regs();
  const auto sregs = vcpu.get_sregs();
  if (!regs || !sregs) {
    fmt::format_to(out, "  its registers cannot be read: {}\n", (regs ? sregs.error() : regs.error()).message);
    return text;
  }
  dump_general(out, *regs);
  dump_system(out, *sregs);
  if (const auto events = vcpu.get_vcpu_events())
    fmt::format_to(out, "  exception={}/{} error={:x} interrupt={}/{} nmi pending={} masked={}\n", unsigned{events->exception.injected},
                   unsigned{events->exception.nr}, static_cast<uint32_t>(events->exception.error_code),
                   unsigned{events->interrupt.injected}, unsigned{events->interrupt.nr}, unsigned{events->nmi.pending},
                   unsigned{events->nmi.masked});
  // In 64-bit code the bases of CS and SS do not count.
  const bool long_code = (sregs->efer & 0x400) && sregs->cs.l;
  Reader reader(vcpu, memory);
  dump_code(out, reader, long_code ? regs->rip : static_cast<uint32_t>(sregs->cs.base + regs->rip));
  dump_stack(out, reader, long_code ? regs->rsp : static_cast<uint32_t>(sregs->ss.base + regs->rsp));
  return text;
}

std::string describe_exit(const kvm_run& run) {
  switch (run.exit_reason) {
    case KVM_EXIT_SHUTDOWN: return "triple fault";
    case KVM_EXIT_FAIL_ENTRY:
      return fmt::format("the processor refused to enter the guest (hardware reason {:#x})",
                         static_cast<uint64_t>(run.fail_entry.hardware_entry_failure_reason));
    case KVM_EXIT_INTERNAL_ERROR: {
      std::string text = fmt::format("the engine cannot go on (internal error, suberror {}", static_cast<uint32_t>(run.internal.suberror));
      for (uint32_t i = 0; i < run.internal.ndata && i < std::size(run.internal.data); ++i)
        text += fmt::format(", {:#x}", static_cast<uint64_t>(run.internal.data[i]));
      return text + ")";
    }
    default: return fmt::format("unexpected exit reason {}", static_cast<uint32_t>(run.exit_reason));
  }
}

}  // namespace lodge::machine
