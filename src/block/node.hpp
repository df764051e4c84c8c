// A node of the block graph: a protocol (a file, a server) that has bytes, or a format over one that gives them meaning.
//
// Threads: that of the node's IoContext. Any number of requests may be in flight; overlapping ones that are in flight together may be
// carried out in any order, as on a disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "block/buffers.hpp"
#include "block/task.hpp"

namespace lodge::block {

constexpr uint64_t kSector = 512;

enum class Operation : uint8_t {
  Read,         // `length` bytes at `offset` into `buffers`
  Write,        // `length` bytes at `offset` from `buffers`
  WriteZeroes,  // the range reads as zeros
  Discard,      // the range's contents are of no use any more: what it reads as is up to the node, but zeros or what was there
  Flush,        // whatever was complete before this began survives a power loss
};

struct Request {
  Operation operation = Operation::Read;
  uint64_t offset = 0, length = 0;  // bytes, within size()
  Buffers buffers{};                // of Read and Write: `length` bytes
  bool fua = false;                 // of Write and WriteZeroes: survives a power loss when it is complete
  bool unmap = false;               // of WriteZeroes: the space need not stay allocated
  bool compressed = false;          // of Write, whole clusters: as a format stores them that has compression

  Request() = default;
  Request(Operation what, uint64_t at, uint64_t bytes) : operation(what), offset(at), length(bytes) {}
  Request(Operation what, uint64_t at, Buffers list) : operation(what), offset(at), length(list.size()), buffers(std::move(list)) {}
};

// What lies at the beginning of a range, for so many bytes.
struct Extent {
  uint64_t length = 0;
  bool present = false;            // this node, or a node of its chain, has an answer; otherwise the range was never written
  bool zero = false;               // reads as zeros
  bool data = false;               // stored bytes are read
  bool compressed = false;         //
  unsigned depth = 0;              // how far down the backing chain the answer is
  std::optional<uint64_t> offset;  // where the bytes lie in the protocol's node, uncompressed
};

// What a node wants of its users. Powers of two.
struct Limits {
  uint32_t request_alignment = 1;  // of offsets and lengths; other requests are right but slower
  uint32_t memory_alignment = 1;   // of buffers, likewise
  uint32_t optimal = 4096;         // what is best written as a whole: a cluster
  bool keeps_zeroes = true;        // WriteZeroes takes no space worth speaking of
  bool grows_with_zeroes = false;  // what was never written, behind the end, is zeros once something behind it is written
};

class Node {
 public:
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // What messages call it: the file's name as the user gave it.
  [[nodiscard]] const std::string& name() const { return name_; }
  // "file", "raw", "qcow2", ...: as --drive format= and the like have it.
  [[nodiscard]] virtual std::string_view kind() const = 0;
  // The edges of the graph; null where there is none. Of a format: what its bytes are in, and what is read where it has nothing.
  [[nodiscard]] virtual Node* file() const { return nullptr; }
  [[nodiscard]] virtual Node* backing() const { return nullptr; }
  [[nodiscard]] virtual uint64_t size() const = 0;  // bytes
  [[nodiscard]] virtual bool read_only() const = 0;
  [[nodiscard]] virtual Limits limits() const { return {}; }
  // Bytes that the host has allocated, where that can be known.
  [[nodiscard]] virtual std::optional<uint64_t> allocated_size() const { return std::nullopt; }

  // The request must stay until its task has ended. Errors: os_errno where the host gave one (ENOSPC, EIO, ...).
  virtual Task<Result<>> submit(const Request& request) = 0;
  // What lies at `offset`, for at most `length` bytes; both within size(), length not 0.
  virtual Task<Result<Extent>> map(uint64_t offset, uint64_t length) = 0;
  // The size becomes so many bytes; what is added reads as zeros.
  virtual Task<Result<>> resize(uint64_t bytes) = 0;
  // Writes what is still in memory and leaves the image as whoever opens it next wants it. No request may be in flight; only the
  // destructor may follow. Without it nothing is lost that was flushed.
  virtual Task<Result<>> close() = 0;

 protected:
  explicit Node(std::string name) : name_(std::move(name)) {}

 private:
  std::string name_;
};

// One request each.
Task<Result<>> read(Node& node, uint64_t offset, void* to, uint64_t length);
Task<Result<>> write(Node& node, uint64_t offset, const void* from, uint64_t length);
Task<Result<>> write_zeroes(Node& node, uint64_t offset, uint64_t length, bool unmap = true);
// The same, in as many requests as it takes, with zeros that are written: the space is taken.
Task<Result<>> write_zeroes_as_data(Node& node, uint64_t offset, uint64_t length);
Task<Result<>> discard(Node& node, uint64_t offset, uint64_t length);
Task<Result<>> flush(Node& node);

// A task that has failed already.
Task<Result<>> failed(Error error);
// "<name>: <what>: <strerror>", with the errno in the error.
[[nodiscard]] std::unexpected<Error> io_failure(const Node& node, std::string_view what, int error);
// The request reaches beyond the end of the node, or changes one that is read only.
[[nodiscard]] Result<> check_request(const Node& node, const Request& request);

}  // namespace lodge::block
