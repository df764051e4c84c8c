// An event loop on a thread of its own, for devices whose hosts' side waits for descriptors.
//
// Threads: post() and call() from any other.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/event_loop.hpp"
#include "devices/worker/worker.hpp"

namespace lodge::devices {

class LoopThread final : public Worker {
 public:
  static Result<std::unique_ptr<LoopThread>> start(const std::string& name);
  ~LoopThread() override;  // all that works here must have ended
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  [[nodiscard]] EventLoop& loop() { return *loop_; }
  void post(std::function<void()> work) override { loop_->post(std::move(work)); }
  [[nodiscard]] std::unique_ptr<Watch> watch(int eventfd, std::function<void()> ready) override;

  // Runs it there; what it returns here.
  template <typename Function>
  auto call(Function function) {
    std::packaged_task<decltype(function())()> task(std::move(function));
    auto result = task.get_future();
    post([&task] { task(); });
    return result.get();
  }

 private:
  explicit LoopThread(std::unique_ptr<EventLoop> loop) : loop_(std::move(loop)) {}

  std::unique_ptr<EventLoop> loop_;
  std::thread thread_;
};

}  // namespace lodge::devices
