// Internal snapshots: first-level tables of their own over clusters that are shared.
//
// While the counts of a whole tree change, the disk holds something that is not quite one state or the other; the dirty bit says so, and
// whoever opens the image after a crash counts anew (version 3; in version 2 clusters may be leaked).
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>

#include "block/qcow2/image.hpp"

namespace lodge::block::qcow2 {

namespace {

constexpr uint64_t kFixed = 40;  // bytes of an entry before its extra data
constexpr uint64_t kExtra = 24;  // extra data that we write: state size, disk size, instruction count

}  // namespace

Task<Result<>> Image::load_snapshots() {
  uint64_t at = header_.snapshots_offset;
  uint64_t total = 0;
  for (uint32_t n = 0; n < header_.snapshots; ++n) {
    std::byte fixed[kFixed];
    CO_TRY(block::read(*file_, at, fixed, sizeof fixed));
    Snapshot snapshot;
    snapshot.l1_offset = big64(fixed);
    snapshot.l1_entries = big32(fixed + 8);
    const uint64_t id_size = big16(fixed + 12), name_size = big16(fixed + 14);
    snapshot.seconds = big32(fixed + 16);
    snapshot.nanoseconds = big32(fixed + 20);
    snapshot.clock_ns = big64(fixed + 24);
    snapshot.state_bytes = big32(fixed + 32);
    snapshot.disk_size = header_.size;
    const uint64_t extra_size = big32(fixed + 36);
    if (extra_size > kMaxSnapshotExtraBytes || uint64_t{snapshot.l1_entries} * 8 > kMaxL1Bytes || snapshot.l1_offset % cluster_size_)
      co_return fail(ErrorKind::Usage, "{}: damaged: entry {} of the snapshot table", name(), n);
    std::vector<std::byte> rest(extra_size + id_size + name_size);
    CO_TRY(block::read(*file_, at + kFixed, rest.data(), rest.size()));
    if (extra_size >= 8) snapshot.state_bytes = big64(&rest[0]);
    if (extra_size >= 16) snapshot.disk_size = big64(&rest[8]);
    if (extra_size >= 24) snapshot.instructions = big64(&rest[16]);
    if (extra_size > kExtra) snapshot.unknown_extra.assign(rest.begin() + kExtra, rest.begin() + static_cast<ptrdiff_t>(extra_size));
    const auto* text = reinterpret_cast<const char*>(rest.data());
    snapshot.id.assign(text + extra_size, id_size);
    snapshot.name.assign(text + extra_size + id_size, name_size);
    if (header_.l1_entries_for(snapshot.disk_size) > snapshot.l1_entries)
      co_return fail(ErrorKind::Usage, "{}: damaged: the L1 table of snapshot '{}' is too small for its disk", name(), snapshot.name);
    snapshots_.push_back(std::move(snapshot));
    const uint64_t length = (kFixed + rest.size() + 7) & ~uint64_t{7};
    at += length;
    total += length;
    if (total > kMaxSnapshotTableBytes) co_return fail(ErrorKind::Usage, "{}: damaged: the snapshot table is too large", name());
  }
  snapshot_table_bytes_ = total;
  co_return Result<>{};
}

// A table in a new place; then the header that names it; then the old one is free.
Task<Result<>> Image::write_snapshot_table(std::vector<Snapshot> snapshots) {
  std::vector<std::byte> table;
  for (const Snapshot& snapshot : snapshots) {
    const uint64_t extra_size = kExtra + snapshot.unknown_extra.size();
    const uint64_t begin = table.size();
    table.resize(begin + ((kFixed + extra_size + snapshot.id.size() + snapshot.name.size() + 7) & ~uint64_t{7}));
    std::byte* const at = &table[begin];
    put64(at, snapshot.l1_offset);
    put32(at + 8, snapshot.l1_entries);
    put16(at + 12, static_cast<uint16_t>(snapshot.id.size()));
    put16(at + 14, static_cast<uint16_t>(snapshot.name.size()));
    put32(at + 16, snapshot.seconds);
    put32(at + 20, snapshot.nanoseconds);
    put64(at + 24, snapshot.clock_ns);
    put32(at + 32, snapshot.state_bytes > UINT32_MAX ? 0 : static_cast<uint32_t>(snapshot.state_bytes));
    put32(at + 36, static_cast<uint32_t>(extra_size));
    put64(at + kFixed, snapshot.state_bytes);
    put64(at + kFixed + 8, snapshot.disk_size);
    put64(at + kFixed + 16, snapshot.instructions);
    std::ranges::copy(snapshot.unknown_extra, at + kFixed + kExtra);
    std::memcpy(at + kFixed + extra_size, snapshot.id.data(), snapshot.id.size());
    std::memcpy(at + kFixed + extra_size + snapshot.id.size(), snapshot.name.data(), snapshot.name.size());
  }
  uint64_t offset = 0;
  if (!table.empty()) {
    CO_TRY_VALUE(found, refcounts_.allocate((table.size() + cluster_size_ - 1) / cluster_size_));
    offset = found;
    CO_TRY(block::write(*file_, offset, table.data(), table.size()));
  }
  CO_TRY(commit(true));
  const uint64_t old_offset = header_.snapshots_offset, old_bytes = snapshot_table_bytes_;
  CO_TRY(write_header([&](Header& header) {
    header.snapshots_offset = offset;
    header.snapshots = static_cast<uint32_t>(snapshots.size());
  }));
  snapshot_table_bytes_ = table.size();
  snapshots_ = std::move(snapshots);
  if (old_bytes) freed_.push_back({old_offset, (old_bytes + cluster_size_ - 1) / cluster_size_ * cluster_size_});
  co_return co_await commit(true);
}

Task<Result<std::vector<uint64_t>>> Image::load_l1(const Snapshot& snapshot) {
  std::vector<uint64_t> l1(snapshot.l1_entries);
  CO_TRY(block::read(*file_, snapshot.l1_offset, l1.data(), l1.size() * 8));
  for (uint64_t& entry : l1) entry = big64(&entry);
  co_return l1;
}

Task<Result<>> Image::change_table(uint64_t table, int by) {
  if (table % cluster_size_) co_return corrupt(fmt::format("an L2 table at {:#x}", table));
  // The entries first: as long as the table has its count it stays where it is.
  for (uint64_t at = 0; at < cluster_size_; at += metadata_.page_size()) {
    CO_TRY_VALUE(page, metadata_.get(table + at, PageKind::Mapping));
    const Slot slot{page, 0};
    for (uint64_t index = 0; index < entries_per_page_; ++index) {
      const Entry entry = load_entry(slot, index);
      if (entry.compressed()) {
        const auto place = CompressedPlace::of(entry.word, header_.cluster_bits);
        CO_TRY(refcounts_.change(place.offset, place.length, by));
      } else if (entry.host()) {
        CO_TRY(refcounts_.change(entry.host(), cluster_size_, by));
      }
    }
  }
  co_return co_await refcounts_.change(table, cluster_size_, by);
}

// Adds to the refcounts of the tables and of what they name.
Task<Result<>> Image::change_tree(const std::vector<uint64_t>& l1, int by) {
  Result<> changed;
  for (size_t n = 0; n < l1.size() && changed; ++n) {
    const uint64_t table = l1[n] & kOffsetMask;
    if (!table) continue;
    changed = co_await change_table(table, by);
    if (changed) changed = co_await commit_if_crowded();
  }
  if (!changed && by > 0) {
    // A count that can go no higher. How many of the last table's were changed nobody knows: count anew.
    CO_TRY_VALUE(found, check(Repair::All, nullptr));
    (void)found;
    CO_TRY(set_incompatible(incompatible::kDirty, false));
  }
  co_return changed;
}

// The flag that says "exactly one" is set where it is so, and only there. Tables that are shared have it nowhere.
Task<Result<>> Image::update_copied() {
  for (uint64_t l1_index = 0; l1_index < l1_.size(); ++l1_index) {
    const uint64_t table = l1_[l1_index] & kOffsetMask;
    if (!table) continue;
    CO_TRY_VALUE(users, refcounts_.get(table / cluster_size_));
    const uint64_t l1_now = users == 1 ? table | kCopied : table;
    for (uint64_t at = 0; at < cluster_size_; at += metadata_.page_size()) {
      CO_TRY_VALUE(page, metadata_.get(table + at, PageKind::Mapping));
      const Slot slot{page, 0};
      for (uint64_t n = 0; n < entries_per_page_; ++n) {
        Entry entry = load_entry(slot, n);
        if (entry.compressed() || !entry.host()) continue;
        CO_TRY_VALUE(count, refcounts_.get(entry.host() / cluster_size_));
        const uint64_t word = count == 1 ? entry.word | kCopied : entry.word & ~kCopied;
        if (word == entry.word) continue;
        entry.word = word;
        store_entry(slot, entry, n);
      }
    }
    if (l1_now != l1_[l1_index]) {
      l1_[l1_index] = l1_now;
      dirty_l1_.insert(l1_index);
    }
    CO_TRY(commit_if_crowded());
  }
  co_return Result<>{};
}

Result<size_t> Image::find_snapshot(const std::string& wanted) const {
  for (const auto field : {&Snapshot::id, &Snapshot::name})
    for (size_t n = 0; n < snapshots_.size(); ++n)
      if (snapshots_[n].*field == wanted) return n;
  return fail(ErrorKind::Usage, "{}: there is no snapshot '{}'; 'lodge image snapshot -l {}' lists them", name(), wanted, name());
}

Result<> Image::snapshots_possible() const {
  if (options_.read_only) return io_failure(*this, "cannot be changed", EROFS);
  if (header_.has_data_file())
    return fail(ErrorKind::Unsupported, "{}: images with an external data file have no internal snapshots", name());
  return {};
}

Task<Result<>> Image::show_snapshot(const std::string& wanted) {
  const auto found = find_snapshot(wanted);
  if (!found) co_return std::unexpected(found.error());
  CO_TRY_VALUE(l1, load_l1(snapshots_[*found]));
  l1_ = l1;
  header_.size = snapshots_[*found].disk_size;
  co_return Result<>{};
}

Task<Result<>> Image::create_snapshot(std::string snapshot_name) {
  if (auto possible = snapshots_possible(); !possible) co_return possible;
  CO_TRY(begin_writing());
  if (snapshots_.size() >= kMaxSnapshots)
    co_return fail(ErrorKind::Usage, "{}: it has {} snapshots, and cannot have more", name(), kMaxSnapshots);
  if (snapshot_name.empty() || snapshot_name.size() > 255)
    co_return fail(ErrorKind::Usage, "{}: a snapshot's name has 1 to 255 bytes", name());
  if (std::ranges::any_of(snapshots_, [&](const Snapshot& one) { return one.name == snapshot_name; }))
    co_return fail(ErrorKind::Usage, "{}: there is a snapshot '{}' already; delete it first, or take another name", name(), snapshot_name);
  if (refcounts_.most() < 2)
    co_return fail(ErrorKind::Usage, "{}: its refcounts have one bit, so it cannot have snapshots; convert it to an image with 16", name());
  CO_TRY(commit(true));

  Snapshot made;
  uint64_t highest = 0;
  for (const Snapshot& one : snapshots_) {
    uint64_t number = 0;
    std::from_chars(one.id.data(), one.id.data() + one.id.size(), number);
    highest = std::max(highest, number);
  }
  made.id = std::to_string(highest + 1);
  made.name = std::move(snapshot_name);
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  made.seconds = static_cast<uint32_t>(now.tv_sec);
  made.nanoseconds = static_cast<uint32_t>(now.tv_nsec);
  made.disk_size = header_.size;
  made.l1_entries = static_cast<uint32_t>(l1_.size());

  CO_TRY(set_incompatible(incompatible::kDirty, true));
  CO_TRY(change_tree(l1_, 1));
  CO_TRY(update_copied());
  std::vector<std::byte> table(std::max<uint64_t>(1, (l1_.size() * 8 + cluster_size_ - 1) / cluster_size_) * cluster_size_);
  for (uint64_t n = 0; n < l1_.size(); ++n) put64(&table[n * 8], l1_[n] & ~kCopied);
  CO_TRY_VALUE(offset, refcounts_.allocate(table.size() / cluster_size_));
  made.l1_offset = offset;
  CO_TRY(block::write(*file_, offset, table.data(), table.size()));
  auto snapshots = snapshots_;
  snapshots.push_back(std::move(made));
  CO_TRY(write_snapshot_table(std::move(snapshots)));
  co_return co_await set_incompatible(incompatible::kDirty, false);
}

Task<Result<>> Image::apply_snapshot(const std::string& wanted) {
  if (auto possible = snapshots_possible(); !possible) co_return possible;
  const auto found = find_snapshot(wanted);
  if (!found) co_return std::unexpected(found.error());
  CO_TRY(begin_writing());
  const Snapshot& snapshot = snapshots_[*found];
  CO_TRY_VALUE(l1, load_l1(snapshot));
  if (l1.size() > l1_.size()) CO_TRY(move_l1(l1.size(), header_.size));
  CO_TRY(commit(true));
  CO_TRY(set_incompatible(incompatible::kDirty, true));
  CO_TRY(change_tree(l1, 1));
  CO_TRY(commit(true));
  const std::vector<uint64_t> old = l1_;
  l1.resize(l1_.size());
  l1_ = l1;
  for (uint64_t n = 0; n < l1_.size(); ++n) dirty_l1_.insert(n);
  CO_TRY(commit(true));
  CO_TRY(write_header([&](Header& header) { header.size = snapshot.disk_size; }));
  CO_TRY(change_tree(old, -1));
  CO_TRY(update_copied());
  CO_TRY(commit(true));
  co_return co_await set_incompatible(incompatible::kDirty, false);
}

Task<Result<>> Image::delete_snapshot(const std::string& wanted) {
  if (auto possible = snapshots_possible(); !possible) co_return possible;
  const auto found = find_snapshot(wanted);
  if (!found) co_return std::unexpected(found.error());
  CO_TRY(begin_writing());
  CO_TRY(commit(true));
  const Snapshot snapshot = snapshots_[*found];
  CO_TRY_VALUE(l1, load_l1(snapshot));
  CO_TRY(set_incompatible(incompatible::kDirty, true));
  auto left = snapshots_;
  left.erase(left.begin() + static_cast<ptrdiff_t>(*found));
  CO_TRY(write_snapshot_table(std::move(left)));
  CO_TRY(change_tree(l1, -1));
  CO_TRY(refcounts_.change(snapshot.l1_offset, std::max<uint64_t>(1, uint64_t{snapshot.l1_entries} * 8), -1));
  CO_TRY(update_copied());
  CO_TRY(commit(true));
  co_return co_await set_incompatible(incompatible::kDirty, false);
}

}  // namespace lodge::block::qcow2
