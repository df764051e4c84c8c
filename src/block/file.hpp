// The protocol node of a regular file or a block device of the host.
#pragma once

#include <memory>
#include <utility>

#include "base/fd.hpp"
#include "block/file_lock.hpp"
#include "block/io_context.hpp"
#include "block/node.hpp"
#include "block/range_lock.hpp"

namespace lodge::block {

// As QEMU's cache modes name them.
enum class Cache {
  Writeback,     // the host's page cache; flush means fdatasync
  Writethrough,  // each write is on stable storage when it is complete
  None,          // O_DIRECT; flush means fdatasync
  DirectSync,    // O_DIRECT, and each write is on stable storage
  Unsafe,        // flushes are ignored: for images that nobody needs after a power loss
};

// ErrorKind::Usage names the modes that there are.
Result<Cache> parse_cache(std::string_view name);

struct FileOptions {
  bool read_only = false;
  Cache cache = Cache::Writeback;
  Sharing sharing = Sharing::Exclusive;  // ReadOnly where `read_only` is set and this says Exclusive
  bool discard = true;                   // Discard gives space back to the host; otherwise it is ignored
};

class File final : public Node {
 public:
  // Errors: NotFound, Permission, Usage (a directory, an image in use, ...).
  static Result<std::unique_ptr<File>> open(IoContext& context, std::string path, const FileOptions& options);
  ~File() override;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  // A new empty file, or an old one made empty after its lock was got; never one in use.
  static Result<std::unique_ptr<File>> create(IoContext& context, std::string path, const FileOptions& options);

  // A file without a name that goes when it is closed, in the folder for large temporary files ($TMPDIR, or else /var/tmp).
  static Result<std::unique_ptr<File>> temporary(IoContext& context, const FileOptions& options);

  [[nodiscard]] std::string_view kind() const override { return device_ ? "host_device" : "file"; }
  [[nodiscard]] uint64_t size() const override { return size_; }
  [[nodiscard]] bool read_only() const override { return options_.read_only; }
  [[nodiscard]] Limits limits() const override;
  [[nodiscard]] std::optional<uint64_t> allocated_size() const override;
  [[nodiscard]] bool is_device() const { return device_; }
  [[nodiscard]] int descriptor() const { return fd_.get(); }

  // Reads beyond the end give zeros; writes beyond it make a file longer (not a device).
  Task<Result<>> submit(const Request& request) override;
  Task<Result<Extent>> map(uint64_t offset, uint64_t length) override;
  Task<Result<>> resize(uint64_t bytes) override;
  Task<Result<>> close() override;

 private:
  File(IoContext& context, std::string path, Fd fd, const FileOptions& options);
  static Result<std::unique_ptr<File>> open_with(IoContext& context, std::string path, const FileOptions& options, int extra_flags);
  Result<> look_at();
  Task<Result<>> read(const Request& request);
  Task<Result<>> write(const Request& request);
  Task<Result<>> write_zeroes(const Request& request);
  Task<Result<>> discard(const Request& request);
  Task<Result<>> sync();
  Task<Result<>> transfer(bool writing, uint64_t offset, const Buffers& buffers, bool fua);
  Task<Result<>> transfer_bounced(bool writing, uint64_t offset, const Buffers& buffers, bool fua);
  [[nodiscard]] bool direct() const { return options_.cache == Cache::None || options_.cache == Cache::DirectSync; }
  [[nodiscard]] bool each_write_synced() const { return options_.cache == Cache::Writethrough || options_.cache == Cache::DirectSync; }

  IoContext& context_;
  Fd fd_;
  FileOptions options_;
  bool device_ = false;
  bool can_punch_ = true, can_zero_ = true, write_at_once_ = true;
  uint32_t alignment_ = 1;  // of O_DIRECT
  uint64_t size_ = 0;
  RangeLocks writes_;  // O_DIRECT: a write of a part of a sector reads the rest of it first
};

}  // namespace lodge::block
