// Accesses that leave run() in the middle of an instruction.
//
// An instruction that reads a port or MMIO exits with its first read unanswered. Nothing of it lives in a frame: the
// replay log remembers, in order, the accesses already answered. When run() is entered again the answer is taken from kvm_run,
// the instruction starts again from its beginning, and its accesses are answered from the log as far as it goes. Writes
// are performed once: an instruction that reached its last write has committed its registers, and what is left of
// the write is in the log as fragments that go out one exit at a time.
#pragma once

#include "engine/soft/cpu/state.hpp"

namespace lodge::engine::soft {

struct ReplayEntry {
  uint64_t address;  // guest-physical, or the port
  uint64_t value;
  uint32_t size;
  bool port, write, done;
  uint32_t elements;  // of a string read from a port, whose values are in Replay::string; otherwise 1
};

struct Replay {
  // One instruction touches at most: a 64-byte vector on both sides of an unaligned boundary, or FXSAVE/XSAVE to MMIO (832 bytes).
  static constexpr uint32_t kMax = 256;
  static constexpr uint32_t kStringBytes = 1024;  // as many as the kernel's KVM reads at once
  uint32_t count;                                 // entries in use
  uint32_t next;                                  // the entry that the running instruction's next access matches
  bool pending;                                   // the last entry waits for the caller's answer in kvm_run
  bool draining;                                  // the instruction is done but for the write fragments from `next` on
  uint64_t rip;                                   // the instruction that the entries belong to
  ReplayEntry entry[kMax];
  uint8_t string[kStringBytes];
};

// Takes the caller's answer out of kvm_run when run() is entered again after an exit. True: nothing more goes out before the
// instruction may start again; false: another fragment is on its way (kvm_run is filled in).
bool replay_resume(CpuState& c);
// The running instruction is done (or starts another REP iteration): forgets its accesses.
void replay_commit(CpuState& c);
// Writes of an instruction that has committed everything else: those that no chip takes go out one exit at a time, and the
// instruction ends when the last is done. Add each piece, then call replay_drain(), which unwinds if any is left.
void replay_add_write(CpuState& c, uint64_t gpa, uint32_t size, uint64_t value);
void replay_drain(CpuState& c);

// An MMIO access of at most 8 bytes or a port access of at most 4: the log first, then the chips, then an exit.
uint64_t replay_mmio_read(CpuState& c, uint64_t gpa, uint32_t size);
void replay_mmio_write(CpuState& c, uint64_t gpa, uint32_t size, uint64_t value);
uint32_t replay_port_read(CpuState& c, uint16_t port, uint32_t size);
void replay_port_write(CpuState& c, uint16_t port, uint32_t size, uint32_t value);
// For REP INS: reads up to so many elements, which fit into Replay::string, with one exit. How many are there now.
uint32_t replay_port_read_string(CpuState& c, uint16_t port, uint32_t size, uint32_t elements);

}  // namespace lodge::engine::soft
