#include "base/thread_pool.hpp"

#include <pthread.h>
#include <signal.h>

namespace lodge {

ThreadPool::ThreadPool(unsigned limit, std::string name) : limit_(limit), name_(std::move(name)) {}

ThreadPool::~ThreadPool() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void ThreadPool::run(std::function<void()> work) {
  MutexLock lock(mutex_);
  waiting_.push_back(std::move(work));
  if (waiting_.size() <= idle_ || threads_.size() >= limit_) return changed_.notify_one();
  // Signals are for the threads that expect them: a new thread inherits the mask.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  threads_.emplace_back([this] { work_until_end(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(threads_.back().native_handle(), name_.c_str());
}

void ThreadPool::work_until_end() {
  for (;;) {
    std::function<void()> work;
    {
      MutexLock lock(mutex_);
      ++idle_;
      while (waiting_.empty() && !ending_) lock.wait(changed_);
      --idle_;
      if (waiting_.empty()) return;
      work = std::move(waiting_.front());
      waiting_.pop_front();
    }
    work();
  }
}

}  // namespace lodge
