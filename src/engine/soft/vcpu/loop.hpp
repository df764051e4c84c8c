// The inner loop of a vCPU: find a translation, run it, look at requests, deliver events.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

enum class LoopExit : uint32_t {
  Exit,         // kvm_run is filled in
  Interrupted,  // kRequestKick was set (and is now clear); nothing of an instruction is pending
  Halted,       // HLT with nothing deliverable; c.halted is set
  Event,        // kEventLeave
  Shutdown,     // triple fault
};

// Loads the guest's vector state from c.vector..., runs guest code until one of the above, and saves the vector state again.
// `vector` is an XSAVE area in the standard format, 64-byte aligned, of at least 832 bytes (x87, SSE, AVX).
// An instruction that exited in its middle is completed first. Called by the vCPU's thread only.
LoopExit run_guest(CpuState& c, void* vector);

}  // namespace lodge::engine::soft
