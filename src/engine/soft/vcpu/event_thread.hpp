// The thread that turns eventfds into calls: one a VM, started with the first descriptor. In-process users do without
// (InterruptEvent::signal() is a direct call).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace lodge::engine::soft {

class EventThread {
 public:
  [[nodiscard]] static Result<std::unique_ptr<EventThread>> create();
  ~EventThread();
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;

  // Calls `handler` for each time that the eventfd was found written to (writes may merge). Any thread; remove() returns when no
  // call is in progress or to come, and may not be called from a handler.
  [[nodiscard]] Result<> add(int fd, std::function<void()> handler);
  void remove(int fd);

 private:
  EventThread() = default;
  void loop();
  void serve(int fd);

  Fd epoll_, end_;
  std::mutex mutex_;  // held while a handler runs
  std::map<int, std::function<void()>> handlers_;
  std::thread thread_;
};

}  // namespace lodge::engine::soft
