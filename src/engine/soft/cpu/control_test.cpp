#include <fmt/format.h>

#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

using Flushes = std::vector<std::string>;

std::string write_cr(Machine& m, uint32_t number, uint64_t value) {
  return m.run([&] { sys_write_cr(&m.c, number, value); });
}

TEST(Cr0, RefusedCombinations) {
  Machine m;
  m.protected32(0);
  EXPECT_EQ(write_cr(m, 0, cr0::kPg), "#GP(0x0)") << "PG without PE";
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kNw), "#GP(0x0)") << "NW without CD";
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kNw | cr0::kCd), "");
  m.long64(0);
  EXPECT_EQ(write_cr(m, 0, cr0::kPe), "#GP(0x0)") << "paging off in 64-bit code";
  EXPECT_EQ(write_cr(m, 0, m.c.cr0 | 1ull << 32), "#GP(0x0)");
  m.c.seg[kCs].attributes = 0xc09b;
  m.c.cr4 |= cr4::kPcide;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe), "#GP(0x0)") << "paging off with PCIDs";
  m.protected32(3);
  EXPECT_EQ(write_cr(m, 0, cr0::kPe), "#GP(0x0)");
}

TEST(Cr0, EtIsFixedAndUndefinedBitsAreDropped) {
  Machine m;
  m.protected32(0);
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | 0x0000ffc0), "");
  EXPECT_EQ(m.c.cr0, cr0::kPe | cr0::kEt);
}

TEST(Cr0, PagingWithLmeEntersLongMode) {
  Machine m;
  m.protected32(0);
  m.c.efer = efer::kLme;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "#GP(0x0)") << "PAE is needed";
  m.c.cr4 = cr4::kPae;
  m.c.tr.attributes = 0x83;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "#GP(0x0)") << "a 16-bit TSS";
  m.c.tr.attributes = 0x8b;
  m.c.seg[kCs].attributes |= attr::kL;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "#GP(0x0)") << "CS.L";
  m.c.seg[kCs].attributes = 0xc09b;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "");
  EXPECT_EQ(m.c.efer, efer::kLme | efer::kLma);
  EXPECT_EQ(m.flushes, Flushes{"all"}) << "no PDPTEs";
  EXPECT_TRUE(m.c.key & key::kLongMode);
  EXPECT_EQ(write_cr(m, 0, cr0::kPe), "");
  EXPECT_EQ(m.c.efer, efer::kLme);
}

TEST(Cr0, PaePagingLoadsPdptes) {
  Machine m;
  m.protected32(0);
  m.c.cr4 = cr4::kPae;
  m.pdptes_valid = false;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "#GP(0x0)");
  EXPECT_FALSE(m.c.cr0 & cr0::kPg);
  m.pdptes_valid = true;
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg), "");
  m.flushes.clear();
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg | cr0::kWp), "");
  EXPECT_EQ(m.flushes, Flushes{"all"}) << "WP changes rights";
  m.flushes.clear();
  EXPECT_EQ(write_cr(m, 0, cr0::kPe | cr0::kPg | cr0::kWp | cr0::kTs), "");
  EXPECT_EQ(m.flushes, Flushes{});
}

TEST(Cr3, ReservedBitsPcidAndFlushes) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(write_cr(m, 3, 0x5000), "");
  EXPECT_EQ(m.flushes, Flushes{"load"});
  EXPECT_EQ(write_cr(m, 3, 1ull << kPhysicalBits), "#GP(0x0)");
  EXPECT_EQ(write_cr(m, 3, 1ull << 63 | 0x5000), "#GP(0x0)") << "without PCIDE";
  m.c.cr4 |= cr4::kPcide;
  m.flushes.clear();
  EXPECT_EQ(write_cr(m, 3, 1ull << 63 | 0x5000), "");
  EXPECT_EQ(m.c.cr3, 0x5000u);
  EXPECT_EQ(m.flushes, Flushes{"load, keep"});
  m.flushes.clear();
  EXPECT_EQ(write_cr(m, 3, 0x5000), "");
  EXPECT_EQ(m.flushes, Flushes{"load"});
  m.protected32(0);
  m.c.cr0 |= cr0::kPg;
  m.c.cr4 = cr4::kPae;
  m.pdptes_valid = false;
  EXPECT_EQ(write_cr(m, 3, 0x6000), "#GP(0x0)");
  EXPECT_EQ(m.c.cr3, 0u);
}

TEST(Cr4, ReservedBitsAndRules) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | 1 << 12), "#GP(0x0)") << "LA57";
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | 1 << 22), "#GP(0x0)") << "PKE";
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | 1 << 13), "#GP(0x0)") << "VMXE";
  EXPECT_EQ(write_cr(m, 4, 0), "#GP(0x0)") << "PAE in long mode";
  m.c.cr3 = 0x5001;
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | cr4::kPcide), "#GP(0x0)") << "CR3[11:0]";
  m.c.cr3 = 0x5000;
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | cr4::kPcide), "");
  m.protected32(0);
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | cr4::kPcide), "#GP(0x0)") << "outside long mode";
  m.cpuid[{7, 0}] = {};
  EXPECT_EQ(write_cr(m, 4, cr4::kSmep), "#GP(0x0)") << "not in CPUID";
  EXPECT_EQ(write_cr(m, 4, cr4::kVme | cr4::kDe | cr4::kTsd | cr4::kMce | cr4::kPce | cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave), "");
}

TEST(Cr4, ChangesThatFlush) {
  for (const uint64_t bit : {cr4::kPge, cr4::kPse, cr4::kSmep, cr4::kSmap, cr4::kPcide}) {
    Machine m;
    m.long64(0);
    EXPECT_EQ(write_cr(m, 4, cr4::kPae | bit), "");
    EXPECT_EQ(m.flushes, Flushes{"all"}) << bit;
  }
  Machine m;
  m.long64(0);
  EXPECT_EQ(write_cr(m, 4, cr4::kPae | cr4::kOsfxsr), "");
  EXPECT_EQ(m.flushes, Flushes{});
}

TEST(ControlRegisters, NumbersPrivilegeAndTaskPriority) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_read_cr(&m.c, 1); }), "#UD");
  EXPECT_EQ(write_cr(m, 5, 0), "#UD");
  EXPECT_EQ(write_cr(m, 8, 16), "#GP(0x0)");
  EXPECT_EQ(write_cr(m, 8, 9), "");
  EXPECT_EQ(sys_read_cr(&m.c, 8), 9u);
  EXPECT_EQ(write_cr(m, 2, 0xffff800000001234), "");
  EXPECT_EQ(sys_read_cr(&m.c, 2), 0xffff800000001234u);
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_read_cr(&m.c, 0); }), "#GP(0x0)");
}

TEST(ControlRegisters, LmswSetsButDoesNotClearPe) {
  Machine m;
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_lmsw(&m.c, cr0::kTs | cr0::kMp); }), "");
  EXPECT_EQ(m.c.cr0, cr0::kPe | cr0::kEt | cr0::kTs | cr0::kMp);
  EXPECT_TRUE(m.c.key & key::kTs);
  EXPECT_EQ(m.run([&] { sys_clts(&m.c); }), "");
  EXPECT_FALSE(m.c.key & key::kTs);
  EXPECT_EQ(m.run([&] { sys_lmsw(&m.c, 0); }), "");
  EXPECT_EQ(m.c.cr0, cr0::kPe | cr0::kEt);
}

TEST(DebugRegisters, AliasesReservedBitsAndGeneralDetect) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_write_dr(&m.c, 7, 0xffffffff & ~dr7::kGd); }), "");
  EXPECT_EQ(sys_read_dr(&m.c, 7), 0xffff07ffu);
  EXPECT_TRUE(m.c.key & key::kSingleStep);
  EXPECT_EQ(m.run([&] { sys_write_dr(&m.c, 6, 0); }), "");
  EXPECT_EQ(sys_read_dr(&m.c, 4), 0xffff0ff0u) << "an alias of DR6";
  EXPECT_EQ(m.run([&] { sys_write_dr(&m.c, 6, 1ull << 32); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_write_dr(&m.c, 0, 0xffff800000000000); }), "");
  m.c.cr4 |= cr4::kDe;
  EXPECT_EQ(m.run([&] { sys_read_dr(&m.c, 5); }), "#UD");
  m.c.dr[7] |= dr7::kGd;
  EXPECT_EQ(m.run([&] { sys_read_dr(&m.c, 0); }), "#DB");
  EXPECT_EQ(m.c.exception.dr6, dr6::kBd);
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_read_dr(&m.c, 0); }), "#GP(0x0)");
}

TEST(Tlb, InvlpgAndInvpcid) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_invlpg(&m.c, 0x5678); }), "");
  EXPECT_EQ(m.run([&] { sys_invlpg(&m.c, 0x800000000000); }), "");
  EXPECT_EQ(m.flushes, Flushes{"page 0x5678"}) << "a non-canonical address is no operation";
  struct Case {
    uint64_t type, pcid, linear;
    const char *outcome, *flush;
  };
  for (const Case& t : {Case{0, 0, 0x7000, "", "page 0x7000 of pcid 0"},
                        {0, 0, 1ull << 47, "#GP(0x0)", ""},
                        {0, 1, 0, "#GP(0x0)", ""},
                        {1, 0, 0, "", "pcid 0"},
                        {1, 0x1000, 0, "#GP(0x0)", ""},
                        {2, 0, 0, "", "all"},
                        {3, 5, 0, "", "all"},
                        {4, 0, 0, "#GP(0x0)", ""}}) {
    m.flushes.clear();
    m.put<uint64_t>(0x6000, t.pcid);
    m.put<uint64_t>(0x6008, t.linear);
    EXPECT_EQ(m.run([&] { sys_invpcid(&m.c, t.type, 0x6000); }), t.outcome) << t.type;
    EXPECT_EQ(m.flushes, *t.flush ? Flushes{t.flush} : Flushes{}) << t.type;
  }
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_invlpg(&m.c, 0); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_invpcid(&m.c, 2, 0x6000); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_wbinvd(&m.c); }), "#GP(0x0)");
}

TEST(Xcr0, Rules) {
  struct Case {
    uint64_t ecx, value;
    const char* outcome;
  };
  for (const Case& t : {Case{0, 7, ""},
                        {0, 3, ""},
                        {0, 1, ""},
                        {0, 6, "#GP(0x0)"},
                        {0, 5, "#GP(0x0)"},
                        {0, 0xe7, "#GP(0x0)"},
                        {0, 0, "#GP(0x0)"},
                        {1, 7, "#GP(0x0)"}}) {
    Machine m;
    m.long64(0);
    m.c.gpr[kRcx] = t.ecx;
    m.c.gpr[kRax] = t.value;
    m.c.gpr[kRdx] = 0;
    EXPECT_EQ(m.run([&] { sys_xsetbv(&m.c); }), "#UD") << "without OSXSAVE";
    m.c.cr4 |= cr4::kOsxsave;
    EXPECT_EQ(m.run([&] { sys_xsetbv(&m.c); }), t.outcome) << t.value;
    EXPECT_EQ(m.c.xcr0, *t.outcome ? 1 : t.value);
  }
  Machine m;
  m.long64(3);
  m.c.cr4 |= cr4::kOsxsave;
  m.c.gpr[kRax] = 7;
  EXPECT_EQ(m.run([&] { sys_xsetbv(&m.c); }), "#GP(0x0)");
  m.c.xcr0 = 7;
  m.c.gpr[kRdx] = ~0ull;
  EXPECT_EQ(m.run([&] { sys_xgetbv(&m.c); }), "");
  EXPECT_EQ(m.c.gpr[kRax], 7u);
  EXPECT_EQ(m.c.gpr[kRdx], 0u);
  m.c.gpr[kRcx] = 2;
  EXPECT_EQ(m.run([&] { sys_xgetbv(&m.c); }), "#GP(0x0)");
}

TEST(Time, TscAndItsPrivilege) {
  Machine m;
  m.long64(3);
  m.tsc = 0x1234567890abcdef;
  m.c.msrs.tsc_aux = 0x42;
  EXPECT_EQ(m.run([&] { sys_rdtscp(&m.c); }), "");
  EXPECT_EQ(m.c.gpr[kRax], 0x90abcdefu);
  EXPECT_EQ(m.c.gpr[kRdx], 0x12345678u);
  EXPECT_EQ(m.c.gpr[kRcx], 0x42u);
  EXPECT_EQ(sys_rdpid(&m.c), 0x42u);
  m.c.cr4 |= cr4::kTsd;
  EXPECT_EQ(m.run([&] { sys_rdtsc(&m.c); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_rdpmc(&m.c); }), "#GP(0x0)");
  m.long64(0);
  m.c.cr4 |= cr4::kTsd;
  EXPECT_EQ(m.run([&] { sys_rdtsc(&m.c); }), "");
}

TEST(Bases, SwapgsAndFsgsbase) {
  Machine m;
  m.long64(0);
  m.c.seg[kGs].base = 1;
  m.c.msrs.kernel_gs_base = 2;
  EXPECT_EQ(m.run([&] { sys_swapgs(&m.c); }), "");
  EXPECT_EQ(m.c.seg[kGs].base, 2u);
  EXPECT_EQ(m.c.msrs.kernel_gs_base, 1u);
  EXPECT_EQ(m.run([&] { sys_read_fsgsbase(&m.c, kGs); }), "#UD");
  m.long64(3);
  m.c.cr4 |= cr4::kFsgsbase;
  EXPECT_EQ(m.run([&] { sys_write_fsgsbase(&m.c, kFs, 1ull << 47); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_write_fsgsbase(&m.c, kFs, 0x1234); }), "");
  EXPECT_EQ(sys_read_fsgsbase(&m.c, kFs), 0x1234u);
  EXPECT_EQ(m.run([&] { sys_swapgs(&m.c); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_stac(&m.c); }), "#UD");
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_swapgs(&m.c); }), "#UD");
}

}  // namespace
}  // namespace lodge::engine::soft
