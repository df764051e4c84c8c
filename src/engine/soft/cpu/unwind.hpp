// Leaving a helper in the middle.
//
// The freestanding core has neither exceptions nor error returns through every page walk: what raises a guest
// exception, needs an exit or wants the slow variant calls unwind_to_loop(), which drops all frames up to the
// innermost guarded() call. Frames in between must own nothing (no lock, no destructor with effects); translated
// code owns nothing by construction. No instruction has changed guest state before it may unwind, except what the
// architecture itself lets stand (completed REP iterations, pushed stack bytes below a faulting frame).
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

extern "C" {
// Calls function(c, argument); Unwind::None when it returned, else the reason given to unwind_to_loop(). May nest.
Unwind soft_guarded(CpuState* c, void (*function)(CpuState*, uint64_t), uint64_t argument);
[[noreturn]] void soft_unwind(CpuState* c, Unwind reason);
}

[[noreturn]] inline void unwind_to_loop(CpuState& c, Unwind reason) { soft_unwind(&c, reason); }

// A fault of the running instruction (rip stays at it).
[[noreturn]] inline void raise(CpuState& c, Vector vector) {
  c.exception = {};
  c.exception.vector = vector;
  unwind_to_loop(c, Unwind::Exception);
}
[[noreturn]] inline void raise(CpuState& c, Vector vector, uint32_t error_code) {
  c.exception = {};
  c.exception.vector = vector;
  c.exception.has_error_code = true;
  c.exception.error_code = error_code;
  unwind_to_loop(c, Unwind::Exception);
}
[[noreturn]] inline void raise_page_fault(CpuState& c, uint64_t linear, uint32_t error_code) {
  c.exception = {};
  c.exception.vector = kPf;
  c.exception.has_error_code = true;
  c.exception.error_code = error_code;
  c.exception.cr2 = linear;
  unwind_to_loop(c, Unwind::Exception);
}

}  // namespace lodge::engine::soft
