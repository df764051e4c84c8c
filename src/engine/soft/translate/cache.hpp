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
#include <span>

#include "engine/soft/cpu/state.hpp"
#include "engine/soft/vcpu/invalidate.hpp"

namespace lodge::engine::soft {

constexpr uint32_t kMaxInstructionsPerBlock = 32;

// An edge that can be linked to the translation that it leads to. Lies in the cache, before two calls of thunks, which find it by where
// they return to: what the jump leads to unlinked, and what goes through the jump table, for targets that may not be linked.
struct Edge {
  std::atomic<Edge*> next;  // of those linked to the same translation (addresses in the writable mapping)
  const uint8_t* page;      // it leads to code in this page under this key only
  uint32_t key;
  uint32_t displacement;  // cache offset of the jump's rel32
  uint16_t target;        // offset in the page
  bool state_flags;       // the flags are in CpuState: the entry to take

  static constexpr uint32_t kCall = 5;  // bytes
};
// Cache offsets of the two calls.
inline uint32_t edge_unlinked(uint32_t edge) { return edge + sizeof(Edge); }
inline uint32_t edge_indirect(uint32_t edge) { return edge_unlinked(edge) + Edge::kCall; }

// What is kept of a translation of the second tier beside its code. Offsets are from the beginning of the cache. What the spans refer to
// lies in the translator's Workspace at first.
struct Tier2Code {
  uint32_t entry;                         // by the jump table, flags in CpuState
  uint32_t direct_host;                   // by a linked edge with the flags in the host's
  uint32_t begin, end;                    // of all of it
  uint32_t body;                          // by one with the flags in CpuState, and from the loop
  uint32_t dead;                          // what the body is patched to jump to when the translation ends
  uint16_t count = 0;                     // guest instructions
  uint16_t length = 0;                    // guest bytes
  uint16_t scan_begin = 0, scan_end = 0;  // offsets in the page that were looked at to learn which flags are dead
  struct Side {
    uint32_t host;  // from here on
    uint8_t item;   // the instruction
    uint8_t flags;  // Flags of the moment
    bool spilled;   // registers, flags and RIP are in CpuState
    int8_t x87;     // the instruction whose x87 pointers are still to be committed, -1: none
  };
  std::span<const uint16_t> offset;  // of each instruction from the first
  std::span<const Side> side;
  std::span<const uint16_t> x87_opcode;  // of each instruction; empty if none is an x87 one
};

struct Block {
  const uint8_t* host_pc;       // the guest's bytes
  const uint8_t* second_page;   // host page of the part beyond the first page's end; null when the block lies in one page
  const uint8_t* code;          // executable; of the second tier: the entry from the loop
  const Tier2Code* tier2;       // null: the first tier's
  std::atomic<Edge*> incoming;  // links to it; no_links() once it has ended
  std::atomic<Block*> next;     // in the bucket
  uint32_t key;                 // as looked up, with kKeySingle and kKeySlow
  uint16_t length;              // guest bytes
  uint16_t count;               // guest instructions
  const uint8_t* offset;        // first tier: of each (a block is at most 255 bytes long but for its last instruction)
};

// Bits beside those of mode.hpp's key in Block::key.
constexpr uint32_t kKeySingle = 1u << 20;     // one instruction only
constexpr uint32_t kKeySlow = 1u << 21;       // its bounce-buffer form (implies kKeySingle)
constexpr uint32_t kKeyUngrouped = 1u << 22;  // second tier: one access a look-up

// Counts while its generation does (code_generation_of), nothing was reset and the block has not ended. With another generation it still
// says which translation it was, should the page be found at the same place again.
struct JumpCacheEntry {
  uint64_t linear, mmu_generation;
  Block* block;
  uint32_t key;
  uint32_t resets;  // CodeIndex::resets, its low half: then the block's memory is what it was
};
struct JumpCache {
  static constexpr uint32_t kEntries = 1u << 14;
  JumpCacheEntry entry[kEntries];
  JumpCacheEntry& of(uint64_t linear) { return entry[(linear ^ linear >> 12) & (kEntries - 1)]; }
};

// Pages that are written and run again and again. Stores to bytes that no translation was made from need nothing there but a look at
// `lines`, since each translation from such a page waits until all vCPUs are past what they may have seen (cache.cpp, protect()).
struct MixedPage {
  std::atomic<const uint8_t*> host;  // null: none
  std::atomic<uint64_t> lines;       // bit i: translations were made from bytes i * 64 to i * 64 + 63
};
constexpr uint64_t lines_of(uint32_t first, uint32_t last) {  // offsets in a page
  return (~uint64_t{0} << (first >> 6)) & (~uint64_t{0} >> (63 - (last >> 6)));
}

// What guest mode reads of the cache.
struct CodeIndex {
  static constexpr uint32_t kMixedPages = 1u << 12;
  MixedPage mixed[kMixedPages];
  [[nodiscard]] MixedPage& mixed_of(const uint8_t* page) { return mixed[reinterpret_cast<uint64_t>(page) >> 12 & (kMixedPages - 1)]; }

  static constexpr uint32_t kBucketBits = 20;  // a cache's full of translations, and about one in each
  static constexpr uint32_t kBuckets = 1u << kBucketBits;
  std::atomic<Block*>* bucket;       // kBuckets
  std::atomic<uint64_t> generation;  // changes whenever a translation is dropped
  std::atomic<uint64_t> resets;      // counts how often everything was dropped, as before each change of the memory slots
  const uint8_t *code_begin, *code_end;
  uint8_t* writable;     // the same bytes
  const uint8_t* enter;  // Thunks::enter
  // The second tier's, in the order of their code, for those who have a host PC only. Appended to, until everything is dropped.
  Block** by_code;
  std::atomic<uint32_t> by_code_count;

  static uint32_t hash(const uint8_t* host_pc, uint32_t key) {
    const uint64_t h = (reinterpret_cast<uint64_t>(host_pc) ^ (static_cast<uint64_t>(key) << 40)) * 0x9e3779b97f4a7c15u;
    return static_cast<uint32_t>(h >> (64 - kBucketBits));
  }
};
CodeIndex& code_index(CodeCache* cache);

// The translation of the second tier that a host PC lies in, null if in none. In guest mode, also from a signal handler there.
const Block* block_at(const CodeIndex& index, const uint8_t* pc);
// Links the edge at `chain` (an address in the executable mapping) to a translation, if that may be. In guest mode.
void code_link(const CodeIndex& index, uint64_t chain, Block& block);
// The translation ends: the edges that are linked to it go back to where they ask for another.
void code_unlink(const CodeIndex& index, Block& block);
// Whether it leads to the form that looks up each access.
inline bool edge_is_ungrouped(const CodeIndex& index, uint64_t chain) {
  const auto* const edge = reinterpret_cast<const Edge*>(index.writable + (chain - reinterpret_cast<uint64_t>(index.code_begin)));
  return edge->key & kKeyUngrouped;
}
inline Edge* no_links() { return reinterpret_cast<Edge*>(1); }
inline bool has_ended(const Block& block) { return block.incoming.load(std::memory_order_acquire) == no_links(); }

// Makes a translation. To be called through soft_host_call() in guest mode.
struct TranslateRequest {
  CpuState* c;
  const uint8_t* host_pc;
  const uint8_t* second_page;        // when known
  std::atomic<uint8_t>* page_flags;  // of the first page
  std::atomic<uint8_t>* second_flags;
  uint64_t resets;  // CodeIndex::resets, read in guest mode before the pages were looked up
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
