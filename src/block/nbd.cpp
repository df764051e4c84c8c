#include "block/nbd.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace lodge::block {

namespace {

constexpr uint64_t kLargest = 32u << 20;  // what every server takes (doc/proto.md, "Size constraints")
constexpr auto kRetry = std::chrono::seconds(1);
constexpr const char* kExtents = LIBNBD_CONTEXT_BASE_ALLOCATION;
// Bits of that context's extents (doc/proto.md, "base: metadata namespace").
constexpr uint32_t kZero = 2;

// Characters of an export's name or a path in a URI.
std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("-._~/").contains(c))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

bool Nbd::is_name(std::string_view name) {
  for (const std::string_view scheme : {"nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:"})
    if (name.starts_with(scheme)) return true;
  return false;
}

Result<std::string> Nbd::uri_of(const std::string& name) {
  if (!name.starts_with("nbd:") || name.starts_with("nbd://")) return name;
  std::string rest = name.substr(4), export_name;
  if (const size_t at = rest.find(":exportname="); at != std::string::npos) {
    export_name = rest.substr(at + 12);
    rest.resize(at);
  }
  if (rest.starts_with("unix:")) return fmt::format("nbd+unix:///{}?socket={}", escape(export_name), escape(rest.substr(5)));
  if (rest.find(':') == std::string::npos)
    return fail(ErrorKind::Usage, "{}: is no name of an NBD export; write nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH", name);
  return fmt::format("nbd://{}/{}", rest, escape(export_name));
}

Nbd::Nbd(IoContext& context, std::string name, std::string uri, const FileOptions& options)
    : Node(std::move(name)), context_(context), uri_(std::move(uri)), options_(options) {}

Task<Result<std::unique_ptr<Nbd>>> Nbd::open(IoContext& context, std::string name, const FileOptions& options) {
  auto uri = uri_of(name);
  if (!uri) co_return std::unexpected(std::move(uri).error());
  std::unique_ptr<Nbd> node(new Nbd(context, std::move(name), std::move(*uri), options));
  CO_TRY(node->connect());
  co_return node;
}

Task<Result<>> Nbd::connect() {
  Handle handle(nbd_create());
  if (!handle) co_return io_failure(*this, "no memory for a connection", ENOMEM);
  nbd_add_meta_context(handle.get(), kExtents);
  nbd_set_uri_allow_local_file(handle.get(), false);
  int failed = 0, error = 0;
  std::string message;
  co_await context_.offload([&] {  // the library's errors are the thread's
    failed = nbd_connect_uri(handle.get(), uri_.c_str());
    if (!failed) return;
    error = nbd_get_errno();
    message = nbd_get_error();
  });
  if (failed)
    co_return std::unexpected(
        Error{ErrorKind::Usage,
              fmt::format("{}: cannot connect to the NBD server: {}. Is it running, and is the export's name right?", name(), message),
              error ? error : EIO});
  const int64_t size = nbd_get_size(handle.get());
  if (size < 0) co_return fail(ErrorKind::Usage, "{}: the NBD server does not say how large the export is", name());
  if (size_ && static_cast<uint64_t>(size) != size_)
    co_return io_failure(*this, fmt::format("the NBD server is back with {} bytes instead of {}", size, size_), EIO);
  size_ = static_cast<uint64_t>(size);
  if (!options_.read_only && nbd_is_read_only(handle.get()) == 1)
    co_return fail(ErrorKind::Permission, "{}: the NBD server exports it read-only; use it so (readonly=on)", name());
  const int64_t most = nbd_get_block_size(handle.get(), LIBNBD_SIZE_MAXIMUM), least = nbd_get_block_size(handle.get(), LIBNBD_SIZE_MINIMUM);
  largest_ = most > 0 ? std::min<uint64_t>(static_cast<uint64_t>(most), kLargest) : kLargest;
  minimum_ = least > 0 && std::has_single_bit(static_cast<uint64_t>(least)) ? static_cast<uint32_t>(least) : 1;
  can_ = {.flush = nbd_can_flush(handle.get()) == 1,
          .fua = nbd_can_fua(handle.get()) == 1,
          .trim = nbd_can_trim(handle.get()) == 1,
          .zero = nbd_can_zero(handle.get()) == 1,
          .extents = nbd_can_meta_context(handle.get(), kExtents) == 1};
  // A descriptor of our own: the library closes its one when it likes, and the number may then be another's.
  socket_ = Fd(fcntl(nbd_aio_get_fd(handle.get()), F_DUPFD_CLOEXEC, 0));
  if (!socket_) co_return io_failure(*this, "no descriptor left for the connection", errno);
  handle_ = std::move(handle);
  co_return Result<>{};
}

Task<Result<>> Nbd::connected() {
  const auto usable = [this] { return handle_ && nbd_aio_is_dead(handle_.get()) == 0 && nbd_aio_is_closed(handle_.get()) == 0; };
  if (usable()) co_return Result<>{};
  const auto hold = co_await connecting_.lock();
  if (usable()) co_return Result<>{};
  if (last_failure_ && std::chrono::steady_clock::now() - *last_failure_ < kRetry)
    co_return io_failure(*this, "the NBD server has gone", EIO);
  while (pumping_in_ || pumping_out_) co_await pump_ended_.wait();
  // Whoever still has the old connection in hand finds it dead, not gone.
  last_failure_.reset();
  if (auto again = co_await connect(); !again) {
    last_failure_ = std::chrono::steady_clock::now();
    Error error = std::move(again).error();
    error.os_errno = EIO;
    co_return std::unexpected(std::move(error));
  }
  co_return Result<>{};
}

// What libnbd calls when a command is done.
struct Nbd::Command {
  Nbd& node;
  int error = 0;
  bool done = false;
  std::coroutine_handle<> waiter{};

  explicit Command(Nbd& of) : node(of) { ++node.in_flight_; }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  ~Command() { --node.in_flight_; }

  nbd_completion_callback callback() {
    return {.callback =
                [](void* data, int* failed) {
                  auto& self = *static_cast<Command*>(data);
                  self.error = *failed;
                  self.done = true;
                  if (self.waiter) resume_later(self.waiter);
                  return 1;  // the library forgets it
                },
            .user_data = this,
            .free = nullptr};
  }
  // The cookie of the call that began it, negative if that failed. Result: 0 or an errno.
  Task<int> finish(int64_t cookie) {
    struct Wait {
      Command& command;
      [[nodiscard]] bool await_ready() const { return command.done; }
      void await_suspend(std::coroutine_handle<> awaiter) const { command.waiter = awaiter; }
      static void await_resume() {}
    };
    if (cookie < 0) co_return nbd_get_errno() ? nbd_get_errno() : EIO;
    node.push_out();
    if (!node.pumping_in_) {
      node.pumping_in_ = true;
      spawn(node.pump_in());
    }
    co_await Wait{*this};
    co_return error == ENOTCONN || error == ESHUTDOWN ? EIO : error;
  }
};

// Bytes come in while commands are in flight, and go out while the library has some that the socket did not take.
Task<> Nbd::pump_in() {
  while (in_flight_) {
    if (nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_READ) {
      static_cast<void>(co_await context_.poll(socket_.get(), POLLIN));
      // It may be another's turn by now: the library tells.
      if (nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_READ) nbd_aio_notify_read(handle_.get());
      push_out();
    } else {
      shutdown(socket_.get(), SHUT_RDWR);  // dead: the library has ended its commands; who waits for the socket need not
    }
    co_await IoContext::yield();  // whose command has ended goes on first
  }
  pumping_in_ = false;
  pump_ended_.wake_all();
}

Task<> Nbd::pump_out() {
  while (nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_WRITE) {
    static_cast<void>(co_await context_.poll(socket_.get(), POLLOUT));
    if (nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_WRITE) nbd_aio_notify_write(handle_.get());
  }
  pumping_out_ = false;
  pump_ended_.wake_all();
}

void Nbd::push_out() {
  if (pumping_out_ || !(nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_WRITE)) return;
  pumping_out_ = true;
  spawn(pump_out());
}

Task<Result<>> Nbd::submit(const Request& request) {
  CO_TRY(connected());
  switch (request.operation) {
    case Operation::Read: co_return co_await transfer(false, request.offset, request.buffers, false);
    case Operation::Write: {
      if (request.offset + request.length > size_) co_return io_failure(*this, "write beyond the export's end", ENOSPC);
      const bool synced = request.fua || options_.cache == Cache::Writethrough || options_.cache == Cache::DirectSync;
      CO_TRY(transfer(true, request.offset, request.buffers, synced && can_.fua));
      if (synced && !can_.fua) co_return co_await block::flush(*this);
      co_return Result<>{};
    }
    case Operation::WriteZeroes:
    case Operation::Discard: co_return co_await zero_or_trim(request);
    case Operation::Flush: break;
  }
  if (!can_.flush || options_.cache == Cache::Unsafe || options_.read_only) co_return Result<>{};
  Command command(*this);
  if (const int error = co_await command.finish(nbd_aio_flush(handle_.get(), command.callback(), 0)); error)
    co_return io_failure(*this, "the NBD server cannot flush", error);
  co_return Result<>{};
}

Task<Result<>> Nbd::transfer(bool writing, uint64_t offset, const Buffers& buffers, bool fua) {
  // A request reaches no further than the export, of which formats do not know.
  const uint64_t there = offset < size_ ? std::min(buffers.size(), size_ - offset) : 0;
  if (there < buffers.size()) buffers.fill(there, buffers.size() - there, 0);
  for (uint64_t done = 0; done < there;) {
    const uint64_t length = std::min(largest_, there - done);
    CO_TRY(transfer_part(writing, offset + done, buffers.slice(done, length), fua));
    done += length;
  }
  co_return Result<>{};
}

Task<Result<>> Nbd::transfer_part(bool writing, uint64_t offset, const Buffers& part, bool fua) {
  const uint64_t begin = offset / minimum_ * minimum_, end = (offset + part.size() + minimum_ - 1) / minimum_ * minimum_;
  const bool whole = begin == offset && end == offset + part.size();
  std::vector<std::byte> bounce;
  auto* memory = static_cast<std::byte*>(part.vectors()[0].iov_base);
  if (part.vectors().size() > 1 || !whole) {
    bounce.resize(end - begin);
    memory = bounce.data();
    if (writing && !whole) CO_TRY(transfer_part(false, begin, Buffers(memory, end - begin), false));
    if (writing) part.copy_to(0, memory + (offset - begin), part.size());
  }
  Command command(*this);
  const int64_t cookie = writing
                             ? nbd_aio_pwrite(handle_.get(), memory, end - begin, begin, command.callback(), fua ? LIBNBD_CMD_FLAG_FUA : 0)
                             : nbd_aio_pread(handle_.get(), memory, end - begin, begin, command.callback(), 0);
  if (const int error = co_await command.finish(cookie); error)
    co_return io_failure(*this, writing ? "the NBD server cannot write" : "the NBD server cannot read", error);
  if (!writing && !bounce.empty()) part.copy_from(0, memory + (offset - begin), part.size());
  co_return Result<>{};
}

Task<Result<>> Nbd::zero_or_trim(const Request& request) {
  const bool zero = request.operation == Operation::WriteZeroes;
  if (zero && request.offset + request.length > size_) co_return io_failure(*this, "write beyond the export's end", ENOSPC);
  const bool aligned = ((request.offset | request.length) & (minimum_ - 1)) == 0;
  if (!zero && (!can_.trim || !options_.discard || !aligned)) co_return Result<>{};
  if (zero && (!can_.zero || !aligned)) {
    CO_TRY(write_zeroes_as_data(*this, request.offset, request.length));
  } else {
    for (uint64_t done = 0; done < request.length;) {
      const uint64_t length = std::min<uint64_t>(largest_, request.length - done), at = request.offset + done;
      Command command(*this);
      const int64_t cookie = zero ? nbd_aio_zero(handle_.get(), length, at, command.callback(), request.unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
                                  : nbd_aio_trim(handle_.get(), length, at, command.callback(), 0);
      if (const int error = co_await command.finish(cookie); error)
        co_return io_failure(*this, zero ? "the NBD server cannot write zeros" : "the NBD server cannot discard", error);
      done += length;
    }
  }
  if (request.fua) co_return co_await block::flush(*this);
  co_return Result<>{};
}

Task<Result<Extent>> Nbd::map(uint64_t offset, uint64_t length) {
  Extent extent{.length = length, .present = true, .data = true, .offset = offset};
  if (!can_.extents) co_return extent;
  if (auto again = co_await connected(); !again) co_return std::unexpected(std::move(again).error());
  struct First {
    uint64_t length = 0;
    uint32_t flags = 0;
  } first;
  const auto take = [](void* data, const char* context, uint64_t, uint32_t* entries, size_t count, int*) {
    auto& found = *static_cast<First*>(data);
    if (std::string_view(context) == kExtents && count >= 2 && found.length == 0) found = {entries[0], entries[1]};
    return 0;
  };
  const uint64_t asked = std::min(length, kLargest) / minimum_ * minimum_;
  if (asked == 0 || offset % minimum_) co_return extent;
  Command command(*this);
  const nbd_extent_callback each{.callback = take, .user_data = &first, .free = nullptr};
  if (co_await command.finish(nbd_aio_block_status(handle_.get(), asked, offset, each, command.callback(), 0)) || !first.length)
    co_return extent;  // a server that does not know: all of it is data
  extent.length = std::min<uint64_t>(length, first.length);
  extent.zero = first.flags & kZero;
  extent.data = !extent.zero;
  co_return extent;
}

Task<Result<>> Nbd::resize(uint64_t) { co_return fail(ErrorKind::Unsupported, "{}: an NBD export cannot be resized", name()); }

Task<Result<>> Nbd::close() {
  while (pumping_in_ || pumping_out_) co_await pump_ended_.wait();
  if (handle_ && nbd_aio_is_ready(handle_.get()) == 1) co_await context_.offload([this] { nbd_shutdown(handle_.get(), 0); });
  handle_.reset();
  co_return Result<>{};
}

}  // namespace lodge::block
