// From addresses of the guest's disk to clusters of the file: the two levels of tables.
#include <algorithm>

#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

std::unexpected<Error> Image::corrupt(std::string what) {
  corrupt_ = true;
  return fail(ErrorKind::Usage, "{}: damaged: {}. Nothing more is written to it; 'lodge image check --repair all' may mend it", name(),
              what);
}

Task<Result<Image::Slot>> Image::slot_of(uint64_t guest, bool for_change) {
  const uint64_t cluster = guest >> header_.cluster_bits, per_table = header_.l2_entries();
  const uint64_t l1_index = cluster / per_table;
  if (!(l1_[l1_index] & kOffsetMask) || (for_change && !(l1_[l1_index] & kCopied))) {
    if (!for_change) co_return Slot{};
    CO_TRY(make_l2(l1_index));
  }
  const uint64_t table = l1_[l1_index] & kOffsetMask;
  if ((l1_[l1_index] & kL1Reserved) || table % cluster_size_ || table == 0)
    co_return corrupt(fmt::format("the L2 table of entry {} of the L1 table is at {:#x}", l1_index, l1_[l1_index] & ~kCopied));
  const uint64_t within = cluster % per_table;
  CO_TRY_VALUE(page, metadata_.get(table + within / entries_per_page_ * metadata_.page_size(), PageKind::Mapping));
  co_return Slot{page, within % entries_per_page_};
}

// A second-level table of this image's own: new, or a copy of one that it shares with a snapshot.
Task<Result<>> Image::make_l2(uint64_t l1_index) {
  const auto hold = co_await l2_making_.lock();
  const uint64_t old = l1_[l1_index] & kOffsetMask;
  if (l1_[l1_index] & kCopied) co_return Result<>{};  // another request has made it
  if (old % cluster_size_) co_return corrupt(fmt::format("an L2 table at {:#x}", old));
  CO_TRY_VALUE(table, refcounts_.allocate(1));
  for (uint64_t at = 0; at < cluster_size_; at += metadata_.page_size()) {
    if (!old) {
      metadata_.create(table + at, PageKind::Mapping);
      continue;
    }
    auto from = co_await metadata_.get(old + at, PageKind::Mapping);
    if (!from) {
      metadata_.forget(table, cluster_size_);
      (void)co_await refcounts_.change(table, cluster_size_, -1);
      co_return std::unexpected(std::move(from).error());
    }
    const PageRef page = metadata_.create(table + at, PageKind::Mapping);
    std::memcpy(page.bytes(), from->bytes(), metadata_.page_size());
  }
  if (old) freed_.push_back({old, cluster_size_});
  l1_[l1_index] = table | kCopied;
  dirty_l1_.insert(l1_index);
  co_return Result<>{};
}

Entry Image::load_entry(const Slot& slot, uint64_t n) const {
  return Entry::load(slot.page.bytes() + (slot.index + n) * header_.l2_entry_size(), header_.extended_l2());
}

void Image::store_entry(const Slot& slot, const Entry& entry, uint64_t n) {
  entry.store(slot.page.bytes() + (slot.index + n) * header_.l2_entry_size(), header_.extended_l2());
  metadata_.mark_dirty(*slot.page);
}

// What an entry may not be, in an image that nobody has tampered with.
Result<> Image::check_entry(const Entry& entry, uint64_t guest) {
  if (entry.compressed()) {
    if (data_file_) return corrupt(fmt::format("compressed data for {:#x} in an image with an external data file", guest));
    return {};
  }
  const uint64_t host = entry.host();
  const bool zero_bit = entry.word & kZero;
  if (host % cluster_size_ || (entry.word & kL2Reserved) || (zero_bit && (header_.version < 3 || header_.extended_l2())))
    return corrupt(fmt::format("the L2 entry for {:#x} is {:#x}", guest, entry.word));
  if (header_.extended_l2()) {
    const uint32_t allocated = static_cast<uint32_t>(entry.bitmap), zero = static_cast<uint32_t>(entry.bitmap >> 32);
    if ((allocated & zero) || (allocated && !entry.has_host(data_file_ != nullptr)))
      return corrupt(fmt::format("the subclusters of the L2 entry for {:#x} are {:#x}", guest, entry.bitmap));
  }
  if (data_file_ || !host) return {};
  const auto within = [&](uint64_t begin, uint64_t length) { return host < begin + length && begin < host + cluster_size_; };
  if (within(0, cluster_size_) || within(header_.l1_offset, uint64_t{header_.l1_entries} * 8) ||
      within(header_.refcount_table_offset, header_.refcount_table_clusters * cluster_size_))
    return corrupt(fmt::format("the guest's data at {:#x} lies at {:#x}, in the image's own tables", guest, host));
  return {};
}

Task<Result<Image::Place>> Image::place_of(uint64_t guest, uint64_t length) {
  CO_TRY_VALUE(slot, slot_of(guest, false));
  const uint64_t sub_size = header_.subcluster_size();
  Place place;
  if (!slot.page) {  // as far as the missing table reaches
    const uint64_t reach = cluster_size_ * header_.l2_entries();
    place.length = std::min(length, reach - guest % reach);
    co_return place;
  }
  const uint64_t clusters = std::min(entries_left(slot), (guest % cluster_size_ + length + cluster_size_ - 1) / cluster_size_);
  uint64_t at = guest, end = guest + length;
  for (uint64_t n = 0; n < clusters; ++n) {
    const Entry entry = load_entry(slot, n);
    if (auto good = check_entry(entry, at - at % cluster_size_); !good) co_return std::unexpected(std::move(good).error());
    const uint64_t cluster_end = std::min(end, (at / cluster_size_ + 1) * cluster_size_);
    for (; at < cluster_end; at = std::min(cluster_end, (at / sub_size + 1) * sub_size)) {
      const Kind kind = entry.kind(static_cast<uint32_t>(at % cluster_size_ / sub_size), header_);
      const uint64_t host = kind == Kind::Normal ? entry.host() + at % cluster_size_ : 0;
      const bool in_place = kind == Kind::Normal && entry.copied();
      if (at == guest) {
        place.kind = kind;
        place.in_place = in_place;
        place.host = host;
        place.word = entry.word;
        if (kind == Kind::Compressed) {
          place.length = cluster_end - guest;
          co_return place;
        }
        continue;
      }
      if (kind != place.kind || in_place != place.in_place || (kind == Kind::Normal && host != place.host + (at - guest))) {
        place.length = at - guest;
        co_return place;
      }
    }
  }
  place.length = at - guest;
  co_return place;
}

void Image::free_later(const Entry& entry) {
  if (entry.compressed()) {
    const auto place = CompressedPlace::of(entry.word, header_.cluster_bits);
    freed_.push_back({place.offset, place.length});
  } else if (!data_file_ && entry.host()) {
    freed_.push_back({entry.host(), cluster_size_});
  }
}

}  // namespace lodge::block::qcow2
