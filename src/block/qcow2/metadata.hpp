// Tables of an image in memory: second-level tables and refcount blocks, by pages of at most 4 KiB, as many as the bound allows.
//
// A page that was changed is dirty until write_out() has it in the file; pages of the two kinds are written apart, since one has to be on
// the disk before the other (qcow2.hpp, "Order on the disk").
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "block/node.hpp"

namespace lodge::block::qcow2 {

enum class PageKind : uint8_t { Refcounts, Mapping };

class MetadataCache;

struct Page {
  uint64_t offset = 0;  // in the file
  std::unique_ptr<std::byte[]> bytes;
  uint32_t pins = 0;
  PageKind kind{};
  bool dirty = false, loading = false, forgotten = false;
  Page *newer = nullptr, *older = nullptr;  // by last use
};

// Keeps its page in memory.
class PageRef {
 public:
  PageRef() = default;
  explicit PageRef(Page& page) : page_(&page) { ++page.pins; }
  PageRef(const PageRef& other) : page_(other.page_) {
    if (page_) ++page_->pins;
  }
  PageRef(PageRef&& other) noexcept : page_(std::exchange(other.page_, nullptr)) {}
  PageRef& operator=(PageRef other) noexcept {
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageRef();
  [[nodiscard]] explicit operator bool() const { return page_; }
  [[nodiscard]] Page* operator->() const { return page_; }
  [[nodiscard]] Page& operator*() const { return *page_; }
  [[nodiscard]] std::byte* bytes() const { return page_->bytes.get(); }

 private:
  Page* page_ = nullptr;
};

class MetadataCache {
 public:
  // `most`: pages, beyond which clean ones are dropped.
  MetadataCache(Node& file, uint64_t cluster_size, uint64_t most);
  ~MetadataCache();
  MetadataCache(const MetadataCache&) = delete;
  MetadataCache& operator=(const MetadataCache&) = delete;

  [[nodiscard]] uint64_t page_size() const { return page_size_; }
  // The page at an offset, which is a multiple of page_size().
  Task<Result<PageRef>> get(uint64_t offset, PageKind kind);
  // One that is not read, since all of it is new: zeros, dirty.
  PageRef create(uint64_t offset, PageKind kind);
  void mark_dirty(Page& page);
  // Tables that are not used any more: nothing of them will be written.
  void forget(uint64_t offset, uint64_t length);

  // Dirty pages as they are now, which count as clean from here on, to be written later.
  struct Copy {
    PageRef page;
    std::unique_ptr<std::byte[]> bytes;
  };
  [[nodiscard]] std::vector<Copy> take_dirty(PageKind kind);
  // Held by whoever takes dirty pages until they are written, so that no older copy comes after a newer one.
  [[nodiscard]] AsyncMutex& write_lock() { return write_lock_; }
  // Dirty again where it fails.
  Task<Result<>> write_out(std::span<Copy> copies);

  [[nodiscard]] uint64_t dirty_pages() const { return dirty_; }
  // So many dirty pages that they leave no room: they should be written.
  [[nodiscard]] bool crowded() const { return dirty_ > most_ / 2; }
  [[nodiscard]] bool overcrowded() const { return dirty_ > most_; }

 private:
  friend class PageRef;
  void use(Page& page);
  void unlink(Page& page);
  void make_room();
  Page& add(uint64_t offset, PageKind kind);
  void drop(Page& page);

  Node& file_;
  const uint64_t page_size_, most_;
  uint64_t dirty_ = 0;
  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
  std::vector<std::unique_ptr<Page>> forgotten_;  // still pinned
  Page *newest_ = nullptr, *oldest_ = nullptr;
  WaitQueue loaded_;
  AsyncMutex write_lock_;
};

}  // namespace lodge::block::qcow2
