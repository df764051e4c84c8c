// What one vCPU counts of its own doing, for `lodge run --profile`: plain additions on paths that leave translated code anyway, so that
// they need no switch.
#pragma once

#include <cstdint>

namespace lodge::engine::soft {

enum class Counter : uint32_t {
  Tier2Runs,      // entries into the second tier's code from the loop
  Tier1Runs,      // of the first tier's
  SlowRuns,       // in the slow form: an access that is not a plain one, or single steps
  EdgeExits,      // an edge between blocks that was not linked yet
  JumpMisses,     // indirect jumps and far edges that the jump table did not answer
  Requests,       // looks at requests of other threads
  BlockLookups,   // by physical address: the jump caches did not know
  Exceptions,     // delivered
  Interrupts,     // delivered, NMIs too
  DataMisses,     // look-ups of the second tier that its inline code did not answer
  DataWalks,      // of the page tables for data
  FetchWalks,     // for code
  TlbFlushes,     // of one address space
  PageFlushes,    // of one page
  CodeMoves,      // flushes that did not find all code again where it was
  Ungrouped,      // blocks entered with a look-up for each access
  CodeWrites,     // stores to pages that hold translated code
  Translations1,  // blocks made by the first tier
  Translations2,  // by the second
  Discarded,      // translations that a write ended
  Resets,         // of the code cache, for want of room
  Halts,          // HLT
  Exits,          // to the machine: devices
  Count
};
constexpr uint32_t kCounters = static_cast<uint32_t>(Counter::Count);

// What the vCPU's thread is at, for samples.
enum class Phase : uint8_t { Guest, Translate };

}  // namespace lodge::engine::soft
