// Translations: where they live, how they are found, and how they end.
//
// The code lies in a memfd that is mapped twice: writable for the translator, executable for the vCPUs; no mapping is both. A
// translation belongs to the host page that backs the guest's bytes (slots may alias) and to the translation key. All vCPUs
// share the cache. Lookups take no lock: buckets are atomic lists, and a Block's memory lives until everything is dropped at
// once, with all vCPUs standing still. Changes take the cache's lock, which is never held by a vCPU in guest mode: who wants
// it leaves guest mode first (quiesce.hpp), so that its holder may wait for all vCPUs' acknowledgement.
//
// A page becomes code before its bytes are read: kPageCode is set, every vCPU empties its TLB (no direct write from then on),
// then it is translated. A write to such a page takes the slow path and drops what it touches.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/soft/cpu/state.hpp"
#include "engine/soft/vcpu/invalidate.hpp"

namespace lodge::engine::soft {

constexpr uint32_t kMaxInstructionsPerBlock = 32;

struct Block {
  const uint8_t* host_pc;                    // the guest's bytes
  const uint8_t* second_page;                // host page of the part beyond the first page's end; null when the block lies in one page
  const uint8_t* code;                       // executable
  std::atomic<Block*> next;                  // in the bucket
  uint32_t key;                              // as looked up, with kKeySingle and kKeySlow
  uint16_t length;                           // guest bytes
  uint16_t count;                            // guest instructions
  uint8_t offset[kMaxInstructionsPerBlock];  // of each instruction (a block is at most 255 bytes long but for its last instruction)
};

// Bits beside those of mode.hpp's key in Block::key.
constexpr uint32_t kKeySingle = 1u << 20;  // one instruction only
constexpr uint32_t kKeySlow = 1u << 21;    // its bounce-buffer form (implies kKeySingle)

struct JumpCacheEntry {
  uint64_t linear, mmu_generation, code_generation;
  Block* block;
  uint32_t key;
  uint32_t reserved;
};
struct JumpCache {
  static constexpr uint32_t kEntries = 4096;
  JumpCacheEntry entry[kEntries];
};

// What guest mode reads of the cache.
struct CodeIndex {
  static constexpr uint32_t kBuckets = 1u << 18;
  std::atomic<Block*> bucket[kBuckets];
  std::atomic<uint64_t> generation;  // changes whenever a translation is dropped: jump caches go stale with it
  const uint8_t *code_begin, *code_end;

  static uint32_t hash(const uint8_t* host_pc, uint32_t key) {
    const uint64_t h = (reinterpret_cast<uint64_t>(host_pc) ^ (static_cast<uint64_t>(key) << 40)) * 0x9e3779b97f4a7c15u;
    return static_cast<uint32_t>(h >> 46);
  }
};
CodeIndex& code_index(CodeCache* cache);

// Makes a translation. To be called through soft_host_call() in guest mode.
struct TranslateRequest {
  CpuState* c;
  const uint8_t* host_pc;
  const uint8_t* second_page;        // when known
  std::atomic<uint8_t>* page_flags;  // of the first page
  std::atomic<uint8_t>* second_flags;
  uint32_t key;
  enum Outcome : uint32_t { kAgain, kNeedSecondPage } outcome;  // kAgain: look it up
};
void translate_block(void* request);

struct InvalidateRequest {
  CpuState* c;
  uint8_t* host;
  uint64_t length;
};
void invalidate_block(void* request);

}  // namespace lodge::engine::soft
