// Segmented memory accesses of helpers: base, limit, type, canonical check, then mmu/.
#pragma once

#include "engine/soft/cpu/state.hpp"
#include "engine/soft/mmu/mmu.hpp"

namespace lodge::engine::soft {

inline bool canonical(uint64_t linear) { return static_cast<uint64_t>(static_cast<int64_t>(linear << 16) >> 16) == linear; }

// The linear address of [offset, offset+size) in the segment, after all checks: raises #SS(0) for the stack segment, else #GP(0).
// Outside 64-bit code: presence, type (a write needs a writable data segment, a read a readable one), limit incl. expand-down.
// In 64-bit code: FS and GS bases only, canonical check of first and last byte. 16- and 32-bit offsets arrive truncated.
uint64_t segment_linear(CpuState& c, uint32_t segment, uint64_t offset, uint32_t size, bool write);

// Stack accesses at SS:(E/R)SP in the current stack width: push decrements, pop increments after the access succeeded.
void push(CpuState& c, uint64_t value, uint32_t size);
uint64_t pop(CpuState& c, uint32_t size);
// Width of the stack pointer: 2, 4 or 8 bytes.
uint32_t stack_width(const CpuState& c);
void set_rsp(CpuState& c, uint64_t value);  // writes the low stack_width() bytes, zero-extended when 4
// #AC for accesses at CPL 3 of 2, 4 or 8 bytes, under EFLAGS.AC (SDM vol. 3, 6.15).
void check_alignment(CpuState& c, uint64_t linear, uint32_t size);

}  // namespace lodge::engine::soft
