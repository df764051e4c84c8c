#include "console/shared_line.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace lodge::console {

SharedLine::~SharedLine() {
  for (const Peer& peer : peers_) loop_.remove(peer.source);
}

// Those who share the line first: its own end may be slow, and the guest waits for that one alone.
void SharedLine::write(std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  bool anybody = false;
  {
    MutexLock lock(mutex_);
    kept_ += text;
    // Not at each byte.
    if (kept_.size() > 2 * kKept) kept_.erase(0, kept_.size() - kKept);
    for (Peer& peer : peers_) {
      anybody = true;
      if (peer.waiting.size() + text.size() <= kMostWaiting) peer.waiting += text;
    }
  }
  if (anybody) loop_.wake();
  line_->write(bytes);
}

void SharedLine::set_sink(InputSink sink) {
  sink_ = sink;
  line_->set_sink(std::move(sink));
}

Result<> SharedLine::attach(Fd fd) {
  if (peers_.size() >= kMostPeers) return fail(ErrorKind::Resource, "{} others share the console already", kMostPeers);
  Peer* peer = nullptr;
  {
    MutexLock lock(mutex_);
    peer = &peers_.emplace_back();
    peer->waiting = kept_.substr(kept_.size() - std::min(kept_.size(), kKept));
  }
  peer->fd = std::move(fd);
  peer->source =
      loop_.add_source(peer->fd.get(), [this, peer] { return interest(*peer); }, [this, peer](short events) { serve(*peer, events); });
  return {};
}

short SharedLine::interest(const Peer& peer) {
  MutexLock lock(mutex_);
  return static_cast<short>((sink_.space && sink_.space() > 0 ? POLLIN : 0) | (peer.waiting.empty() ? 0 : POLLOUT));
}

bool SharedLine::flush(Peer& peer) {
  MutexLock lock(mutex_);
  while (!peer.waiting.empty()) {
    const ssize_t sent = ::send(peer.fd.get(), peer.waiting.data(), peer.waiting.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    peer.waiting.erase(0, static_cast<size_t>(sent));
  }
  return true;
}

void SharedLine::serve(Peer& peer, short events) {
  bool alive = !(events & POLLOUT) || flush(peer);
  if (alive && (events & (POLLIN | POLLHUP | POLLERR))) {
    std::array<uint8_t, 4096> buffer;
    const size_t room = std::min(sink_.space ? sink_.space() : 0, buffer.size());
    const ssize_t got = room != 0 ? ::read(peer.fd.get(), buffer.data(), room) : -1;
    if (got > 0) sink_.receive({buffer.data(), static_cast<size_t>(got)});
    // Without room the peer's end is all that there can be to hear of.
    alive = got > 0 || (room == 0 && !(events & (POLLHUP | POLLERR))) || (got < 0 && room != 0 && (errno == EAGAIN || errno == EINTR));
  }
  if (alive) return;
  loop_.remove(peer.source);
  MutexLock lock(mutex_);
  peers_.remove_if([&](const Peer& other) { return &other == &peer; });
}

}  // namespace lodge::console
