#include <fmt/format.h>

#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;
using Items = std::vector<uint64_t>;

template <typename T>
Items stack(Machine& m, uint32_t count) {
  Items items;
  for (uint32_t i = 0; i < count; ++i) items.push_back(m.get<T>(m.c.seg[kSs].base + m.c.gpr[kRsp] + i * sizeof(T)));
  return items;
}

PendingException exception(Vector vector) {
  PendingException e{};
  e.vector = vector;
  return e;
}
PendingException exception(Vector vector, uint32_t error_code) {
  PendingException e = exception(vector);
  e.has_error_code = true;
  e.error_code = error_code;
  return e;
}

TEST(Deliver, RealModeTable) {
  Machine m;
  m.real();
  m.put<uint32_t>(0x20 * 4, 0x30001234);
  m.c.eflags_system = eflags::kIf | eflags::kTf | eflags::kAc;
  m.c.shadow = kShadowSti;
  m.c.halted = true;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x20); }), "");
  EXPECT_EQ(m.c.rip, 0x1234u);
  EXPECT_EQ(m.c.next_rip, 0x1234u);
  EXPECT_EQ(m.c.seg[kCs].base, 0x30000u);
  EXPECT_EQ(stack<uint16_t>(m, 3), (Items{0x100, 0x1000, eflags::kIf | eflags::kTf | 2}));
  EXPECT_EQ(get_eflags(m.c), 2u);
  EXPECT_EQ(m.c.shadow, kShadowNone);
  EXPECT_FALSE(m.c.halted);
  m.c.idtr.limit = 0x82;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x20); }), "#GP(0x103)");
}

TEST(Deliver, ProtectedModeFrameWithErrorCode) {
  Machine m;
  m.protected32(3);
  m.set_gate32(kGp, kCode32, 0x8888, 0x8e);
  m.c.eflags_system = eflags::kIf | eflags::kTf | eflags::kNt | eflags::kAc;
  EXPECT_EQ(m.run([&] { deliver_exception(m.c, exception(kGp, 0x42)); }), "");
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_EQ(m.c.rip, 0x8888u);
  EXPECT_EQ(m.c.gpr[kRsp], kKernelStack - 24);
  EXPECT_EQ(stack<uint32_t>(m, 6),
            (Items{0x42, 0x100, kUserCode32 | 3, eflags::kIf | eflags::kTf | eflags::kNt | eflags::kAc | eflags::kRf | 2, kUserStack,
                   kUserData | 3}));
  EXPECT_EQ(get_eflags(m.c), eflags::kAc | 2u);
}

TEST(Deliver, SameLevelTrapGateKeepsIf) {
  Machine m;
  m.protected32(0);
  m.set_gate32(0x30, kCode32, 0x8888, 0x8f);
  m.c.eflags_system = eflags::kIf;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "");
  EXPECT_EQ(stack<uint32_t>(m, 3), (Items{0x100, kCode32, eflags::kIf | 2}));
  EXPECT_TRUE(m.c.eflags_system & eflags::kIf);
}

TEST(Deliver, SixteenBitGatePushesWords) {
  Machine m;
  m.protected32(0);
  m.set_gate32(0x30, kCode32, 0xdead8888, 0x86);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "");
  EXPECT_EQ(m.c.rip, 0x8888u);
  EXPECT_EQ(stack<uint16_t>(m, 3), (Items{0x100, kCode32, 2}));
}

TEST(Deliver, GateRules) {
  struct Case {
    uint32_t cpl, selector, access;
    const char* outcome;
  };
  constexpr uint32_t kVector = 0x30;  // error code 0x182, with EXT 0x183
  const Case cases[] = {
      {0, kCode32, 0x0e, "#NP(0x183)"}, {0, kCode32, 0x8c, "#GP(0x183)"},    {0, kCode32, 0x9e, "#GP(0x183)"},
      {0, 0, 0x8e, "#GP(0x1)"},         {0, kData, 0x8e, "#GP(0x11)"},       {0, kAbsentCode, 0x8e, "#NP(0xa1)"},
      {0, kBeyond, 0x8e, "#GP(0x201)"}, {0, kUserCode32, 0x8e, "#GP(0x19)"}, {3, kUserCode32, 0x8e, ""},
      {3, kConforming, 0x8e, ""},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} selector {:#x} access {:#x}", t.cpl, t.selector, t.access));
    Machine m;
    m.protected32(t.cpl);
    m.set_gate32(kVector, t.selector, 0x1000, t.access);
    EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, kVector); }), t.outcome);
    EXPECT_EQ(m.c.cpl, t.cpl);
    EXPECT_EQ(m.c.rip, *t.outcome ? 0x100u : 0x1000u);
  }
  Machine m;
  m.protected32(0);
  m.c.idtr.limit = kVector * 8 + 6;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, kVector); }), "#GP(0x183)");
}

TEST(Deliver, InnerStackFaults) {
  Machine m;
  m.protected32(3);
  m.set_gate32(0x30, kCode32, 0x1000, 0x8e);
  m.put<uint16_t>(kTssBase + 8, 0);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#TS(0x1)");
  m.put<uint16_t>(kTssBase + 8, kUserData);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#TS(0x21)");
  m.put<uint16_t>(kTssBase + 8, kData);
  m.c.tr.limit = 7;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#TS(0x79)");
  m.c.tr.limit = 0x67;
  m.set_descriptor(kData, descriptor(0, 0x100, 0x92, 0x4));
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#SS(0x11)") << "the frame is outside the new stack";
  EXPECT_EQ(m.c.gpr[kRsp], kUserStack);
}

TEST(Deliver, SoftwareInterrupts) {
  Machine m;
  m.protected32(3);
  m.set_gate32(0x80, kCode32, 0x1000, 0xee);
  m.set_gate32(0x81, kCode32, 0x1000, 0x8e);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x81, kIntN); }), "#GP(0x40a)") << "the gate's DPL; EXT clear";
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x80, kIntN); }), "");
  EXPECT_EQ(m.c.next_rip, 0x1000u);
  EXPECT_EQ(m.c.rip, 0x100u) << "the caller commits";
  EXPECT_EQ(stack<uint32_t>(m, 2), (Items{0x102, kUserCode32 | 3}));
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, kOf, kInto); }), "");
  EXPECT_EQ(m.c.next_rip, 0x102u) << "INTO without OF";
  m.set_gate32(kDb, kCode32, 0x2000, 0x8e);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, kDb, kInt1); }), "") << "INT1 does not look at the DPL";
}

TEST(Deliver, SoftwareExceptionPushesTheNextInstruction) {
  Machine m;
  m.protected32(3);
  m.set_gate32(kBp, kCode32, 0x1000, 0xee);
  PendingException e = exception(kBp);
  e.is_software = true;
  EXPECT_EQ(m.run([&] { deliver_exception(m.c, e); }), "");
  EXPECT_EQ(stack<uint32_t>(m, 3), (Items{0x102, kUserCode32 | 3, 2})) << "no RF";
  EXPECT_EQ(m.c.rip, 0x1000u);
}

TEST(Deliver, FromVirtual8086) {
  Machine m;
  m.v86(3);
  m.set_gate32(0x30, kCode32, 0x1000, 0x8e);
  m.c.eflags_system |= eflags::kIf;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "");
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_FALSE(m.c.eflags_system & eflags::kVm);
  EXPECT_EQ(stack<uint32_t>(m, 9),
            (Items{0x100, 0x1100, eflags::kVm | eflags::kIf | eflags::kIopl | 2, 0x800, 0x1200, 0x1000, 0x1300, 0x1400, 0x1500}));
  for (const uint32_t i : {kEs, kDs, kFs, kGs}) EXPECT_FALSE(m.c.seg[i].attributes & attr::kPresent);
  m.v86(3);
  m.set_gate32(0x30, kConforming, 0x1000, 0x8e);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#GP(0x39)");
}

TEST(Deliver, Virtual8086SoftwareInterrupts) {
  Machine m;
  m.v86(0);
  m.set_gate32(0x21, kCode32, 0x1000, 0xee);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x21, kIntN); }), "#GP(0x0)") << "IOPL";
  m.v86(3);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x21, kIntN); }), "");
  EXPECT_EQ(m.c.cpl, 0);
  // VME: a clear bit in the redirection map leads to the program's own table.
  m.v86(0);
  m.c.cr4 |= cr4::kVme;
  m.c.eflags_system |= eflags::kVif;
  m.put<uint16_t>(kTssBase + 102, 104 + 32);
  m.put<uint32_t>(0x21 * 4, 0x30004444);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x21, kIntN); }), "");
  EXPECT_EQ(m.c.next_rip, 0x4444u);
  EXPECT_TRUE(m.c.eflags_system & eflags::kVm);
  EXPECT_FALSE(m.c.eflags_system & eflags::kVif);
  EXPECT_EQ(stack<uint16_t>(m, 3), (Items{0x102, 0x1100, eflags::kIf | eflags::kIopl | 2}));
  m.put<uint8_t>(kTssBase + 104 + 0x21 / 8, 2);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x21, kIntN); }), "#GP(0x0)");
}

TEST(Deliver, LongModeFrameIsAlignedAndComplete) {
  for (const uint32_t cpl : {0u, 3u}) {
    Machine m;
    m.long64(cpl);
    m.set_gate64(kPf, kCode64, 0xffffffff81000000, 0x8e);
    const uint64_t rsp = m.c.gpr[kRsp] -= 5;
    m.put<uint64_t>(kTssBase + 4, kKernelStack - 3);
    const uint32_t cs = m.c.seg[kCs].selector, ss = m.c.seg[kSs].selector;
    PendingException e = exception(kPf, pf::kUser);
    e.cr2 = 0x123456789000;
    EXPECT_EQ(m.run([&] { deliver_exception(m.c, e); }), "");
    EXPECT_EQ(m.c.cr2, 0x123456789000u);
    EXPECT_EQ(m.c.rip, 0xffffffff81000000u);
    EXPECT_EQ(m.c.gpr[kRsp], kKernelStack - 16 - 48u);
    EXPECT_EQ(stack<uint64_t>(m, 6), (Items{pf::kUser, 0x100, cs, eflags::kRf | 2, rsp, ss}));
    EXPECT_EQ(m.c.seg[kSs].selector, cpl ? 0u : ss) << "null after a change of level";
    EXPECT_EQ(m.c.cpl, 0);
  }
}

TEST(Deliver, InterruptStackTable) {
  Machine m;
  m.long64(0);
  m.set_gate64(2, kCode64, 0x1000, 0x8e, 3);
  m.put<uint64_t>(kTssBase + 36 + 16, kIstStack);
  EXPECT_EQ(m.run([&] { deliver_nmi(m.c); }), "");
  EXPECT_EQ(m.c.gpr[kRsp], kIstStack - 40);
  EXPECT_EQ(stack<uint64_t>(m, 5), (Items{0x100, kCode64, 2, kKernelStack, kData}));
  EXPECT_EQ(m.c.seg[kSs].selector, +kData) << "same level: SS stays";
  EXPECT_TRUE(m.c.nmi_blocked);
  m.long64(0);
  m.put<uint64_t>(kTssBase + 36 + 16, 0x800000000000);
  EXPECT_EQ(m.run([&] { deliver_nmi(m.c); }), "#SS(0x1)");
}

TEST(Deliver, LongModeRules) {
  Machine m;
  m.long64(3);
  m.set_gate64(0x30, kCode32, 0x1000, 0x8e);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#GP(0x9)") << "not 64-bit code";
  m.set_gate64(0x30, kCode64, 0x800000000000, 0x8e);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#GP(0x1)");
  m.set_gate64(0x30, kCode64, 0x1000, 0x86);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#GP(0x183)") << "a 16-bit gate";
  m.set_gate64(0x30, kCode64, 0x1000, 0x8e);
  m.c.tr.limit = 10;
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#TS(0x79)");
  m.c.tr.limit = 0x67;
  m.absent.insert((kKernelStack - 1) >> 12);
  EXPECT_EQ(m.run([&] { deliver_interrupt(m.c, 0x30); }), "#PF(0x2)");
  EXPECT_EQ(m.c.gpr[kRsp], kUserStack);
  EXPECT_EQ(m.c.cpl, 3);
}

TEST(Deliver, DebugExceptionSetsDr6AndClearsGd) {
  Machine m;
  m.long64(0);
  m.set_gate64(kDb, kCode64, 0x1000, 0x8e);
  m.c.dr[6] = dr6::kFixed | 0xf;
  m.c.dr[7] |= dr7::kGd;
  PendingException e = exception(kDb);
  e.dr6 = dr6::kBs | 2;
  EXPECT_EQ(m.run([&] { deliver_exception(m.c, e); }), "");
  EXPECT_EQ(m.c.dr[6], dr6::kFixed | dr6::kBs | 2);
  EXPECT_FALSE(m.c.dr[7] & dr7::kGd);
  EXPECT_EQ(stack<uint64_t>(m, 3)[2], 2u) << "no RF";
}

TEST(Escalate, TableOfDoubleFaults) {
  const PendingException ud = exception(kUd), de = exception(kDe), gp = exception(kGp, 0), pf = exception(kPf, 0), df = exception(kDf, 0);
  PendingException software = exception(kGp);
  software.is_software = true;
  PendingException interrupt = exception(kDf);  // a PIC left at its power-on vectors
  interrupt.is_external = true;
  struct Case {
    const PendingException &first, &second;
    Escalation outcome;
  };
  using enum Escalation;
  const Case cases[] = {
      {ud, gp, Serial},   {ud, pf, Serial},      {de, gp, DoubleFault},  {gp, de, DoubleFault},  {gp, pf, Serial},
      {gp, ud, Serial},   {pf, gp, DoubleFault}, {pf, pf, DoubleFault},  {pf, ud, Serial},       {df, gp, Shutdown},
      {df, pf, Shutdown}, {df, ud, Serial},      {software, gp, Serial}, {software, pf, Serial}, {interrupt, gp, Serial},
  };
  for (const Case& t : cases) EXPECT_EQ(escalate(t.first, t.second), t.outcome) << int(t.first.vector) << " " << int(t.second.vector);
}

}  // namespace
}  // namespace lodge::engine::soft
