// Control transfers with their checks: SYSCALL and SYSRET, IRET in its forms, far calls, single steps and breakpoints.
#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

constexpr uint32_t kStar = 0xc0000081, kLstar = 0xc0000082, kFmask = 0xc0000084;

PAYLOAD(user_syscall, 64, "mov $7, %eax\n syscall\n inc %rax\n int $0x40\n")
PAYLOAD(syscall_target, 64, REPORT "sysretq\n")
TEST(Transfers, SyscallAndSysret) {
  Guest guest(Mode::Long);
  guest.set_msr(kStar, uint64_t{0x18} << 48 | uint64_t{kCode64} << 32);
  guest.set_msr(kLstar, 0x8800);
  guest.set_msr(kFmask, kIf | kDf);
  guest.set_gate(0x40, kHandlers + 0x40 * 16, kCode64, 0xee);
  guest.load(syscall_target(), 0x8800);
  guest.enter_user(user_syscall());
  guest.change_regs([](kvm_regs& r) { r.rflags |= kIf | kDf | kCarry; });
  ASSERT_TRUE(guest.run().reported);
  kvm_regs regs = guest.regs();
  kvm_sregs sregs = guest.sregs();
  EXPECT_EQ(regs.rcx, kUserCode + 7);
  EXPECT_EQ(regs.r11, kFlagsFixed | kIf | kDf | kCarry);
  if (!processor_is_tcg()) {  // it clears the arithmetic flags as well
    EXPECT_EQ(regs.rflags, kFlagsFixed | kCarry);
  }
  EXPECT_EQ(regs.rsp, kUserStack);
  EXPECT_EQ(sregs.cs.selector, kCode64);
  EXPECT_EQ(sregs.cs.dpl, 0);
  EXPECT_EQ(sregs.cs.l, 1);
  EXPECT_EQ(sregs.ss.selector, kFlatData);
  ASSERT_EQ(guest.run().vector, 0x40);
  const Frame frame = guest.frame(0x40);
  EXPECT_EQ(frame.cs, kUserCode64);
  EXPECT_EQ(frame.ss, kUserData);
  EXPECT_EQ(frame.rflags & (kIf | kDf | kCarry), kIf | kDf | kCarry);  // INC leaves CF alone
  EXPECT_EQ(guest.regs().rax, 8u);
}

PAYLOAD(syscall_alone, 64, "nop\n syscall\n")
TEST(Transfers, SyscallNeedsSce) {
  Guest guest(Mode::Long);
  guest.change_sregs([](kvm_sregs& s) { s.efer &= ~uint64_t{1}; });
  guest.load(syscall_alone());
  ASSERT_EQ(guest.run().vector, UD);
  EXPECT_EQ(guest.frame(UD).rip, kCode + 1);
}

// IRETQ to ring 3 in compatibility mode.
PAYLOAD(iret_compat, 64, "pushq $0x23\n pushq $0xf000\n pushq $0x3202\n pushq $0x1b\n pushq $0x20000\n iretq\n")
PAYLOAD(user_compat, 32, "inc %eax\n int $0x40\n")
TEST(Transfers, IretToCompatibilityRing3) {
  Guest guest(Mode::Long);
  guest.set_gate(0x40, kHandlers + 0x40 * 16, kCode64, 0xee);
  guest.make_user(kUserCode);
  guest.make_user(kUserStack - 0x1000);
  guest.load(user_compat(), kUserCode);
  guest.load(iret_compat());
  ASSERT_EQ(guest.run().vector, 0x40);
  const Frame frame = guest.frame(0x40);
  EXPECT_EQ(frame.rip, kUserCode + 3);
  EXPECT_EQ(frame.cs, kUserCode32);
  EXPECT_EQ(frame.ss, kUserData);
  EXPECT_EQ(frame.rsp, kUserStack);
  EXPECT_EQ(frame.rflags, kFlagsFixed | kIf | kIopl3);
  // A data segment that ring 3 may not use becomes null on the way out (SDM Vol. 2, IRET).
  EXPECT_EQ(guest.sregs().ds.selector, 0u);
}

PAYLOAD(iret_same, 64, "pushq $0x10\n pushq $0xb800\n pushq $0x203\n pushq $0x08\n pushq $0x8800\n iretq\n")
PAYLOAD(after_iret, 64, REPORT)
TEST(Transfers, IretqAlwaysPopsTheStack) {
  Guest guest(Mode::Long);
  guest.load(after_iret(), 0x8800);
  guest.load(iret_same());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rsp, 0xb800u);
  EXPECT_EQ(guest.regs().rflags, kFlagsFixed | kIf | kCarry);
}

PAYLOAD(iret_nt, 64, "pushf\n orq $0x4000, (%rsp)\n popf\n iretq\n")
TEST(Transfers, IretWithNestedTaskFaultsInLongMode) {
  Guest guest(Mode::Long);
  guest.load(iret_nt());
  ASSERT_EQ(guest.run().vector, GP);
  EXPECT_EQ(guest.frame(GP).error, 0u);
  EXPECT_EQ(guest.frame(GP).rip, kCode + iret_nt().size() - 2);
}

PAYLOAD(iret_bad_cs, 64, "pushq $0x10\n pushq $0xb800\n pushq $2\n pushq $0x1008\n pushq $0x8800\n iretq\n")
TEST(Transfers, IretToABadSelectorNamesIt) {
  Guest guest(Mode::Long);
  guest.load(iret_bad_cs());
  ASSERT_EQ(guest.run().vector, GP);
  EXPECT_EQ(guest.frame(GP).error, 0x1008u);
  EXPECT_EQ(guest.frame(GP).rip, kCode + iret_bad_cs().size() - 2);
}

// 32-bit: ring 3 by IRET and back through a gate with a stack switch.
PAYLOAD(iret32, 32, "pushl $0x23\n pushl $0xf000\n pushl $0x3202\n pushl $0x1b\n pushl $0x20000\n iretl\n")
TEST(Transfers, Protected32Ring3AndBack) {
  NEEDS_SILICON("a busy TSS loaded by VMRUN is fatal to it");
  Guest guest(Mode::Protected32);
  guest.set_gate(0x40, kHandlers + 0x40 * 16, kCode32, 0xee);
  guest.load(user_compat(), kUserCode);
  guest.load(iret32());
  ASSERT_EQ(guest.run().vector, 0x40);
  EXPECT_EQ(guest.regs().rsp, kRsp0 - 20);
  EXPECT_EQ(guest.sregs().ss.selector, kFlatData);
  const Frame frame = guest.frame(0x40);
  EXPECT_EQ(frame.rip, kUserCode + 3);
  EXPECT_EQ(frame.cs, kUserCode32);
  EXPECT_EQ(frame.rsp, kUserStack);
  EXPECT_EQ(frame.ss, kUserData);
}

PAYLOAD(real_iret, 16, "pushw $0x0203\n pushw $0x0880\n pushw $0x10\n iretw\n")
PAYLOAD(real_target, 16, "incw %ax\n" REPORT)
TEST(Transfers, RealModeIret) {
  Guest guest(Mode::Real);
  guest.load(real_target(), 0x8810);
  guest.load(real_iret());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.sregs().cs.selector, 0x880);
  EXPECT_EQ(guest.sregs().cs.base, 0x8800u);
  EXPECT_EQ(guest.regs().rip, 0x10u + real_target().size());
  EXPECT_EQ(guest.regs().rsp, kStack);
  EXPECT_EQ(guest.regs().rflags & (kIf | kCarry), kIf | kCarry);
}

// A call gate of long mode leads from ring 3 to ring 0; the far return leads back.
PAYLOAD(user_call_gate, 64, "lcall *0x20080\n int $0x40\n")
PAYLOAD(gate_target, 64, REPORT "lretq\n")
TEST(Transfers, CallGateFromRing3) {
  Guest guest(Mode::Long);
  guest.set_gate(0x40, kHandlers + 0x40 * 16, kCode64, 0xee);
  const uint64_t target = 0x8800;
  guest.set_descriptor(kFreeSelector, target | uint64_t{kCode64} << 16 | uint64_t{0xec} << 40);
  guest.write64(kGdt + kFreeSelector + 8, 0);
  guest.load(gate_target(), target);
  guest.enter_user(user_call_gate());
  guest.write64(kUserCode + 0x80, uint64_t{kFreeSelector | 3} << 32);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.sregs().cs.selector, kCode64);
  EXPECT_EQ(guest.regs().rsp, kRsp0 - 32);
  EXPECT_EQ(guest.read64(kRsp0 - 32), kUserCode + 7);
  EXPECT_EQ(guest.read64(kRsp0 - 24), kUserCode64);
  EXPECT_EQ(guest.read64(kRsp0 - 16), kUserStack);
  EXPECT_EQ(guest.read64(kRsp0 - 8), kUserData);
  ASSERT_EQ(guest.run().vector, 0x40);
  EXPECT_EQ(guest.frame(0x40).cs, kUserCode64);
  EXPECT_EQ(guest.frame(0x40).rsp, kUserStack);
}

// Segment bases.
PAYLOAD(bases, 64,
        "mov $0xc0000101, %ecx\n mov $0x9000, %eax\n xor %edx, %edx\n wrmsr\n"
        "mov %gs:8, %rbx\n"
        "mov $0xc0000102, %ecx\n mov $0x9800, %eax\n wrmsr\n"
        "swapgs\n mov %gs:8, %rsi\n" REPORT)
TEST(Transfers, SwapgsExchangesTheBases) {
  Guest guest(Mode::Long);
  guest.write64(0x9008, 0x1111);
  guest.write64(0x9808, 0x2222);
  guest.load(bases());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 0x1111u);
  EXPECT_EQ(guest.regs().rsi, 0x2222u);
  EXPECT_EQ(guest.sregs().gs.base, 0x9800u);
  EXPECT_EQ(guest.msr(0xc0000102), 0x9000u);
}

// TF: a trap after the instruction that follows the POPF, with DR6.BS.
PAYLOAD(single_step, 64, "pushf\n orq $0x100, (%rsp)\n popf\n inc %rax\n inc %rbx\n" REPORT)
TEST(Transfers, SingleStep) {
  Guest guest(Mode::Long);
  guest.load(single_step());
  ASSERT_EQ(guest.run().vector, DB);
  EXPECT_EQ(guest.regs().rax, 1u);
  EXPECT_EQ(guest.regs().rbx, 0u);
  EXPECT_EQ(guest.frame(DB).rip, kCode + single_step().size() - 5);
  EXPECT_EQ(guest.frame(DB).rflags & kTf, kTf);
  EXPECT_EQ(must(guest.vcpu().get_debugregs()).dr6 & 0x4000, 0x4000u);
}

PAYLOAD(watch, 64, "mov $0x9000, %eax\n mov %rax, %dr0\n mov $0xd0002, %eax\n mov %rax, %dr7\n movl $1, 0x9000\n inc %rbx\n" REPORT)
TEST(Transfers, DataBreakpointIsATrap) {
  Guest guest(Mode::Long);
  guest.load(watch());
  ASSERT_EQ(guest.run().vector, DB);
  EXPECT_EQ(guest.frame(DB).rip, kCode + watch().size() - 5);
  EXPECT_EQ(guest.regs().rbx, 0u);
  EXPECT_EQ(guest.read32(0x9000), 1u);
  EXPECT_EQ(must(guest.vcpu().get_debugregs()).dr6 & 0xf, 1u);
}

PAYLOAD(count_up, 64, "inc %rbx\n" REPORT)
PAYLOAD(breakpoint_at, 64, "mov $0x8800, %eax\n mov %rax, %dr1\n mov $0x408, %ecx\n mov %rcx, %dr7\n jmp *%rax\n")
TEST(Transfers, InstructionBreakpointIsAFault) {
  Guest guest(Mode::Long);
  guest.load(count_up(), 0x8800);
  guest.load(breakpoint_at());
  ASSERT_EQ(guest.run().vector, DB);
  EXPECT_EQ(guest.frame(DB).rip, 0x8800u);
  EXPECT_EQ(guest.regs().rbx, 0u);
  EXPECT_EQ(must(guest.vcpu().get_debugregs()).dr6 & 0xf, 2u);
}

PAYLOAD(cpuid_code, 64, "mov %ecx, %edi\n cpuid\n" REPORT)
TEST(Transfers, CpuidSaysWhatWasSet) {
  Guest guest(Mode::Long);
  for (const kvm_cpuid_entry2& entry : must(system().get_supported_cpuid())) {
    if (entry.function != 0 && entry.function != 0x40000000 && entry.function != 0x80000000) continue;
    guest.load(cpuid_code());
    guest.change_regs([&](kvm_regs& r) {
      r.rax = 0xffffffff00000000 | entry.function;
      r.rcx = 0;
    });
    ASSERT_TRUE(guest.run().reported);
    const kvm_regs regs = guest.regs();
    EXPECT_EQ(regs.rax, entry.eax);
    EXPECT_EQ(regs.rbx, entry.ebx);
    EXPECT_EQ(regs.rcx, entry.ecx);
    EXPECT_EQ(regs.rdx, entry.edx);
  }
}

PAYLOAD(user_sgdt, 64, "nop\n sgdt -16(%rsp)\n int $0x40\n")
TEST(Transfers, UmipStopsSgdtInRing3) {
  bool umip = false;
  for (const kvm_cpuid_entry2& entry : must(system().get_supported_cpuid())) umip = umip || (entry.function == 7 && (entry.ecx & 4) != 0);
  if (!umip) GTEST_SKIP() << "no UMIP";
  Guest guest(Mode::Long);
  guest.enter_user(user_sgdt());
  guest.change_sregs([](kvm_sregs& s) { s.cr4 |= 0x800; });
  ASSERT_EQ(guest.run().vector, GP);
  EXPECT_EQ(guest.frame(GP).rip, kUserCode + 1);
}

// Self-modifying code, seen at once whichever way the write comes.
PAYLOAD(modify_ahead, 64, "movb $7, 1f+1(%rip)\n 1: mov $1, %al\n" REPORT)
TEST(SelfModifying, TheNextInstruction) {
  Guest guest(Mode::Long);
  guest.load(modify_ahead());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 7u);
}
PAYLOAD(modify_loop, 64, "xor %ebx, %ebx\n mov $5, %ecx\n 1: mov $1, %eax\n add %eax, %ebx\n incl 1b+1(%rip)\n dec %ecx\n jnz 1b\n" REPORT)
TEST(SelfModifying, ALoopThatChangesItself) {
  Guest guest(Mode::Long);
  guest.load(modify_loop());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 1u + 2 + 3 + 4 + 5);
}
PAYLOAD(modify_function, 64, "call *%rsi\n mov %eax, %ebx\n movb $9, (%rdi)\n call *%rsi\n" REPORT)
PAYLOAD(function, 64, "mov $1, %eax\n ret\n")
TEST(SelfModifying, AnotherPageAndAnAlias) {
  for (const uint64_t write_at : {uint64_t{0x200001}, uint64_t{0x300001}}) {
    Guest guest(Mode::Long);
    guest.set_pte(0x300000, 0x200000 | kP | kRw);  // the same page under another address
    guest.load(function(), 0x200000);
    guest.load(modify_function());
    guest.change_regs([&](kvm_regs& r) {
      r.rsi = 0x200000;
      r.rdi = write_at;
    });
    ASSERT_TRUE(guest.run().reported);
    EXPECT_EQ(guest.regs().rbx, 1u);
    EXPECT_EQ(guest.regs().rax, 9u);
  }
}
PAYLOAD(call_twice, 64, "call *%rsi\n mov %eax, %ebx\n" REPORT "call *%rsi\n" REPORT)
TEST(SelfModifying, ADeviceWritesCode) {
  Guest guest(Mode::Long);
  guest.load(function(), 0x200000);
  guest.load(call_twice());
  guest.change_regs([](kvm_regs& r) { r.rsi = 0x200000; });
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 1u);
  guest.write8(0x200001, 0x33);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 0x33u);
}

}  // namespace
}  // namespace lodge::engine::suite
