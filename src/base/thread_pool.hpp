// Threads for work that may block or takes long, started when there is work for them.
//
// Threads: run() from any thread. The destructor waits for all work that was given.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.hpp"

namespace lodge {

class ThreadPool {
 public:
  // At most `limit` threads, named so for ps and top (15 characters).
  ThreadPool(unsigned limit, std::string name);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void run(std::function<void()> work) LODGE_EXCLUDES(mutex_);

 private:
  void work_until_end() LODGE_EXCLUDES(mutex_);

  const unsigned limit_;
  const std::string name_;
  Mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> waiting_ LODGE_GUARDED_BY(mutex_);
  unsigned idle_ LODGE_GUARDED_BY(mutex_) = 0;
  bool ending_ LODGE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge
