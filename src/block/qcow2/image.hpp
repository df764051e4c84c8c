// The qcow2 format.
//
// Order on the disk. A power loss may keep any part of what was written since the last flush, so whatever names something else is written
// only after that is on stable storage. Changes gather in memory, and commit() writes them:
//
//   1. refcounts (blocks, then entries of their table) that count what is new
//   2. a flush, by which the data of new clusters and those refcounts are on the disk
//   3. the mapping that names the new clusters: second-level tables, a flush where first-level entries are to name new ones, these
//   4. a flush, when somebody asked for it or clusters are to be freed
//   5. only now what the old mapping named is free to be used again
//
// Between two commits the disk holds the old mapping, which is whole: at worst clusters are leaked. All of a commit's changes are taken at
// one moment; requests go on meanwhile and are for the next one.
//
// Requests of the guest may overlap in any way. Those that change the mapping hold their clusters (RangeLocks); writes in place do not,
// and a host cluster that is freed under a request in flight is not used again until that request has ended (epochs).
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>

#include "block/io_context.hpp"
#include "block/node.hpp"
#include "block/qcow2/entry.hpp"
#include "block/qcow2/header.hpp"
#include "block/qcow2/metadata.hpp"
#include "block/qcow2/refcounts.hpp"
#include "block/range_lock.hpp"

namespace lodge::block::qcow2 {

struct OpenOptions {
  bool read_only = false;
  bool check = false;                   // for 'check': damage that others could do harm with is no reason to refuse
  uint64_t metadata_bytes = 32u << 20;  // at most so much of the tables in memory
};

enum class Preallocation : uint8_t {
  Off,
  Metadata,  // clusters have their place in the file, which may have holes
  Falloc,    // and the host has set space aside for it
  Full,      // which was written
};

// An internal snapshot, as the table in the file has it.
struct Snapshot {
  uint64_t l1_offset = 0;
  uint32_t l1_entries = 0;
  std::string id, name;
  uint32_t seconds = 0, nanoseconds = 0;  // of the date
  uint64_t clock_ns = 0;                  // the guest's
  uint64_t state_bytes = 0;               // of the machine
  uint64_t disk_size = 0;
  uint64_t instructions = UINT64_MAX;  // of the guest; UINT64_MAX: not known
  std::vector<std::byte> unknown_extra;
};

class Image final : public Node {
 public:
  // The file stays the image's. Errors are for the user.
  static Task<Result<std::unique_ptr<Image>>> open(IoContext& context, std::unique_ptr<Node> file, OpenOptions options);

  // What the header names; null where it names none, or before it is given.
  void set_backing(std::unique_ptr<Node> node) { backing_ = std::move(node); }
  void set_data_file(std::unique_ptr<Node> node) { data_file_ = std::move(node); }
  [[nodiscard]] Node* data_file() const { return data_file_.get(); }
  [[nodiscard]] std::string_view kind() const override { return "qcow2"; }
  [[nodiscard]] Node* file() const override { return file_.get(); }
  [[nodiscard]] Node* backing() const override { return backing_.get(); }
  [[nodiscard]] const Header& header() const { return header_; }
  [[nodiscard]] const std::vector<Snapshot>& snapshots() const { return snapshots_; }

  [[nodiscard]] uint64_t size() const override { return header_.size; }
  [[nodiscard]] bool read_only() const override { return options_.read_only; }
  [[nodiscard]] Limits limits() const override;
  [[nodiscard]] std::optional<uint64_t> allocated_size() const override;
  Task<Result<>> submit(const Request& request) override;
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override;
  Task<Result<>> resize(uint64_t bytes) override;
  Task<Result<>> close() override;

  // The backing file's name and format in the header; empty: none. The contents must be the same with it.
  Task<Result<>> change_backing(std::string file, std::string format);
  // Drops every cluster of the guest's disk: it shows the backing file.
  Task<Result<>> make_empty();

  // Space for what has none yet of the range, as zeros. Without a backing file.
  Task<Result<>> preallocate(uint64_t guest, uint64_t length, Preallocation how);

  // The image is shown as a snapshot has it; read-only images.
  Task<Result<>> show_snapshot(const std::string& name);
  // Snapshots, by name or id. No request may be in flight.
  Task<Result<>> create_snapshot(std::string name);
  Task<Result<>> apply_snapshot(const std::string& name);
  Task<Result<>> delete_snapshot(const std::string& name);

  // What an image's metadata count (check.cpp).
  struct Findings {
    uint64_t leaks = 0, corruptions = 0, check_errors = 0;
    uint64_t leaks_fixed = 0, corruptions_fixed = 0;
    uint64_t allocated = 0, compressed = 0, fragmented = 0, total = 0;  // clusters of the guest's disk
    uint64_t end_offset = 0;                                            // of what is in use in the file
    std::vector<std::string> lines;                                     // one a finding, at most kMostLines
  };
  enum class Repair { None, Leaks, All };
  Task<Result<Findings>> check(Repair repair, std::function<void(double)> progress);

 private:
  struct Place {  // what lies at an offset of the guest's disk
    Kind kind = Kind::Unallocated;
    bool in_place = false;  // may be written where it is
    uint64_t length = 0;    // bytes of the same kind, and neighbours in the host too
    uint64_t host = 0;      // Normal: of the byte at the offset
    uint64_t word = 0;      // Compressed: the entry
  };
  struct Slot {  // a second-level entry in memory
    PageRef page;
    uint64_t index = 0;  // within the page
  };
  struct Freed {
    uint64_t offset, length;
  };
  class InFlight;

  Image(IoContext& context, std::unique_ptr<Node> file, Header header, OpenOptions options);
  Task<Result<>> load();
  Task<Result<>> load_snapshots();
  Task<Result<>> begin_writing();
  [[nodiscard]] Node& data() const { return data_file_ ? *data_file_ : *file_; }

  // mapping.cpp
  Task<Result<Slot>> slot_of(uint64_t guest, bool for_change);
  Task<Result<>> make_l2(uint64_t l1_index);
  [[nodiscard]] Entry load_entry(const Slot& slot, uint64_t n = 0) const;
  void store_entry(const Slot& slot, const Entry& entry, uint64_t n = 0);
  [[nodiscard]] uint64_t entries_left(const Slot& slot) const { return entries_per_page_ - slot.index; }
  Task<Result<Place>> place_of(uint64_t guest, uint64_t length);
  Result<> check_entry(const Entry& entry, uint64_t guest);
  std::unexpected<Error> corrupt(std::string what);
  void free_later(const Entry& entry);

  // io.cpp
  Task<Result<>> read(uint64_t guest, const Buffers& into);
  Task<Result<>> read_backing(uint64_t guest, const Buffers& into);
  Task<Result<>> read_compressed(uint64_t guest, uint64_t word, const Buffers& into);
  Task<Result<>> write(uint64_t guest, const Buffers& from);
  Task<Result<uint64_t>> write_allocating(uint64_t guest, const Buffers& from);
  struct Placing {               // data for host clusters, with what is around it in them
    uint64_t host;               // of `begin`
    uint64_t begin, guest, end;  // of the guest's disk: all that is written, the data's place in it
    bool fresh;                  // the host clusters are zeros
  };
  Task<Result<>> write_placed(const Placing& placing, const Buffers& from);
  Task<Result<bool>> is_zero(uint64_t guest, uint64_t length);
  Task<Result<>> write_compressed(uint64_t guest, const Buffers& from);
  Task<Result<>> write_compressed_cluster(uint64_t guest, const Buffers& from);
  Task<Result<>> write_zeroes(uint64_t guest, uint64_t length, bool unmap);
  Task<Result<>> zero_part(uint64_t guest, uint64_t length);
  Task<Result<>> zero_clusters(uint64_t guest, uint64_t length, bool unmap, bool discard);
  Task<Result<>> discard(uint64_t guest, uint64_t length);

  // commit.cpp
  Task<Result<>> commit(bool durable);
  Task<Result<>> settle();  // all of it is in the file
  Task<Result<>> commit_if_crowded();
  Task<Result<>> release_freed();
  // The header with a change, which is made in memory once it is in the file.
  Task<Result<>> write_header(const std::function<void(Header&)>& change);
  Task<Result<>> set_incompatible(uint64_t bits, bool on);

  // image.cpp
  Task<Result<>> move_l1(uint64_t entries, uint64_t size);
  Task<Result<>> drop_from(uint64_t guest);

  // snapshot.cpp
  Task<Result<>> write_snapshot_table(std::vector<Snapshot> snapshots);
  Task<Result<std::vector<uint64_t>>> load_l1(const Snapshot& snapshot);
  Task<Result<>> change_table(uint64_t table, int by);
  Task<Result<>> change_tree(const std::vector<uint64_t>& l1, int by);
  Task<Result<>> update_copied();
  [[nodiscard]] Result<size_t> find_snapshot(const std::string& name) const;
  Result<> snapshots_possible() const;

  // check.cpp
  class Checker;

  IoContext& context_;
  std::unique_ptr<Node> file_, data_file_, backing_;
  Header header_;
  OpenOptions options_;
  MetadataCache metadata_;
  Refcounts refcounts_;
  const uint64_t cluster_size_, entries_per_page_;
  std::vector<uint64_t> l1_;
  std::set<uint64_t> dirty_l1_;
  std::vector<Snapshot> snapshots_;
  uint64_t snapshot_table_bytes_ = 0;
  bool writing_ = false;  // begin_writing() is done
  bool corrupt_ = false;  // found so
  bool grows_with_zeroes_ = false;
  RangeLocks clusters_;
  AsyncMutex l2_making_, committing_, header_lock_;
  std::vector<Freed> freed_;  // named by nothing in memory, but on the disk
  struct Released {
    uint64_t epoch;
    std::vector<Freed> freed;
  };
  std::deque<Released> released_;  // on the disk too, but a request may still be at them
  uint64_t epoch_ = 0;
  std::map<uint64_t, uint64_t> in_flight_;  // epoch -> requests
  struct Decompressed {
    uint64_t word = 0;
    std::vector<std::byte> bytes;
  };
  std::deque<std::shared_ptr<Decompressed>> decompressed_;  // latest first
};

// What a new image is like.
struct CreateOptions {
  uint64_t size = 0;
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint32_t refcount_bits = 16;
  Compression compression = Compression::Zlib;
  bool extended_l2 = false, lazy_refcounts = false;
  std::string backing_file, backing_format;
  std::string data_file;
  bool raw_data_file = false;
};
// Writes an empty image into an empty file.
Task<Result<>> create(Node& file, const CreateOptions& options);

}  // namespace lodge::block::qcow2
