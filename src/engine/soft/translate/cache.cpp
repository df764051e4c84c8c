#include "engine/soft/translate/cache.hpp"

#include <cpuid.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/tier1.hpp"
#include "engine/soft/translate/tier2.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/host_faults.hpp"
#include "engine/soft/vcpu/jitdump.hpp"
#include "engine/soft/vcpu/quiesce.hpp"

namespace lodge::engine::soft {

namespace {

constexpr uint64_t kLargestBlock = 64 << 10;  // room that must be left to begin one
constexpr uint32_t kMaxBlockBytes = 240;

uint8_t* page_of(const uint8_t* host) { return reinterpret_cast<uint8_t*>(reinterpret_cast<uint64_t>(host) & kPageMask); }

// Small arrays that live until everything is dropped.
class Arena {
 public:
  template <typename T>
  std::span<const T> keep(std::span<const T> values) {
    static_assert(alignof(T) <= kAlignment && std::is_trivially_copyable_v<T>);
    if (values.empty()) return {};
    const size_t bytes = (values.size_bytes() + kAlignment - 1) & ~(kAlignment - 1);
    if (bytes > left_) {
      left_ = std::max(kChunk, bytes);
      chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(left_));
      at_ = chunks_.back().get();
    }
    auto* const kept = at_;
    at_ += bytes;
    left_ -= bytes;
    std::memcpy(kept, values.data(), values.size_bytes());
    return {reinterpret_cast<const T*>(kept), values.size()};
  }
  void clear() {
    chunks_.clear();
    left_ = 0;
  }

 private:
  static constexpr size_t kAlignment = 4, kChunk = 256 << 10;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  std::byte* at_ = nullptr;
  size_t left_ = 0;
};

struct CodePage {
  std::vector<Block*> blocks;
  std::atomic<uint8_t>* flags = nullptr;
  uint32_t writes = 0;  // noticed since there are translations
};

}  // namespace

struct CodeCache {
  CodeIndex index;
  Fd fd;
  uint64_t size = 0;
  uint8_t* writable = nullptr;
  uint8_t* executable = nullptr;
  CodeCacheOptions options;
  Thunks thunks{};
  uint64_t thunk_bytes = 0;
  std::mutex mutex;  // all below
  uint64_t used = 0;
  std::deque<Block> blocks;
  std::deque<Tier2Code> tier2;
  Arena arena;
  Tier2::Workspace workspace;
  std::unordered_map<const uint8_t*, CodePage> pages;

  ~CodeCache() {
    if (writable) munmap(writable, size);
    if (executable) munmap(executable, size);
    if (index.by_code) munmap(static_cast<void*>(index.by_code), by_code_bytes());
    if (index.bucket) munmap(static_cast<void*>(index.bucket), kBucketBytes);
  }
  // A translation takes at least this.
  static constexpr uint64_t kLeastBytes = 64;
  static constexpr uint64_t kBucketBytes = CodeIndex::kBuckets * sizeof(std::atomic<Block*>);
  [[nodiscard]] uint64_t by_code_bytes() const { return size / kLeastBytes * sizeof(Block*); }
};

CodeIndex& code_index(CodeCache* cache) { return cache->index; }

CodeCache* code_cache_create(const CodeCacheOptions& options) {
  const uint64_t size = options.size;
  install_host_fault_handlers();
  auto cache = std::make_unique<CodeCache>();
#ifdef MFD_EXEC
  constexpr unsigned kExec = MFD_EXEC;
#else
  constexpr unsigned kExec = 0x10;  // Linux 6.3; where vm.memfd_noexec makes the default non-executable
#endif
  cache->fd = Fd(memfd_create("lodge-code", MFD_CLOEXEC | kExec));
  if (!cache->fd) cache->fd = Fd(memfd_create("lodge-code", MFD_CLOEXEC));
  cache->size = size;
  cache->options = options;
  if (!cache->fd || ftruncate(cache->fd.get(), static_cast<off_t>(size)) != 0) return nullptr;
  void* const writable = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, cache->fd.get(), 0);
  if (writable == MAP_FAILED) return nullptr;
  cache->writable = static_cast<uint8_t*>(writable);
  void* const executable = mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, cache->fd.get(), 0);
  if (executable == MAP_FAILED) return nullptr;
  cache->executable = static_cast<uint8_t*>(executable);
  cache->index.code_begin = cache->executable;
  cache->index.code_end = cache->executable + size;
  cache->index.writable = cache->writable;
  void* const by_code = mmap(nullptr, cache->by_code_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (by_code == MAP_FAILED) return nullptr;
  cache->index.by_code = static_cast<Block**>(by_code);
  void* const bucket = mmap(nullptr, CodeCache::kBucketBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bucket == MAP_FAILED) return nullptr;
  cache->index.bucket = static_cast<std::atomic<Block*>*>(bucket);
  Assembler as(cache->writable, cache->writable + kLargestBlock);
  emit_thunks(as, cache->thunks);
  cache->index.enter = cache->executable + (cache->thunks.enter - cache->writable);
  cache->thunk_bytes = cache->used = (as.size() + 63) & ~uint64_t{63};
  return cache.release();
}

void code_cache_destroy(CodeCache* cache) { delete cache; }

namespace {

// Intel's processors keep the opcode of unmasked exceptions only (SDM vol. 1, 8.1.9), and those that say so the operand's address too.
uint16_t host_x87_rules() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (host_is_amd() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
  constexpr unsigned kFdpExcptnOnly = 1u << 6;
  return static_cast<uint16_t>(kX87OpcodeOfExceptions | (ebx & kFdpExcptnOnly ? kX87OperandOfExceptions : 0));
}

}  // namespace

void code_cache_attach(CodeCache* cache, CpuState& c) {
  const auto executable = [&](const uint8_t* thunk) { return reinterpret_cast<uint64_t>(cache->executable + (thunk - cache->writable)); };
  c.jump_miss = executable(cache->thunks.miss);
  jump_table_clear(c);
  c.x87_rules = host_x87_rules();
  c.intel_rules = !host_is_amd();
}

namespace {

// A vCPU's thread in guest mode, for a while outside of it.
class OutsideGuest {
 public:
  explicit OutsideGuest(CpuState* c) : c_(c) { quiesce_leave_guest(c_); }
  ~OutsideGuest() { quiesce_enter_guest(c_); }
  OutsideGuest(const OutsideGuest&) = delete;
  OutsideGuest& operator=(const OutsideGuest&) = delete;

 private:
  CpuState* c_;
};

void unlink(CodeCache& cache, Block& block) {
  std::atomic<Block*>* place = &cache.index.bucket[CodeIndex::hash(block.host_pc, block.key)];
  while (Block* at = place->load(std::memory_order_relaxed)) {
    if (at == &block) {
      place->store(block.next.load(std::memory_order_relaxed), std::memory_order_release);
      return;
    }
    place = &at->next;
  }
}

// The lines of a page that a translation was made from.
uint64_t lines_used(const Block& block, const uint8_t* page) {
  const auto offset = static_cast<uint32_t>(block.host_pc - page_of(block.host_pc));
  if (page != page_of(block.host_pc)) return lines_of(0, offset + block.length - 1 - kPageSize);
  uint32_t first = offset, last = std::min<uint32_t>(offset + block.length, kPageSize) - 1;
  if (block.tier2) {
    first = std::min<uint32_t>(first, block.tier2->scan_begin);
    last = std::max<uint32_t>(last, block.tier2->scan_end - 1);
  }
  return lines_of(first, last);
}

void find_lines(CodeCache& cache, const uint8_t* page) {
  MixedPage& mixed = cache.index.mixed_of(page);
  if (mixed.host.load(std::memory_order_relaxed) != page) return;
  uint64_t lines = 0;
  if (const auto found = cache.pages.find(page); found != cache.pages.end())
    for (const Block* block : found->second.blocks) lines |= lines_used(*block, page);
  mixed.lines.store(lines);
}

// From so many writes on a page is a mixed one.
constexpr uint32_t kWritesOfMixed = 4;

// ... and so many again to take the place of another one.
constexpr uint32_t kWritesToReplace = 64;

void note_write(CodeCache& cache, CpuState* c, const uint8_t* page) {
  const auto found = cache.pages.find(page);
  if (found == cache.pages.end() || ++found->second.writes < kWritesOfMixed) return;
  MixedPage& mixed = cache.index.mixed_of(page);
  if (const uint8_t* const other = mixed.host.load(std::memory_order_relaxed)) {
    if (other == page || found->second.writes % kWritesToReplace) return;
    // Nobody may be in the middle of a store that relies on the entry.
    mixed.host.store(nullptr);
    request_flush_of_others_and_wait(quiesce_of(c), c);
  }
  mixed.lines.store(~uint64_t{0});
  mixed.host.store(page);
  find_lines(cache, page);
}

void forget_in_page(CodeCache& cache, const uint8_t* page, const Block* block) {
  const auto found = cache.pages.find(page);
  if (found == cache.pages.end()) return;
  std::erase(found->second.blocks, block);
  find_lines(cache, page);
  if (!found->second.blocks.empty()) return;
  found->second.flags->fetch_and(static_cast<uint8_t>(~kPageCode));
  cache.pages.erase(found);
}

bool overlaps(const Block& block, const uint8_t* first, const uint8_t* last) {
  if (block.tier2) {
    const uint8_t* const page = page_of(block.host_pc);
    if (page + block.tier2->scan_begin <= last && first < page + block.tier2->scan_end) return true;
  }
  const uint8_t* const page_end = page_of(block.host_pc) + kPageSize;
  const uint8_t* const end = block.host_pc + block.length;
  if (!block.tier2 && block.host_pc <= last && first < std::min(end, page_end)) return true;
  return block.second_page && block.second_page <= last && first < block.second_page + (end - page_end);
}

// Nobody enters the translation any more: its first bytes lead out of it. Its links are ended next.
void end_tier2(CodeCache& cache, Block& block) {
  const Tier2Code& code = *block.tier2;
  auto* const body = reinterpret_cast<uint64_t*>(cache.writable + code.body);
  const uint32_t distance = code.dead - (code.body + 5);
  const uint64_t rest = __atomic_load_n(body, __ATOMIC_RELAXED) & ~uint64_t{0xff'ffff'ffff};
  __atomic_store_n(body, rest | static_cast<uint64_t>(distance) << 8 | 0xe9, __ATOMIC_RELEASE);
}

void drop(CodeCache& cache, Block* block) {
  if (block->tier2) end_tier2(cache, *block);
  code_unlink(cache.index, *block);
  unlink(cache, *block);
  forget_in_page(cache, page_of(block->host_pc), block);
  if (block->second_page) forget_in_page(cache, block->second_page, block);
}

// How many translations that were.
uint64_t invalidate_locked(CodeCache& cache, const uint8_t* host, uint64_t length) {
  std::vector<Block*> dropped;
  const uint8_t* const last = host + length - 1;
  auto look_at = [&](const CodePage& page) {
    for (Block* block : page.blocks)
      if (overlaps(*block, host, last)) dropped.push_back(block);
  };
  const uint64_t pages = (reinterpret_cast<uint64_t>(page_of(last)) - reinterpret_cast<uint64_t>(page_of(host))) / kPageSize + 1;
  if (pages > cache.pages.size()) {
    for (const auto& [start, page] : cache.pages)
      if (start + kPageSize > host && start <= last) look_at(page);
  } else {
    for (uint64_t i = 0; i < pages; ++i) {
      const auto found = cache.pages.find(page_of(host) + i * kPageSize);
      if (found != cache.pages.end()) look_at(found->second);
    }
  }
  if (dropped.empty()) return 0;
  std::ranges::sort(dropped);
  const auto [first, end] = std::ranges::unique(dropped);
  dropped.erase(first, end);
  for (Block* block : dropped) drop(cache, block);
  cache.index.generation.fetch_add(1);
  return dropped.size();
}

// Everything goes. All vCPUs stand still.
void reset(CodeCache& cache, Quiesce& quiesce) {
  for (uint32_t i = 0; i < quiesce.count.load(); ++i) {
    jump_table_clear(*quiesce.participant[i].cpu);
    quiesce.participant[i].cpu->chain = 0;
  }
  for (auto& [start, page] : cache.pages) page.flags->fetch_and(static_cast<uint8_t>(~kPageCode));
  cache.pages.clear();
  for (MixedPage& mixed : cache.index.mixed) mixed.host.store(nullptr, std::memory_order_relaxed);
  // Fresh memory is zeros, and costs nothing where nothing is.
  if (madvise(static_cast<void*>(cache.index.bucket), CodeCache::kBucketBytes, MADV_DONTNEED) != 0)
    for (uint32_t i = 0; i < CodeIndex::kBuckets; ++i) cache.index.bucket[i].store(nullptr, std::memory_order_relaxed);
  cache.blocks.clear();
  cache.tier2.clear();
  cache.arena.clear();
  cache.index.by_code_count.store(0);
  cache.used = cache.thunk_bytes;
  cache.index.generation.fetch_add(1);
  cache.index.resets.fetch_add(1);
}

}  // namespace

void code_invalidate(CodeCache* cache, uint8_t* host, uint64_t length) {
  if (!length) return;
  const std::lock_guard lock(cache->mutex);
  invalidate_locked(*cache, host, length);
}

std::unique_lock<std::mutex> code_invalidate_all(CodeCache* cache, Quiesce& quiesce) {
  std::unique_lock lock(cache->mutex);
  reset(*cache, quiesce);
  return lock;
}

void invalidate_block(void* argument) {
  const auto& request = *static_cast<InvalidateRequest*>(argument);
  const OutsideGuest outside(request.c);
  CodeCache& cache = *request.c->code_cache;
  const std::lock_guard lock(cache.mutex);
  note_write(cache, request.c, page_of(request.host));
  request.c->counter[static_cast<uint32_t>(Counter::Discarded)] += invalidate_locked(cache, request.host, request.length);
}

namespace {

// The guest's bytes from host_pc on, as they lie in one page or two.
struct Bytes {
  const uint8_t* first;
  uint32_t first_room;
  const uint8_t* second;

  // Up to 15 bytes at `offset`; how many there are.
  uint32_t at(uint32_t offset, uint8_t* into) const {
    uint32_t n = 0;
    for (; n < ZYDIS_MAX_INSTRUCTION_LENGTH; ++n) {
      const uint32_t i = offset + n;
      if (i < first_room)
        into[n] = first[i];
      else if (second)
        into[n] = second[i - first_room];
      else
        break;
    }
    return n;
  }
};

// Emits a block; false if its first instruction goes on in a page that the request does not name.
bool build(const TranslateRequest& request, Assembler& as, Block& block, std::array<uint8_t, kMaxInstructionsPerBlock>& offsets,
           bool single) {
  const uint32_t room = static_cast<uint32_t>(page_of(request.host_pc) + kPageSize - request.host_pc);
  const Bytes bytes{request.host_pc, room, request.second_page};
  // Where the second tier runs, the first one does single instructions only. Under the virtual clock those that may look at the time
  // or bring events stand alone.
  const bool repeatable = request.c->random != 0;
  const uint32_t limit = (request.key & kKeySingle) || single ? 1 : kMaxInstructionsPerBlock;
  Tier1 tier(as, request.key, request.key & kKeySlow, request.c->random != 0);
  tier.prologue();
  uint32_t offset = 0;
  bool ended = false;
  block.count = 0;
  block.offset = offsets.data();
  block.second_page = nullptr;
  while (!ended && block.count < limit && offset < kMaxBlockBytes) {
    uint8_t window[ZYDIS_MAX_INSTRUCTION_LENGTH];
    const uint32_t available = bytes.at(offset, window);
    Instruction instruction;
    const DecodeStatus status = available ? decode(request.key, window, available, instruction) : DecodeStatus::MoreBytes;
    if (status == DecodeStatus::MoreBytes && !request.second_page) {
      if (block.count == 0) return false;
      break;  // the instruction over the page's end begins a block of its own
    }
    uint32_t length = 1;
    if (status == DecodeStatus::Ok) {
      length = instruction.length();
      if (offset + length > room) {
        if (block.count) break;
        block.second_page = request.second_page;
        ended = true;
      }
    }
    if (repeatable && status == DecodeStatus::Ok && !Tier2::counts_freely(instruction, request.key)) {
      if (block.count) break;
      ended = true;
    }
    offsets[block.count++] = static_cast<uint8_t>(offset);
    if (status == DecodeStatus::Ok) {
      if (tier.emit(instruction)) {
        block.length = static_cast<uint16_t>(offset + length);
        return true;
      }
    } else {
      if (status == DecodeStatus::Invalid)
        tier.emit_raise(kUd);
      else
        tier.emit_raise_error(kGp, 0);
      ended = true;
    }
    offset += length;
    block.length = static_cast<uint16_t>(offset);
  }
  tier.epilogue();
  return true;
}

void insert(CodeCache& cache, const TranslateRequest& request, const Block& built, const uint8_t* code, const Tier2Code* tier2) {
  Block& block = cache.blocks.emplace_back();
  if (tier2) {
    Tier2Code& kept = cache.tier2.emplace_back(*tier2);
    kept.offset = cache.arena.keep(kept.offset);
    kept.side = cache.arena.keep(kept.side);
    kept.x87_opcode = cache.arena.keep(kept.x87_opcode);
    block.tier2 = &kept;
    code = cache.executable + kept.body;
    const uint32_t count = cache.index.by_code_count.load(std::memory_order_relaxed);
    cache.index.by_code[count] = &block;
    cache.index.by_code_count.store(count + 1, std::memory_order_release);
  }
  block.host_pc = request.host_pc;
  block.second_page = built.second_page;
  block.code = code;
  block.key = request.key;
  block.length = built.length;
  block.count = built.count;
  if (!tier2) block.offset = cache.arena.keep(std::span(built.offset, built.count)).data();
  CodePage& page = cache.pages[page_of(request.host_pc)];
  page.flags = request.page_flags;
  page.blocks.push_back(&block);
  if (block.second_page) {
    CodePage& second = cache.pages[block.second_page];
    second.flags = request.second_flags;
    second.blocks.push_back(&block);
    find_lines(cache, block.second_page);
  }
  find_lines(cache, page_of(request.host_pc));
  std::atomic<Block*>& bucket = cache.index.bucket[CodeIndex::hash(request.host_pc, request.key)];
  block.next.store(bucket.load(std::memory_order_relaxed), std::memory_order_relaxed);
  bucket.store(&block, std::memory_order_release);
}

bool known(const CodeCache& cache, const TranslateRequest& request) {
  for (Block* block = cache.index.bucket[CodeIndex::hash(request.host_pc, request.key)].load(std::memory_order_relaxed); block;
       block = block->next.load(std::memory_order_relaxed))
    if (block->host_pc == request.host_pc && block->key == request.key &&
        (!block->second_page || block->second_page == request.second_page))
      return true;
  return false;
}

// Protects the pages, if they are not yet, and waits until no vCPU can write to them directly.
void protect(CodeCache& cache, const TranslateRequest& request) {
  bool fresh = !(request.page_flags->fetch_or(kPageCode) & kPageCode);
  cache.pages[page_of(request.host_pc)].flags = request.page_flags;
  if (request.second_page) {
    fresh = !(request.second_flags->fetch_or(kPageCode) & kPageCode) || fresh;
    cache.pages[request.second_page].flags = request.second_flags;
  }
  bool mixed_page = false;
  for (const uint8_t* page : {static_cast<const uint8_t*>(page_of(request.host_pc)), request.second_page}) {
    if (!page) continue;
    MixedPage& mixed = cache.index.mixed_of(page);
    if (mixed.host.load(std::memory_order_relaxed) != page) continue;
    mixed.lines.store(~uint64_t{0});  // until insert() knows which
    mixed_page = true;
  }
  if (!fresh && !mixed_page) return;
  request_flush_of_others_and_wait(quiesce_of(request.c), request.c);
  if (!fresh) return;
  mmu_protect(*request.c, page_of(request.host_pc));
  if (request.second_page) mmu_protect(*request.c, request.second_page);
}

class Translating {
 public:
  explicit Translating(CpuState& c) : c_(c) { c.phase = Phase::Translate; }
  ~Translating() { c_.phase = Phase::Guest; }
  Translating(const Translating&) = delete;
  Translating& operator=(const Translating&) = delete;

 private:
  CpuState& c_;
};

// 64-bit code, and 32-bit code in protected mode whose segments are flat.
bool second_tier_runs(const CodeCache& cache, uint32_t k) {
  constexpr uint32_t kFirstOnly = key::kSingleStep | key::kAlignmentCheck | kKeySingle | kKeySlow;
  constexpr uint32_t kFlat32 = key::kCode32 | key::kStack32 | key::kProtected;
  const bool flat = (k & kFlat32) == kFlat32 && !(k & (key::kSegmented | key::kCodeSegmented | key::kV86));
  return cache.options.second_tier && ((k & key::kCode64) || flat) && !(k & kFirstOnly);
}

}  // namespace

const Block* block_at(const CodeIndex& index, const uint8_t* pc) {
  uint32_t low = 0, high = index.by_code_count.load(std::memory_order_acquire);
  const auto begin = [&](uint32_t i) { return index.code_begin + index.by_code[i]->tier2->begin; };
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (begin(middle) <= pc)
      low = middle;
    else
      high = middle;
  }
  if (!high || begin(low) > pc || pc >= index.code_begin + index.by_code[low]->tier2->end) return nullptr;
  return index.by_code[low];
}

// The cache's end goes behind the translation of `size` bytes there.
static void take(CodeCache& cache, const CpuState& c, uint64_t size) {
  if (cache.options.jitdump)
    cache.options.jitdump->add(fmt::format("guest {} {:#x}", c.cpl == 3 ? "user" : "kernel", code_linear(c)), cache.executable + cache.used,
                               cache.writable + cache.used, size);
  cache.used += std::max((size + 15) & ~uint64_t{15}, CodeCache::kLeastBytes);
}

void translate_block(void* argument) {
  auto& request = *static_cast<TranslateRequest*>(argument);
  CodeCache& cache = *request.c->code_cache;
  request.outcome = TranslateRequest::kAgain;
  const Translating translating(*request.c);
  const OutsideGuest outside(request.c);
  std::unique_lock lock(cache.mutex);
  if (cache.used + kLargestBlock > cache.size) {
    lock.unlock();
    const Exclusive alone(quiesce_of(request.c));
    lock.lock();
    if (cache.used + kLargestBlock > cache.size) {
      reset(cache, quiesce_of(request.c));
      count(*request.c, Counter::Resets);
    }
    return;
  }
  // Memory slots may have changed since the request was made, and what it points at be gone.
  if (request.resets != cache.index.resets.load() || known(cache, request)) return;
  protect(cache, request);
  uint8_t* const begin = cache.writable + cache.used;
  Block built{};
  const bool second_tier = second_tier_runs(cache, request.key);
  if (second_tier) {
    Assembler as(begin, begin + kLargestBlock);
    const bool exact = cache.options.exact_flags || request.c->random != 0;
    Tier2 tier(cache.workspace, as, cache.writable, cache.thunks,
               {request.key, exact, request.c->random != 0, (request.key & kKeyUngrouped) != 0});
    Tier2Code code;
    if (tier.translate(page_of(request.host_pc), request.second_page, static_cast<uint32_t>(request.host_pc - page_of(request.host_pc)),
                       code)) {
      built.length = code.length;
      built.count = code.count;
      built.second_page = request.second_page;
      insert(cache, request, built, nullptr, &code);
      count(*request.c, Counter::Translations2);
      take(cache, *request.c, as.size());
      return;
    }
  }
  Assembler as(begin, begin + kLargestBlock);
  std::array<uint8_t, kMaxInstructionsPerBlock> offsets;
  if (!build(request, as, built, offsets, second_tier)) {
    request.outcome = TranslateRequest::kNeedSecondPage;
    find_lines(cache, page_of(request.host_pc));
    return;
  }
  insert(cache, request, built, cache.executable + cache.used, nullptr);
  count(*request.c, Counter::Translations1);
  take(cache, *request.c, as.size());
}

}  // namespace lodge::engine::soft
