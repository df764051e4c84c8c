// Each mode runs code, and leaves exactly the state that the code says.
#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

// Differences but for the members that `expect` sets.
void expect_only(Guest& guest, State expected, const std::function<void(State&)>& change) {
  change(expected);
  EXPECT_EQ(difference(expected, guest.state()), "");
}

PAYLOAD(arithmetic16, 16,
        "movl $0x12345678, %eax\n"
        "movw $0xffff, %bx\n"
        "addw $1, %bx\n"
        "movw $0x9000, %di\n"
        "movw %ax, (%di)\n"
        "pushw %ax\n"
        "popw %cx\n" REPORT)
PAYLOAD(arithmetic32, 32,
        "movl $0x12345678, %eax\n"
        "movl $0xffffffff, %ebx\n"
        "addl $1, %ebx\n"
        "movl $0x9000, %edi\n"
        "movl %eax, (%edi)\n"
        "pushl %eax\n"
        "popl %ecx\n" REPORT)
PAYLOAD(arithmetic64, 64,
        "movabs $0x123456789abcdef0, %rax\n"
        "mov $-1, %rbx\n"
        "add $1, %rbx\n"
        "mov $0x9000, %edi\n"
        "mov %rax, (%rdi)\n"
        "push %rax\n"
        "pop %r9\n" REPORT)

constexpr uint64_t kZfPfAfCf = 0x55;

class Modes16 : public testing::TestWithParam<Mode> {};
TEST_P(Modes16, RunArithmeticStackAndStores) {
  Guest guest(GetParam());
  guest.load(arithmetic16());
  const State before = guest.state();
  ASSERT_TRUE(guest.run().reported);
  expect_only(guest, before, [](State& s) {
    s.regs.rax = 0x12345678;
    s.regs.rbx = 0;
    s.regs.rcx = 0x5678;
    s.regs.rdi = 0x9000;
    s.regs.rip = kCode + arithmetic16().size();
    s.regs.rflags = kFlagsFixed | kZfPfAfCf;
  });
  EXPECT_EQ(guest.read32(0x9000), 0x5678u);
  EXPECT_EQ(guest.read16(kStack - 2), 0x5678u);
}
const auto mode_name = [](const auto& info) { return std::string(name_of(info.param)); };
INSTANTIATE_TEST_SUITE_P(All, Modes16, testing::Values(Mode::Real, Mode::Protected16), mode_name);

class Modes32 : public testing::TestWithParam<Mode> {};
TEST_P(Modes32, RunArithmeticStackAndStores) {
  Guest guest(GetParam());
  guest.load(arithmetic32());
  const State before = guest.state();
  ASSERT_TRUE(guest.run().reported);
  expect_only(guest, before, [](State& s) {
    s.regs.rax = 0x12345678;
    s.regs.rcx = 0x12345678;
    s.regs.rdi = 0x9000;
    s.regs.rip = kCode + arithmetic32().size();
    s.regs.rflags = kFlagsFixed | kZfPfAfCf;
  });
  EXPECT_EQ(guest.read64(0x9000), 0x12345678u);
  EXPECT_EQ(guest.read32(kStack - 4), 0x12345678u);
}

// Addresses have 32 bits, whatever is added up.
PAYLOAD(wrapping32, 32,
        "movl $0x9000, %edi\n"
        "movl $0x11111111, (%edi)\n"
        "movl $0x22222222, 4(%edi)\n"
        "movl $0xffffffff, %eax\n"
        "movl 0x9001(%eax), %ecx\n"  // two that lie close together
        "addl 0x9005(%eax), %ecx\n"
        "movl $0xc0002400, %ebx\n"
        "addl (,%ebx,4), %ecx\n"
        "addl 0x40000908(%ebx,%eax,8), %ecx\n"
        "leal 0x10(%eax,%eax,8), %edx\n" REPORT)
TEST_P(Modes32, WrapAddressesAtFourGiB) {
  Guest guest(GetParam());
  guest.load(wrapping32());
  guest.write32(0x2d00, 0x33333333);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rcx, 0x11111111u + 0x22222222u + 0x11111111u + 0x33333333u);
  EXPECT_EQ(guest.regs().rdx, 0x7u);
}

// What has other encodings in 64-bit code, and the ways to call and to return.
PAYLOAD(calls32, 32,
        "movl $0x9000, %ebp\n"
        "call 9f\n"
        "9: popl %eax\n"
        "addl $(1f - 9b), %eax\n"
        "movl %eax, (%ebp)\n"
        "movl $5, %esi\n"
        "incl %esi\n"
        "decl %ebp\n"
        "incl %ebp\n"
        ".byte 0x82, 0xc6, 0x10\n"  // add $0x10, %dh
        "movl %esi, %eax\n"
        "movl %eax, 0x9100\n"
        "movb 0x9100, %al\n"
        "pushl $-2\n"
        "pushl (%ebp)\n"
        "call *(%esp)\n"
        "jmp 2f\n"
        "1: pushl %ebp\n"
        "movl %esp, %ebp\n"
        "movl 12(%ebp), %ebx\n"
        "xorl %ecx, %ecx\n"
        "3: addl %esi, %ecx\n"
        "decl %esi\n"
        "jnz 3b\n"
        "pushfl\n"
        "popl %edi\n"
        "leave\n"
        "ret $4\n"
        "2: popl %esi\n" REPORT)
TEST_P(Modes32, CallAndReturn) {
  Guest guest(GetParam());
  guest.load(calls32());
  const State before = guest.state();
  ASSERT_TRUE(guest.run().reported);
  const kvm_regs regs = guest.regs();
  EXPECT_EQ(regs.rax, 6u);
  EXPECT_EQ(regs.rbx, 0xfffffffeu);
  EXPECT_EQ(regs.rcx, 21u);
  EXPECT_EQ(regs.rdx, before.regs.rdx + 0x1000);
  EXPECT_EQ(regs.rsi, 0xfffffffeu);
  EXPECT_EQ(regs.rdi & 0x8d5, 0x44u);
  EXPECT_EQ(regs.rbp, 0x9000u);
  EXPECT_EQ(regs.rsp, before.regs.rsp);
  EXPECT_EQ(guest.read32(0x9100), 6u);
}
INSTANTIATE_TEST_SUITE_P(All, Modes32, testing::Values(Mode::Protected32, Mode::Pae, Mode::Compatibility), mode_name);

TEST(Modes, LongModeRunsArithmeticStackAndStores) {
  Guest guest(Mode::Long);
  guest.load(arithmetic64());
  const State before = guest.state();
  ASSERT_TRUE(guest.run().reported);
  expect_only(guest, before, [](State& s) {
    s.regs.rax = 0x123456789abcdef0;
    s.regs.r9 = 0x123456789abcdef0;
    s.regs.rdi = 0x9000;
    s.regs.rip = kCode + arithmetic64().size();
    s.regs.rflags = kFlagsFixed | kZfPfAfCf;
  });
  EXPECT_EQ(guest.read64(0x9000), 0x123456789abcdef0u);
  EXPECT_EQ(guest.read64(kStack - 8), 0x123456789abcdef0u);
}

// The way that firmware and a secondary processor's trampoline go.
PAYLOAD(real_to_protected, 16,
        "lgdtl 0x9000\n"
        "mov %cr0, %eax\n"
        "or $1, %eax\n"
        "mov %eax, %cr0\n"
        "ljmpl $0x40, $0x8100\n")
PAYLOAD(protected_to_long, 32,
        "mov $0x10, %eax\n"
        "mov %eax, %ds\n"
        "mov %eax, %es\n"
        "mov %eax, %ss\n"
        "mov %cr4, %eax\n"
        "or $0x20, %eax\n"
        "mov %eax, %cr4\n"
        "mov $0x10000, %eax\n"
        "mov %eax, %cr3\n"
        "mov $0xc0000080, %ecx\n"
        "rdmsr\n"
        "or $0x100, %eax\n"
        "wrmsr\n"
        "mov %cr0, %eax\n"
        "or $0x80000000, %eax\n"
        "mov %eax, %cr0\n"
        "ljmp $0x08, $0x8200\n")
PAYLOAD(in_long, 64,
        "mov $0xc0000080, %ecx\n"
        "rdmsr\n"
        "movabs $0x1122334455667788, %rbx\n" REPORT)

TEST(Modes, RealModeReachesLongMode) {
  Guest tables(Mode::Long);  // its tables are copied
  Guest guest(Mode::Real);
  std::vector<std::byte> bytes(0x6000);
  ASSERT_TRUE(tables.memory().read(kPml4, bytes));
  guest.write(kPml4, bytes);
  guest.write(0x9000, std::as_bytes(std::span("\xff\x07\x00\x10\x00", 6)));
  guest.load(in_long(), 0x8200);
  guest.load(protected_to_long(), 0x8100);
  guest.load(real_to_protected());
  ASSERT_TRUE(guest.run().reported);
  const kvm_regs regs = guest.regs();
  EXPECT_EQ(regs.rbx, 0x1122334455667788u);
  EXPECT_EQ(regs.rax, 0x500u);  // LME and LMA
  const kvm_sregs sregs = guest.sregs();
  EXPECT_EQ(sregs.efer, 0x500u);
  EXPECT_EQ(sregs.cs.selector, kCode64);
  EXPECT_EQ(sregs.cs.l, 1);
  EXPECT_EQ(sregs.ss.limit, 0xffffffffu);
}

// Real-mode addresses: the base is the selector times 16, and FFFF:0010 is the first byte above 1 MiB.
PAYLOAD(segments16, 16,
        "movw $0xffff, %ax\n"
        "movw %ax, %es\n"
        "movb $0x5a, %es:0x10\n"
        "movw $0x1234, %ax\n"
        "movw %ax, %ds\n"
        "movw $0xbeef, 6\n" REPORT)
TEST(Modes, RealModeSegmentsAreTimes16) {
  Guest guest(Mode::Real);
  guest.load(segments16());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read8(0x100000), 0x5a);
  EXPECT_EQ(guest.read16(0x12346), 0xbeef);
  EXPECT_EQ(guest.sregs().ds.base, 0x12340u);
  EXPECT_EQ(guest.sregs().es.base, 0xffff0u);
}

// 64-bit code calls 32-bit code in compatibility mode and comes back; the upper halves of the results are zero.
PAYLOAD(to_compatibility, 64,
        "movabs $0xffffffff00000001, %rax\n"
        "movabs $0xaaaaaaaa00000000, %rbx\n"
        "lcall *0x9000\n" REPORT)
PAYLOAD(compatibility_code, 32,
        "inc %eax\n"  // 0x40: a REX prefix in 64-bit mode
        "mov %eax, %ebx\n"
        "lret\n")
TEST(Modes, FarCallToCompatibilityModeAndBack) {
  Guest guest(Mode::Long);
  guest.load(compatibility_code(), 0x8800);
  guest.write64(0x9000, uint64_t{kCode32} << 32 | 0x8800);
  guest.load(to_compatibility());
  const State before = guest.state();
  ASSERT_TRUE(guest.run().reported);
  expect_only(guest, before, [](State& s) {
    s.regs.rax = 2;
    s.regs.rbx = 2;
    s.regs.rip = kCode + to_compatibility().size();
    s.regs.rflags = kFlagsFixed;
  });
}

PAYLOAD(vector_state, 64,
        "movdqu 0x9000, %xmm3\n"
        "paddd %xmm3, %xmm3\n"
        "movdqu %xmm3, 0x9010\n"
        "fld1\n"
        "fldpi\n"
        "faddp\n" REPORT)
TEST(Modes, VectorAndX87StateIsSeen) {
  Guest guest(Mode::Long);
  guest.write64(0x9000, 0x0000000300000001);
  guest.write64(0x9008, 0x8000000000000007);
  guest.load(vector_state());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read64(0x9010), 0x0000000600000002u);
  EXPECT_EQ(guest.read64(0x9018), 0x000000000000000eu);
  const Xsave xsave = must(guest.vcpu().get_xsave());
  EXPECT_EQ(xsave.region[160 / 4 + 3 * 4], 2u);
  EXPECT_EQ(xsave.region[160 / 4 + 3 * 4 + 1], 6u);
  EXPECT_EQ(xsave.region[0] >> 16 & 0x3800, 0x3800u);  // FSW: the top of the stack is 7
  // ST0 = 1 + pi = 0x4001.84 87ed5110b4611a62 (rounded to nearest)
  EXPECT_EQ(xsave.region[32 / 4 + 1], 0x8487ed51u);
  EXPECT_EQ(xsave.region[32 / 4 + 2] & 0xffff, 0x4001u);
}

}  // namespace
}  // namespace lodge::engine::suite
