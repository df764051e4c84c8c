// Coroutines of the block layer.
//
//   Task<Result<>> copy(Node& from, Node& to) {
//     Request read = ...;
//     if (auto done = co_await from.submit(read); !done) co_return std::unexpected(done.error());
//     ...
//   }
//
// A task starts when it is awaited (or given to IoContext::run(), spawn() or a TaskGroup) and goes on to its end or to where it has to
// wait; one that never has to wait costs its caller no more than a call and a frame. All of a block graph's tasks run on the thread
// of its IoContext, so between two waits nothing else happens to the graph, and nothing here needs a lock.
//
// Not in a conditional expression (a ? co_await b : co_await c): Debian 12's g++ destroys its temporaries twice.
//
// What a task refers to must outlive it: parameters are references by custom here, and their owner awaits the task.
#pragma once

#include <coroutine>
#include <cstddef>
#include <deque>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace lodge::block {

// Memory of coroutine frames: freed ones are kept per thread by size, since each request makes a few of the same sizes.
void* allocate_frame(std::size_t size);
void free_frame(void* frame, std::size_t size) noexcept;

namespace detail {

struct FrameMemory {
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, std::size_t size) noexcept { free_frame(frame, size); }
};

// At its end a task resumes who awaits it, if somebody does already. Not by symmetric transfer: what ends at once is seen by its
// awaiter in await_suspend(), so that a loop of such tasks needs no tail calls to keep the stack flat (unoptimised builds have none).
struct PromiseBase : FrameMemory {
  std::coroutine_handle<> continuation;

  static std::suspend_always initial_suspend() noexcept { return {}; }
  struct FinalAwaiter {
    static bool await_ready() noexcept { return false; }
    template <typename Promise>
    static void await_suspend(std::coroutine_handle<Promise> ended) noexcept {
      if (auto next = ended.promise().continuation) next.resume();
    }
    static void await_resume() noexcept {}
  };
  static FinalAwaiter final_suspend() noexcept { return {}; }
  [[noreturn]] static void unhandled_exception() noexcept { std::terminate(); }
};

}  // namespace detail

template <typename T = void>
class [[nodiscard]] Task {
 public:
  struct promise_type : detail::PromiseBase {
    std::optional<T> value;
    Task get_return_object() noexcept { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
    template <typename U>
    void return_value(U&& result) {
      value.emplace(std::forward<U>(result));
    }
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  // To be awaited once. start() and finished() are for those who drive tasks from outside of coroutines.
  void start() { handle_.resume(); }
  [[nodiscard]] bool finished() const { return handle_.done(); }
  [[nodiscard]] T take() { return std::move(*handle_.promise().value); }

  static bool await_ready() noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiter) {
    handle_.resume();
    if (handle_.done()) return false;
    handle_.promise().continuation = awaiter;
    return true;
  }
  T await_resume() { return std::move(*handle_.promise().value); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

template <>
class [[nodiscard]] Task<void> {
 public:
  struct promise_type : detail::PromiseBase {
    Task get_return_object() noexcept { return Task(std::coroutine_handle<promise_type>::from_promise(*this)); }
    static void return_void() noexcept {}
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }
  void start() { handle_.resume(); }
  [[nodiscard]] bool finished() const { return handle_.done(); }
  void take() {}
  static bool await_ready() noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiter) {
    handle_.resume();
    if (handle_.done()) return false;
    handle_.promise().continuation = awaiter;
    return true;
  }
  static void await_resume() noexcept {}

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

// Starts a task that nobody awaits; its frame goes when it ends.
void spawn(Task<void> task);

// The coroutine goes on at the next turn of the thread's IoContext: whoever wakes another is not interrupted by it, and long queues of
// waiters do not pile up on the stack.
void resume_later(std::coroutine_handle<> waiter);
// Resumes those, also what they wake in turn. False: there were none. For IoContext.
bool run_ready();

// Coroutines that wait for something of the graph to change; woken in the order in which they came.
class WaitQueue {
 public:
  struct Awaiter {
    WaitQueue& queue;
    static bool await_ready() noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) const { queue.waiters_.push_back(waiter); }
    static void await_resume() noexcept {}
  };
  [[nodiscard]] Awaiter wait() { return {*this}; }
  void wake_one();
  void wake_all();
  [[nodiscard]] bool empty() const { return waiters_.empty(); }

 private:
  std::deque<std::coroutine_handle<>> waiters_;
};

// Held across waits. Those who wait get it in the order in which they came.
class AsyncMutex {
 public:
  class [[nodiscard]] Hold {
   public:
    Hold() = default;
    explicit Hold(AsyncMutex& mutex) : mutex_(&mutex) {}
    Hold(Hold&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        mutex_ = std::exchange(other.mutex_, nullptr);
      }
      return *this;
    }
    ~Hold() { release(); }
    void release() {
      if (AsyncMutex* mutex = std::exchange(mutex_, nullptr)) mutex->unlock();
    }

   private:
    AsyncMutex* mutex_ = nullptr;
  };
  struct Awaiter {
    AsyncMutex& mutex;
    [[nodiscard]] bool await_ready() const noexcept { return !std::exchange(mutex.held_, true); }
    void await_suspend(std::coroutine_handle<> waiter) const { mutex.waiters_.push_back(waiter); }
    [[nodiscard]] Hold await_resume() const noexcept { return Hold(mutex); }
  };
  [[nodiscard]] Awaiter lock() { return {*this}; }
  [[nodiscard]] bool held() const { return held_; }

 private:
  void unlock();
  bool held_ = false;
  std::deque<std::coroutine_handle<>> waiters_;
};

// Several tasks at once, at most so many; the first error is kept. All must have ended (finish()) before the group goes.
class TaskGroup {
 public:
  explicit TaskGroup(unsigned limit) : limit_(limit) {}
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  // Waits until there is room, then starts the task.
  Task<> add(Task<Result<>> task);
  // All have ended: the first error, if there was one.
  Task<Result<>> finish();
  [[nodiscard]] bool failed() const { return error_.has_value(); }

 private:
  Task<> carry(Task<Result<>> task);
  unsigned limit_;
  unsigned running_ = 0;
  std::optional<Error> error_;
  WaitQueue room_;
};

}  // namespace lodge::block

// The value of an awaited Result in a new variable `name`, or its error to the caller.
#define CO_TRY_VALUE(name, expression)                                                                         \
  auto LODGE_CONCAT(name, _result) = co_await (expression);                                                    \
  if (!LODGE_CONCAT(name, _result)) co_return std::unexpected(std::move(LODGE_CONCAT(name, _result)).error()); \
  auto& name = *LODGE_CONCAT(name, _result)
// The same for Result<>.
#define CO_TRY(expression)                                                                                                       \
  do {                                                                                                                           \
    if (auto lodge_result_ = co_await (expression); !lodge_result_) co_return std::unexpected(std::move(lodge_result_).error()); \
  } while (false)
