// Lodge's own engine behind the boundary of engine/api: a same-ISA translator that needs neither VT-x nor SVM.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "engine/api/engine.hpp"
#include "engine/soft/state_record.hpp"

namespace lodge::engine::soft {

struct Options {
  // With a virtual clock, time is a function of the guest instructions executed: a run repeats exactly, same
  // interrupts at the same instructions. One vCPU only. Picoseconds a guest instruction.
  bool virtual_clock = false;
  uint32_t picoseconds_per_instruction = 1000;
  // Bytes for translated code; used as it fills, dropped as a whole when full. At least 256 KiB; rounded up to pages.
  uint64_t code_cache_size = uint64_t{128} << 20;
  // Translate whole blocks of 64-bit code; else one instruction at a time (the reference to compare with).
  bool second_tier = true;
  // The arithmetic flags in the frame of an exception or interrupt are exact even where the interrupted code overwrites them without
  // having read them. Costs time; always so under the virtual clock.
  bool exact_flags = false;
  // With a virtual clock: a file to which a StateRecord goes every so many instructions, from one on. Empty: none.
  std::string state_trace;
  std::string jitdump;  // a folder for jit-PID.dump, by which perf knows translated code; empty: none
  std::string profile;  // a file for a report of where the guest's time went, written when the VM ends; empty: none
  uint64_t state_trace_every = 1'000'000, state_trace_from = 0;
};

// Fails with ErrorKind::Unsupported and a message that says what is missing when this host cannot run it
// (no FSGSBASE in user mode, no executable memfd).
[[nodiscard]] Result<std::unique_ptr<System>> create_system(const Options& options = {});

}  // namespace lodge::engine::soft
