#include "block/task.hpp"

#include <array>
#include <new>

namespace lodge::block {

namespace {

// Sizes in steps of 64 bytes; larger frames go to the heap.
constexpr std::size_t kStep = 64, kClasses = 32;

struct FreeFrame {
  FreeFrame* next;
};

struct FrameLists {
  std::array<FreeFrame*, kClasses> first{};
  ~FrameLists() {
    for (FreeFrame* frame : first)
      while (frame) ::operator delete(std::exchange(frame, frame->next));
    gone = true;
  }
  static thread_local bool gone;
};
thread_local bool FrameLists::gone = false;
thread_local FrameLists frame_lists;

std::size_t class_of(std::size_t size) { return (size - 1) / kStep; }

}  // namespace

void* allocate_frame(std::size_t size) {
  const std::size_t index = class_of(size);
  if (index >= kClasses || FrameLists::gone) return ::operator new(size);
  if (FreeFrame*& first = frame_lists.first[index]) return std::exchange(first, first->next);
  return ::operator new((index + 1) * kStep);
}

void free_frame(void* frame, std::size_t size) noexcept {
  const std::size_t index = class_of(size);
  if (index >= kClasses || FrameLists::gone) return ::operator delete(frame);
  FreeFrame*& first = frame_lists.first[index];
  first = new (frame) FreeFrame{first};
}

namespace {

struct Detached {
  struct promise_type : detail::FrameMemory {
    static Detached get_return_object() noexcept { return {}; }
    static std::suspend_never initial_suspend() noexcept { return {}; }
    static std::suspend_never final_suspend() noexcept { return {}; }
    static void return_void() noexcept {}
    [[noreturn]] static void unhandled_exception() noexcept { std::terminate(); }
  };
};

Detached run_detached(Task<void> task) { co_await task; }

}  // namespace

void spawn(Task<void> task) { run_detached(std::move(task)); }

namespace {
thread_local std::vector<std::coroutine_handle<>> ready;
}

void resume_later(std::coroutine_handle<> waiter) { ready.push_back(waiter); }

bool run_ready() {
  if (ready.empty()) return false;
  std::vector<std::coroutine_handle<>> now;
  while (!ready.empty()) {
    now.swap(ready);
    for (const auto waiter : now) waiter.resume();
    now.clear();
  }
  return true;
}

void WaitQueue::wake_one() {
  if (waiters_.empty()) return;
  resume_later(waiters_.front());
  waiters_.pop_front();
}

void WaitQueue::wake_all() {
  for (const auto waiter : waiters_) resume_later(waiter);
  waiters_.clear();
}

void AsyncMutex::unlock() {
  if (waiters_.empty()) {
    held_ = false;
    return;
  }
  resume_later(waiters_.front());  // stays held, by that one
  waiters_.pop_front();
}

Task<> TaskGroup::carry(Task<Result<>> task) {
  auto done = co_await task;
  if (!done && !error_) error_ = std::move(done).error();
  --running_;
  room_.wake_one();
}

Task<> TaskGroup::add(Task<Result<>> task) {
  while (running_ >= limit_) co_await room_.wait();
  ++running_;
  spawn(carry(std::move(task)));
}

Task<Result<>> TaskGroup::finish() {
  while (running_ > 0) co_await room_.wait();
  if (error_) co_return std::unexpected(*error_);
  co_return Result<>{};
}

}  // namespace lodge::block
