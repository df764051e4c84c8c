// Debug registers: breakpoints and single step (SDM vol. 3, chapter 18).
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

namespace dr6 {
constexpr uint64_t kBreakpoints = 15, kBd = 1 << 13, kBs = 1 << 14, kBt = 1 << 15, kFixed = 0xffff0ff0, kWritable = 0xe00f;
}
namespace dr7 {
constexpr uint64_t kEnables = 0xff, kGd = 1 << 13, kFixed = 0x400, kWritable = 0xffff23ff;
}

// Any breakpoint enabled.
inline bool debug_armed(const CpuState& c) { return c.dr[7] & dr7::kEnables; }

// Before the instruction at c.rip: true if an instruction breakpoint matches and RF is clear; fills in c.exception (a fault).
bool debug_instruction_breakpoint(CpuState& c);
// A data access of the running instruction: notes matching breakpoints in c.debug_hits. Called by the MMU when key::kSingleStep is set.
void debug_note_access(CpuState& c, uint64_t linear, uint32_t size, bool is_write);
// A port access (CR4.DE).
void debug_note_port(CpuState& c, uint32_t port, uint32_t size);

// The trap that comes next has RF set in its frame, for the instruction goes on at the same place (SDM vol. 3, 18.3.1.1).
inline void debug_trap_with_rf(CpuState& c) {
  c.eflags_system |= eflags::kRf;
  c.rf_loaded = true;
}

}  // namespace lodge::engine::soft
