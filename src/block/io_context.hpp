// Where a block graph lives: one thread's loop, with the kernel's asynchronous I/O (io_uring) or, where a container takes that away, with
// a pool of threads that do the same calls.
//
// Threads: post() and stop() from any; everything else from the thread that runs the loop, which may be another one than that which
// created the context (but only one).
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "base/mutex.hpp"
#include "base/thread_pool.hpp"
#include "block/task.hpp"

namespace lodge::block {

class IoContext;

// One call that the kernel carries out; awaited at once. Result: what the call returns, or -errno.
struct [[nodiscard]] IoCall {
  enum class Kind : uint8_t { Read, Write, Sync, Allocate, Poll };

  IoContext& context;
  Kind kind;
  enum class AtOnce : uint8_t {
    No,
    IfReady,  // first without waiting, in this thread: right where the page cache has the answer
    Always,   // in this thread, whatever it takes
  } at_once = AtOnce::No;
  int fd = -1;
  std::span<const iovec> vectors{};  // of Read and Write: at most IOV_MAX, and valid until the call has ended
  uint64_t offset = 0, length = 0;   // length: of Allocate
  int mode = 0;                      // Allocate: fallocate(2)'s; Poll: the events; Write: RWF_ flags
  int64_t result = 0;
  bool never_at_once = false;  // result: the file system cannot do it without waiting
  std::coroutine_handle<> waiter{};

  [[nodiscard]] bool await_ready();
  void await_suspend(std::coroutine_handle<> awaiter);
  [[nodiscard]] int64_t await_resume() const { return result; }
};

class IoContext {
 public:
  enum class Kind { Automatic, Uring, Threads };
  // Automatic: io_uring if the kernel lets us have it.
  static Result<std::unique_ptr<IoContext>> create(Kind kind = Kind::Automatic);
  ~IoContext();
  IoContext(const IoContext&) = delete;
  IoContext& operator=(const IoContext&) = delete;

  // Runs the loop until the task has ended.
  template <typename T>
  T run(Task<T> task) {
    task.start();
    while (!task.finished()) turn();
    return task.take();
  }
  // Runs the loop until stop(); what was posted before is done.
  void run();
  void stop();
  void post(std::function<void()> work) LODGE_EXCLUDES(mutex_);

  IoCall read(int fd, std::span<const iovec> vectors, uint64_t offset, bool try_at_once = false) {
    return {.context = *this,
            .kind = IoCall::Kind::Read,
            .at_once = try_at_once ? IoCall::AtOnce::IfReady : IoCall::AtOnce::No,
            .fd = fd,
            .vectors = vectors,
            .offset = offset};
  }
  IoCall write(int fd, std::span<const iovec> vectors, uint64_t offset, bool try_at_once = false, int flags = 0) {
    return {.context = *this,
            .kind = IoCall::Kind::Write,
            .at_once = try_at_once ? IoCall::AtOnce::IfReady : IoCall::AtOnce::No,
            .fd = fd,
            .vectors = vectors,
            .offset = offset,
            .mode = flags};
  }
  IoCall sync(int fd) { return {.context = *this, .kind = IoCall::Kind::Sync, .fd = fd}; }  // fdatasync(2)
  IoCall allocate(int fd, int mode, uint64_t offset, uint64_t length) {
    return {.context = *this, .kind = IoCall::Kind::Allocate, .fd = fd, .offset = offset, .length = length, .mode = mode};
  }
  IoCall poll(int fd, short events) { return {.context = *this, .kind = IoCall::Kind::Poll, .fd = fd, .mode = events}; }

  // Work for another thread; the coroutine goes on when it is done.
  struct [[nodiscard]] Offload {
    IoContext& context;
    std::function<void()> work;
    static bool await_ready() { return false; }
    void await_suspend(std::coroutine_handle<> awaiter);
    static void await_resume() {}
  };
  Offload offload(std::function<void()> work) { return {*this, std::move(work)}; }
  // Goes on at the next turn, after whatever else is ready.
  struct [[nodiscard]] Yield {
    static bool await_ready() { return false; }
    static void await_suspend(std::coroutine_handle<> awaiter) { resume_later(awaiter); }
    static void await_resume() {}
  };
  static Yield yield() { return {}; }

  [[nodiscard]] bool has_uring() const { return uring_ != nullptr; }
  // How many threads work beside this one when asked to: as many as there are processors.
  [[nodiscard]] static unsigned parallelism();

 private:
  friend struct IoCall;
  struct Uring;
  IoContext();
  void turn();
  void start_call(IoCall& call);
  void wait(bool sleep);
  void wait_by_poll(bool sleep);
  void take_wakeups() const;
  bool run_posted() LODGE_EXCLUDES(mutex_);
  void wake() const;

  std::unique_ptr<Uring> uring_;
  Fd wakeup_;
  std::vector<IoCall*> polled_;  // without io_uring
  std::atomic<bool> sleeping_ = false, stop_ = false;
  Mutex mutex_;
  std::vector<std::function<void()>> posted_ LODGE_GUARDED_BY(mutex_);
  std::unique_ptr<ThreadPool> pool_;  // last: its threads post here until they have ended
};

}  // namespace lodge::block
