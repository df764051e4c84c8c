#include "console/unix_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/fd.hpp"
#include "console/cleanup.hpp"
#include "console/writer.hpp"

namespace lodge::console {

namespace {

class UnixSocket final : public Backend {
 public:
  UnixSocket(EventLoop& loop, Fd listener) : loop_(loop), listener_(std::move(listener)) {
    accepting_ = loop_.add_source(
        listener_.get(), [this] { return static_cast<short>(peer_fd() < 0 ? POLLIN : 0); }, [this](short) { accept_peer(); });
  }
  ~UnixSocket() override {
    loop_.remove(accepting_);
    loop_.remove(reading_);
    cleanup::undo_all();
  }

  void write(std::span<const uint8_t> bytes) override {
    MutexLock lock(mutex_);
    // Output while nobody is connected is dropped, as on a line with nothing plugged in.
    if (peer_ && !writer_.write_all(peer_.get(), bytes)) ::shutdown(peer_.get(), SHUT_RDWR);
  }
  void set_sink(InputSink sink) override { sink_ = std::move(sink); }
  void shut_down() override { writer_.closing(); }

 private:
  [[nodiscard]] int peer_fd() {
    MutexLock lock(mutex_);
    return peer_.get();
  }

  void accept_peer() {
    Fd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!peer) return;
    const int fd = peer.get();
    {
      MutexLock lock(mutex_);
      peer_ = std::move(peer);
    }
    reading_ = loop_.add_source(
        fd, [this] { return static_cast<short>(sink_.space && sink_.space() > 0 ? POLLIN : 0); }, [this, fd](short) { read_peer(fd); });
  }

  void read_peer(int fd) {
    std::array<uint8_t, 4096> buffer;
    const size_t room = sink_.space ? sink_.space() : 0;
    if (room == 0) return;
    const ssize_t got = ::read(fd, buffer.data(), std::min(room, buffer.size()));
    if (got > 0) sink_.receive({buffer.data(), static_cast<size_t>(got)});
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) disconnect();
  }

  void disconnect() {
    loop_.remove(reading_);
    MutexLock lock(mutex_);
    peer_.reset();
  }

  EventLoop& loop_;
  Fd listener_;
  InputSink sink_;
  Writer writer_;
  EventLoop::Handle accepting_ = 0;
  EventLoop::Handle reading_ = 0;
  Mutex mutex_;
  Fd peer_ LODGE_GUARDED_BY(mutex_);
};

// A socket file of a process that is gone refuses connections.
bool is_abandoned(const sockaddr_un& address) {
  struct stat status{};
  if (lstat(address.sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!probe) return false;
  return connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno == ECONNREFUSED;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_unix_socket(std::string_view option, const std::string& path, EventLoop& loop) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorKind::Usage, "{} unix:{}: the path is longer than {} bytes", option, path, sizeof address.sun_path - 1);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  if (is_abandoned(address)) unlink(path.c_str());

  Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return os_fail("socket for a console");
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(ErrorKind::Usage, "{} unix:{}: {}", option, path, os_error("cannot listen there").message);
  TRY(cleanup::remove_at_end(path));
  if (listen(listener.get(), 1) != 0) return os_fail("listening on a console's socket");
  return std::make_unique<UnixSocket>(loop, std::move(listener));
}

}  // namespace lodge::console
