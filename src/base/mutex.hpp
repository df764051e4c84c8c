// A mutex that Clang's thread-safety analysis understands (-Wthread-safety).
//
//   Mutex mutex_;
//   int level_ LODGE_GUARDED_BY(mutex_);
//
// Other compilers see plain std::mutex behaviour.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define LODGE_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define LODGE_THREAD_ANNOTATION(x)
#endif

#define LODGE_CAPABILITY(name) LODGE_THREAD_ANNOTATION(capability(name))
#define LODGE_SCOPED_CAPABILITY LODGE_THREAD_ANNOTATION(scoped_lockable)
#define LODGE_GUARDED_BY(mutex) LODGE_THREAD_ANNOTATION(guarded_by(mutex))
#define LODGE_REQUIRES(...) LODGE_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define LODGE_EXCLUDES(...) LODGE_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define LODGE_ACQUIRE(...) LODGE_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define LODGE_RELEASE(...) LODGE_THREAD_ANNOTATION(release_capability(__VA_ARGS__))

namespace lodge {

class LODGE_CAPABILITY("mutex") Mutex {
 public:
  void lock() LODGE_ACQUIRE() { mutex_.lock(); }
  void unlock() LODGE_RELEASE() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds the mutex for the scope; wait() gives it up while a condition is awaited.
class LODGE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) LODGE_ACQUIRE(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() LODGE_RELEASE() {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void wait(std::condition_variable& condition) { condition.wait(lock_); }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace lodge
