// Writes to a descriptor that may be slow, closed or a terminal, from any thread, until told to give up.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <span>

namespace lodge::console {

class Writer {
 public:
  // False when the other end is gone (SIGPIPE is ignored: EPIPE) or closing() was called.
  bool write_all(int fd, std::span<const uint8_t> bytes) {
    while (!bytes.empty() && !closing_) {
      pollfd ready{fd, POLLOUT, 0};
      // The wait is bounded so that closing() is seen; poll() also keeps a full pipe from blocking write().
      if (poll(&ready, 1, kWaitMs) <= 0) continue;
      const ssize_t written = ::write(fd, bytes.data(), bytes.size());
      if (written > 0)
        bytes = bytes.subspan(static_cast<size_t>(written));
      else if (errno != EINTR && errno != EAGAIN)
        return false;
    }
    return bytes.empty();
  }
  void closing() { closing_ = true; }

 private:
  static constexpr int kWaitMs = 50;
  std::atomic<bool> closing_ = false;
};

}  // namespace lodge::console
