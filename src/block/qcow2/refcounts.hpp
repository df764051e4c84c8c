// Which clusters of the file are in use, and by how many: the refcount table and its blocks.
//
// Changes are made in memory; Qcow2::commit() has them written in the right order. One change at a time: whoever waits for a block to be
// read holds the lock.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "block/qcow2/header.hpp"
#include "block/qcow2/metadata.hpp"

namespace lodge::block::qcow2 {

// The n-th refcount of a block, of 2^order bits.
[[nodiscard]] uint64_t refcount_in(const std::byte* block, uint64_t n, uint32_t order);
void set_refcount_in(std::byte* block, uint64_t n, uint32_t order, uint64_t value);
[[nodiscard]] constexpr uint64_t most_refcount(uint32_t order) { return order == 6 ? UINT64_MAX : (uint64_t{1} << (1u << order)) - 1; }

class Refcounts {
 public:
  Refcounts(Node& file, Header& header, MetadataCache& metadata);

  Task<Result<>> load();  // the table

  Task<Result<uint64_t>> get(uint64_t cluster);
  // Host offset of so many free neighbouring clusters, which have a refcount of one now.
  Task<Result<uint64_t>> allocate(uint64_t clusters);
  struct Run {
    uint64_t offset, clusters;
    bool fresh;  // no cluster from its beginning on was ever in use: the file has nothing there
  };
  // At least one cluster, at most so many.
  Task<Result<Run>> allocate_some(uint64_t most);
  // Room for so many bytes, at most a cluster, in clusters that are shared with others of this kind.
  Task<Result<uint64_t>> allocate_bytes(uint64_t bytes);
  // Adds to or takes from the refcounts of all clusters that the range touches. Freed ones can be allocated at once.
  Task<Result<>> change(uint64_t offset, uint64_t length, int by);

  // For repairs: the refcount as it should be.
  Task<Result<>> correct(uint64_t cluster, uint64_t value);

  // Entries of the table that changed, as (index, value), which count as written from here on.
  struct TableEntry {
    uint64_t index, value;
  };
  [[nodiscard]] std::vector<TableEntry> take_dirty_table();
  Task<Result<>> write_table(const std::vector<TableEntry>& entries);
  void put_back(const std::vector<TableEntry>& entries);  // still to be written

  [[nodiscard]] const std::vector<uint64_t>& table() const { return table_; }
  [[nodiscard]] uint64_t most() const { return most_refcount(header_.refcount_order); }

 private:
  struct Entry {
    PageRef page;
    uint64_t index;  // within the page
  };
  Task<Result<Entry>> entry_of(uint64_t cluster, bool make_block);
  Task<Result<>> make_block(uint64_t block);
  Task<Result<>> grow_table(uint64_t block);
  Task<Result<>> write_grown(uint64_t offset, const std::vector<std::byte>& image, uint64_t table_offset, uint64_t clusters);
  Task<Result<uint64_t>> value_of(uint64_t cluster);
  Task<Result<>> set(uint64_t cluster, uint64_t value);
  Task<Result<Run>> find_free(uint64_t least, uint64_t most);
  Task<Result<uint64_t>> allocate_locked(uint64_t clusters);

  Node& file_;
  Header& header_;
  MetadataCache& metadata_;
  const uint64_t per_block_, per_page_;
  std::vector<uint64_t> table_;
  std::set<uint64_t> dirty_entries_;
  uint64_t first_maybe_free_ = 0;              // cluster: none below is free
  uint64_t never_used_from_ = 0;               // cluster
  uint64_t shared_next_ = 0, shared_end_ = 0;  // room left in the cluster that allocate_bytes() took last
  AsyncMutex lock_;
};

}  // namespace lodge::block::qcow2
