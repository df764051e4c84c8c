#include "block/qcow2/image.hpp"

#include <algorithm>
#include <cerrno>

namespace lodge::block::qcow2 {

namespace {

// Flags of an entry of the bitmap directory (docs/interop/qcow2, "Bitmap directory").
constexpr uint32_t kBitmapInUse = 1;
constexpr uint64_t kMaxBitmapDirectory = 64 << 20;

}  // namespace

Image::Image(IoContext& context, std::unique_ptr<Node> file, Header header, OpenOptions options)
    : Node(file->name()),
      context_(context),
      file_(std::move(file)),
      header_(std::move(header)),
      options_(options),
      metadata_(*file_, header_.cluster_size(), options.metadata_bytes / std::min<uint64_t>(header_.cluster_size(), 4096)),
      refcounts_(*file_, header_, metadata_),
      cluster_size_(header_.cluster_size()),
      entries_per_page_(metadata_.page_size() / header_.l2_entry_size()) {}

Task<Result<std::unique_ptr<Image>>> Image::open(IoContext& context, std::unique_ptr<Node> file, OpenOptions options) {
  const uint64_t file_size = file->size();
  std::vector<std::byte> cluster(std::min<uint64_t>(file_size, 512));
  CO_TRY(block::read(*file, 0, cluster.data(), cluster.size()));
  const auto size = header_cluster_size(cluster, file->name());
  if (!size) co_return std::unexpected(size.error());
  cluster.resize(*size);
  CO_TRY(block::read(*file, 0, cluster.data(), cluster.size()));
  auto header = parse_header(cluster, file->name(), file_size);
  if (!header) co_return std::unexpected(std::move(header).error());
  if (!options.read_only && !options.check && (header->incompatible & incompatible::kCorrupt))
    co_return fail(
        ErrorKind::Usage,
        "{}: the image is marked as damaged and is not written. Look at it with 'lodge image check', mend it with 'lodge image check "
        "--repair all', or open it read-only",
        file->name());
  std::unique_ptr<Image> image(new Image(context, std::move(file), std::move(*header), options));
  CO_TRY(image->load());
  co_return image;
}

Task<Result<>> Image::load() {
  grows_with_zeroes_ = file_->limits().grows_with_zeroes;
  l1_.resize(header_.l1_entries);
  CO_TRY(block::read(*file_, header_.l1_offset, l1_.data(), l1_.size() * 8));
  for (uint64_t& entry : l1_) entry = big64(&entry);
  CO_TRY(refcounts_.load());
  co_return co_await load_snapshots();
}

// Before the first change: what the header says of the image must be true of one that is written.
Task<Result<>> Image::begin_writing() {
  const auto hold = co_await header_lock_.lock();
  if (writing_) co_return Result<>{};
  if (header_.incompatible & incompatible::kDirty) {  // refcounts were not kept: count anew
    CO_TRY_VALUE(found, check(Repair::All, nullptr));
    if (found.check_errors || found.corruptions > found.corruptions_fixed)
      co_return corrupt("it was not closed, and its refcounts cannot be mended");
    CO_TRY(set_incompatible(incompatible::kDirty, false));
  }
  if (header_.autoclear & ~autoclear::kKnown) {
    CO_TRY(write_header([](Header& header) { header.autoclear &= autoclear::kKnown; }));
  }
  // Bitmaps of what has changed are not kept up: they say so from now on.
  if (const Extension* bitmaps = header_.find(extension::kBitmaps);
      bitmaps && bitmaps->data.size() >= 24 && (header_.autoclear & autoclear::kBitmaps)) {
    const uint64_t size = big64(&bitmaps->data[8]), offset = big64(&bitmaps->data[16]);
    if (size > kMaxBitmapDirectory) co_return corrupt("its directory of bitmaps is too large");
    std::vector<std::byte> directory(size);
    CO_TRY(block::read(*file_, offset, directory.data(), size));
    for (uint64_t at = 0; at + 24 <= size;) {
      std::byte* const entry = &directory[at];
      put32(entry + 12, big32(entry + 12) | kBitmapInUse);
      at += (24 + big16(entry + 18) + big32(entry + 20) + 7) & ~uint64_t{7};
    }
    CO_TRY(block::write(*file_, offset, directory.data(), size));
    CO_TRY(flush(*file_));
  }
  writing_ = true;
  co_return Result<>{};
}

Limits Image::limits() const {
  return {.request_alignment = 1,
          .memory_alignment = file_->limits().memory_alignment,
          .optimal = static_cast<uint32_t>(cluster_size_),
          .keeps_zeroes = header_.version >= 3 || !backing_};
}

std::optional<uint64_t> Image::allocated_size() const {
  const auto own = file_->allocated_size();
  if (!own || !data_file_) return own;
  const auto other = data_file_->allocated_size();
  return other ? std::optional(*own + *other) : std::nullopt;
}

Task<Result<Extent>> Image::map(uint64_t offset, uint64_t length) {
  CO_TRY_VALUE(place, place_of(offset, length));
  Extent extent{.length = place.length};
  switch (place.kind) {
    case Kind::Zero: extent.present = extent.zero = true; break;
    case Kind::Normal:
      extent.present = extent.data = true;
      extent.offset = place.host;
      break;
    case Kind::Compressed: extent.present = extent.data = extent.compressed = true; break;
    case Kind::Unallocated: {
      const uint64_t backed = backing_ ? backing_->size() : 0;
      if (offset >= backed) {
        extent.zero = true;
        extent.present = backing_ != nullptr;  // beyond the backing file's end this image decides: zeros
        break;
      }
      CO_TRY_VALUE(below, backing_->map(offset, std::min(place.length, backed - offset)));
      extent = below;
      ++extent.depth;
      break;
    }
  }
  co_return extent;
}

// The first-level table in a new place, with room for so many entries; the size in the header at the same time.
Task<Result<>> Image::move_l1(uint64_t entries, uint64_t size) {
  CO_TRY(commit(true));
  const uint64_t bytes = entries * 8, clusters = (bytes + cluster_size_ - 1) / cluster_size_;
  CO_TRY_VALUE(offset, refcounts_.allocate(clusters));
  std::vector<std::byte> table(clusters * cluster_size_);
  for (uint64_t n = 0; n < l1_.size(); ++n) put64(&table[n * 8], l1_[n]);
  CO_TRY(block::write(*file_, offset, table.data(), table.size()));
  CO_TRY(commit(true));  // its refcounts
  const Freed old{header_.l1_offset, (uint64_t{header_.l1_entries} * 8 + cluster_size_ - 1) / cluster_size_ * cluster_size_};
  const bool had = header_.l1_entries > 0;
  CO_TRY(write_header([&](Header& header) {
    header.l1_offset = offset;
    header.l1_entries = static_cast<uint32_t>(entries);
    header.size = size;
  }));
  l1_.resize(entries);
  if (had) freed_.push_back(old);
  co_return co_await commit(true);
}

Task<Result<>> Image::resize(uint64_t bytes) {
  if (options_.read_only) co_return io_failure(*this, "cannot be resized", EROFS);
  CO_TRY(begin_writing());
  const uint64_t old = header_.size;
  if (bytes == old) co_return Result<>{};
  const uint64_t entries = header_.l1_entries_for(bytes);
  if (entries * 8 > kMaxL1Bytes)
    co_return fail(ErrorKind::Usage, "{}: {} bytes are too many for clusters of {} bytes", name(), bytes, cluster_size_);
  if (bytes < old) {
    if (!snapshots_.empty())
      co_return fail(ErrorKind::Usage, "{}: an image with snapshots cannot be made smaller; delete them first", name());
    CO_TRY(commit(true));
    CO_TRY(write_header([&](Header& header) { header.size = bytes; }));
    CO_TRY(drop_from(bytes));
    if (data_file_ && (header_.autoclear & autoclear::kRawDataFile)) CO_TRY(data_file_->resize(bytes));
    co_return co_await commit(true);
  }
  if (entries > header_.l1_entries) {
    CO_TRY(move_l1(entries, bytes));
  } else {
    CO_TRY(commit(true));
    CO_TRY(write_header([&](Header& header) { header.size = bytes; }));
  }
  if (data_file_ && (header_.autoclear & autoclear::kRawDataFile)) CO_TRY(data_file_->resize(bytes));
  // What is new reads as zeros, also where the old end lay within a cluster and where the backing file goes on.
  const uint64_t backed = backing_ ? backing_->size() : 0;
  const uint64_t cluster_end = std::min(bytes, (old + cluster_size_ - 1) / cluster_size_ * cluster_size_);
  const uint64_t zero_to = std::max(cluster_end, std::min(bytes, backed));
  if (zero_to > old) CO_TRY(write_zeroes(old, zero_to - old, true));
  co_return co_await commit(true);
}

// Everything of the guest's disk from here on is unallocated; a cluster that begins before stays.
Task<Result<>> Image::drop_from(uint64_t guest) {
  const uint64_t reach = cluster_size_ * header_.l2_entries();
  const uint64_t first = (guest + cluster_size_ - 1) / cluster_size_;
  for (uint64_t l1_index = guest / reach; l1_index < l1_.size(); ++l1_index) {
    if (!(l1_[l1_index] & kOffsetMask)) continue;
    const uint64_t table_first = l1_index * header_.l2_entries();
    const bool whole = table_first >= first;
    for (uint64_t n = whole ? 0 : first - table_first; n < header_.l2_entries(); n += entries_per_page_ - n % entries_per_page_) {
      const uint64_t at = (table_first + n) * cluster_size_;
      // A table that is dropped as a whole is not changed, since it may be a snapshot's, too.
      CO_TRY_VALUE(slot, slot_of(at, !whole));
      for (uint64_t i = 0; i < entries_left(slot); ++i) {
        const Entry entry = load_entry(slot, i);
        if (!entry.word && !entry.bitmap) continue;
        if (auto good = check_entry(entry, at + i * cluster_size_); !good) co_return std::unexpected(std::move(good).error());
        free_later(entry);
        if (!whole) store_entry(slot, {}, i);
      }
    }
    if (whole) {
      freed_.push_back({l1_[l1_index] & kOffsetMask, cluster_size_});
      l1_[l1_index] = 0;
      dirty_l1_.insert(l1_index);
    }
    CO_TRY(commit_if_crowded());
  }
  co_return Result<>{};
}

Task<Result<>> Image::make_empty() {
  if (options_.read_only) co_return io_failure(*this, "cannot be emptied", EROFS);
  CO_TRY(begin_writing());
  CO_TRY(drop_from(0));
  co_return co_await commit(true);
}

Task<Result<>> Image::change_backing(std::string file, std::string format) {
  if (options_.read_only) co_return io_failure(*this, "cannot be changed", EROFS);
  CO_TRY(begin_writing());
  CO_TRY(commit(true));
  co_return co_await write_header([&](Header& header) {
    header.set_text(extension::kBackingFormat, file.empty() ? "" : format);
    header.backing_file = file;
  });
}

Task<Result<>> Image::close() {
  if (!options_.read_only && writing_ && !corrupt_) {
    CO_TRY(settle());
  }
  if (data_file_) CO_TRY(data_file_->close());
  if (backing_) CO_TRY(backing_->close());
  co_return co_await file_->close();
}

}  // namespace lodge::block::qcow2
