// Changes to the file in the right order: see "Order on the disk" in image.hpp.
#include <algorithm>

#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

Task<Result<>> Image::commit(bool durable) {
  {
    const auto one = co_await committing_.lock();
    const auto writing = co_await metadata_.write_lock().lock();
    // All of one moment: no wait between here and the first write.
    auto refcounts = metadata_.take_dirty(PageKind::Refcounts);
    const auto table = refcounts_.take_dirty_table();
    auto mapping = metadata_.take_dirty(PageKind::Mapping);
    std::vector<std::pair<uint64_t, uint64_t>> l1;
    l1.reserve(dirty_l1_.size());
    for (const uint64_t index : dirty_l1_) l1.emplace_back(index, l1_[index]);
    dirty_l1_.clear();
    auto freed = std::move(freed_);
    freed_.clear();
    const uint64_t l1_offset = header_.l1_offset;

    const auto write_all = [&]() -> Task<Result<>> {
      const bool names = !mapping.empty() || !l1.empty();
      CO_TRY(metadata_.write_out(refcounts));
      if (!table.empty()) {
        CO_TRY(flush(*file_));
        CO_TRY(refcounts_.write_table(table));
      }
      if (names || durable) {
        if (data_file_) CO_TRY(flush(*data_file_));
        CO_TRY(flush(*file_));
      }
      CO_TRY(metadata_.write_out(mapping));
      if (!l1.empty()) {
        CO_TRY(flush(*file_));
        for (const auto& [index, value] : l1) {
          std::byte bytes[8];
          put64(bytes, value);
          CO_TRY(block::write(*file_, l1_offset + index * 8, bytes, sizeof bytes));
        }
      }
      if (names && (durable || !freed.empty())) CO_TRY(flush(*file_));
      co_return Result<>{};
    };
    if (auto done = co_await write_all(); !done) {
      // Nothing of it is certain to be on the disk, not even what was written: a flush that fails may have dropped it.
      refcounts_.put_back(table);
      for (auto* copies : {&refcounts, &mapping})
        for (MetadataCache::Copy& copy : *copies) metadata_.mark_dirty(*copy.page);
      for (const auto& [index, value] : l1) dirty_l1_.insert(index);
      freed_.insert(freed_.end(), freed.begin(), freed.end());
      co_return std::unexpected(std::move(done).error());
    }
    if (!freed.empty()) released_.push_back({epoch_++, std::move(freed)});
  }
  co_return co_await release_freed();
}

Task<Result<>> Image::settle() {
  CO_TRY(commit(true));
  // What that freed is counted by one more.
  if (!released_.empty() || metadata_.dirty_pages()) CO_TRY(commit(true));
  co_return Result<>{};
}

Task<Result<>> Image::commit_if_crowded() {
  if (!metadata_.crowded() || (committing_.held() && !metadata_.overcrowded())) co_return Result<>{};
  co_return co_await commit(false);
}

// Clusters that nothing names any more can be used again once the requests that were there when something did have ended.
Task<Result<>> Image::release_freed() {
  while (!released_.empty() && (in_flight_.empty() || in_flight_.begin()->first > released_.front().epoch)) {
    const Released now = std::move(released_.front());
    released_.pop_front();
    for (const Freed& freed : now.freed) {
      // Given back to the host before it can be anybody else's. Clusters of compressed data may be others' too.
      if (freed.length == cluster_size_ && freed.offset % cluster_size_ == 0 && freed.offset + cluster_size_ <= file_->size()) {
        CO_TRY_VALUE(count, refcounts_.get(freed.offset / cluster_size_));
        if (count == 1) CO_TRY(block::discard(*file_, freed.offset, cluster_size_));
      }
      decompressed_.clear();
      CO_TRY(refcounts_.change(freed.offset, freed.length, -1));
    }
  }
  co_return Result<>{};
}

Task<Result<>> Image::write_header(const std::function<void(Header&)>& change) {
  const auto hold = co_await metadata_.write_lock().lock();
  Header next = header_;
  change(next);
  auto cluster = serialise_header(next, name());
  if (!cluster) co_return std::unexpected(std::move(cluster).error());
  CO_TRY(block::write(*file_, 0, cluster->data(), cluster->size()));
  CO_TRY(flush(*file_));
  header_ = std::move(next);
  co_return Result<>{};
}

Task<Result<>> Image::set_incompatible(uint64_t bits, bool on) {
  const uint64_t now = on ? header_.incompatible | bits : header_.incompatible & ~bits;
  if (now == header_.incompatible || header_.version < 3) co_return Result<>{};
  co_return co_await write_header([&](Header& header) { header.incompatible = now; });
}

}  // namespace lodge::block::qcow2
