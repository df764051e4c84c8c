#include <fmt/format.h>

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

struct Level {
  enum Mode { Real, Protected, V86 } mode;
  uint32_t cpl, iopl;
  bool vme;
};

void enter(Machine& m, const Level& level) {
  if (level.mode == Level::Real) m.real();
  if (level.mode == Level::Protected) m.protected32(level.cpl);
  if (level.mode == Level::V86) m.v86(level.iopl);
  m.c.eflags_system = (m.c.eflags_system & ~eflags::kIopl) | level.iopl << 12;
  if (level.vme) m.c.cr4 |= cr4::kVme | cr4::kPvi;
}

TEST(Flags, CliAndSti) {
  enum Effect { If, Vif, Fault };
  struct Case {
    Level level;
    Effect effect;
  };
  const Case cases[] = {
      {{Level::Real, 0, 0, false}, If},         {{Level::Protected, 0, 0, false}, If}, {{Level::Protected, 3, 3, false}, If},
      {{Level::Protected, 3, 2, false}, Fault}, {{Level::Protected, 3, 0, true}, Vif}, {{Level::V86, 3, 3, false}, If},
      {{Level::V86, 3, 3, true}, If},           {{Level::V86, 3, 2, false}, Fault},    {{Level::V86, 3, 0, true}, Vif},
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("mode {} cpl {} iopl {} vme {}", static_cast<int>(t.level.mode), t.level.cpl, t.level.iopl, t.level.vme));
    Machine m;
    enter(m, t.level);
    EXPECT_EQ(m.run([&] { sys_sti(&m.c); }), t.effect == Fault ? "#GP(0x0)" : "");
    EXPECT_EQ((m.c.eflags_system & eflags::kIf) != 0, t.effect == If);
    EXPECT_EQ((m.c.eflags_system & eflags::kVif) != 0, t.effect == Vif);
    EXPECT_EQ(m.c.shadow, t.effect == If ? kShadowSti : kShadowNone);
    m.c.eflags_system |= eflags::kIf | eflags::kVif;
    EXPECT_EQ(m.run([&] { sys_cli(&m.c); }), t.effect == Fault ? "#GP(0x0)" : "");
    EXPECT_EQ((m.c.eflags_system & eflags::kIf) != 0, t.effect != If);
    EXPECT_EQ((m.c.eflags_system & eflags::kVif) != 0, t.effect != Vif);
  }
}

TEST(Flags, StiHasNoShadowWhenInterruptsWereOnAndFaultsOnVip) {
  Machine m;
  m.protected32(0);
  m.c.eflags_system |= eflags::kIf;
  sys_sti(&m.c);
  EXPECT_EQ(m.c.shadow, kShadowNone);
  m.v86(0);
  m.c.cr4 |= cr4::kVme;
  m.c.eflags_system |= eflags::kVip;
  EXPECT_EQ(m.run([&] { sys_sti(&m.c); }), "#GP(0x0)");
}

TEST(Flags, PopfMatrix) {
  struct Case {
    Level level;
    uint32_t size;
    const char* outcome;
    uint32_t changed;  // of the system flags, when all bits that can be are popped as 1 over IF=0
  };
  using namespace eflags;
  constexpr uint32_t kLow = eflags::kTf | eflags::kDf | eflags::kNt;
  const Case cases[] = {
      {{Level::Real, 0, 0, false}, 2, "", kLow | kIf | kIopl},
      {{Level::Real, 0, 0, false}, 4, "", kLow | kIf | kIopl | eflags::kAc | kId},
      {{Level::Protected, 0, 0, false}, 4, "", kLow | kIf | kIopl | eflags::kAc | kId},
      {{Level::Protected, 0, 0, false}, 2, "", kLow | kIf | kIopl},
      {{Level::Protected, 3, 0, false}, 4, "", kLow | eflags::kAc | kId},
      {{Level::Protected, 3, 3, false}, 4, "", kLow | kIf | eflags::kAc | kId},
      {{Level::V86, 3, 3, false}, 4, "", kLow | kIf | eflags::kAc | kId},
      {{Level::V86, 3, 3, false}, 2, "", kLow | kIf},
      {{Level::V86, 3, 0, false}, 2, "#GP(0x0)", 0},
      {{Level::V86, 3, 0, true}, 4, "#GP(0x0)", 0},
      {{Level::V86, 3, 0, true}, 2, "#GP(0x0)", 0},  // TF
  };
  for (const Case& t : cases) {
    SCOPED_TRACE(fmt::format("mode {} cpl {} iopl {} size {}", static_cast<int>(t.level.mode), t.level.cpl, t.level.iopl, t.size));
    Machine m;
    enter(m, t.level);
    const uint32_t before = m.c.eflags_system;
    EXPECT_EQ(m.run([&] { sys_popf(&m.c, ~0ull, t.size); }), t.outcome);
    EXPECT_EQ((before ^ m.c.eflags_system) & ~before, t.changed & ~before);
    EXPECT_EQ(m.c.eflags_system & before, before) << "nothing lost";
    if (!*t.outcome) {
      EXPECT_EQ(get_eflags(m.c) & kArithmetic, +kArithmetic);
    }
  }
}

TEST(Flags, PopfWithVmeMovesIfToVif) {
  Machine m;
  enter(m, {Level::V86, 3, 0, true});
  EXPECT_EQ(m.run([&] { sys_popf(&m.c, eflags::kIf | eflags::kCf, 2); }), "");
  EXPECT_TRUE(m.c.eflags_system & eflags::kVif);
  EXPECT_FALSE(m.c.eflags_system & eflags::kIf);
  EXPECT_EQ(sys_pushf_value(&m.c, 2), eflags::kIf | eflags::kIopl | eflags::kCf | 2u);
  m.c.eflags_system |= eflags::kVip;
  EXPECT_EQ(m.run([&] { sys_popf(&m.c, eflags::kIf, 2); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_popf(&m.c, 0, 2); }), "");
  EXPECT_FALSE(m.c.eflags_system & eflags::kVif);
}

TEST(Flags, PopfAtLevel0ClearsVifVipAndRf) {
  Machine m;
  m.protected32(0);
  m.c.eflags_system = eflags::kVif | eflags::kVip | eflags::kRf;
  sys_popf(&m.c, ~0ull & ~static_cast<uint64_t>(eflags::kTf), 4);
  EXPECT_EQ(m.c.eflags_system & (eflags::kVif | eflags::kVip | eflags::kRf | eflags::kVm), 0u);
}

TEST(Flags, PushfHidesVmAndRf) {
  Machine m;
  m.protected32(3);
  m.c.eflags_system = eflags::kRf | eflags::kId | eflags::kIf;
  m.c.flags_of = 1;
  m.c.flags_low = eflags::kCf | 2;
  EXPECT_EQ(sys_pushf_value(&m.c, 4), eflags::kId | eflags::kIf | eflags::kOf | eflags::kCf | 2u);
  EXPECT_EQ(sys_pushf_value(&m.c, 2), eflags::kIf | eflags::kOf | eflags::kCf | 2u);
  m.v86(2);
  EXPECT_EQ(m.run([&] { sys_pushf_value(&m.c, 2); }), "#GP(0x0)");
  m.v86(3);
  EXPECT_EQ(sys_pushf_value(&m.c, 4) & eflags::kVm, 0u);
}

TEST(Flags, HltMwaitAndVmcall) {
  Machine m;
  m.long64(0);
  EXPECT_EQ(m.run([&] { sys_hlt(&m.c); }), "");
  EXPECT_TRUE(m.c.halted);
  EXPECT_EQ(m.run([&] { sys_mwait(&m.c); }), "#UD");
  m.c.gpr[kRax] = 5, m.c.gpr[kRbx] = 6, m.c.gpr[kRsi] = 7;
  EXPECT_EQ(m.run([&] { sys_vmcall(&m.c); }), "");
  EXPECT_EQ(m.c.gpr[kRax], 5067u);
  m.long64(3);
  EXPECT_EQ(m.run([&] { sys_hlt(&m.c); }), "#GP(0x0)");
  EXPECT_EQ(m.run([&] { sys_vmcall(&m.c); }), "");
  EXPECT_EQ(m.c.gpr[kRax], ~0ull) << "-EPERM";
}

TEST(IoPermission, BitmapAndIopl) {
  Machine m;
  m.protected32(3);
  m.put<uint8_t>(kTssBase + 104 + 0x3f8 / 8, 0b0000'1110);
  const auto io = [&](uint32_t port, uint32_t size) { return m.run([&] { sys_check_io(&m.c, port, size); }); };
  EXPECT_EQ(io(0x3f8, 1), "");
  EXPECT_EQ(io(0x3f9, 1), "#GP(0x0)");
  EXPECT_EQ(io(0x3f8, 2), "#GP(0x0)");
  EXPECT_EQ(io(0x3fc, 4), "");
  m.put<uint8_t>(kTssBase + 104 + 0x400 / 8, 1);
  EXPECT_EQ(io(0x3ff, 1), "");
  EXPECT_EQ(io(0x3ff, 2), "#GP(0x0)") << "across a byte of the map";
  m.c.tr.limit = 104 + 0x3f8 / 8;  // the byte after the last must be inside
  EXPECT_EQ(io(0x3f8, 1), "#GP(0x0)");
  EXPECT_EQ(io(0x3f0, 1), "");
  m.c.eflags_system |= eflags::kIopl;
  EXPECT_EQ(io(0x3f9, 4), "");
  m.v86(3);
  EXPECT_EQ(io(0x3f9, 1), "#GP(0x0)") << "IOPL does not count in virtual-8086 mode";
  m.protected32(3);
  m.c.tr.attributes = 0x83;
  EXPECT_EQ(io(0x80, 1), "#GP(0x0)") << "a 16-bit TSS has no map";
  m.real();
  EXPECT_EQ(io(0x3f9, 4), "");
}

}  // namespace
}  // namespace lodge::engine::soft
