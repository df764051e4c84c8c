// Counts what the tables name and compares it with the refcounts.
#include <algorithm>
#include <limits>

#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

namespace {
constexpr size_t kMostLines = 1000;
}

class Image::Checker {
 public:
  Checker(Image& image, Repair repair, std::function<void(double)> progress)
      : image_(image), repair_(repair), progress_(std::move(progress)), cluster_(image.cluster_size_) {}

  Task<Result<Findings>> run() {
    CO_TRY(image_.settle());
    file_clusters_ = (image_.file_->size() + cluster_ - 1) / cluster_;
    counts_.resize(file_clusters_);
    found_.total = (image_.header_.size + cluster_ - 1) / cluster_;
    count(0, cluster_);
    count(image_.header_.refcount_table_offset, image_.header_.refcount_table_clusters * cluster_);
    for (const uint64_t block : image_.refcounts_.table()) {
      if (!block) continue;
      if (block >= file_clusters_ * cluster_) {
        corruption(fmt::format("ERROR refcount block at {:#x} is beyond the end of the file", block));
        ++counts_wrong_;
      } else {
        count(block, cluster_);
      }
    }
    CO_TRY(count_snapshots());
    CO_TRY(count_bitmaps());
    CO_TRY(count_tree(image_.l1_, image_.header_.l1_offset, true));
    CO_TRY(compare());
    if (repair_ != Repair::None) CO_TRY(mend());
    for (uint64_t n = file_clusters_; n > 0 && !found_.end_offset; --n)
      if (expected(n - 1)) found_.end_offset = n * cluster_;
    co_return std::move(found_);
  }

 private:
  uint64_t expected(uint64_t n) const {
    if (n >= counts_.size()) return 0;
    if (counts_[n] != std::numeric_limits<uint16_t>::max()) return counts_[n];
    const auto more = many_.find(n);
    return counts_[n] + (more == many_.end() ? 0 : more->second);
  }
  void line(std::string text) {
    if (found_.lines.size() < kMostLines) found_.lines.push_back(std::move(text));
    if (found_.lines.size() == kMostLines) found_.lines.back() = "... and more";
  }
  void corruption(std::string text) {
    ++found_.corruptions;
    line(std::move(text));
  }
  // Clusters that a range touches have a user more.
  void count(uint64_t offset, uint64_t length) {
    for (uint64_t n = offset / cluster_; n * cluster_ < offset + length; ++n) {
      if (n >= file_clusters_) {
        // Not written yet, at the end of the file: nothing wrong with it as such.
        if (n > file_clusters_ + 65536)
          return corruption(fmt::format("ERROR a cluster at {:#x} is far beyond the end of the file", n * cluster_));
        counts_.resize(n + 1);
        file_clusters_ = n + 1;
      }
      if (counts_[n] == std::numeric_limits<uint16_t>::max())
        ++many_[n];
      else
        ++counts_[n];
    }
  }

  Task<Result<>> count_snapshots() {
    const Header& header = image_.header_;
    if (header.snapshots) count(header.snapshots_offset, image_.snapshot_table_bytes_);
    for (const Snapshot& snapshot : image_.snapshots_) {
      CO_TRY_VALUE(l1, image_.load_l1(snapshot));
      CO_TRY(count_tree(l1, snapshot.l1_offset, false));
    }
    co_return Result<>{};
  }

  // docs/interop/qcow2, "Bitmaps extension": the directory, tables, data.
  Task<Result<>> count_bitmaps() {
    const Extension* bitmaps = image_.header_.find(extension::kBitmaps);
    if (!bitmaps || bitmaps->data.size() < 24 || !(image_.header_.autoclear & autoclear::kBitmaps)) co_return Result<>{};
    const uint64_t size = big64(&bitmaps->data[8]), offset = big64(&bitmaps->data[16]);
    if (size > (64u << 20) || offset % cluster_) {
      corruption("ERROR the directory of bitmaps");
      co_return Result<>{};
    }
    count(offset, size);
    std::vector<std::byte> directory(size);
    CO_TRY(block::read(*image_.file_, offset, directory.data(), size));
    for (uint64_t at = 0; at + 24 <= size;) {
      const std::byte* const entry = &directory[at];
      const uint64_t table_offset = big64(entry);
      const uint32_t entries = big32(entry + 8);
      if (entries > (64u << 20) / 8 || table_offset % cluster_) {
        corruption("ERROR the table of a bitmap");
        break;
      }
      count(table_offset, uint64_t{entries} * 8);
      std::vector<uint64_t> table(entries);
      CO_TRY(block::read(*image_.file_, table_offset, table.data(), table.size() * 8));
      for (const uint64_t& raw : table)
        if (const uint64_t host = big64(&raw) & kOffsetMask) count(host, cluster_);
      at += (24 + big16(entry + 18) + big32(entry + 20) + 7) & ~uint64_t{7};
    }
    co_return Result<>{};
  }

  // A first-level table with what it names. `active`: the one that the guest sees, whose flags are looked at.
  Task<Result<>> count_tree(const std::vector<uint64_t>& l1, uint64_t l1_offset, bool active) {
    if (!l1.empty()) count(l1_offset, l1.size() * 8);
    std::vector<std::byte> table(cluster_);
    const bool extended = image_.header_.extended_l2();
    for (uint64_t l1_index = 0; l1_index < l1.size(); ++l1_index) {
      if (active && progress_) progress_(static_cast<double>(l1_index) / static_cast<double>(l1.size()));
      const uint64_t offset = l1[l1_index] & kOffsetMask;
      if (!offset) continue;
      if (offset % cluster_ || (l1[l1_index] & kL1Reserved)) {
        corruption(fmt::format("ERROR L1 entry {}: an L2 table at {:#x}", l1_index, l1[l1_index]));
        continue;
      }
      count(offset, cluster_);
      CO_TRY(block::read(*image_.file_, offset, table.data(), table.size()));
      uint64_t previous = 0;
      for (uint64_t n = 0; n < image_.header_.l2_entries(); ++n) {
        const Entry entry = Entry::load(&table[n * image_.header_.l2_entry_size()], extended);
        count_entry(entry, (l1_index * image_.header_.l2_entries() + n) * cluster_, active, previous);
      }
      if (active) tables_.push_back({l1_index, offset});
    }
    co_return Result<>{};
  }

  void count_entry(const Entry& entry, uint64_t guest, bool active, uint64_t& previous) {
    if (entry.compressed()) {
      const auto place = CompressedPlace::of(entry.word, image_.header_.cluster_bits);
      if (entry.copied()) corruption(fmt::format("ERROR the compressed cluster for {:#x} is marked as one to write in place", guest));
      count(place.offset, place.length);
      if (active) ++found_.allocated, ++found_.compressed, ++found_.fragmented;
      return;
    }
    const bool with_data_file = image_.header_.has_data_file();
    if (!entry.has_host(with_data_file)) return;
    const uint64_t host = entry.host();
    if (host % cluster_)
      return corruption(fmt::format("ERROR the cluster for {:#x} is at {:#x}, which is no cluster's beginning", guest, host));
    if (active) {
      ++found_.allocated;
      if (previous && host != previous + cluster_) ++found_.fragmented;
      previous = host;
    }
    if (!with_data_file) count(host, cluster_);
  }

  // Each count with the right one: block by block, as they are in the file since the commit at the beginning.
  Task<Result<>> compare() {
    const auto& table = image_.refcounts_.table();
    const uint64_t per_block = image_.header_.refcounts_per_block(), clusters = file_clusters_;
    std::vector<std::byte> block(cluster_);
    for (uint64_t n = 0; n < table.size() || n * per_block < clusters; ++n) {
      const bool there = n < table.size() && table[n] && table[n] < clusters * cluster_;
      if (there) CO_TRY(block::read(*image_.file_, table[n], block.data(), block.size()));
      if (!there && n * per_block >= clusters) continue;
      for (uint64_t i = 0; i < per_block; ++i) {
        const uint64_t cluster = n * per_block + i;
        const uint64_t count = there ? refcount_in(block.data(), i, image_.header_.refcount_order) : 0;
        if (count || cluster < clusters) compare_one(cluster, count);  // behind the end of the file nothing is named
      }
    }
    co_return co_await compare_flags();
  }

  void compare_one(uint64_t n, uint64_t count) {
    const uint64_t right = expected(n);
    if (count == right) return;
    wrong_.push_back({n, right});
    if (count > right) {
      ++found_.leaks;
      line(fmt::format("Leaked cluster {} refcount={} reference={}", n, count, right));
    } else {
      corruption(fmt::format("ERROR cluster {} refcount={} reference={}", n, count, right));
      ++counts_wrong_;
    }
  }

  // "Exactly one user" in the active tables: by the right counts.
  Task<Result<>> compare_flags() {
    std::vector<std::byte> table(cluster_);
    for (const auto& [l1_index, offset] : tables_) {
      if ((expected(offset / cluster_) == 1) != ((image_.l1_[l1_index] & kCopied) != 0)) {
        ++flags_wrong_;
        corruption(fmt::format("ERROR OFLAG_COPIED L2 table: l1_index={} l1_entry={:x} refcount={}", l1_index, image_.l1_[l1_index],
                               expected(offset / cluster_)));
      }
      if (image_.header_.has_data_file()) continue;
      CO_TRY(block::read(*image_.file_, offset, table.data(), table.size()));
      for (uint64_t n = 0; n < image_.header_.l2_entries(); ++n) {
        const Entry entry = Entry::load(&table[n * image_.header_.l2_entry_size()], image_.header_.extended_l2());
        if (entry.compressed() || !entry.host() || entry.host() % cluster_) continue;
        const uint64_t users = expected(entry.host() / cluster_);
        if ((users == 1) == entry.copied()) continue;
        ++flags_wrong_;
        corruption(fmt::format("ERROR OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", entry.word, users));
      }
    }
    co_return Result<>{};
  }

  Task<Result<>> mend() {
    const bool all = repair_ == Repair::All;
    if (all && counts_wrong_) {
      CO_TRY(rebuild());
      found_.leaks_fixed = found_.leaks;
      found_.corruptions_fixed += counts_wrong_;
    } else {
      for (const auto& [n, right] : wrong_) {
        CO_TRY_VALUE(count, image_.refcounts_.get(n));
        if (count <= right) continue;
        CO_TRY(image_.refcounts_.correct(n, right));
        ++found_.leaks_fixed;
      }
    }
    if (all && flags_wrong_) {
      CO_TRY(image_.update_copied());
      found_.corruptions_fixed += flags_wrong_;
    }
    CO_TRY(image_.commit(true));
    if (all && found_.corruptions <= found_.corruptions_fixed)
      CO_TRY(image_.set_incompatible(incompatible::kCorrupt | incompatible::kDirty, false));
    co_return Result<>{};
  }

  // New refcounts for everything, behind all that is in use; the header names them last.
  Task<Result<>> rebuild() {
    Header& header = image_.header_;
    // The old table and blocks count no more.
    const auto uncount = [&](uint64_t offset, uint64_t length) {
      for (uint64_t n = offset / cluster_; n * cluster_ < offset + length; ++n) {
        if (n >= counts_.size() || !counts_[n]) continue;
        if (const auto more = many_.find(n); more != many_.end() && more->second)
          --more->second;
        else
          --counts_[n];
      }
    };
    uncount(header.refcount_table_offset, header.refcount_table_clusters * cluster_);
    for (const uint64_t block : image_.refcounts_.table())
      if (block && block < file_clusters_ * cluster_) uncount(block, cluster_);
    const uint64_t first = file_clusters_, per_block = header.refcounts_per_block();
    uint64_t blocks = 1, table = 1;
    for (;;) {
      const uint64_t clusters = first + blocks + table;
      const uint64_t needed = (clusters + per_block - 1) / per_block, table_needed = (needed * 8 + cluster_ - 1) / cluster_;
      if (needed <= blocks && table_needed <= table) break;
      blocks = std::max(blocks, needed);
      table = std::max(table, table_needed);
    }
    const uint64_t most = most_refcount(header.refcount_order);
    const uint64_t offset = first * cluster_;
    std::vector<std::byte> block(cluster_);
    for (uint64_t b = 0; b < blocks; ++b) {
      std::ranges::fill(block, std::byte{0});
      for (uint64_t i = 0; i < per_block; ++i) {
        const uint64_t n = b * per_block + i;
        const uint64_t value = n >= first ? (n < first + blocks + table ? 1 : 0) : expected(n);
        if (value > most)
          co_return fail(ErrorKind::Usage, "{}: a cluster has {} users, more than its refcounts can say; convert the image", image_.name(),
                         value);
        set_refcount_in(block.data(), i, header.refcount_order, value);
      }
      CO_TRY(block::write(*image_.file_, offset + b * cluster_, block.data(), block.size()));
    }
    std::vector<std::byte> entries(table * cluster_);
    for (uint64_t b = 0; b < blocks; ++b) put64(&entries[b * 8], offset + b * cluster_);
    CO_TRY(block::write(*image_.file_, offset + blocks * cluster_, entries.data(), entries.size()));
    CO_TRY(flush(*image_.file_));
    // Cached pages of the old blocks are of no use, whatever is in them.
    for (const uint64_t old : image_.refcounts_.table())
      if (old) image_.metadata_.forget(old, cluster_);
    (void)image_.refcounts_.take_dirty_table();
    CO_TRY(image_.write_header([&](Header& next) {
      next.refcount_table_offset = offset + blocks * cluster_;
      next.refcount_table_clusters = static_cast<uint32_t>(table);
    }));
    co_return co_await image_.refcounts_.load();
  }

  struct Table {
    uint64_t l1_index, offset;
  };
  struct Wrong {
    uint64_t cluster, right;
  };
  Image& image_;
  const Repair repair_;
  const std::function<void(double)> progress_;
  const uint64_t cluster_;
  uint64_t file_clusters_ = 0;
  std::vector<uint16_t> counts_;                 // users of each cluster
  std::unordered_map<uint64_t, uint64_t> many_;  // users beyond what that holds
  std::vector<Table> tables_;
  std::vector<Wrong> wrong_;
  uint64_t counts_wrong_ = 0, flags_wrong_ = 0;  // corruptions that new refcounts, or new flags, mend
  Findings found_;
};

Task<Result<Image::Findings>> Image::check(Repair repair, std::function<void(double)> progress) {
  Checker checker(*this, repair, std::move(progress));
  co_return co_await checker.run();
}

}  // namespace lodge::block::qcow2
