// A line that others may share while the machine runs: whoever comes sees what was printed last and what is printed from then on, and types
// as the line's own other end does.
//
// Threads: write() and shut_down() from any; the rest from the event loop's.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/mutex.hpp"
#include "console/backend.hpp"

namespace lodge::console {

class SharedLine final : public Backend {
 public:
  static constexpr size_t kKept = 64 << 10;        // bytes of output for those who come
  static constexpr size_t kMostWaiting = 1 << 20;  // for a peer that does not read; what is more is lost for it
  static constexpr size_t kMostPeers = 16;

  SharedLine(std::unique_ptr<Backend> line, EventLoop& loop) : line_(std::move(line)), loop_(loop) {}
  ~SharedLine() override;

  void write(std::span<const uint8_t> bytes) override LODGE_EXCLUDES(mutex_);
  void set_sink(InputSink sink) override;
  void shut_down() override { line_->shut_down(); }
  [[nodiscard]] std::optional<Size> size() const override { return line_->size(); }

  // A connected stream socket that does not block. ErrorKind::Resource: there are too many.
  [[nodiscard]] Result<> attach(Fd peer) LODGE_EXCLUDES(mutex_);

 private:
  struct Peer {
    Fd fd;
    EventLoop::Handle source = 0;
    std::string waiting;  // under the mutex
  };
  [[nodiscard]] short interest(const Peer& peer) LODGE_EXCLUDES(mutex_);
  void serve(Peer& peer, short events) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool flush(Peer& peer) LODGE_EXCLUDES(mutex_);

  const std::unique_ptr<Backend> line_;
  EventLoop& loop_;
  InputSink sink_;
  Mutex mutex_;
  std::list<Peer> peers_;  // changed on the loop's thread, under the mutex
  std::string kept_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::console
