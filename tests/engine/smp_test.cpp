// Several vCPUs: INIT and SIPI, interrupts between processors, LOCK.
#include <algorithm>
#include <array>
#include <atomic>

#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

// Runs a secondary vCPU on a thread until the scope ends.
class Secondary {
 public:
  explicit Secondary(Vcpu& vcpu)
      : vcpu_(vcpu), thread_([this] {
          while (!stop_) {
            const auto result = vcpu_.run();
            if (!result) return;
            if (*result == RunResult::Exit) exits_.fetch_add(1);
          }
        }) {}
  ~Secondary() {
    stop_ = true;
    vcpu_.kick();
  }
  Secondary(const Secondary&) = delete;
  Secondary& operator=(const Secondary&) = delete;
  [[nodiscard]] int exits() const { return exits_; }

 private:
  Vcpu& vcpu_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> exits_ = 0;
  std::jthread thread_;
};

// Real-mode code at 0x8000, where the SIPI's vector 8 leads: says where it is, counts, then halts for good.
PAYLOAD(trampoline, 16, "movw %cs, %cs:0x102\n movw $1, %ax\n lock addw %ax, %cs:0x100\n 1: cli\n hlt\n jmp 1b\n")
PAYLOAD(send_init_sipi, 64,
        "mov $0xfee00000, %ebx\n movl $0x1ff, 0xf0(%rbx)\n"
        "movl $0x01000000, 0x310(%rbx)\n movl $0x4500, 0x300(%rbx)\n"  // INIT to APIC 1
        "movl $0x4608, 0x300(%rbx)\n"                                  // SIPI, vector 8
        "1: pause\n cmpw $1, 0x8100\n jne 1b\n" REPORT)

TEST(Smp, InitAndSipiStartAProcessor) {
  Guest guest(Mode::Long, 2);
  EXPECT_EQ(must(guest.vcpu(1).get_mp_state()).mp_state, uint32_t{KVM_MP_STATE_UNINITIALIZED});
  guest.write(0x8000, trampoline());
  guest.load(send_init_sipi(), 0x9000);
  Stop stop;
  {
    const Secondary secondary(guest.vcpu(1));
    stop = guest.run();
  }
  ASSERT_TRUE(stop.reported) << stop << "; the other: state " << must(guest.vcpu(1).get_mp_state()).mp_state << ", RIP " << std::hex
                             << guest.regs(1).rip << ", counted " << guest.read16(0x8100);
  EXPECT_EQ(guest.read16(0x8102), 0x0800u);  // CS: the vector times 256
  EXPECT_EQ(guest.sregs(1).cs.base, 0x8000u);
  EXPECT_EQ(guest.sregs(1).cr0 & 0x80000001, 0u);
}

// Both processors in long mode, adding to one word.
PAYLOAD(add_many, 64,
        "mov $20000, %ecx\n 1: lock incq 0x9000\n incq 0x9100(,%rsi,8)\n dec %ecx\n jnz 1b\n mov $1, %eax\n lock addq %rax, 0x9200\n 2: "
        "pause\n cmpq $2, 0x9200\n jne 2b\n" REPORT)
// The same code on a further processor, RSI tells which one.
void also_runs(Guest& guest, unsigned processor) {
  must(guest.vcpu(processor).set_sregs([&] {
    kvm_sregs s = guest.sregs(0);
    s.apic_base = guest.sregs(processor).apic_base;
    return s;
  }()));
  guest.change_regs(
      [&](kvm_regs& r) {
        r = {};
        r.rip = kCode;
        r.rsp = 0xb000 + (processor - 1) * 0x100;
        r.rsi = processor;
        r.rflags = kFlagsFixed;
      },
      processor);
  must(guest.vcpu(processor).set_mp_state({KVM_MP_STATE_RUNNABLE}));
}

void run_both(Guest& guest) {
  also_runs(guest, 1);
  Stop other;
  std::jthread second([&] { other = guest.run(1); });
  const Stop first = guest.run(0);
  second.join();
  ASSERT_TRUE(first.reported) << first;
  ASSERT_TRUE(other.reported) << other;
}

TEST(Smp, LockedAdditionsDoNotGetLost) {
  Guest guest(Mode::Long, 2);
  guest.load(add_many());
  run_both(guest);
  EXPECT_EQ(guest.read64(0x9000), 40000u);
  EXPECT_EQ(guest.read64(0x9100), 20000u);
  EXPECT_EQ(guest.read64(0x9108), 20000u);
}

// Message passing: stores are seen in their order, and loads happen in theirs (SDM vol. 3, 8.2.3.2). Processor 1 writes the data, then the
// flag; who sees the flag sees the data.
PAYLOAD(message_passing, 64,
        "test %rsi, %rsi\n jnz 2f\n"
        "1: mov 0x9000, %rax\n mov 0x9040, %rbx\n cmp %rax, %rbx\n jae 3f\n incq 0x9300\n 3: cmp $50000, %rax\n jb 1b\n jmp 5f\n"
        "2: mov $1, %ecx\n 4: mov %rcx, 0x9040\n mov %rcx, 0x9000\n inc %rcx\n cmp $50000, %rcx\n jbe 4b\n"
        "5:" REPORT)
TEST(Smp, MessagePassing) {
  Guest guest(Mode::Long, 2);
  guest.load(message_passing());
  run_both(guest);
  EXPECT_EQ(guest.read64(0x9300), 0u) << "times that the flag was there before the data";
}

// Store buffering: with a fence between, not both processors may miss the other's store (SDM vol. 3, 8.2.3.4 and 8.2.5). Rounds, with
// barriers between them.
#define BARRIER "add $2, %rdi\n lock incq 0x9200\n 7: pause\n cmp %rdi, 0x9200\n jb 7b\n"
PAYLOAD(store_buffering, 64,
        "xor %edi, %edi\n mov $1, %ecx\n mov %esi, %eax\n shl $6, %eax\n lea 0x9000(%rax), %r8\n xor $64, %eax\n lea 0x9000(%rax), %r9\n"
        "1: " BARRIER "mov %rcx, (%r8)\n mfence\n mov (%r9), %rbx\n mov %rbx, 0x9100(,%rsi,8)\n" BARRIER
        "test %rsi, %rsi\n jnz 2f\n cmp %rcx, 0x9100\n jae 2f\n cmp %rcx, 0x9108\n jae 2f\n incq 0x9300\n"
        "2: inc %rcx\n cmp $400, %rcx\n jbe 1b\n" REPORT)
TEST(Smp, StoreBufferingWithFences) {
  Guest guest(Mode::Long, 2);
  guest.load(store_buffering());
  run_both(guest);
  EXPECT_EQ(guest.read64(0x9300), 0u) << "rounds in which neither saw the other's store";
  EXPECT_EQ(guest.read64(0x9000), 400u);
}

// Cross-modifying code (SDM vol. 3, 8.1.3): processor 1 changes an instruction of a function and then says so; processor 0 serialises and
// calls it. It must find what was announced, or something newer.
PAYLOAD(cross_modifying, 64,
        "test %rsi, %rsi\n jnz 2f\n"
        "1: mov 0x9000, %r8\n xor %eax, %eax\n cpuid\n mov $0xa100, %eax\n call *%rax\n cmp %r8, %rax\n jae 3f\n incq 0x9300\n"
        "3: cmp $5000, %r8\n jb 1b\n jmp 5f\n"
        "2: mov $1, %ecx\n 4: mov %ecx, 0xa101\n mov %rcx, 0x9000\n inc %rcx\n cmp $5000, %rcx\n jbe 4b\n"
        "5:" REPORT)
PAYLOAD(changed_function, 64, "mov $0, %eax\n ret\n")
TEST(Smp, CrossModifyingCode) {
  Guest guest(Mode::Long, 2);
  guest.load(cross_modifying());
  guest.write(0xa100, changed_function());
  run_both(guest);
  EXPECT_EQ(guest.read64(0x9300), 0u) << "calls that ran code from before the announcement";
}

// Memory slots come and go while processors run code in another one: whatever they know of memory, none may act on how the slots lay
// before. Each processor calls a function in each of sixteen pages, over and over.
PAYLOAD(calls_in_pages, 64,
        "1: mov $0x300000, %ebx\n 2: call *%rbx\n add $0x1000, %ebx\n cmp $0x310000, %ebx\n jb 2b\n"
        "incq 0x9100(,%rsi,8)\n cmpq $0, 0x9000\n je 1b\n" REPORT)
PAYLOAD(counting_function, 64, "incq 0x9200(,%rsi,8)\n ret\n")
TEST(Smp, MemorySlotsChangeUnderProcessors) {
  constexpr unsigned kProcessors = 8;
  constexpr uint64_t kPages = 16, kBelow = 0x600000, kFunctions = 0x800000, kAbove = 0xa00000, kSize = kPages << 12;
  const auto more = must(memory::GuestMemory::create({{kBelow, kSize}, {kFunctions, kSize}, {kAbove, kSize}}));
  Guest guest(Mode::Long, kProcessors);
  const auto slot = [&](uint32_t number, uint64_t gpa, uint64_t size) {
    must(guest.vm().set_user_memory_region({.slot = number,
                                            .flags = 0,
                                            .guest_phys_addr = gpa,
                                            .memory_size = size,
                                            .userspace_addr = reinterpret_cast<uint64_t>(more->span(gpa, kSize).data())}));
  };
  slot(2, kFunctions, kSize);
  slot(3, kAbove, kSize);
  for (uint64_t page = 0; page < kPages; ++page) {
    std::ranges::copy(counting_function(), more->span(kFunctions + (page << 12), 0x1000).begin());
    guest.set_pte(0x300000 + (page << 12), (kFunctions + (page << 12)) | kP | kRw | kA | kD);
  }
  guest.load(calls_in_pages());
  for (unsigned i = 1; i < kProcessors; ++i) also_runs(guest, i);
  std::array<Stop, kProcessors> stops;
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < kProcessors; ++i) threads.emplace_back([&, i] { stops[i] = guest.run(i); });
    for (int i = 0; i < 1000; ++i) {
      slot(1, kBelow, kSize);
      slot(1, kBelow, 0);
    }
    guest.write64(0x9000, 1);
  }
  for (unsigned i = 0; i < kProcessors; ++i) {
    EXPECT_TRUE(stops[i].reported) << "processor " << i << ": " << stops[i];
    EXPECT_EQ(guest.read64(0x9200 + i * 8), guest.read64(0x9100 + i * 8) * kPages);
  }
}

// A JIT compiler's way: functions of one page written again and again from code elsewhere, called in between.
PAYLOAD(
    rewriting, 64,
    "xor %ecx, %ecx\n xor %ebx, %ebx\n"
    "1: mov %ecx, %edx\n and $7, %edx\n shl $6, %edx\n add $0xa000, %edx\n movb $0xb8, (%rdx)\n mov %ecx, 1(%rdx)\n movb $0xc3, 5(%rdx)\n"
    "call *%rdx\n add %rax, %rbx\n call *%rdx\n add %rax, %rbx\n inc %ecx\n cmp $2000, %ecx\n jb 1b\n mov %rbx, 0x9000\n" REPORT)
TEST(SelfModifying, FunctionsOfAnotherPage) {
  Guest guest(Mode::Long);
  guest.load(rewriting());
  const Stop stop = guest.run();
  ASSERT_TRUE(stop.reported) << stop;
  EXPECT_EQ(guest.read64(0x9000), 1999u * 2000);
}

// An interrupt from one processor stops a loop of the other, which answers through memory.
PAYLOAD(
    ipi_sender, 64,
    "mov $0xfee00000, %ebx\n movl $0x01000000, 0x310(%rbx)\n movl $0x4070, 0x300(%rbx)\n 1: pause\n cmpq $0x70, 0x9000\n jne 1b\n" REPORT)
PAYLOAD(ipi_spinner, 64, "sti\n 1: jmp 1b\n")
PAYLOAD(ipi_handler, 64, "movq $0x70, 0x9000\n mov $0xfee00000, %ebx\n movl $0, 0xb0(%rbx)\n iretq\n")
TEST(Smp, InterruptBetweenProcessors) {
  Guest guest(Mode::Long, 2);
  guest.write(0xa000, ipi_spinner());
  guest.write(0xa800, ipi_handler());
  guest.set_gate(0x70, 0xa800, kCode64, 0x8e);
  guest.load(ipi_sender());
  for (unsigned index = 0; index < 2; ++index) {
    kvm_lapic_state lapic = must(guest.vcpu(index).get_lapic());
    const uint32_t enabled = 0x1ff;
    std::memcpy(lapic.regs + 0xf0, &enabled, sizeof enabled);
    must(guest.vcpu(index).set_lapic(lapic));
  }
  kvm_sregs sregs = guest.sregs(0);
  sregs.apic_base = guest.sregs(1).apic_base;
  must(guest.vcpu(1).set_sregs(sregs));
  guest.change_regs(
      [](kvm_regs& r) {
        r = {};
        r.rip = 0xa000;
        r.rsp = 0xb000;
        r.rflags = kFlagsFixed;
      },
      1);
  must(guest.vcpu(1).set_mp_state({KVM_MP_STATE_RUNNABLE}));
  const Secondary secondary(guest.vcpu(1));
  const Stop stop = guest.run();
  EXPECT_TRUE(stop.reported) << stop;
  EXPECT_EQ(secondary.exits(), 0);
}

}  // namespace
}  // namespace lodge::engine::suite
