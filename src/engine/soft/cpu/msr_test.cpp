#include "engine/soft/cpu/msr.hpp"

#include <fmt/format.h>

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

std::string write(Machine& m, uint32_t index, uint64_t value) {
  m.c.gpr[kRcx] = index;
  m.c.gpr[kRax] = value & 0xffffffff;
  m.c.gpr[kRdx] = value >> 32;
  return m.run([&] { sys_wrmsr(&m.c); });
}

std::string read(Machine& m, uint32_t index, uint64_t& value) {
  m.c.gpr[kRcx] = index;
  const std::string outcome = m.run([&] { sys_rdmsr(&m.c); });
  value = m.c.gpr[kRdx] << 32 | (m.c.gpr[kRax] & 0xffffffff);
  return outcome;
}

TEST(Msr, ValuesAreTakenKeptDroppedOrRefused) {
  constexpr uint64_t kNoncanonical = 0x800000000000, kHigh = 0xffff800000001000;
  enum Outcome { Kept, Dropped, Fault };
  struct Case {
    uint32_t index;
    uint64_t value;
    Outcome outcome;
  };
  const Case cases[] = {
      {0xc0000081, 0x0023001000000000, Kept},
      {0xc0000082, kHigh, Kept},
      {0xc0000082, kNoncanonical, Fault},
      {0xc0000083, kNoncanonical, Fault},
      {0xc0000084, 0x47700, Kept},
      {0xc0000084, 1ull << 32, Fault},
      {0xc0000100, kHigh, Kept},
      {0xc0000100, kNoncanonical, Fault},
      {0xc0000101, kHigh, Kept},
      {0xc0000102, kHigh, Kept},
      {0xc0000102, kNoncanonical, Fault},
      {0x174, 0x10, Kept},
      {0x175, kHigh, Kept},
      {0x176, kNoncanonical, Fault},
      {0x277, 0x0007040600070406, Kept},
      {0x277, 0x0606060606060605, Kept},
      {0x277, 2, Fault},
      {0x277, 0x0800000000000000, Fault},
      {0x2ff, 0xc06, Kept},
      {0x2ff, 0xc02, Fault},
      {0x2ff, 0x1006, Fault},
      {0x250, 0x0605040100060606, Kept},
      {0x26f, 0x0200000000000000, Fault},
      {0x200, 0x80000006, Kept},
      {0x200, 0x80000007, Fault},
      {0x200, 0x80000106, Fault},
      {0x201, 0x3fff80000800, Kept},
      {0x201, 0x3fff80000400, Fault},
      {0x201, 1ull << kPhysicalBits, Fault},
      {0x210, 0, Fault},  // beyond the eighth pair
      {0xfe, 0, Fault},
      {0x17, 0, Fault},
      {0x1b, 0xfee00800, Kept},
      {0x1b, 1, Fault},
      {0x6e0, 0x1234, Kept},
      {0xda0, 0, Kept},
      {0xda0, 0x100, Fault},
      {0x179, 0, Fault},
      {0x17a, 0, Kept},
      {0x17a, 1, Fault},
      {0x17b, ~0ull, Kept},
      {0x17b, 2, Fault},
      {0x400, ~0ull, Kept},
      {0x400, 1, Fault},
      {0x401, 0, Kept},
      {0x401, 1, Fault},
      {0x1a0, 0x850089, Kept},
      {0x1d9, 3, Dropped},
      {0x199, 5, Dropped},
      {0x8b, 0, Dropped},
      {0x8b, 1, Fault},
      {0xc0010015, 0x40, Kept},
      {0xc0010010, 0x100000, Dropped},
      {0xc0011029, 2, Kept},
      {0xc0011029, 4, Fault},
      {0xc0010114, 0, Fault},
      {0x48, 1, Kept},
      {0x48, 4, Fault},  // SSBD
      {0x49, 1, Dropped},
      {0x49, 2, Fault},
      {0x10a, 0, Fault},  // Intel's
      {0x3a, 1, Fault},   // Intel's
      {0x140, 0, Fault},  // Intel's
      {0x12345678, 0, Fault},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("msr {:#x} value {:#x}", t.index, t.value));
    Machine m;
    m.long64(0);
    uint64_t before = 0, after = 0;
    const bool readable = read(m, t.index, before).empty();
    EXPECT_EQ(write(m, t.index, t.value), t.outcome == Fault ? "#GP(0x0)" : "");
    if (!readable) continue;
    EXPECT_EQ(read(m, t.index, after), "");
    EXPECT_EQ(after, t.outcome == Kept ? t.value : before);
  }
}

TEST(Msr, VendorsHaveTheirOwn) {
  Machine m;
  m.long64(0);
  uint64_t value;
  EXPECT_EQ(read(m, 0xc0010114, value), "");
  EXPECT_EQ(value, 0x18u);
  EXPECT_EQ(read(m, 0xce, value), "#GP(0x0)");
  m.vendor(false);
  EXPECT_EQ(read(m, 0xc0010114, value), "#GP(0x0)");
  EXPECT_EQ(read(m, 0x3a, value), "");
  EXPECT_EQ(value, 1u) << "locked, no VMX";
  EXPECT_EQ(read(m, 0x10a, value), "");
  EXPECT_EQ(value & 0x23u, 0x23u) << "RDCL_NO, IBRS_ALL, MDS_NO";
  EXPECT_EQ(write(m, 0x10a, value), "#GP(0x0)");
  EXPECT_EQ(read(m, 0x49, value), "#GP(0x0)") << "commands are written only";
}

TEST(Msr, PrivilegeAndUnknown) {
  Machine m;
  uint64_t value;
  m.long64(3);
  EXPECT_EQ(read(m, 0x10, value), "#GP(0x0)");
  EXPECT_EQ(write(m, 0x10, 0), "#GP(0x0)");
  m.long64(0);
  EXPECT_EQ(read(m, 0xdead, value), "#GP(0x0)");
}

TEST(Efer, Rules) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(write(m, 0xc0000080, efer::kSce | efer::kLme | efer::kLma | efer::kNx), "");
  EXPECT_EQ(m.flushes, std::vector<std::string>{"all"});
  EXPECT_EQ(write(m, 0xc0000080, efer::kSce | efer::kLma), "#GP(0x0)") << "LME while paging is on";
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme), "");
  EXPECT_EQ(m.c.efer, efer::kLme | efer::kLma) << "LMA is read-only";
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme | 1 << 12), "#GP(0x0)") << "SVME";
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme | 1 << 14), "#GP(0x0)") << "FFXSR";
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme | efer::kAutoIbrs), "#GP(0x0)") << "not in CPUID";
  m.cpuid[{0x80000021, 0}] = {1u << 8, 0, 0, 0};
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme | efer::kAutoIbrs), "");
  m.cpuid[{0x80000001, 0}] = {};
  EXPECT_EQ(write(m, 0xc0000080, efer::kLme | efer::kNx), "#GP(0x0)") << "not in CPUID";
}

TEST(Msr, TscAndAdjustMoveTogether) {
  Machine m;
  m.long64(0);
  m.tsc = 1000;
  EXPECT_EQ(write(m, 0x3b, 500), "");
  EXPECT_EQ(m.tsc, 1500u);
  EXPECT_EQ(write(m, 0x10, 100), "");
  EXPECT_EQ(m.c.msrs.tsc_adjust, 500ull - 1400);
  EXPECT_TRUE(msr_write(m.c, 0x3b, 7, true));
  EXPECT_EQ(m.tsc, 100u) << "the host restores both independently";
}

TEST(Msr, TscAuxUpperHalfByVendor) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(write(m, 0xc0000103, 1ull << 32 | 5), "");
  EXPECT_EQ(m.c.msrs.tsc_aux, 5u);
  m.vendor(false);
  EXPECT_EQ(write(m, 0xc0000103, 1ull << 32 | 5), "#GP(0x0)");
}

TEST(Msr, X2ApicAndKvmGoThroughTheHooks) {
  Machine m;
  m.long64(0);
  m.other_msrs = {{0x802, 7}, {0x4b564d01, 0}, {0x12, 0}};
  uint64_t value;
  EXPECT_EQ(read(m, 0x802, value), "");
  EXPECT_EQ(value, 7u);
  EXPECT_EQ(read(m, 0x801, value), "#GP(0x0)");
  EXPECT_EQ(write(m, 0x4b564d01, 0x1001), "");
  EXPECT_EQ(m.other_msrs[0x4b564d01], 0x1001u);
  EXPECT_EQ(write(m, 0x4b564d02, 0), "#GP(0x0)");
}

TEST(Msr, TheListReadsAndWritesBackAsTheHost) {
  Machine m;
  m.other_msrs = {{0x4b564d00, 1}, {0x4b564d01, 2}, {0x11, 3}, {0x12, 4}};
  for (uint32_t i = 0; i < kMsrIndexCount; ++i) {
    uint64_t value;
    ASSERT_TRUE(msr_read(m.c, kMsrIndexList[i], value, true)) << std::hex << kMsrIndexList[i];
    EXPECT_TRUE(msr_write(m.c, kMsrIndexList[i], value, true)) << std::hex << kMsrIndexList[i];
  }
}

}  // namespace
}  // namespace lodge::engine::soft
