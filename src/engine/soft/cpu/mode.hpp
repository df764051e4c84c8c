// State that decides how code is translated and with which rights data is accessed.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// Bits of CpuState::key.
namespace key {
constexpr uint32_t kCode64 = 1 << 0;     // CS.L in long mode
constexpr uint32_t kCode32 = 1 << 1;     // CS.D (neither: 16-bit)
constexpr uint32_t kStack32 = 1 << 2;    // SS.B; ignored in 64-bit code
constexpr uint32_t kProtected = 1 << 3;  // CR0.PE and not virtual-8086
constexpr uint32_t kV86 = 1 << 4;
constexpr uint32_t kUser = 1 << 5;             // CPL 3
constexpr uint32_t kX87Nm = 1 << 6;            // x87 and MMX raise #NM (CR0.TS or CR0.EM; EM makes MMX #UD)
constexpr uint32_t kX87Em = 1 << 7;            // CR0.EM
constexpr uint32_t kWaitNm = 1 << 8;           // WAIT raises #NM (MP and TS)
constexpr uint32_t kTs = 1 << 9;               // SSE and AVX raise #NM
constexpr uint32_t kSseUd = 1 << 10;           // CR0.EM, or CR4.OSFXSR clear
constexpr uint32_t kAvxUd = 1 << 11;           // CR4.OSXSAVE clear or XCR0 without SSE+AVX
constexpr uint32_t kSegmented = 1 << 12;       // some of DS, ES, SS is not flat (base 0, limit 4G, writable data) outside 64-bit code
constexpr uint32_t kAlignmentCheck = 1 << 13;  // CR0.AM, EFLAGS.AC and CPL 3
constexpr uint32_t kSingleStep = 1 << 14;      // TF, or a debug register armed: one instruction a block, the loop checks after it
constexpr uint32_t kMxcsrUd = 1 << 15;         // CR4.OSXMMEXCPT clear: an unmasked SIMD exception is #UD
constexpr uint32_t kLongMode = 1 << 16;        // EFER.LMA (compatibility mode differs from legacy in system instructions)
constexpr uint32_t kNeClear = 1 << 17;         // CR0.NE clear: x87 errors go through FERR
constexpr uint32_t kCodeSegmented = 1 << 18;   // CS is not flat (base 0, limit 4G) outside 64-bit code
}  // namespace key

// TLB arrays (CpuState::view): the rights that data accesses have.
enum View : uint32_t { kViewUser = 0, kViewSupervisorSmap = 1, kViewSupervisor = 2, kViewCount = 3 };

// Recomputes key and view. To be called after any change of CPL, CS, SS, DS, ES, EFLAGS.VM/AC/TF, CR0, CR4, EFER, XCR0, DR7.
void mode_changed(CpuState& c);

// The jump table's tags that count from now on: after a change of the key or the address space.
void jump_context_changed(CpuState& c);
// What linear addresses mean has changed: in an address space, or (row kAddressSpaces) of the supervisor's global code.
// jump_context_changed() follows.
void jump_contexts_drop(CpuState& c, uint32_t row);
// Empties the jump table: code that it leads to is gone.
void jump_table_clear(CpuState& c);

}  // namespace lodge::engine::soft
