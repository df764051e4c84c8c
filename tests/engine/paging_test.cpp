// Paging and protection: who may do what to which page, with error codes, CR2 and accessed and dirty bits.
#include <algorithm>

#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

constexpr uint64_t kWp = 0x10000;
constexpr uint64_t kSmep = 1 << 20, kSmap = 1 << 21, kCr4Pge = 0x80;

#define SET_PGE "mov %cr4, %rax\n or $0x80, %rax\n mov %rax, %cr4\n"
// 32-bit paging with PSE, by the directory at 0x18000.
#define PAGING32                                       \
  "mov $0x18000, %eax\n mov %eax, %cr3\n"              \
  "mov %cr4, %eax\n or $0x10, %eax\n mov %eax, %cr4\n" \
  "mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"

// Whether the processor says that it has what a bit of CPUID stands for.
bool has_feature(uint32_t function, uint32_t kvm_cpuid_entry2::* part, uint32_t bit) {
  const auto offered = must(system().get_supported_cpuid());
  return std::ranges::any_of(offered, [&](const auto& entry) { return entry.function == function && (entry.*part & 1u << bit); });
}

// The page under test.
constexpr uint64_t kPage = 0x200000;

PAYLOAD(read_page, 64, "mov 0x200000, %eax\n" REPORT)
PAYLOAD(write_page, 64, "movl $0x77, 0x200000\n" REPORT)
PAYLOAD(modify_page, 64, "addl $1, 0x200000\n" REPORT)
PAYLOAD(call_page, 64, "mov $0x200000, %eax\n call *%rax\n" REPORT)
PAYLOAD(user_read, 64, "mov 0x200000, %eax\n int $0x40\n")
PAYLOAD(user_write, 64, "movl $0x77, 0x200000\n int $0x40\n")
PAYLOAD(user_call, 64, "mov $0x200000, %eax\n call *%rax\n int $0x40\n")
constexpr uint8_t kRet = 0xc3;

enum class Access { Read, Write, Modify, Fetch };

struct Case {
  const char* name;
  bool user;
  Access access;
  uint64_t bits;      // of the page's entry
  uint64_t cr0, cr4;  // set in addition to the mode's, WP cleared first
  int64_t error;      // -1: no fault
  bool ac = false;    // RFLAGS.AC
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

std::span<const std::byte> code_of(const Case& c) {
  switch (c.access) {
    case Access::Read: return c.user ? user_read() : read_page();
    case Access::Write: return c.user ? user_write() : write_page();
    case Access::Modify: return modify_page();
    case Access::Fetch: return c.user ? user_call() : call_page();
  }
  return {};
}

constexpr uint64_t kErrorP = 1, kErrorW = 2, kErrorU = 4, kErrorR = 8, kErrorI = 16;

class Protection : public testing::TestWithParam<Case> {};

TEST_P(Protection, IsChecked) {
  const Case& c = GetParam();
  Guest guest(Mode::Long);
  guest.write8(kPage, kRet);
  guest.set_pte(kPage, kPage | c.bits);
  guest.set_gate(0x40, kHandlers + 0x40 * 16, kCode64, 0xee);
  if (c.user)
    guest.enter_user(code_of(c));
  else
    guest.load(code_of(c));
  guest.change_sregs([&](kvm_sregs& s) {
    s.cr0 = (s.cr0 & ~kWp) | c.cr0;
    s.cr4 |= c.cr4;
  });
  if (c.ac) guest.change_regs([](kvm_regs& r) { r.rflags |= kAc; });
  const Stop stop = guest.run();
  if (c.error < 0) {
    EXPECT_TRUE(c.user ? stop.vector == 0x40 : stop.reported) << stop;
    // Accessed is set by any access, dirty by a write alone.
    EXPECT_EQ(guest.pte(kPage) & (kA | kD), c.access == Access::Write || c.access == Access::Modify ? kA | kD : kA);
  } else {
    ASSERT_EQ(stop.vector, PF) << stop;
    auto error = static_cast<uint64_t>(c.error);
    if (processor_is_tcg() && (error & kErrorR)) error &= ~kErrorP;  // TCG says that a reserved bit is not present
    EXPECT_EQ(guest.frame(PF).error, error);
    EXPECT_EQ(guest.sregs().cr2, kPage);
    // A fault marks nothing; but the read of a read-modify-write may have come first.
    EXPECT_EQ(guest.pte(kPage) & (c.access == Access::Modify ? kD : kA | kD), 0u);
    EXPECT_EQ(guest.read8(kPage), kRet);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Long, Protection,
    testing::Values(Case{"SupervisorReadsSupervisor", false, Access::Read, kP, 0, 0, -1},
                    Case{"SupervisorReadsUser", false, Access::Read, kP | kUs, 0, 0, -1},
                    Case{"SupervisorReadsNotPresent", false, Access::Read, kRw | kUs, 0, 0, 0},
                    Case{"SupervisorWritesNotPresent", false, Access::Write, 0, 0, 0, kErrorW},
                    Case{"SupervisorWritesWritable", false, Access::Write, kP | kRw, kWp, 0, -1},
                    Case{"SupervisorWritesReadOnlyWithoutWp", false, Access::Write, kP, 0, 0, -1},
                    Case{"SupervisorWritesReadOnlyWithWp", false, Access::Write, kP, kWp, 0, kErrorP | kErrorW},
                    Case{"SupervisorModifiesReadOnlyWithWp", false, Access::Modify, kP, kWp, 0, kErrorP | kErrorW},
                    Case{"SupervisorModifiesWritable", false, Access::Modify, kP | kRw, kWp, 0, -1},
                    Case{"SupervisorWritesUserReadOnlyWithWp", false, Access::Write, kP | kUs, kWp, 0, kErrorP | kErrorW},
                    Case{"SupervisorFetches", false, Access::Fetch, kP, 0, 0, -1},
                    Case{"SupervisorFetchesNx", false, Access::Fetch, kP | kNx, 0, 0, kErrorP | kErrorI},
                    Case{"SupervisorReadsNx", false, Access::Read, kP | kNx, 0, 0, -1},
                    Case{"SupervisorFetchesNotPresent", false, Access::Fetch, 0, 0, 0, kErrorI},
                    Case{"SupervisorFetchesUserPage", false, Access::Fetch, kP | kUs, 0, 0, -1},
                    Case{"SmepStopsTheFetch", false, Access::Fetch, kP | kUs, 0, kSmep, kErrorP | kErrorI},
                    Case{"SmepLetsRead", false, Access::Read, kP | kUs, 0, kSmep, -1},
                    Case{"SmapStopsTheRead", false, Access::Read, kP | kUs, 0, kSmap, kErrorP},
                    Case{"SmapStopsTheWrite", false, Access::Write, kP | kUs | kRw, 0, kSmap, kErrorP | kErrorW},
                    Case{"SmapWithAcLetsRead", false, Access::Read, kP | kUs, 0, kSmap, -1, true},
                    Case{"UserReadsUser", true, Access::Read, kP | kUs, 0, 0, -1},
                    Case{"UserReadsSupervisor", true, Access::Read, kP, 0, 0, kErrorP | kErrorU},
                    Case{"UserWritesSupervisor", true, Access::Write, kP | kRw, 0, 0, kErrorP | kErrorW | kErrorU},
                    Case{"UserReadsNotPresent", true, Access::Read, 0, 0, 0, kErrorU},
                    Case{"UserWritesWritable", true, Access::Write, kP | kUs | kRw, 0, 0, -1},
                    Case{"UserWritesReadOnlyWithoutWp", true, Access::Write, kP | kUs, 0, 0, kErrorP | kErrorW | kErrorU},
                    Case{"UserFetches", true, Access::Fetch, kP | kUs, 0, 0, -1},
                    Case{"UserFetchesNx", true, Access::Fetch, kP | kUs | kNx, 0, 0, kErrorP | kErrorU | kErrorI},
                    Case{"UserFetchesSupervisor", true, Access::Fetch, kP, 0, 0, kErrorP | kErrorU | kErrorI},
                    Case{"ReservedBit", false, Access::Read, kP | uint64_t{1} << 51, 0, 0, kErrorP | kErrorR},
                    Case{"ReservedBitInAWrite", false, Access::Write, kP | uint64_t{1} << 51, 0, 0, kErrorP | kErrorR | kErrorW},
                    Case{"ReservedBitInUserMode", true, Access::Read, kP | kUs | uint64_t{1} << 51, 0, 0, kErrorP | kErrorR | kErrorU}),
    [](const testing::TestParamInfo<Case>& tested) { return std::string(tested.param.name); });

// Rights are the conjunction over the levels.
TEST(Paging, UpperLevelsTakeRightsAway) {
  Guest guest(Mode::Long);
  guest.set_pte(kPage, kPage | kP | kRw);
  guest.write64(kPdLow + 8, kPtData | kP);  // read-only
  guest.load(write_page());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.frame(PF).error, kErrorP | kErrorW);
  // The walk got as far as the last level, so the directory's entry counts as accessed or not; the page is not dirty.
  EXPECT_EQ(guest.pte(kPage) & kD, 0u);
}

TEST(Paging, NxInTheDirectoryStopsTheFetch) {
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPtData | kP | kRw | kNx);
  guest.load(call_page());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.frame(PF).error, kErrorP | kErrorI);
}

TEST(Paging, AccessedBitsAreSetOnEachLevel) {
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPtData | kP | kRw);
  guest.set_pte(kPage, kPage | kP | kRw);
  guest.load(read_page());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read64(kPdLow + 8), kPtData | kP | kRw | kA);
  EXPECT_EQ(guest.pte(kPage), kPage | kP | kRw | kA);
}

TEST(Paging, TwoMegabytePage) {
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPage | kP | kRw | kPs);
  guest.write32(kPage, 0x1234);
  guest.load(modify_page());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read32(kPage), 0x1235u);
  EXPECT_EQ(guest.read64(kPdLow + 8), kPage | kP | kRw | kPs | kA | kD);
}

// A translation may live on in the TLB until INVLPG or a load of CR3; after either it must be gone.
PAYLOAD(remap, 64,
        "mov 0x200000, %eax\n"
        "movq $0x301003, 0x14000\n"
        "invlpg 0x200000\n"
        "mov 0x200000, %ebx\n"
        "movq $0x302003, 0x14000\n"
        "mov %cr3, %rcx\n"
        "mov %rcx, %cr3\n"
        "mov 0x200000, %ecx\n"
        "xor %edx, %edx\n" REPORT)
TEST(Paging, InvlpgAndCr3DropTranslations) {
  Guest guest(Mode::Long);
  guest.write32(kPage, 1);
  guest.write32(0x301000, 2);
  guest.write32(0x302000, 3);
  guest.load(remap());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 1u);
  EXPECT_EQ(guest.regs().rbx, 2u);
  EXPECT_EQ(guest.regs().rcx, 3u);
}

// INVLPG of any address in a large page drops all that is known of that page (SDM vol. 3, 4.10.4.1), for data and for code.
constexpr uint64_t kLargePageFunctions[] = {0x200000, 0x3ff000};
PAYLOAD(returns, 64, "mov $7, %eax\n ret\n")
PAYLOAD(large_data, 64,
        "mov 0x200000, %eax\n mov 0x3ff000, %ebx\n"
        "movq $0x83, 0x12008\n"  // shows the first 2 MiB
        "invlpg 0x2a5000\n"
        "mov 0x200100, %eax\n mov 0x3ff100, %ebx\n" REPORT)
TEST(Paging, InvlpgDropsAllOfALargePage) {
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPage | kP | kRw | kPs);
  guest.write32(0x100, 1), guest.write32(0x1ff100, 2);
  guest.write32(0x200100, 3), guest.write32(0x3ff100, 4);
  guest.load(large_data());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax & 0xffffffff, 1u);
  EXPECT_EQ(guest.regs().rbx & 0xffffffff, 2u);
}
PAYLOAD(large_code, 64,
        "mov $0x200000, %ecx\n call *%rcx\n"
        "mov $0x3ff000, %ecx\n call *%rcx\n"
        "movq $0, 0x12008\n"
        "invlpg 0x2a5000\n"
        "call *%rcx\n" REPORT)
TEST(Paging, InvlpgDropsCodeOfALargePage) {
  NEEDS_SILICON("code of a large page is run again after INVLPG of another part of it");
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPage | kP | kRw | kPs);
  for (const uint64_t at : kLargePageFunctions) guest.load(returns(), at);
  guest.load(large_code());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x3ff000u);
  EXPECT_EQ(guest.regs().rax, 7u);
}
// The same where the supervisor's code is global, whose large pages are kept apart from the address spaces.
PAYLOAD(large_global_code, 64,
        SET_PGE
        "mov $0x200000, %ecx\n call *%rcx\n"
        "mov $0x3ff000, %ecx\n call *%rcx\n"
        "mov %cr3, %rax\n mov %rax, %cr3\n"
        "movq $0, 0x12008\n"
        "invlpg 0x2a5000\n"
        "mov $5, %eax\n call *%rcx\n" REPORT)
TEST(Paging, InvlpgDropsGlobalCodeOfALargePage) {
  Guest guest(Mode::Long);
  guest.write64(kPdLow + 8, kPage | kP | kRw | kPs | kG);
  guest.set_pte(kCode, kCode | kP | kRw | kG);
  for (const uint64_t at : kLargePageFunctions) guest.load(returns(), at);
  guest.load(large_global_code());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x3ff000u);
  EXPECT_EQ(guest.regs().rax, 5u);
}
// A function that was found through the table of jumps, and is another one after INVLPG of its page.
PAYLOAD(moved_code, 64,
        "mov $0x200000, %ecx\n mov $3, %edx\n"
        "1: call *%rcx\n dec %edx\n jnz 1b\n mov %eax, %ebx\n"
        "movq $0x301003, 0x14000\n"
        "invlpg 0x200000\n"
        "call *%rcx\n mov %eax, %edx\n"
        "movq $0x200003, 0x14000\n"
        "invlpg 0x200000\n"
        "call *%rcx\n" REPORT)
PAYLOAD(returns_nine, 64, "mov $9, %eax\n ret\n")
TEST(Paging, InvlpgMovesCode) {
  Guest guest(Mode::Long);
  guest.load(returns(), 0x200000);
  guest.load(returns_nine(), 0x301000);
  guest.load(moved_code());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 7u);
  EXPECT_EQ(guest.regs().rdx, 9u);
  EXPECT_EQ(guest.regs().rax, 7u);
}
// The same function as global code, then as code of the address space, since the supervisor turned out to have code that is not global.
PAYLOAD(moved_global_code, 64,
        SET_PGE
        "mov $0x200000, %ecx\n call *%rcx\n mov %eax, %ebx\n"
        "mov $0x302000, %esi\n call *%rsi\n"  // not global
        "call *%rcx\n call *%rcx\n"
        "movq $0x301103, 0x14000\n"
        "invlpg 0x200000\n"
        "call *%rcx\n" REPORT)
TEST(Paging, InvlpgMovesCodeThatIsGlobalAmongOthers) {
  Guest guest(Mode::Long);
  guest.set_pte(kPage, kPage | kP | kRw | kG);
  guest.set_pte(kCode, kCode | kP | kRw | kG);
  guest.load(returns(), 0x200000);
  guest.load(returns(), 0x302000);
  guest.load(returns_nine(), 0x301000);
  guest.load(moved_global_code());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 7u);
  EXPECT_EQ(guest.regs().rax, 9u);
}
// Code that is where it was after CR3 was loaded, then code that is not, and code that must not be run any more.
PAYLOAD(moved_by_cr3, 64,
        "mov $0x200000, %ecx\n call *%rcx\n call *%rcx\n"
        "mov %cr3, %rdi\n mov %rdi, %cr3\n"
        "call *%rcx\n mov %eax, %ebx\n"
        "movq $0x301003, 0x14000\n mov %rdi, %cr3\n"
        "call *%rcx\n mov %eax, %edx\n"
        "mov %rdi, %cr3\n"
        "call *%rcx\n mov %eax, %esi\n"
        "btsq $63, 0x14000\n mov %rdi, %cr3\n"
        "call *%rcx\n")
TEST(Paging, CodeIsLookedForAgainAfterCr3) {
  Guest guest(Mode::Long);
  guest.load(returns(), 0x200000);
  guest.load(returns_nine(), 0x301000);
  guest.load(moved_by_cr3());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x200000u);
  EXPECT_EQ(guest.frame(PF).error, kErrorP | kErrorI);
  EXPECT_EQ(guest.regs().rbx, 7u);
  EXPECT_EQ(guest.regs().rdx, 9u);
  EXPECT_EQ(guest.regs().rsi, 9u);
}
// Two address spaces that have never been used before, with other code at the same place.
PAYLOAD(two_spaces, 64,
        "mov %cr4, %rax\n or $0x20000, %rax\n mov %rax, %cr4\n"
        "mov $0x200000, %ecx\n"
        "mov $0x10001, %edi\n mov %rdi, %cr3\n"
        "call *%rcx\n mov %eax, %ebx\n"
        "mov $0x18002, %edi\n mov %rdi, %cr3\n"
        "call *%rcx\n mov %eax, %edx\n"
        "bts $63, %rdi\n"
        "mov $0x10001, %esi\n bts $63, %rsi\n mov %rsi, %cr3\n"
        "call *%rcx\n mov %eax, %esi\n"
        "mov %rdi, %cr3\n"
        "call *%rcx\n" REPORT)
TEST(Paging, AddressSpacesHaveCodeOfTheirOwn) {
  if (!has_feature(1, &kvm_cpuid_entry2::ecx, 17)) GTEST_SKIP() << "the processor has no PCIDs";
  Guest guest(Mode::Long);
  // The second PML4, with tables of its own down to the directory's entry of 2 MiB.
  static_assert(kPdpt == kPml4 + 0x1000 && kPdLow == kPdpt + 0x1000);
  for (uint64_t at = 0; at < 0x3000; at += 8) guest.write64(0x18000 + at, guest.read64(kPml4 + at));
  guest.write64(0x18000, 0x19000 | kP | kRw);
  guest.write64(0x19000, 0x1a000 | kP | kRw);
  guest.write64(0x1a008, 0x1b000 | kP | kRw);
  guest.write64(0x1b000, 0x301000 | kP | kRw);
  guest.load(returns(), 0x200000);
  guest.load(returns_nine(), 0x301000);
  guest.load(two_spaces());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 7u);
  EXPECT_EQ(guest.regs().rdx, 9u);
  EXPECT_EQ(guest.regs().rsi, 7u);
  EXPECT_EQ(guest.regs().rax, 9u);
}
// Looking does not count as an access: a page that is not run again keeps its accessed bit as the guest has set it.
PAYLOAD(not_accessed, 64,
        "mov $0x200000, %ecx\n call *%rcx\n"
        "mov %cr3, %rdi\n andq $~0x20, 0x14000\n mov %rdi, %cr3\n"
        "mov 0x14000, %rbx\n"
        "call *%rcx\n mov 0x14000, %rdx\n" REPORT)
TEST(Paging, LookingForCodeSetsNoAccessedBit) {
  Guest guest(Mode::Long);
  guest.load(returns(), 0x200000);
  guest.load(not_accessed());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx & kA, 0u);
  EXPECT_EQ(guest.regs().rdx & kA, kA);
}
// Pages of 1 GiB, and (32-bit paging) of 4 MiB: addresses whose 2 MiB are others' than INVLPG's.
PAYLOAD(huge_data, 64,
        "mov 0x40200000, %eax\n mov 0x40001000, %ebx\n mov $1, %esi\n"
        "movq $0, 0x11008\n"
        "invlpg 0x40001000\n"
        "mov 0x40200000, %eax\n" REPORT)
TEST(Paging, InvlpgDropsAllOfAGigabyte) {
  if (!has_feature(0x80000001, &kvm_cpuid_entry2::edx, 26)) GTEST_SKIP() << "the processor has no pages of 1 GiB";
  Guest guest(Mode::Long);
  guest.write64(kPdpt + 8, kP | kRw | kPs);
  guest.load(huge_data());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.regs().rsi, 1u);
  EXPECT_EQ(guest.sregs().cr2, 0x40200000u);
  EXPECT_EQ(guest.frame(PF).error, 0u);
}
PAYLOAD(large_data32, 32,
        PAGING32
        "mov 0x80201000, %ebx\n"
        "movl $0, 0x18800\n"
        "invlpg 0x80001000\n"
        "mov 0x80201000, %ecx\n" REPORT)
TEST(Paging, InvlpgDropsAllOfFourMegabytes) {
  Guest guest(Mode::Protected32);
  guest.write32(0x18000, kP | kRw | kPs);
  guest.write32(0x18000 + 0x200 * 4, kP | kRw | kPs);
  guest.write32(0x201000, 0x22);
  guest.load(large_data32());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x80201000u);
  EXPECT_EQ(guest.regs().rbx, 0x22u);
}

// CR4.PGE: global translations outlive a load of CR3; a change of PGE drops them.
PAYLOAD(global, 64,
        SET_PGE
        "mov 0x200000, %ebx\n"
        "movq $0x301103, 0x14000\n"
        "mov %cr4, %rax\n and $~0x80, %rax\n mov %rax, %cr4\n"
        "mov 0x200000, %ecx\n" REPORT)
TEST(Paging, ClearingPgeDropsGlobalTranslations) {
  Guest guest(Mode::Long);
  guest.set_pte(kPage, kPage | kP | kRw | kG);
  guest.write32(kPage, 1);
  guest.write32(0x301000, 2);
  guest.load(global());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 1u);
  EXPECT_EQ(guest.regs().rcx, 2u);
}

// An access across a page boundary of which the second page is missing writes nothing and faults there.
PAYLOAD(crossing, 64, "mov $-1, %rax\n mov %rax, 0x200ffc\n" REPORT)
TEST(Paging, CrossingWriteFaultsAsAWhole) {
  Guest guest(Mode::Long);
  guest.set_pte(0x201000, 0);
  guest.load(crossing());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x201000u);
  EXPECT_EQ(guest.frame(PF).error, kErrorW);
  EXPECT_EQ(guest.read32(0x200ffc), 0u);
}
TEST(Paging, CrossingWriteReachesTwoPhysicalPages) {
  Guest guest(Mode::Long);
  guest.set_pte(0x201000, 0x300000 | kP | kRw);
  guest.load(crossing());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.read32(0x200ffc), 0xffffffffu);
  EXPECT_EQ(guest.read32(0x300000), 0xffffffffu);
  EXPECT_EQ(guest.read32(0x201000), 0u);
}

// An instruction across a page boundary: the fault is at the second page, the RIP at the instruction.
PAYLOAD(long_move, 64, "movabs $0x1122334455667788, %rax\n" REPORT)
TEST(Paging, InstructionFetchAcrossPages) {
  Guest guest(Mode::Long);
  guest.load(long_move(), 0x200ffc);
  guest.set_pte(0x201000, 0);
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x201000u);
  EXPECT_EQ(guest.frame(PF).error, kErrorI);
  EXPECT_EQ(guest.frame(PF).rip, 0x200ffcu);
  guest.set_pte(0x201000, 0x201000 | kP | kRw);
  guest.change_regs([](kvm_regs& r) { r.rip = 0x200ffc; });
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 0x1122334455667788u);
}

// 32-bit paging: two levels, 4 MiB pages with PSE.
PAYLOAD(paging32, 32,
        PAGING32
        "mov 0x400000, %ebx\n"    // a 4 KiB page: shows 0x300000
        "mov 0x80200000, %ecx\n"  // a 4 MiB page: shows 0x200000
        "movl $5, 0x400004\n" REPORT "mov 0x500000, %edx\n")
TEST(Paging, ThirtyTwoBitTables) {
  Guest guest(Mode::Protected32);
  guest.write32(0x18000, kP | kRw | kPs);
  guest.write32(0x18000 + 4, 0x19000 | kP | kRw);
  guest.write32(0x18000 + 0x200 * 4, kP | kRw | kPs);
  guest.write32(0x19000, 0x300000 | kP | kRw);
  guest.write32(0x300000, 0x33);
  guest.write32(0x200000, 0x22);
  guest.load(paging32());
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rbx, 0x33u);
  EXPECT_EQ(guest.regs().rcx, 0x22u);
  EXPECT_EQ(guest.read32(0x300004), 5u);
  EXPECT_EQ(guest.read32(0x19000), 0x300000 | kP | kRw | kA | kD);
  EXPECT_EQ(guest.read32(0x18000 + 0x200 * 4), kP | kRw | kPs | kA);
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.sregs().cr2, 0x500000u);
}

// PAE's four upper entries are read when CR3 is loaded; a reserved bit there is #GP.
PAYLOAD(pae, 32, "mov 0x200000, %eax\n mov %cr3, %ebx\n movl $0x7, 0x11000\n mov %ebx, %cr3\n")
TEST(Paging, PaeReservedBitInThePointerTableFaultsOnCr3) {
  NEEDS_SILICON("PDPTEs are not checked when CR3 is loaded");
  Guest guest(Mode::Pae);
  guest.write32(kPage, 0x99);
  guest.load(pae());
  ASSERT_EQ(guest.run().vector, GP);
  EXPECT_EQ(guest.regs().rax, 0x99u);
}

PAYLOAD(pae_nx, 32, "mov $0x200000, %eax\n call *%eax\n")
TEST(Paging, PaeHasNx) {
  Guest guest(Mode::Pae);
  guest.set_pte(kPage, kPage | kP | kNx);
  guest.write8(kPage, kRet);
  guest.load(pae_nx());
  ASSERT_EQ(guest.run().vector, PF);
  EXPECT_EQ(guest.frame(PF).error, kErrorP | kErrorI);
}

// The kernel's walk sets accessed bits on its way (its own shadow walker does it); nothing else may change.
TEST(Paging, TranslateChangesNothingButAccessedBits) {
  Guest guest(Mode::Long);
  guest.set_pte(kPage, 0x300000 | kP | kRw);
  guest.load(read_page());
  const kvm_translation found = must(guest.vcpu().translate(kPage + 0x123));
  EXPECT_EQ(found.valid, 1);
  EXPECT_EQ(found.physical_address, 0x300123u);
  EXPECT_EQ(guest.pte(kPage) & ~kA, 0x300000 | kP | kRw);
  guest.set_pte(kPage, 0);
  EXPECT_EQ(must(guest.vcpu().translate(kPage)).valid, 0);
}

}  // namespace
}  // namespace lodge::engine::suite
