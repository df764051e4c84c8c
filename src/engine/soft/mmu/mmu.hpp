// Linear memory: page walks, TLBs, and accesses by helpers.
//
// Data accesses of instructions go through read()/write() with the current privilege; the processor's own
// accesses to descriptor tables and TSSes through the *_system forms (supervisor, SMAP enforced; SDM vol. 3, 4.6).
// All of them handle page crossing, MMIO (by the replay log, vcpu/replay.hpp: they may unwind with Unwind::Exit and are
// called again with the same order of accesses when the instruction is run again) and code pages, and raise #PF.
// They do not check segments or canonical addresses: cpu/access.hpp does.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// Page-fault error code bits (SDM vol. 3, 4.7).
namespace pf {
constexpr uint32_t kPresent = 1, kWrite = 2, kUser = 4, kReserved = 8, kFetch = 16;
}

enum class AccessKind : uint8_t { Read, Write, ReadModifyWrite };

// size: 1 to 4096 bytes.
void mmu_read(CpuState& c, uint64_t linear, void* into, uint32_t size);
void mmu_write(CpuState& c, uint64_t linear, const void* from, uint32_t size);
void mmu_read_system(CpuState& c, uint64_t linear, void* into, uint32_t size);
void mmu_write_system(CpuState& c, uint64_t linear, const void* from, uint32_t size);
// Raises what a write to [linear, linear+size) would raise, without writing: for instructions that must know before
// they change anything (ENTER, interrupt frames, far calls).
void mmu_probe_write(CpuState& c, uint64_t linear, uint32_t size, bool system);
// Sets the bits in the byte/dword at `linear` with one atomic OR by the processor itself (accessed and busy bits).
void mmu_or_system(CpuState& c, uint64_t linear, uint8_t bits);

template <typename T>
T mmu_read(CpuState& c, uint64_t linear) {
  T value;
  mmu_read(c, linear, &value, sizeof value);
  return value;
}
template <typename T>
void mmu_write(CpuState& c, uint64_t linear, T value) {
  mmu_write(c, linear, &value, sizeof value);
}
template <typename T>
T mmu_read_system(CpuState& c, uint64_t linear) {
  T value;
  mmu_read_system(c, linear, &value, sizeof value);
  return value;
}
template <typename T>
void mmu_write_system(CpuState& c, uint64_t linear, T value) {
  mmu_write_system(c, linear, &value, sizeof value);
}

// After a change of CR0, CR3, CR4, EFER or of a page table. Entries do not know whether they are global; flushing more than asked is
// allowed (SDM vol. 3, 4.10.4.1).
void mmu_flush_all(CpuState& c);            // of all address spaces, and finds the one that CR3 and CR4 name
void mmu_flush_data(CpuState& c);           // of all address spaces, but for code: a right of the engine's own was taken from a page
void mmu_load_cr3(CpuState& c, bool keep);  // CR3 was loaded; keep: nothing of the address space has to be flushed
void mmu_flush_page(CpuState& c, uint64_t linear);                      // INVLPG: in all address spaces, for the page may be global
void mmu_flush_pcid(CpuState& c, uint32_t pcid);                        // INVPCID, single context
void mmu_flush_page_pcid(CpuState& c, uint32_t pcid, uint64_t linear);  // INVPCID, individual address
// A host page became code: what writes to it directly must not.
void mmu_protect(CpuState& c, const uint8_t* host_page);
// PAE: loads the four PDPTEs from CR3; false if a reserved bit is set in a present one (#GP for MOV CR).
bool mmu_load_pdptes(CpuState& c, uint64_t cr3);

// Width of guest-physical addresses (CPUID 8000_0008 EAX[7:0]).
constexpr unsigned kPhysicalBits = 46;

}  // namespace lodge::engine::soft
