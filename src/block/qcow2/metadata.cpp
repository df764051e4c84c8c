#include "block/qcow2/metadata.hpp"

#include <algorithm>
#include <cstring>

namespace lodge::block::qcow2 {

PageRef::~PageRef() {
  if (page_) --page_->pins;
}

MetadataCache::MetadataCache(Node& file, uint64_t cluster_size, uint64_t most)
    : file_(file), page_size_(std::min<uint64_t>(cluster_size, 4096)), most_(std::max<uint64_t>(most, 4)) {}

MetadataCache::~MetadataCache() = default;

void MetadataCache::unlink(Page& page) {
  (page.newer ? page.newer->older : newest_) = page.older;
  (page.older ? page.older->newer : oldest_) = page.newer;
  page.newer = page.older = nullptr;
}

void MetadataCache::use(Page& page) {
  if (newest_ == &page) return;
  if (page.newer || page.older || oldest_ == &page) unlink(page);
  page.older = newest_;
  if (newest_) newest_->newer = &page;
  newest_ = &page;
  if (!oldest_) oldest_ = &page;
}

void MetadataCache::make_room() {
  for (Page* page = oldest_; page && pages_.size() >= most_;) {
    Page* const next = page->newer;
    if (!page->pins && !page->dirty && !page->loading) drop(*page);
    page = next;
  }
  std::erase_if(forgotten_, [](const auto& page) { return page->pins == 0; });
}

void MetadataCache::drop(Page& page) {
  unlink(page);
  pages_.erase(page.offset);
}

Page& MetadataCache::add(uint64_t offset, PageKind kind) {
  if (pages_.size() >= most_) make_room();
  auto made = std::make_unique<Page>();
  made->offset = offset;
  made->kind = kind;
  made->bytes = std::make_unique<std::byte[]>(page_size_);
  Page& page = *made;
  pages_[offset] = std::move(made);
  use(page);
  return page;
}

Task<Result<PageRef>> MetadataCache::get(uint64_t offset, PageKind kind) {
  for (;;) {
    const auto found = pages_.find(offset);
    if (found == pages_.end()) break;
    Page& page = *found->second;
    if (!page.loading) {
      use(page);
      co_return PageRef(page);
    }
    co_await loaded_.wait();
  }
  Page& page = add(offset, kind);
  page.loading = true;
  auto done = co_await read(file_, offset, page.bytes.get(), page_size_);
  page.loading = false;
  loaded_.wake_all();
  if (!done) {
    drop(page);
    co_return std::unexpected(std::move(done).error());
  }
  co_return PageRef(page);
}

PageRef MetadataCache::create(uint64_t offset, PageKind kind) {
  if (pages_.contains(offset)) forget(offset, page_size_);
  PageRef page(add(offset, kind));
  mark_dirty(*page);
  return page;
}

void MetadataCache::mark_dirty(Page& page) {
  if (page.dirty || page.forgotten) return;
  page.dirty = true;
  ++dirty_;
}

void MetadataCache::forget(uint64_t offset, uint64_t length) {
  for (uint64_t at = offset; at < offset + length; at += page_size_) {
    const auto found = pages_.find(at);
    if (found == pages_.end()) continue;
    Page& page = *found->second;
    if (page.dirty) --dirty_;
    page.dirty = false;
    page.forgotten = true;
    unlink(page);
    if (page.pins || page.loading) forgotten_.push_back(std::move(found->second));
    pages_.erase(found);
  }
}

std::vector<MetadataCache::Copy> MetadataCache::take_dirty(PageKind kind) {
  std::vector<Copy> copies;
  for (const auto& [offset, page] : pages_) {
    if (!page->dirty || page->kind != kind) continue;
    Copy copy{PageRef(*page), std::make_unique<std::byte[]>(page_size_)};
    std::memcpy(copy.bytes.get(), page->bytes.get(), page_size_);
    page->dirty = false;
    --dirty_;
    copies.push_back(std::move(copy));
  }
  std::ranges::sort(copies, {}, [](const Copy& copy) { return copy.page->offset; });
  return copies;
}

Task<Result<>> MetadataCache::write_out(std::span<Copy> copies) {
  Result<> result;
  for (size_t i = 0; i < copies.size() && result;) {
    // Neighbours in one request.
    Request request(Operation::Write, copies[i].page->offset, uint64_t{0});
    do {
      if (!copies[i].page->forgotten) request.buffers.append(copies[i].bytes.get(), page_size_);
      ++i;
    } while (i < copies.size() && !copies[i].page->forgotten && copies[i].page->offset == request.offset + request.buffers.size());
    request.length = request.buffers.size();
    if (request.length) result = co_await file_.submit(request);
  }
  if (!result)
    for (Copy& copy : copies) mark_dirty(*copy.page);
  co_return result;
}

}  // namespace lodge::block::qcow2
