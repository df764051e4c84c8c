#include "block/qcow2/refcounts.hpp"

#include <algorithm>

namespace lodge::block::qcow2 {

namespace {
constexpr uint64_t kMostOffset = uint64_t{1} << 55;  // of clusters: what the tables' entries can hold
}

uint64_t refcount_in(const std::byte* block, uint64_t n, uint32_t order) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(block);
  switch (order) {
    case 6: return big64(bytes + n * 8);
    case 5: return big32(bytes + n * 4);
    case 4: return big16(bytes + n * 2);
    case 3: return bytes[n];
    default: {
      const uint32_t bits = 1u << order;
      return bytes[n * bits / 8] >> (n * bits % 8) & ((1u << bits) - 1);
    }
  }
}

void set_refcount_in(std::byte* block, uint64_t n, uint32_t order, uint64_t value) {
  auto* const bytes = reinterpret_cast<uint8_t*>(block);
  switch (order) {
    case 6: return put64(bytes + n * 8, value);
    case 5: return put32(bytes + n * 4, static_cast<uint32_t>(value));
    case 4: return put16(bytes + n * 2, static_cast<uint16_t>(value));
    case 3: bytes[n] = static_cast<uint8_t>(value); return;
    default: {
      const uint32_t bits = 1u << order, shift = n * bits % 8;
      uint8_t& byte = bytes[n * bits / 8];
      byte = static_cast<uint8_t>((byte & ~(((1u << bits) - 1) << shift)) | value << shift);
    }
  }
}

Refcounts::Refcounts(Node& file, Header& header, MetadataCache& metadata)
    : file_(file),
      header_(header),
      metadata_(metadata),
      per_block_(header.refcounts_per_block()),
      per_page_(metadata.page_size() * 8 / header.refcount_bits()) {}

Task<Result<>> Refcounts::load() {
  std::vector<uint64_t> raw(header_.refcount_table_clusters * header_.cluster_size() / 8);
  CO_TRY(read(file_, header_.refcount_table_offset, raw.data(), raw.size() * 8));
  for (uint64_t& entry : raw) {
    entry = big64(&entry);
    if ((entry & kRefcountTableReserved) || entry % header_.cluster_size())
      co_return fail(ErrorKind::Usage, "{}: damaged: a refcount block at {:#x}. 'lodge image check --repair all' may mend it", file_.name(),
                     entry);
  }
  table_ = std::move(raw);
  first_maybe_free_ = 0;
  never_used_from_ = (file_.size() + header_.cluster_size() - 1) / header_.cluster_size();
  co_return Result<>{};
}

Task<Result<Refcounts::Entry>> Refcounts::entry_of(uint64_t cluster, bool make) {
  const uint64_t block = cluster / per_block_;
  if (block >= table_.size() || !table_[block]) {
    if (!make) co_return Entry{PageRef(), 0};
    CO_TRY(make_block(block));
  }
  const uint64_t within = cluster % per_block_;
  CO_TRY_VALUE(page, metadata_.get(table_[block] + within / per_page_ * metadata_.page_size(), PageKind::Refcounts));
  co_return Entry{page, within % per_page_};
}

Task<Result<uint64_t>> Refcounts::value_of(uint64_t cluster) {
  CO_TRY_VALUE(entry, entry_of(cluster, false));
  co_return entry.page ? refcount_in(entry.page.bytes(), entry.index, header_.refcount_order) : 0;
}

Task<Result<uint64_t>> Refcounts::get(uint64_t cluster) {
  const auto hold = co_await lock_.lock();
  co_return co_await value_of(cluster);
}

Task<Result<>> Refcounts::set(uint64_t cluster, uint64_t value) {
  CO_TRY_VALUE(entry, entry_of(cluster, true));
  set_refcount_in(entry.page.bytes(), entry.index, header_.refcount_order, value);
  metadata_.mark_dirty(*entry.page);
  if (value) never_used_from_ = std::max(never_used_from_, cluster + 1);
  co_return Result<>{};
}

// The block of a range that had none describes itself: it is the first cluster of the range.
Task<Result<>> Refcounts::make_block(uint64_t block) {
  if (block >= table_.size()) co_return co_await grow_table(block);
  const uint64_t cluster = block * per_block_, offset = cluster * header_.cluster_size();
  if (offset >= kMostOffset) co_return fail(ErrorKind::Usage, "{}: the image cannot grow any more", file_.name());
  for (uint64_t at = 0; at < header_.cluster_size(); at += metadata_.page_size()) {
    const PageRef page = metadata_.create(offset + at, PageKind::Refcounts);
    if (at == 0) set_refcount_in(page.bytes(), 0, header_.refcount_order, 1);
  }
  never_used_from_ = std::max(never_used_from_, cluster + 1);
  table_[block] = offset;
  dirty_entries_.insert(block);
  co_return Result<>{};
}

// A larger table, at the beginning of the range that the old one could not describe, behind the blocks that describe the two. On the disk
// in this order: blocks, table, header; so it is complete whenever the header is seen to name it.
Task<Result<>> Refcounts::grow_table(uint64_t block) {
  const uint64_t cluster_size = header_.cluster_size();
  const uint64_t entries_per_cluster = cluster_size / 8;
  uint64_t blocks = 1, clusters = 0;
  for (;;) {
    const uint64_t entries = std::max(block + blocks, table_.size() + table_.size() / 2);
    clusters = (entries + entries_per_cluster - 1) / entries_per_cluster;
    const uint64_t needed = (blocks + clusters + per_block_ - 1) / per_block_;
    if (needed <= blocks) break;
    blocks = needed;
  }
  const uint64_t first = block * per_block_, offset = first * cluster_size;
  if (clusters * cluster_size > kMaxRefcountTableBytes || offset >= kMostOffset)
    co_return fail(ErrorKind::Usage, "{}: the image cannot grow any more with clusters of {} bytes; larger clusters let it", file_.name(),
                   cluster_size);

  const auto writing = co_await metadata_.write_lock().lock();
  auto dirty = metadata_.take_dirty(PageKind::Refcounts);
  std::vector<std::byte> image((blocks + clusters) * cluster_size);
  for (uint64_t n = 0; n < blocks + clusters; ++n)
    set_refcount_in(&image[n / per_block_ * cluster_size], n % per_block_, header_.refcount_order, 1);
  std::vector<uint64_t> table(clusters * entries_per_cluster);
  std::ranges::copy(table_, table.begin());
  for (uint64_t n = 0; n < blocks; ++n) table[block + n] = offset + n * cluster_size;
  for (uint64_t n = 0; n < table.size(); ++n) put64(&image[blocks * cluster_size + n * 8], table[n]);
  auto done = co_await metadata_.write_out(dirty);
  if (done) done = co_await write_grown(offset, image, offset + blocks * cluster_size, clusters);
  if (!done) {
    for (MetadataCache::Copy& copy : dirty) metadata_.mark_dirty(*copy.page);
    co_return done;
  }
  dirty.clear();

  never_used_from_ = std::max(never_used_from_, first + blocks + clusters);
  const uint64_t old_offset = header_.refcount_table_offset, old_clusters = header_.refcount_table_clusters;
  header_.refcount_table_offset = offset + blocks * cluster_size;
  header_.refcount_table_clusters = static_cast<uint32_t>(clusters);
  table_ = std::move(table);
  dirty_entries_.clear();
  for (uint64_t n = 0; n < old_clusters; ++n) CO_TRY(set(old_offset / cluster_size + n, 0));
  first_maybe_free_ = std::min(first_maybe_free_, old_offset / cluster_size);
  co_return Result<>{};
}

Task<Result<>> Refcounts::write_grown(uint64_t offset, const std::vector<std::byte>& image, uint64_t table_offset, uint64_t clusters) {
  CO_TRY(write(file_, offset, image.data(), image.size()));
  CO_TRY(flush(file_));
  std::byte fields[12];
  put64(fields, table_offset);
  put32(fields + 8, static_cast<uint32_t>(clusters));
  CO_TRY(write(file_, 48, fields, sizeof fields));  // refcount_table_offset, refcount_table_clusters
  co_return co_await flush(file_);
}

// Looks for free clusters, page by page, and does not mark them.
Task<Result<Refcounts::Run>> Refcounts::find_free(uint64_t least, uint64_t most) {
  uint64_t cluster = first_maybe_free_, begin = cluster, found = 0;
  bool first = true;
  for (;;) {
    // In a range without a block the block will take the first cluster.
    const uint64_t table_size = table_.size();
    CO_TRY_VALUE(entry, entry_of(cluster, true));
    // The table may have moved, and its old place is free.
    if (table_.size() != table_size && first_maybe_free_ < begin) {
      cluster = begin = first_maybe_free_;
      found = 0;
      first = true;
      continue;
    }
    for (uint64_t i = entry.index; i < per_page_; ++i, ++cluster) {
      if (refcount_in(entry.page.bytes(), i, header_.refcount_order) != 0) {
        if (found >= least) co_return Run{begin * header_.cluster_size(), found, begin >= never_used_from_};
        found = 0;
        continue;
      }
      if (found == 0) begin = cluster;
      if (first) {
        first_maybe_free_ = cluster;
        first = false;
      }
      if (++found == most) co_return Run{begin * header_.cluster_size(), found, begin >= never_used_from_};
    }
    if (cluster * header_.cluster_size() >= kMostOffset)
      co_return fail(ErrorKind::Usage, "{}: the image cannot grow any more", file_.name());
  }
}

Task<Result<Refcounts::Run>> Refcounts::allocate_some(uint64_t most) {
  const auto hold = co_await lock_.lock();
  CO_TRY_VALUE(run, find_free(1, most));
  for (uint64_t n = 0; n < run.clusters; ++n) CO_TRY(set(run.offset / header_.cluster_size() + n, 1));
  if (first_maybe_free_ == run.offset / header_.cluster_size()) first_maybe_free_ += run.clusters;
  co_return run;
}

Task<Result<uint64_t>> Refcounts::allocate_locked(uint64_t clusters) {
  CO_TRY_VALUE(run, find_free(clusters, clusters));
  for (uint64_t n = 0; n < clusters; ++n) CO_TRY(set(run.offset / header_.cluster_size() + n, 1));
  if (first_maybe_free_ == run.offset / header_.cluster_size()) first_maybe_free_ += clusters;
  co_return run.offset;
}

Task<Result<uint64_t>> Refcounts::allocate(uint64_t clusters) {
  const auto hold = co_await lock_.lock();
  co_return co_await allocate_locked(clusters);
}

Task<Result<uint64_t>> Refcounts::allocate_bytes(uint64_t bytes) {
  const auto hold = co_await lock_.lock();
  const uint64_t cluster_size = header_.cluster_size(), room = shared_end_ - shared_next_;
  bool taken = false;
  if (room > 0) {
    const uint64_t cluster = shared_next_ / cluster_size;
    CO_TRY_VALUE(users, value_of(cluster));
    bool fits = users < most();
    if (fits && bytes > room) {                         // goes on in the next cluster, if that is free
      CO_TRY_VALUE(next, entry_of(cluster + 1, true));  // whose block may be what takes it
      fits = refcount_in(next.page.bytes(), next.index, header_.refcount_order) == 0;
      if (fits) CO_TRY(set(cluster + 1, 1));
      if (fits) shared_end_ += cluster_size;
    }
    if (fits) CO_TRY(set(cluster, users + 1));
    taken = fits;
  }
  if (!taken) {
    CO_TRY_VALUE(offset, allocate_locked(1));
    shared_next_ = offset;
    shared_end_ = offset + cluster_size;
  }
  const uint64_t at = shared_next_;
  shared_next_ += bytes;
  if (shared_next_ == shared_end_) shared_next_ = shared_end_ = 0;
  co_return at;
}

Task<Result<>> Refcounts::change(uint64_t offset, uint64_t length, int by) {
  const auto hold = co_await lock_.lock();
  const uint64_t cluster_size = header_.cluster_size();
  for (uint64_t cluster = offset / cluster_size; cluster * cluster_size < offset + length; ++cluster) {
    CO_TRY_VALUE(old, value_of(cluster));
    if (by < 0 && old < static_cast<uint64_t>(-by))
      co_return fail(ErrorKind::Usage,
                     "{}: damaged: the cluster at {:#x} has a refcount of {}, but is in use; 'lodge image check -r all {}' may mend it",
                     file_.name(), cluster * cluster_size, old, file_.name());
    if (by > 0 && old > most() - static_cast<uint64_t>(by))
      co_return fail(
          ErrorKind::Usage,
          "{}: the cluster at {:#x} is used {} times, and its refcounts of {} bits can say no more; convert it to an image with wider ones",
          file_.name(), cluster * cluster_size, old, header_.refcount_bits());
    const uint64_t value = old + static_cast<uint64_t>(static_cast<int64_t>(by));
    CO_TRY(set(cluster, value));
    if (value != 0) continue;
    first_maybe_free_ = std::min(first_maybe_free_, cluster);
    metadata_.forget(cluster * cluster_size, cluster_size);
    if (shared_next_ / cluster_size == cluster) shared_next_ = shared_end_ = 0;
  }
  co_return Result<>{};
}

Task<Result<>> Refcounts::correct(uint64_t cluster, uint64_t value) {
  const auto hold = co_await lock_.lock();
  CO_TRY(set(cluster, value));
  if (value == 0) first_maybe_free_ = std::min(first_maybe_free_, cluster);
  co_return Result<>{};
}

std::vector<Refcounts::TableEntry> Refcounts::take_dirty_table() {
  std::vector<TableEntry> entries;
  entries.reserve(dirty_entries_.size());
  for (const uint64_t index : dirty_entries_) entries.push_back({index, table_[index]});
  dirty_entries_.clear();
  return entries;
}

Task<Result<>> Refcounts::write_table(const std::vector<TableEntry>& entries) {
  for (const TableEntry& entry : entries) {
    std::byte bytes[8];
    put64(bytes, entry.value);
    CO_TRY(write(file_, header_.refcount_table_offset + entry.index * 8, bytes, sizeof bytes));
  }
  co_return Result<>{};
}

void Refcounts::put_back(const std::vector<TableEntry>& entries) {
  for (const TableEntry& entry : entries) dirty_entries_.insert(entry.index);
}

}  // namespace lodge::block::qcow2
