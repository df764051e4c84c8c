#include "engine/soft/cpu/debug.hpp"

#include "engine/soft/cpu/fake_machine.hpp"

namespace lodge::engine::soft {
namespace {

using namespace fake;

// DR7 with breakpoint `index` enabled, R/W and LEN as encoded.
uint64_t armed(uint32_t index, uint32_t rw, uint32_t len) {
  return dr7::kFixed | 2ull << (2 * index) | static_cast<uint64_t>(rw | len << 2) << (16 + 4 * index);
}

TEST(Debug, DataBreakpointsMatchByOverlapAndKind) {
  Machine m;
  m.long64(0);
  m.c.dr[1] = 0x5003;
  m.c.dr[7] = armed(1, 1, 3);  // writes to 0x5000-0x5003
  struct Case {
    uint64_t linear;
    uint32_t size;
    bool write, hit;
  };
  for (const Case& t : {Case{0x5000, 1, true, true},
                        {0x5003, 8, true, true},
                        {0x4ff9, 8, true, true},
                        {0x4ff8, 8, true, false},
                        {0x5004, 4, true, false},
                        {0x5000, 4, false, false}}) {
    m.c.debug_hits = 0;
    debug_note_access(m.c, t.linear, t.size, t.write);
    EXPECT_EQ(m.c.debug_hits, t.hit ? 2u : 0u) << std::hex << t.linear;
  }
  m.c.dr[7] = armed(1, 3, 2);  // eight bytes, reads too
  m.c.debug_hits = 0;
  debug_note_access(m.c, 0x5007, 1, false);
  EXPECT_EQ(m.c.debug_hits, 2u);
}

TEST(Debug, TrapAfterTheInstructionCollectsHitsAndSingleStep) {
  Machine m;
  m.long64(0);
  EXPECT_FALSE(debug_trap_pending(m.c, false));
  m.c.debug_hits = 5;
  EXPECT_TRUE(debug_trap_pending(m.c, true));
  EXPECT_EQ(m.c.exception.vector, kDb);
  EXPECT_FALSE(m.c.exception.has_error_code);
  EXPECT_EQ(m.c.exception.dr6, dr6::kBs | 5);
  EXPECT_FALSE(debug_trap_pending(m.c, false)) << "taken once";
}

TEST(Debug, InstructionBreakpointsHonourRfAndTheCodeSegment) {
  Machine m;
  m.long64(0);
  m.c.dr[0] = 0x100;
  m.c.dr[7] = armed(0, 0, 0);
  EXPECT_TRUE(debug_instruction_breakpoint(m.c));
  EXPECT_EQ(m.c.exception.dr6, 1u);
  m.c.eflags_system |= eflags::kRf;
  EXPECT_FALSE(debug_instruction_breakpoint(m.c));
  m.real();
  m.c.dr[0] = 0x10100;
  m.c.dr[7] = armed(0, 0, 0);
  EXPECT_TRUE(debug_instruction_breakpoint(m.c));
  m.c.rip = 0x101;
  EXPECT_FALSE(debug_instruction_breakpoint(m.c));
}

TEST(Debug, ACompletedInstructionClearsRfUnlessItIsTheIretThatLoadedIt) {
  Machine m;
  m.long64(0);
  m.c.dr[7] = armed(0, 0, 0);
  mode_changed(m.c);
  m.c.gpr[kRsp] -= 0x40;
  const uint64_t frame[5] = {0x1234, kCode64, eflags::kRf, kKernelStack, kData};
  for (uint32_t i = 0; i < 5; ++i) m.put<uint64_t>(m.c.gpr[kRsp] + 8 * i, frame[i]);
  EXPECT_EQ(m.run([&] { sys_iret(&m.c, 8); }), "");
  EXPECT_FALSE(debug_trap_pending(m.c, false));
  EXPECT_TRUE(m.c.eflags_system & eflags::kRf);
  EXPECT_FALSE(debug_trap_pending(m.c, false));
  EXPECT_FALSE(m.c.eflags_system & eflags::kRf);
}

TEST(Debug, EnteringAHandlerByInstructionIsNotStepped) {
  Machine m;
  m.long64(3);
  m.c.eflags_system = eflags::kTf;
  mode_changed(m.c);
  m.set_gate64(0x80, kCode64, 0x1000, 0xee);
  EXPECT_EQ(m.run([&] { sys_software_interrupt(&m.c, 0x80, kIntN); }), "");
  EXPECT_FALSE(debug_trap_pending(m.c, true));
  EXPECT_TRUE(debug_trap_pending(m.c, true)) << "only that one";
  m.long64(3);
  m.c.eflags_system = eflags::kTf;
  mode_changed(m.c);
  EXPECT_EQ(m.run([&] { sys_syscall(&m.c); }), "");
  EXPECT_TRUE(debug_trap_pending(m.c, true)) << "TF not masked by FMASK";
  m.long64(3);
  m.c.eflags_system = eflags::kTf;
  m.c.msrs.sfmask = eflags::kTf;
  mode_changed(m.c);
  EXPECT_EQ(m.run([&] { sys_syscall(&m.c); }), "");
  EXPECT_FALSE(debug_trap_pending(m.c, true));
}

TEST(Debug, PortBreakpointsNeedDe) {
  Machine m;
  m.long64(0);
  m.c.dr[2] = 0x3f8;
  m.c.dr[7] = armed(2, 2, 0);
  debug_note_port(m.c, 0x3f8, 1);
  EXPECT_EQ(m.c.debug_hits, 0u);
  m.c.cr4 |= cr4::kDe;
  debug_note_port(m.c, 0x3f9, 1);
  EXPECT_EQ(m.c.debug_hits, 0u);
  debug_note_port(m.c, 0x3f7, 2);
  EXPECT_EQ(m.c.debug_hits, 4u);
  debug_note_access(m.c, 0x3f8, 1, true);
  EXPECT_EQ(m.c.debug_hits, 4u);
}

}  // namespace
}  // namespace lodge::engine::soft
