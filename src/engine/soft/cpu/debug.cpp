#include "engine/soft/cpu/debug.hpp"

#include "engine/soft/cpu/system.hpp"

namespace lodge::engine::soft {
namespace {

// R/W field of DR7.
enum Kind : uint32_t { kExecute = 0, kDataWrite = 1, kPort = 2, kDataAccess = 3 };

struct Breakpoint {
  bool enabled;
  uint32_t kind;
  uint64_t first, last;
};

Breakpoint breakpoint(const CpuState& c, uint32_t index) {
  const uint32_t field = (c.dr[7] >> (16 + 4 * index)) & 15;
  constexpr uint8_t kLength[4] = {1, 2, 8, 4};
  const uint64_t length = kLength[field >> 2];
  const uint64_t first = c.dr[index] & ~(length - 1);
  return {((c.dr[7] >> (2 * index)) & 3) != 0, field & 3, first, first + length - 1};
}

template <typename Kinds>
uint32_t matches(const CpuState& c, uint64_t address, uint32_t size, Kinds wanted) {
  uint32_t hits = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const Breakpoint b = breakpoint(c, i);
    if (b.enabled && wanted(b.kind) && address <= b.last && address + size - 1 >= b.first) hits |= 1u << i;
  }
  return hits;
}

}  // namespace

bool debug_instruction_breakpoint(CpuState& c) {
  if (!debug_armed(c) || (c.eflags_system & eflags::kRf)) return false;
  const uint64_t linear = code_linear(c);
  const uint32_t hits = matches(c, linear, 1, [](uint32_t kind) { return kind == kExecute; });
  if (!hits) return false;
  c.exception = {};
  c.exception.vector = kDb;
  c.exception.dr6 = hits;
  return true;
}

void debug_note_access(CpuState& c, uint64_t linear, uint32_t size, bool is_write) {
  if (!debug_armed(c)) return;
  c.debug_hits |= matches(c, linear, size, [&](uint32_t kind) { return kind == kDataAccess || (is_write && kind == kDataWrite); });
}

void debug_note_port(CpuState& c, uint32_t port, uint32_t size) {
  if (!debug_armed(c) || !(c.cr4 & cr4::kDe)) return;
  c.debug_hits |= matches(c, port, size, [](uint32_t kind) { return kind == kPort; });
}

// A completed instruction clears RF, unless it is the IRET that loaded it (SDM vol. 3, 18.3.1.1).
bool debug_trap_pending(CpuState& c, bool tf_was_set) {
  if (!c.rf_loaded) c.eflags_system &= ~eflags::kRf;
  const uint64_t bits = c.debug_hits | (tf_was_set && !c.step_cancelled ? dr6::kBs : 0);
  c.rf_loaded = c.step_cancelled = false;
  c.debug_hits = 0;
  if (!bits) return false;
  c.exception = {};
  c.exception.vector = kDb;
  c.exception.dr6 = bits;
  return true;
}

}  // namespace lodge::engine::soft
