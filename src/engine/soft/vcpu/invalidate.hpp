// The code cache as the engine around the core sees it: made from host pages of guest memory, and told when their bytes change.
// Implemented in translate/.
#pragma once

#include <cstdint>
#include <mutex>

namespace lodge::engine::soft {

struct CodeCache;

struct CpuState;
struct Quiesce;

class JitDump;

struct CodeCacheOptions {
  uint64_t size = 0;  // bytes for code: a multiple of the page size
  bool second_tier = true;
  bool exact_flags = false;
  JitDump* jitdump = nullptr;  // told of each translation
};
// One a VM. Null when the host refuses the memory.
CodeCache* code_cache_create(const CodeCacheOptions& options);
void code_cache_destroy(CodeCache* cache);
// Prepares a new vCPU's jump table, and what the host's processor decides.
void code_cache_attach(CodeCache* cache, CpuState& c);

// Drops every translation made from a byte of [host, host+length), and clears kPageCode of pages that hold no more.
// Any thread, in guest mode or out of it; keeps the vector registers. Returns when no vCPU can enter a dropped translation again;
// one that is inside a translation leaves it at the next block, as a processor does with cross-modifying code.
void code_invalidate(CodeCache* cache, uint8_t* host, uint64_t length);

// Drops everything. No vCPU is in guest mode (Exclusive). While the lock is held nothing is translated either, which vCPUs do outside of
// guest mode; what was asked for before is looked up again. So whoever changes memory slots or their pages' flags holds it meanwhile.
[[nodiscard]] std::unique_lock<std::mutex> code_invalidate_all(CodeCache* cache, Quiesce& quiesce);

}  // namespace lodge::engine::soft
