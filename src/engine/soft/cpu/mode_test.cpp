#include "engine/soft/cpu/mode.hpp"

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

TEST(Mode, KeyOfEachMode) {
  Machine m;
  m.real();
  EXPECT_EQ(m.c.key & (key::kCode64 | key::kCode32 | key::kProtected | key::kV86 | key::kUser | key::kSegmented), +key::kSegmented);
  m.protected32(0);
  EXPECT_EQ(m.c.key & ~(key::kNeClear | key::kMxcsrUd | key::kSseUd | key::kAvxUd), key::kCode32 | key::kStack32 | key::kProtected);
  m.v86(3);
  EXPECT_EQ(m.c.key & (key::kProtected | key::kV86 | key::kUser | key::kCode32), key::kV86 | key::kUser);
  m.long64(3);
  EXPECT_EQ(m.c.key & (key::kCode64 | key::kCode32 | key::kLongMode | key::kProtected | key::kUser | key::kSegmented),
            key::kCode64 | key::kLongMode | key::kProtected | key::kUser);
  m.c.seg[kCs] = {0, 0xffffffff, kUserCode32 | 3, 0xc0fb};
  mode_changed(m.c);
  EXPECT_EQ(m.c.key & (key::kCode64 | key::kCode32 | key::kLongMode), key::kCode32 | key::kLongMode) << "compatibility mode";
}

TEST(Mode, SegmentedUnlessFlatAndWritable) {
  Machine m;
  m.protected32(0);
  const SegmentRegister flat = m.c.seg[kDs];
  EXPECT_FALSE(m.c.key & key::kSegmented);
  for (const SegmentRegister& s : {SegmentRegister{1, 0xffffffff, 0, 0xc093}, SegmentRegister{0, 0xffff, 0, 0xc093},
                                   SegmentRegister{0, 0xffffffff, 0, 0xc091}, SegmentRegister{0, 0xffffffff, 0, 0}}) {
    m.c.seg[kDs] = s;
    mode_changed(m.c);
    EXPECT_TRUE(m.c.key & key::kSegmented);
  }
  m.c.seg[kDs] = flat;
  mode_changed(m.c);
  EXPECT_FALSE(m.c.key & key::kSegmented);
}

TEST(Mode, CoprocessorBits) {
  struct Case {
    uint64_t cr0, cr4, xcr0;
    uint32_t set;
  };
  constexpr uint32_t kAll = key::kX87Nm | key::kX87Em | key::kWaitNm | key::kTs | key::kSseUd | key::kAvxUd | key::kMxcsrUd | key::kNeClear;
  constexpr uint64_t kSse = cr4::kOsfxsr | cr4::kOsxmmexcpt, kAll4 = kSse | cr4::kOsxsave;
  const Case cases[] = {
      {cr0::kNe, kAll4, 7, 0},
      {0, kAll4, 7, key::kNeClear},
      {cr0::kNe | cr0::kTs, kAll4, 7, key::kX87Nm | key::kTs},
      {cr0::kNe | cr0::kTs | cr0::kMp, kAll4, 7, key::kX87Nm | key::kTs | key::kWaitNm},
      {cr0::kNe | cr0::kEm, kAll4, 7, key::kX87Nm | key::kX87Em | key::kSseUd},
      {cr0::kNe, kAll4, 3, key::kAvxUd},
      {cr0::kNe, kSse, 7, key::kAvxUd},
      {cr0::kNe, cr4::kOsxsave, 7, key::kSseUd | key::kMxcsrUd},
  };
  for (const Case& t : cases) {
    Machine m;
    m.protected32(0);
    m.c.cr0 = cr0::kPe | t.cr0;
    m.c.cr4 = t.cr4;
    m.c.xcr0 = t.xcr0;
    mode_changed(m.c);
    EXPECT_EQ(m.c.key & kAll, t.set) << std::hex << t.cr0 << " " << t.cr4;
  }
}

TEST(Mode, ViewFollowsPrivilegeSmapAndAc) {
  Machine m;
  m.long64(3);
  EXPECT_EQ(m.c.view, kViewUser);
  m.long64(0);
  EXPECT_EQ(m.c.view, kViewSupervisor);
  m.c.cr4 |= cr4::kSmap;
  mode_changed(m.c);
  EXPECT_EQ(m.c.view, kViewSupervisorSmap);
  EXPECT_EQ(m.run([&] { sys_stac(&m.c); }), "");
  EXPECT_EQ(m.c.view, kViewSupervisor);
  EXPECT_EQ(m.run([&] { sys_clac(&m.c); }), "");
  EXPECT_EQ(m.c.view, kViewSupervisorSmap);
}

TEST(Mode, SingleStepAndAlignmentCheck) {
  Machine m;
  m.long64(3);
  m.c.cr0 |= cr0::kAm;
  m.c.eflags_system = eflags::kAc | eflags::kTf;
  mode_changed(m.c);
  EXPECT_TRUE(m.c.key & key::kAlignmentCheck);
  EXPECT_TRUE(m.c.key & key::kSingleStep);
  m.c.eflags_system = 0;
  m.c.dr[7] |= 1;
  mode_changed(m.c);
  EXPECT_FALSE(m.c.key & key::kAlignmentCheck);
  EXPECT_TRUE(m.c.key & key::kSingleStep);
}

TEST(Reset, PowerOnState) {
  Machine m;
  cpu_reset(m.c, false);
  EXPECT_EQ(m.c.rip, 0xfff0u);
  EXPECT_EQ(m.c.seg[kCs].base, 0xffff0000u);
  EXPECT_EQ(m.c.seg[kCs].selector, 0xf000);
  EXPECT_EQ(m.c.cr0, 0x60000010u);
  EXPECT_EQ(get_eflags(m.c), 2u);
  EXPECT_EQ(m.c.dr[6], 0xffff0ff0u);
  EXPECT_EQ(m.c.dr[7], 0x400u);
  EXPECT_EQ(m.c.gpr[kRdx], 0xa10f11u);
  EXPECT_EQ(m.c.msrs.pat, 0x0007040600070406u);
  EXPECT_EQ(m.c.xcr0, 1u);
}

TEST(Reset, InitKeepsModelSpecificRegistersAndCacheBits) {
  Machine m;
  m.long64(0);
  m.c.msrs.lstar = 0x1234;
  m.c.xcr0 = 7;
  m.c.cr0 |= cr0::kCd;
  cpu_reset(m.c, true);
  EXPECT_EQ(m.c.msrs.lstar, 0x1234u);
  EXPECT_EQ(m.c.xcr0, 7u);
  EXPECT_EQ(m.c.cr0, cr0::kEt | cr0::kCd);
  EXPECT_EQ(m.c.efer, 0u);
  EXPECT_EQ(m.c.cpl, 0);
}

}  // namespace
}  // namespace lodge::engine::soft
