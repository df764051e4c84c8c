// A thread's loop: descriptors, deadlines and work that other threads post.
//
// Threads: post(), wake() and stop() from any thread; everything else from the loop's own thread, or before
// run(). poll(2) rather than epoll, since standard input may be a regular file.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/mutex.hpp"

namespace lodge {

class EventLoop {
 public:
  static Result<std::unique_ptr<EventLoop>> create();

  // A descriptor; `interest` is asked before each wait which poll events are wanted (0: none now).
  // Removed when the returned handle is given to remove().
  using Handle = uint64_t;
  Handle add_source(int fd, std::function<short()> interest, std::function<void(short revents)> ready);
  // Something that wants to be called when CLOCK_MONOTONIC (ns) has reached `next` (kNever: not now). A `next`
  // that moves earlier on another thread is seen after wake().
  Handle add_deadline(std::function<uint64_t()> next, std::function<void()> expired);
  // A library with descriptors of its own that come and go: `fill` appends those of the next wait, and `polled` sees the same entries
  // after it, also when nothing has happened to any.
  Handle add_group(std::function<void(std::vector<pollfd>&)> fill, std::function<void(std::span<const pollfd>)> polled);
  void remove(Handle handle);

  void post(std::function<void()> work) LODGE_EXCLUDES(mutex_);
  void wake() const;
  void stop();  // run() returns after the work in hand

  void run();

 private:
  struct Source {
    Handle handle;
    int fd;
    std::function<short()> interest;
    std::function<void(short)> ready;
  };
  struct Deadline {
    Handle handle;
    std::function<uint64_t()> next;
    std::function<void()> expired;
  };
  struct Group {
    Handle handle;
    std::function<void(std::vector<pollfd>&)> fill;
    std::function<void(std::span<const pollfd>)> polled;
  };
  EventLoop() = default;
  void run_posted() LODGE_EXCLUDES(mutex_);
  void wait_and_dispatch();
  void run_expired();
  [[nodiscard]] uint64_t earliest_deadline() const;

  Fd wakeup_;
  Handle last_handle_ = 0;
  std::list<Source> sources_;
  std::list<Deadline> deadlines_;
  std::list<Group> groups_;
  Mutex mutex_;
  std::vector<std::function<void()>> posted_ LODGE_GUARDED_BY(mutex_);
  bool stop_ LODGE_GUARDED_BY(mutex_) = false;
};

}  // namespace lodge
