// Linking the edges of translated code: in guest mode, without a lock.
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/cache.hpp"

namespace lodge::engine::soft {

namespace {

uint32_t cache_offset(const CodeIndex& index, const Edge& edge) {
  return static_cast<uint32_t>(reinterpret_cast<const uint8_t*>(&edge) - index.writable);
}

void set_jump(const CodeIndex& index, const Edge& edge, uint32_t target) {
  const uint32_t distance = target - (edge.displacement + 4);
  __atomic_store_n(reinterpret_cast<uint32_t*>(index.writable + edge.displacement), distance, __ATOMIC_RELEASE);
}

}  // namespace

void code_link(const CodeIndex& index, uint64_t chain, Block& block) {
  auto* const edge = reinterpret_cast<Edge*>(index.writable + (chain - reinterpret_cast<uint64_t>(index.code_begin)));
  const auto page = reinterpret_cast<uint64_t>(block.host_pc) & kPageMask;
  if (page != reinterpret_cast<uint64_t>(edge->page) || block.key != edge->key) return;
  if (block.second_page) {  // the linear address decides which page that is: the jump table knows
    set_jump(index, *edge, edge_indirect(cache_offset(index, *edge)));
    return;
  }
  // The edge joins the block's list before its jump changes: when the block ends, the jump is put back. Whoever comes in between
  // finds the block's own end (Tier2Code::dead).
  Edge* first = block.incoming.load(std::memory_order_acquire);
  do {
    if (first == no_links()) return;
    for (Edge* known = first; known; known = known->next.load(std::memory_order_relaxed))
      if (known == edge) return;
    edge->next.store(first, std::memory_order_relaxed);
  } while (!block.incoming.compare_exchange_weak(first, edge, std::memory_order_acq_rel));
  set_jump(index, *edge, edge->state_flags ? block.tier2->body : block.tier2->direct_host);
}

void code_unlink(const CodeIndex& index, Block& block) {
  for (const Edge* edge = block.incoming.exchange(no_links()); edge; edge = edge->next)
    set_jump(index, *edge, edge_unlinked(cache_offset(index, *edge)));
}

}  // namespace lodge::engine::soft
