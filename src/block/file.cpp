#include "block/file.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstdlib>

namespace lodge::block {

Result<Cache> parse_cache(std::string_view name) {
  constexpr auto kModes = std::to_array<std::pair<std::string_view, Cache>>({{"writeback", Cache::Writeback},
                                                                             {"writethrough", Cache::Writethrough},
                                                                             {"none", Cache::None},
                                                                             {"directsync", Cache::DirectSync},
                                                                             {"unsafe", Cache::Unsafe}});
  for (const auto& [mode, cache] : kModes)
    if (name == mode) return cache;
  return fail(ErrorKind::Usage, "there is no cache mode '{}': writeback, writethrough, none, directsync or unsafe", name);
}

namespace {

constexpr uint32_t kDirectAlignment = 4096;  // good for all disks; what a file wants cannot be asked everywhere
constexpr uint64_t kZeroChunk = 1 << 20;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kWrittenHere = 64 << 10;  // bytes at most of a write that this thread does itself

uint64_t round_down(uint64_t value, uint64_t step) { return value & ~(step - 1); }
uint64_t round_up(uint64_t value, uint64_t step) { return (value + step - 1) & ~(step - 1); }

const std::byte* zeroes() {
  static const auto* const memory = static_cast<const std::byte*>(std::calloc(1, kZeroChunk + kDirectAlignment));
  return reinterpret_cast<const std::byte*>(round_up(reinterpret_cast<uintptr_t>(memory), kDirectAlignment));
}

// Memory that O_DIRECT takes.
struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte, FreeMemory>;
AlignedMemory aligned_memory(uint64_t size) { return AlignedMemory(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, size))); }

Error open_error(const std::string& path, bool read_only, int error) {
  switch (error) {
    case ENOENT: return {ErrorKind::NotFound, fmt::format("{}: there is no such file", path), error};
    case EACCES:
    case EPERM:
      return {ErrorKind::Permission,
              fmt::format("{}: no permission to {} it (see ls -l); {}", path, read_only ? "read" : "write",
                          read_only ? "ask its owner" : "ask its owner, or use it read-only"),
              error};
    case EISDIR: return {ErrorKind::Usage, fmt::format("{}: is a folder, not an image", path), error};
    case EROFS: return {ErrorKind::Permission, fmt::format("{}: is on a read-only file system; use it read-only", path), error};
    case EINVAL: return {ErrorKind::Unsupported, fmt::format("{}: the file system does not do O_DIRECT; use cache=writeback", path), error};
    default: return os_error(fmt::format("{}: cannot open", path), error);
  }
}

}  // namespace

File::File(IoContext& context, std::string path, Fd fd, const FileOptions& options)
    : Node(std::move(path)), context_(context), fd_(std::move(fd)), options_(options) {
  if (options_.read_only && options_.sharing == Sharing::Exclusive) options_.sharing = Sharing::ReadOnly;
}

File::~File() { unlock_image(fd_.get()); }

Result<std::unique_ptr<File>> File::open_with(IoContext& context, std::string path, const FileOptions& options, int extra_flags) {
  const bool direct = options.cache == Cache::None || options.cache == Cache::DirectSync;
  const int flags = O_CLOEXEC | O_NONBLOCK | (options.read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0) | extra_flags;
  Fd fd(::open(path.c_str(), flags, 0666));
  if (!fd) return std::unexpected(open_error(path, options.read_only, errno));
  std::unique_ptr<File> file(new File(context, std::move(path), std::move(fd), options));
  TRY(file->look_at());
  TRY(lock_image(file->fd_.get(), file->name(), file->options_.sharing));
  return file;
}

Result<std::unique_ptr<File>> File::open(IoContext& context, std::string path, const FileOptions& options) {
  return open_with(context, std::move(path), options, 0);
}

Result<std::unique_ptr<File>> File::create(IoContext& context, std::string path, const FileOptions& options) {
  auto file = TRY(open_with(context, std::move(path), options, O_CREAT));
  // Not where it is empty already: ext4 takes that for a file that is being replaced, and writes its new data out when it is closed.
  if (file->device_ || file->size_ == 0) return file;
  if (ftruncate(file->fd_.get(), 0) != 0) return io_failure(*file, "cannot be emptied", errno);
  file->size_ = 0;
  return file;
}

Result<std::unique_ptr<File>> File::temporary(IoContext& context, const FileOptions& options) {
  const char* const wanted = std::getenv("TMPDIR");
  const std::string folder = wanted && *wanted ? wanted : "/var/tmp";
  Fd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd && (errno == EOPNOTSUPP || errno == EISDIR)) {
    std::string path = folder + "/lodge-XXXXXX";
    fd = Fd(mkostemp(path.data(), O_CLOEXEC));
    if (fd) unlink(path.c_str());
  }
  if (!fd) return os_fail(fmt::format("{}: cannot make a temporary file there (set TMPDIR to another folder)", folder));
  std::unique_ptr<File> file(new File(context, folder + "/(temporary)", std::move(fd), options));
  TRY(file->look_at());
  return file;
}

Result<> File::look_at() {
  struct stat found{};
  if (fstat(fd_.get(), &found) != 0) return io_failure(*this, "cannot be looked at", errno);
  if (S_ISDIR(found.st_mode)) return fail(ErrorKind::Usage, "{}: is a folder, not an image", name());
  if (!S_ISREG(found.st_mode) && !S_ISBLK(found.st_mode)) return fail(ErrorKind::Usage, "{}: is neither a file nor a block device", name());
  device_ = S_ISBLK(found.st_mode);
  size_ = static_cast<uint64_t>(found.st_size);
  if (device_ && ioctl(fd_.get(), BLKGETSIZE64, &size_) != 0) return io_failure(*this, "cannot ask for the device's size", errno);
  if (direct()) alignment_ = kDirectAlignment;
  return {};
}

Limits File::limits() const {
  return {.request_alignment = alignment_, .memory_alignment = alignment_, .optimal = 4096, .grows_with_zeroes = !device_};
}

std::optional<uint64_t> File::allocated_size() const {
  struct stat found{};
  if (device_ || fstat(fd_.get(), &found) != 0) return std::nullopt;
  return static_cast<uint64_t>(found.st_blocks) * 512;
}

Task<Result<>> File::submit(const Request& request) {
  switch (request.operation) {
    case Operation::Read: return read(request);
    case Operation::Write: return write(request);
    case Operation::WriteZeroes: return write_zeroes(request);
    case Operation::Discard: return discard(request);
    case Operation::Flush: break;
  }
  return sync();
}

// All of the buffers, in as many calls as it takes. A read that meets the end of the file gets zeros for the rest.
Task<Result<>> File::transfer(bool writing, uint64_t offset, const Buffers& buffers, bool fua) {
  uint64_t done = 0;
  const uint64_t size = buffers.size();
  Buffers rest;
  const Buffers* now = &buffers;
  while (done < size) {
    auto vectors = now->vectors();
    if (vectors.size() > IOV_MAX) vectors = vectors.first(IOV_MAX);
    const bool at_once = !direct() && done == 0 && (!writing || (write_at_once_ && !fua));
    // What takes longer to hand over than to do: whole pages of the page cache, which need nothing from the disk first.
    const bool here = writing && !direct() && !fua && size <= kWrittenHere && ((offset | size) & (kPage - 1)) == 0;
    IoCall call = writing ? context_.write(fd_.get(), vectors, offset + done, at_once, fua ? RWF_DSYNC : 0)
                          : context_.read(fd_.get(), vectors, offset + done, at_once);
    if (here) call.at_once = IoCall::AtOnce::Always;
    const int64_t result = co_await call;
    if (call.never_at_once && writing) write_at_once_ = false;
    if (result == -EINTR || result == -EAGAIN) continue;
    if (result < 0) co_return io_failure(*this, writing ? "write error" : "read error", static_cast<int>(-result));
    if (result == 0) {
      if (writing) co_return io_failure(*this, "write error", ENOSPC);
      buffers.fill(done, size - done, 0);
      break;
    }
    done += static_cast<uint64_t>(result);
    if (done == size) break;
    rest = buffers.slice(done, size - done);
    now = &rest;
  }
  co_return Result<>{};
}

// For O_DIRECT: by memory and a range that it takes.
Task<Result<>> File::transfer_bounced(bool writing, uint64_t offset, const Buffers& buffers, bool fua) {
  const uint64_t begin = round_down(offset, alignment_), end = round_up(offset + buffers.size(), alignment_);
  const AlignedMemory memory = aligned_memory(end - begin);
  if (!memory) co_return io_failure(*this, "no memory for an unaligned request", ENOMEM);
  const Buffers bounce(memory.get(), end - begin);
  const bool whole = offset == begin && offset + buffers.size() == end;
  if (!writing || !whole) CO_TRY(transfer(false, begin, bounce, false));
  if (!writing) {
    uint64_t at = offset - begin;
    for (const iovec& part : buffers.vectors()) {
      std::memcpy(part.iov_base, memory.get() + at, part.iov_len);
      at += part.iov_len;
    }
    co_return Result<>{};
  }
  buffers.copy_to(0, memory.get() + (offset - begin), buffers.size());
  co_return co_await transfer(true, begin, bounce, fua);
}

Task<Result<>> File::read(const Request& request) {
  const bool fits =
      alignment_ == 1 || (((request.offset | request.length) & (alignment_ - 1)) == 0 && request.buffers.aligned_to(alignment_));
  return fits ? transfer(false, request.offset, request.buffers, false) : transfer_bounced(false, request.offset, request.buffers, false);
}

Task<Result<>> File::write(const Request& request) {
  const uint64_t end = request.offset + request.length;
  if (device_ && end > size_) co_return io_failure(*this, "write beyond the device's end", ENOSPC);
  const bool fua = request.fua || each_write_synced();
  if (alignment_ == 1) {
    CO_TRY(transfer(true, request.offset, request.buffers, fua));
  } else {
    const auto hold = co_await writes_.acquire(round_down(request.offset, alignment_), round_up(end, alignment_));
    if (((request.offset | request.length) & (alignment_ - 1)) == 0 && request.buffers.aligned_to(alignment_)) {
      CO_TRY(transfer(true, request.offset, request.buffers, fua));
    } else {
      CO_TRY(transfer_bounced(true, request.offset, request.buffers, fua));
    }
    // A file whose end is not a multiple of the alignment has become a little longer than what was written.
    if (!device_) size_ = std::max(size_, round_up(end, alignment_));
  }
  if (!device_) size_ = std::max(size_, end);
  co_return Result<>{};
}

Task<Result<>> File::write_zeroes(const Request& request) {
  const uint64_t end = request.offset + request.length;
  if (device_ && end > size_) co_return io_failure(*this, "write beyond the device's end", ENOSPC);
  if (request.length == 0) co_return Result<>{};
  int64_t result = -EOPNOTSUPP;
  const bool aligned = alignment_ == 1 || ((request.offset | request.length) & (alignment_ - 1)) == 0;
  if (request.unmap && options_.discard && can_punch_ && aligned && end <= size_) {
    result = co_await context_.allocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, request.offset, request.length);
    if (result == -EOPNOTSUPP || result == -ENODEV) can_punch_ = false;
  }
  if (result < 0 && can_zero_ && aligned) {
    result = co_await context_.allocate(fd_.get(), FALLOC_FL_ZERO_RANGE, request.offset, request.length);
    if (result == -EOPNOTSUPP || result == -ENODEV) can_zero_ = false;
  }
  if (result < 0 && result != -EOPNOTSUPP && result != -ENODEV && result != -EINVAL)
    co_return io_failure(*this, "cannot write zeros", static_cast<int>(-result));
  if (result < 0) {
    for (uint64_t at = request.offset; at < end;) {
      const uint64_t length = std::min(kZeroChunk, end - at);
      const Request part(Operation::Write, at, Buffers(std::span(zeroes(), length)));
      CO_TRY(write(part));
      at += length;
    }
  }
  if (!device_) size_ = std::max(size_, end);
  if (request.fua || each_write_synced()) co_return co_await sync();
  co_return Result<>{};
}

Task<Result<>> File::discard(const Request& request) {
  if (!options_.discard || !can_punch_ || request.length == 0) co_return Result<>{};
  if (request.offset >= size_) co_return Result<>{};
  const uint64_t length = std::min(request.length, size_ - request.offset);
  const int64_t result = co_await context_.allocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, request.offset, length);
  if (result == -EOPNOTSUPP || result == -ENODEV || result == -EINVAL) {
    if (result != -EINVAL) can_punch_ = false;
    co_return Result<>{};  // a hint, no more
  }
  if (result < 0) co_return io_failure(*this, "cannot discard", static_cast<int>(-result));
  co_return Result<>{};
}

Task<Result<>> File::sync() {
  if (options_.cache == Cache::Unsafe || options_.read_only) co_return Result<>{};
  const int64_t result = co_await context_.sync(fd_.get());
  if (result < 0) co_return io_failure(*this, "cannot be flushed to the disk", static_cast<int>(-result));
  co_return Result<>{};
}

Task<Result<Extent>> File::map(uint64_t offset, uint64_t length) {
  Extent extent{.length = length, .present = true, .data = true, .offset = offset};
  if (device_) co_return extent;
  const auto at = static_cast<off_t>(offset);
  const off_t data = lseek(fd_.get(), at, SEEK_DATA);
  if (data < 0) {
    if (errno != ENXIO) co_return extent;  // no such question here: all of it is data
    extent.data = false;
    extent.zero = true;
  } else if (data > at) {
    extent.data = false;
    extent.zero = true;
    extent.length = std::min(length, static_cast<uint64_t>(data) - offset);
  } else if (const off_t hole = lseek(fd_.get(), at, SEEK_HOLE); hole > at) {
    extent.length = std::min(length, static_cast<uint64_t>(hole) - offset);
  }
  co_return extent;
}

Task<Result<>> File::resize(uint64_t bytes) {
  if (options_.read_only) co_return io_failure(*this, "cannot be resized", EROFS);
  if (device_) {
    if (bytes <= size_) co_return Result<>{};
    co_return fail(ErrorKind::Usage, "{}: a block device cannot be made larger", name());
  }
  if (ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) co_return io_failure(*this, "cannot be resized", errno);
  size_ = bytes;
  co_return Result<>{};
}

Task<Result<>> File::close() { co_return Result<>{}; }

}  // namespace lodge::block
