#include "engine/soft/cpu/debug.hpp"
#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

// A 32-bit TSS for a task at level 0.
void build_task(Machine& m) {
  const uint32_t b = kFreeTssBase;
  m.put<uint32_t>(b + 32, 0x7777);           // EIP
  m.put<uint32_t>(b + 36, eflags::kIf | 2);  // EFLAGS
  for (uint32_t i = 0; i < 8; ++i) m.put<uint32_t>(b + 40 + 4 * i, 0x100 * (i + 1));
  m.put<uint32_t>(b + 56, kIstStack);  // ESP
  const uint32_t segments[6] = {kUserData, kCode32, kData, kData, 0, 0};
  for (uint32_t i = 0; i < 6; ++i) m.put<uint32_t>(b + 72 + 4 * i, segments[i]);
  m.put<uint32_t>(b + 96, kLdt);
}

uint32_t type_of(Machine& m, uint32_t selector) { return m.get<uint8_t>(kGdt + selector + 5) & 15; }

TEST(TaskSwitch, JumpSavesAndLoadsEverything) {
  Machine m;
  m.protected32(0);
  build_task(m);
  m.c.gpr[kRbx] = 0xb0b0;
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 4); }), "");
  EXPECT_EQ(m.get<uint32_t>(kTssBase + 32), 0x102u);
  EXPECT_EQ(m.get<uint32_t>(kTssBase + 40 + 4 * kRbx), 0xb0b0u);
  EXPECT_EQ(m.get<uint32_t>(kTssBase + 56), kKernelStack);
  EXPECT_EQ(m.get<uint16_t>(kTssBase + 76), +kCode32);
  EXPECT_EQ(m.c.next_rip, 0x7777u);
  EXPECT_EQ(m.c.gpr[kRbx], 0x400u);
  EXPECT_EQ(m.c.gpr[kRsp], kIstStack);
  EXPECT_EQ(m.c.seg[kEs].selector, +kUserData);
  EXPECT_EQ(m.c.tr.selector, +kFreeTss);
  EXPECT_EQ(type_of(m, kTss), 9u);
  EXPECT_EQ(type_of(m, kFreeTss), 11u);
  EXPECT_TRUE(m.c.cr0 & cr0::kTs);
  EXPECT_TRUE(m.c.eflags_system & eflags::kIf);
  EXPECT_FALSE(m.c.eflags_system & eflags::kNt);
}

TEST(TaskSwitch, CallLinksAndIretReturns) {
  Machine m;
  m.protected32(0);
  build_task(m);
  EXPECT_EQ(m.run([&] { sys_far_call(&m.c, kTaskGate, 0, 4); }), "");
  EXPECT_EQ(m.get<uint16_t>(kFreeTssBase), +kTss);
  EXPECT_TRUE(m.c.eflags_system & eflags::kNt);
  EXPECT_EQ(type_of(m, kTss), 11u) << "still busy";
  m.c.rip = 0x7777;
  m.c.next_rip = 0x7778;
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 4); }), "");
  EXPECT_EQ(m.c.next_rip, 0x102u);
  EXPECT_EQ(m.c.tr.selector, +kTss);
  EXPECT_EQ(m.c.gpr[kRsp], kKernelStack);
  EXPECT_EQ(type_of(m, kFreeTss), 9u);
  EXPECT_FALSE(m.get<uint32_t>(kFreeTssBase + 36) & eflags::kNt);
}

TEST(TaskSwitch, EventThroughATaskGatePushesItsErrorCode) {
  Machine m;
  m.protected32(3);
  build_task(m);
  m.set_gate32(kDf, kFreeTss, 0, 0x85);
  PendingException e{};
  e.vector = kDf;
  e.has_error_code = true;
  EXPECT_EQ(m.run([&] { deliver_exception(m.c, e); }), "");
  EXPECT_EQ(m.c.rip, 0x7777u);
  EXPECT_EQ(m.c.next_rip, 0x7777u);
  EXPECT_EQ(m.c.cpl, 0);
  EXPECT_EQ(m.c.gpr[kRsp], kIstStack - 4);
  EXPECT_EQ(m.get<uint32_t>(kIstStack - 4), 0u);
  EXPECT_EQ(m.get<uint32_t>(kTssBase + 32), 0x100u);
}

TEST(TaskSwitch, Refusals) {
  Machine m;
  m.protected32(0);
  build_task(m);
  m.set_descriptor(kFreeTss, descriptor(kFreeTssBase, 0x66, 0x89, 0));
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 4); }), "#TS(0x88)");
  m.set_descriptor(kFreeTss, descriptor(kFreeTssBase, 0x67, 0x09, 0));
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 4); }), "#NP(0x88)");
  EXPECT_EQ(m.c.tr.selector, +kTss);
  m.set_descriptor(kFreeTss, descriptor(kFreeTssBase, 0x67, 0x89, 0));
  m.put<uint32_t>(kFreeTssBase + 76, kData);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 4); }), "#TS(0x10)") << "in the new task";
  EXPECT_EQ(m.c.tr.selector, +kFreeTss);
  EXPECT_EQ(m.c.rip, 0x7777u);
}

TEST(TaskSwitch, DebugTrapFlag) {
  Machine m;
  m.protected32(0);
  build_task(m);
  m.put<uint16_t>(kFreeTssBase + 100, 1);
  EXPECT_EQ(m.run([&] { sys_far_jump(&m.c, kFreeTss, 0, 4); }), "");
  EXPECT_TRUE(debug_trap_pending(m.c, false));
  EXPECT_EQ(m.c.exception.dr6, dr6::kBt);
}

}  // namespace
}  // namespace lodge::engine::soft
