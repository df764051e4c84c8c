#include <fmt/format.h>

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

constexpr uint64_t kNoncanonical = 0x800000000000;

// The stack at RSP, items of type T from the top.
template <typename T>
std::vector<uint64_t> stack(Machine& m, uint32_t count) {
  std::vector<uint64_t> items;
  for (uint32_t i = 0; i < count; ++i) items.push_back(m.get<T>(m.c.seg[kSs].base + m.c.gpr[kRsp] + i * sizeof(T)));
  return items;
}
using Items = std::vector<uint64_t>;

template <typename T>
void fill(Machine& m, const Items& items) {
  for (size_t i = 0; i < items.size(); ++i) m.put<T>(m.c.seg[kSs].base + m.c.gpr[kRsp] + i * sizeof(T), static_cast<T>(items[i]));
}

TEST(FarJump, DirectRules) {
  struct Case {
    uint32_t cpl, selector;
    uint64_t offset;
    const char* outcome;
    uint32_t cs;
  };
  const Case cases[] = {
      {0, kCode32, 0x1234, "", kCode32},
      {3, kUserCode32 | 3, 0x1234, "", kUserCode32 | 3},
      {3, kUserCode32, 0x1234, "", kUserCode32 | 3},  // the RPL becomes the CPL
      {3, kConforming, 0x1234, "", kConforming | 3},
      {0, kUserCode32, 0, "#GP(0x18)", 0},  // not conforming: DPL must be the CPL
      {3, kCode32, 0, "#GP(0x8)", 0},
      {0, kCode32 | 3, 0, "#GP(0x8)", 0},  // RPL > CPL
      {0, 0, 0, "#GP(0x0)", 0},
      {0, kData, 0, "#GP(0x10)", 0},
      {0, kAbsentCode, 0, "#NP(0xa0)", 0},
      {0, kBeyond, 0, "#GP(0x200)", 0},
      {0, kLdt, 0, "#GP(0x68)", 0},
      {0, kCode16, 0x10000, "#GP(0x0)", 0},  // beyond the limit
      {0, kTss, 0, "#GP(0x78)", 0},          // busy
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} selector {:#x}", t.cpl, t.selector));
    Machine m;
    m.protected32(t.cpl);
    EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, t.selector, t.offset, 4); }), t.outcome);
    EXPECT_EQ(m.c.next_rip, *t.outcome ? 0x102 : t.offset);
    if (!*t.outcome) {
      EXPECT_EQ(m.c.seg[kCs].selector, t.cs);
    }
    EXPECT_EQ(m.c.cpl, t.cpl);
  }
}

TEST(FarJump, RealModeAndOutOfIt) {
  Machine m;
  m.real();
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, 0x1234, 0xfffe, 2); }), "");
  EXPECT_EQ(m.c.seg[kCs].base, 0x12340u);
  EXPECT_EQ(m.c.next_rip, 0xfffeu);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, 0x1234, 0x10000, 4); }), "#GP(0x0)");
  m.c.gdtr = {kGdt, 0xff, 0};
  m.c.cr0 |= cr0::kPe;
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCode32, 0x12345678, 4); }), "");
  EXPECT_TRUE(m.c.key & key::kCode32);
  EXPECT_TRUE(m.c.key & key::kProtected);
}

TEST(FarJump, LongModeSegments) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCode32, 0x1234, 4); }), "");
  EXPECT_FALSE(m.c.key & key::kCode64) << "compatibility mode";
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCode64, 0x1234, 4); }), "");
  EXPECT_TRUE(m.c.key & key::kCode64);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kBothCode, 0, 8); }), "#GP(0xd8)");
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCode64, kNoncanonical, 8); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 8); }), "#GP(0x88)") << "no task switches in long mode";
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCallGate64, 0, 8); }), "");
  EXPECT_EQ(m.c.next_rip, 0x5678u);
}

TEST(FarJump, CallGateMayNotRaisePrivilege) {
  Machine m;
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCallGate | 3, 0, 4); }), "#GP(0x8)");
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kCallGate, 0, 4); }), "");
  EXPECT_EQ(m.c.next_rip, 0x1234u);
}

TEST(FarCall, PushesTheReturnAddressInTheOperandSize) {
  Machine m;
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCode16, 0x20, 4); }), "");
  EXPECT_EQ(stack<uint32_t>(m, 2), (Items{0x102, kCode32}));
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCode32, 0x20, 2); }), "");
  EXPECT_EQ(stack<uint16_t>(m, 2), (Items{0x102, kCode32}));
  m.real();
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, 0x3000, 0x20, 2); }), "");
  EXPECT_EQ(stack<uint16_t>(m, 2), (Items{0x102, 0x1000}));
  EXPECT_EQ(m.c.seg[kCs].base, 0x30000u);
}

// Found by the host oracle: a call far from 64-bit into compatibility mode with an RSP that ESP alone would make good.
TEST(FarCall, IntoCompatibilityModePushesByEsp) {
  Machine m;
  for (const bool amd : {false, true}) {
    m.long64(0);
    m.c.intel_rules = !amd;
    const uint64_t esp = m.c.gpr[kRsp];
    m.c.gpr[kRsp] |= uint64_t{0xfffffffe} << 32;
    EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCode32, 0x1234, 8); }), "");
    EXPECT_EQ(m.c.gpr[kRsp], esp - 16);
  }
}

TEST(FarCall, AFaultingStackLeavesEverything) {
  Machine m;
  m.protected32(0);
  m.absent.insert((kKernelStack - 1) >> 12);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCode32, 0x20, 4); }), "#PF(0x2)");
  EXPECT_EQ(m.c.gpr[kRsp], kKernelStack);
  EXPECT_EQ(m.c.next_rip, 0x102u);
}

TEST(FarCall, GateToInnerLevelCopiesParameters) {
  Machine m;
  m.protected32(3);
  fill<uint32_t>(m, {0xaaaa, 0xbbbb});
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate | 3, 0xdead, 4); }), "");
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_EQ(m.c.seg[kCs].selector, kCode32);
  EXPECT_EQ(m.c.seg[kSs].selector, kData);
  EXPECT_EQ(m.c.next_rip, 0x1234u);
  EXPECT_EQ(m.c.gpr[kRsp], kKernelStack - 24);
  EXPECT_EQ(stack<uint32_t>(m, 6), (Items{0x102, kUserCode32 | 3, 0xaaaa, 0xbbbb, kUserStack, kUserData | 3}));
  // And back: RET 8 releases the parameters on both stacks.
  m.c.rip = 0x1234;
  m.c.next_rip = 0x1236;
  EXPECT_EQ(m.run([&] { sys_far_return(&m.c, 4, 8); }), "");
  EXPECT_EQ(m.c.cpl, 3);
  EXPECT_EQ(m.c.next_rip, 0x102u);
  EXPECT_EQ(m.c.gpr[kRsp], kUserStack + 8);
  EXPECT_EQ(m.c.seg[kSs].selector, kUserData | 3);
}

TEST(FarCall, GateRules) {
  Machine m;
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate16 | 3, 0, 4); }), "#GP(0xd0)") << "the gate's DPL";
  m.set_descriptor(kCallGate, gate(kCode32, 0x1234, 0x6c));
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#NP(0x98)");
  m.set_descriptor(kCallGate, gate(0, 0x1234, 0xec));
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#GP(0x0)");
  m.set_descriptor(kCallGate, gate(kData, 0x1234, 0xec));
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#GP(0x10)");
  m.set_descriptor(kCallGate, gate(kAbsentCode, 0x1234, 0xec));
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#NP(0xa0)");
  m.set_descriptor(kCallGate, gate(kCode32, 0x1234, 0xec));
  m.put<uint16_t>(kTssBase + 8, 0);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#TS(0x0)");
  m.put<uint16_t>(kTssBase + 8, kUserData);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#TS(0x20)");
  m.c.tr.limit = 8;
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate, 0, 4); }), "#TS(0x78)");
  EXPECT_EQ(m.c.gpr[kRsp], kUserStack);
  m.protected32(0);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate16, 0, 4); }), "") << "a 16-bit gate pushes words";
  EXPECT_EQ(stack<uint16_t>(m, 2), (Items{0x102, kCode32}));
}

TEST(FarCall, LongModeGate) {
  Machine m;
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate64 | 3, 0, 8); }), "");
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_EQ(m.c.seg[kSs].selector, 0);
  EXPECT_FALSE(m.c.seg[kSs].attributes & attr::kPresent);
  EXPECT_EQ(stack<uint64_t>(m, 4), (Items{0x102, kUserCode64 | 3, kUserStack, kUserData | 3}));
  m.long64(3);
  m.put<uint64_t>(kGdt + kCallGate64, gate(kCode32, 0, 0xec));
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate64 | 3, 0, 8); }), "#GP(0x8)") << "must lead to 64-bit code";
  m.put<uint32_t>(kGdt + kCallGate64 + 12, 0x100);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kCallGate64 | 3, 0, 8); }), "#GP(0xb0)") << "type of the upper half";
}

TEST(FarReturn, Rules) {
  struct Case {
    uint32_t cpl;
    Items frame;
    const char* outcome;
  };
  const Case cases[] = {
      {0, {0x1234, kCode32}, ""},
      {0, {0x1234, 0}, "#GP(0x0)"},
      {0, {0x1234, kData}, "#GP(0x10)"},
      {0, {0x1234, kBeyond}, "#GP(0x200)"},
      {0, {0x1234, kCode32 | 3, 0, 0}, "#GP(0x8)"},  // DPL != RPL
      {3, {0x1234, kCode32}, "#GP(0x8)"},            // RPL < CPL
      {0, {0x1234, kAbsentCode}, "#NP(0xa0)"},
      {0, {0x10000, kCode16}, "#GP(0x0)"},
      {0, {0x1234, kUserCode32 | 3, kUserStack, 0}, "#GP(0x0)"},
      {0, {0x1234, kUserCode32 | 3, kUserStack, kData | 3}, "#GP(0x10)"},
      {0, {0x1234, kUserCode32 | 3, kUserStack, kUserData}, "#GP(0x20)"},
      {0, {0x1234, kUserCode32 | 3, kUserStack, kAbsentUserStack | 3}, "#SS(0xc0)"},
      {0, {0x1234, kUserCode32 | 3, kUserStack, kUserData | 3}, ""},
      {0, {0x1234, kConforming | 3, kUserStack, kUserData | 3}, ""},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} cs {:#x}", t.cpl, t.frame[1]));
    Machine m;
    m.protected32(t.cpl);
    m.c.gpr[kRsp] -= 0x40;
    const uint64_t rsp = m.c.gpr[kRsp];
    fill<uint32_t>(m, t.frame);
    EXPECT_EQ(m.run([&] { sys_far_return(&m.c, 4, 0); }), t.outcome);
    if (*t.outcome) {
      EXPECT_EQ(m.c.gpr[kRsp], rsp);
      EXPECT_EQ(m.c.cpl, t.cpl);
    } else {
      EXPECT_EQ(m.c.next_rip, t.frame[0]);
      EXPECT_EQ(m.c.seg[kCs].selector, t.frame[1]);
      EXPECT_EQ(m.c.cpl, t.frame[1] & 3);
    }
  }
}

TEST(FarReturn, OuterLevelLosesInnerSegments) {
  Machine m;
  m.protected32(0);
  m.c.gpr[kRsp] -= 0x40;
  m.c.seg[kEs] = {0, 0xffffffff, kUserData | 3, 0xc0f3};
  m.c.seg[kFs] = {0, 0xffffffff, kConforming, 0xc09f};
  fill<uint32_t>(m, {0x1234, kUserCode32 | 3, kUserStack, kUserData | 3});
  EXPECT_EQ(m.run([&] { sys_far_return(&m.c, 4, 0); }), "");
  EXPECT_EQ(m.c.seg[kDs].selector, 0);
  EXPECT_FALSE(m.c.seg[kDs].attributes & attr::kPresent);
  EXPECT_EQ(m.c.seg[kEs].selector, kUserData | 3);
  EXPECT_EQ(m.c.seg[kFs].selector, +kConforming);
}

// --- IRET

TEST(Iret, RealMode) {
  Machine m;
  m.real();
  m.c.nmi_blocked = true;
  fill<uint16_t>(m, {0x5678, 0x3000, eflags::kIf | eflags::kCf | eflags::kIopl});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 2); }), "");
  EXPECT_EQ(m.c.next_rip, 0x5678u);
  EXPECT_EQ(m.c.seg[kCs].base, 0x30000u);
  EXPECT_EQ(get_eflags(m.c), eflags::kIf | eflags::kCf | eflags::kIopl | 2);
  EXPECT_EQ(m.c.gpr[kRsp], 0x1006u);
  EXPECT_FALSE(m.c.nmi_blocked);
  m.real();
  fill<uint32_t>(m, {0x10000, 0x3000, 0});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 4); }), "#GP(0x0)");
}

TEST(Iret, FlagsByPrivilege) {
  using namespace eflags;
  struct Case {
    uint32_t cpl, iopl, size, settable;
  };
  constexpr uint32_t kLow = kArithmetic | eflags::kTf | eflags::kDf | kNt, kWide = kRf | eflags::kAc | kId;
  const Case cases[] = {
      {0, 0, 4, kLow | kWide | kIf | kIopl | kVif | kVip},
      {0, 0, 2, kLow | kIf | kIopl},
      {3, 0, 4, kLow | kWide},
      {3, 3, 4, kLow | kWide | kIf},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("cpl {} iopl {} size {}", t.cpl, t.iopl, t.size));
    Machine m;
    m.protected32(t.cpl);
    m.c.eflags_system = t.iopl << 12;
    const uint64_t cs = t.cpl == 3 ? kUserCode32 | 3 : kCode32;
    const uint64_t flags = 0xffffffff & ~static_cast<uint64_t>(eflags::kVm);
    m.c.gpr[kRsp] -= 0x20;
    if (t.size == 2)
      fill<uint16_t>(m, {0x1234, cs, flags});
    else
      fill<uint32_t>(m, {0x1234, cs, flags});
    EXPECT_EQ(m.run([&] { sys_iret(&m.c, t.size); }), "");
    EXPECT_EQ(get_eflags(m.c), t.settable | t.iopl << 12 | 2u);
  }
}

TEST(Iret, RfOutlivesItOnlyWhereSomethingShowsIt) {
  for (const bool trap : {false, true}) {
    Machine m;
    m.long64(0);
    if (trap) m.c.eflags_system |= eflags::kTf;
    mode_changed(m.c);
    m.c.gpr[kRsp] -= 0x40;
    fill<uint64_t>(m, {0x1234, kCode64, eflags::kRf, 0x6000, 0});
    EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "");
    EXPECT_EQ((m.c.eflags_system & eflags::kRf) != 0, trap) << "the trap behind an IRET under TF has RF in its frame";
    EXPECT_EQ(m.c.rf_loaded, trap);
  }
}

TEST(Iret, To64BitUserAndBackToKernel) {
  Machine m;
  m.long64(0);
  m.c.gpr[kRsp] -= 0x40;
  m.c.seg[kGs] = {0x7000, 0xffffffff, 0, 0};
  m.c.seg[kFs] = {0x9000, 0xffffffff, kData, 0xc093};
  fill<uint64_t>(m, {0x7fff00001234, kUserCode64 | 3, eflags::kIf, 0x7ffffffff000, kUserData | 3});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "");
  EXPECT_EQ(m.c.cpl, 3);
  EXPECT_EQ(m.c.next_rip, 0x7fff00001234u);
  EXPECT_EQ(m.c.gpr[kRsp], 0x7ffffffff000u);
  EXPECT_EQ(m.c.seg[kGs].base, 0x7000u) << "a null selector's base stays";
  EXPECT_EQ(m.c.seg[kFs].selector, 0);
  EXPECT_EQ(m.c.view, kViewUser);
  // Same level in 64-bit code: SS:RSP are popped too, and SS may be null.
  m.long64(0);
  m.c.gpr[kRsp] -= 0x40;
  fill<uint64_t>(m, {0x1234, kCode64, 0, 0x6000, 0});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "");
  EXPECT_EQ(m.c.gpr[kRsp], 0x6000u);
  EXPECT_EQ(m.c.seg[kSs].selector, 0);
}

TEST(Iret, LongModeRules) {
  struct Case {
    Items frame;
    const char* outcome;
  };
  const Case cases[] = {
      {{kNoncanonical, kUserCode64 | 3, 0, kUserStack, kUserData | 3}, "#GP(0x0)"},
      {{0x1234, kUserCode64 | 3, 0, kUserStack, 0}, "#GP(0x0)"},  // null SS for level 3
      {{0x1234, kUserCode64 | 3, 0, kUserStack, 3}, "#GP(0x0)"},
      {{0x1234, kCode32, 0, kUserStack, 0}, "#GP(0x0)"},  // null SS for compatibility mode
      {{0x100001234, kCode32, 0, kUserStack, kData}, "#GP(0x0)"},
      {{0x1234, 0, 0, kUserStack, kData}, "#GP(0x0)"},
      {{0x1234, kBothCode, 0, kUserStack, kData}, "#GP(0xd8)"},
      {{0x1234, kUserCode64 | 3, 0, kUserStack, kData | 3}, "#GP(0x10)"},
      {{0x1234, kUserCode64 | 3, 0, kUserStack, kAbsentUserStack | 3}, "#SS(0xc0)"},
      {{0x1234, kCode64, eflags::kVm, kUserStack, kData}, ""},  // VM is ignored
  };
  for (const Case& t : cases) {
    Machine m;
    m.long64(0);
    m.c.gpr[kRsp] -= 0x40;
    const uint64_t rsp = m.c.gpr[kRsp];
    fill<uint64_t>(m, t.frame);
    EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), t.outcome) << std::hex << t.frame[0] << " " << t.frame[1];
    if (*t.outcome) {
      EXPECT_EQ(m.c.gpr[kRsp], rsp);
    }
    EXPECT_FALSE(m.c.eflags_system & eflags::kVm);
  }
  Machine m;
  m.long64(0);
  m.c.eflags_system |= eflags::kNt;
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "#GP(0x0)");
}

TEST(Iret, ASixteenBitStackKeepsTheUpperHalfOfRsp) {
  Machine m;
  m.long64(0);
  m.set_descriptor(kAbsentUserStack, descriptor(0, 0xffff, 0xf2, 0));
  m.c.gpr[kRsp] -= 0x40;
  m.c.gpr[kRsp] &= 0xffff;
  fill<uint64_t>(m, {0x1234, kUserCode32 | 3, 0, 0xabcd4321, kAbsentUserStack | 3});
  m.c.gpr[kRsp] |= 0;
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "");
  EXPECT_EQ(m.c.gpr[kRsp], 0x4321u) << "bits 31:16 are the kernel's";
  EXPECT_FALSE(m.c.key & key::kStack32);
}

TEST(Iret, ToVirtual8086) {
  Machine m;
  m.protected32(0);
  m.c.gpr[kRsp] -= 0x40;
  fill<uint32_t>(m, {0x1234, 0x2000, eflags::kVm | eflags::kIf | eflags::kIopl, 0xfff0, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 4); }), "");
  EXPECT_EQ(m.c.cpl, 3);
  EXPECT_TRUE(m.c.key & key::kV86);
  EXPECT_EQ(m.c.next_rip, 0x1234u);
  EXPECT_EQ(m.c.gpr[kRsp], 0xfff0u);
  const std::array<std::pair<uint32_t, uint32_t>, 6> expected = {
      {{kCs, 0x2000}, {kSs, 0x3000}, {kEs, 0x4000}, {kDs, 0x5000}, {kFs, 0x6000}, {kGs, 0x7000}}};
  for (const auto& [index, selector] : expected) {
    EXPECT_EQ(m.c.seg[index].base, selector << 4);
    EXPECT_EQ(m.c.seg[index].limit, 0xffffu);
    EXPECT_EQ(m.c.seg[index].attributes, 0xf3);
  }
}

TEST(Iret, InsideVirtual8086) {
  Machine m;
  m.v86(3);
  fill<uint16_t>(m, {0x1234, 0x2000, eflags::kIf});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 2); }), "");
  EXPECT_TRUE(m.c.eflags_system & eflags::kVm);
  EXPECT_TRUE(m.c.eflags_system & eflags::kIf);
  EXPECT_EQ(m.c.seg[kCs].base, 0x20000u);
  m.v86(0);
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 2); }), "#GP(0x0)");
  m.c.cr4 |= cr4::kVme;
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 4); }), "#GP(0x0)");
  fill<uint16_t>(m, {0x1234, 0x2000, eflags::kIf});
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 2); }), "");
  EXPECT_TRUE(m.c.eflags_system & eflags::kVif);
  EXPECT_FALSE(m.c.eflags_system & eflags::kIf);
}

// --- fast system calls

TEST(Syscall, LongMode) {
  Machine m;
  m.long64(3);
  m.c.msrs.star = 0x0023001000000000;
  m.c.msrs.lstar = 0xffffffff81000000;
  m.c.msrs.sfmask = eflags::kIf | eflags::kTf | eflags::kDf;
  m.c.eflags_system = eflags::kIf | eflags::kId;
  m.c.flags_low |= eflags::kCf;
  EXPECT_EQ(m.run([&] { sys_syscall(&m.c); }), "");
  EXPECT_EQ(m.c.next_rip, 0xffffffff81000000u);
  EXPECT_EQ(m.c.gpr[kRcx], 0x102u);
  EXPECT_EQ(m.c.gpr[kR11], eflags::kIf | eflags::kId | eflags::kCf | 2);
  EXPECT_EQ(get_eflags(m.c), eflags::kId | eflags::kCf | 2);
  EXPECT_EQ(m.c.seg[kCs].selector, 0x10);
  EXPECT_EQ(m.c.seg[kSs].selector, 0x18);
  EXPECT_EQ(m.c.seg[kCs].attributes, 0xa09b);
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_EQ(m.run([&] { sys_sysret(&m.c, 8); }), "");
  EXPECT_EQ(m.c.seg[kCs].selector, 0x33);
  EXPECT_EQ(m.c.seg[kSs].selector, 0x2b);
  EXPECT_EQ(m.c.next_rip, 0x102u);
  EXPECT_EQ(get_eflags(m.c), eflags::kIf | eflags::kId | eflags::kCf | 2);
  EXPECT_EQ(m.c.cpl, 3);
  EXPECT_EQ(m.run([&] { sys_sysret(&m.c, 8); }), "#GP(0x0)");
  m.c.efer &= ~efer::kSce;
  EXPECT_EQ(m.run([&] { sys_syscall(&m.c); }), "#UD");
}

TEST(Syscall, SysretTo32BitAndNonCanonicalByVendor) {
  Machine m;
  m.long64(0);
  m.c.msrs.star = 0x0023001000000000;
  m.c.gpr[kRcx] = 0x100000102;
  EXPECT_EQ(m.run([&] { sys_sysret(&m.c, 4); }), "");
  EXPECT_EQ(m.c.seg[kCs].selector, 0x23);
  EXPECT_EQ(m.c.next_rip, 0x102u);
  EXPECT_FALSE(m.c.key & key::kCode64);
  for (const bool amd : {false, true}) {
    m.long64(0);
    m.vendor(amd);
    m.c.gpr[kRcx] = kNoncanonical;
    EXPECT_EQ(m.run([&] { sys_sysret(&m.c, 8); }), amd ? "" : "#GP(0x0)");
    EXPECT_EQ(m.c.cpl, amd ? 3 : 0);
  }
}

TEST(Syscall, CompatibilityModeByVendor) {
  Machine m;
  for (const bool amd : {false, true}) {
    m.long64(3);
    m.vendor(amd);
    m.c.seg[kCs] = {0, 0xffffffff, kUserCode32 | 3, 0xc0fb};
    m.c.msrs.cstar = 0xffff800000005000;
    EXPECT_EQ(m.run([&] { sys_syscall(&m.c); }), amd ? "" : "#UD");
    if (amd) {
      EXPECT_EQ(m.c.next_rip, 0xffff800000005000u);
    }
    m.long64(3);
    m.c.msrs.sysenter_cs = 0x10;
    m.c.msrs.sysenter_esp = 0xffff800000001000;
    m.c.msrs.sysenter_eip = 0xffff800000002000;
    EXPECT_EQ(m.run([&] { sys_sysenter(&m.c); }), amd ? "#UD" : "");
    if (!amd) {
      EXPECT_EQ(m.c.gpr[kRsp], 0xffff800000001000u);
      EXPECT_EQ(m.c.next_rip, 0xffff800000002000u);
      EXPECT_EQ(m.c.seg[kCs].attributes, 0xa09b);
    }
  }
}

TEST(Sysenter, ProtectedMode) {
  Machine m;
  m.protected32(3);
  EXPECT_EQ(m.run([&] { sys_sysenter(&m.c); }), "#GP(0x0)") << "SYSENTER_CS is null";
  m.c.msrs.sysenter_cs = 0x60;
  m.c.msrs.sysenter_esp = 0x8000;
  m.c.msrs.sysenter_eip = 0xc0001000;
  m.c.eflags_system = eflags::kIf;
  EXPECT_EQ(m.run([&] { sys_sysenter(&m.c); }), "");
  EXPECT_EQ(m.c.seg[kCs].selector, 0x60);
  EXPECT_EQ(m.c.seg[kSs].selector, 0x68);
  EXPECT_EQ(m.c.gpr[kRsp], 0x8000u);
  EXPECT_EQ(m.c.next_rip, 0xc0001000u);
  EXPECT_FALSE(m.c.eflags_system & eflags::kIf);
  m.c.gpr[kRdx] = 0x4444;
  m.c.gpr[kRcx] = 0x5555;
  EXPECT_EQ(m.run([&] { sys_sysexit(&m.c, 4); }), "");
  EXPECT_EQ(m.c.seg[kCs].selector, 0x73);
  EXPECT_EQ(m.c.seg[kSs].selector, 0x7b);
  EXPECT_EQ(m.c.next_rip, 0x4444u);
  EXPECT_EQ(m.c.gpr[kRsp], 0x5555u);
  EXPECT_EQ(m.c.cpl, 3);
  EXPECT_EQ(m.run([&] { sys_sysexit(&m.c, 4); }), "#GP(0x0)");
}

}  // namespace
}  // namespace lodge::engine::soft
