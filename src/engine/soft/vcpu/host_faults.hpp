// Faults of copied instructions: the host's signal becomes the guest's exception.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

// The vCPU whose guest code runs on this thread, for the signal handler; set by run_guest().
extern constinit thread_local CpuState* running_guest;

// SIGFPE (#DE, #MF, #XM), SIGILL (#UD) and SIGSEGV/SIGBUS (#GP of a misaligned or reserved operand) at a host PC inside the
// vCPU's code cache unwind to its loop with the guest's exception; anywhere else they go to whoever had the signal before. Once a
// process; any thread.
void install_host_fault_handlers();

}  // namespace lodge::engine::soft
