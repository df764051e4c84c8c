// A thread of its own for a block graph and the devices that work on it.
//
// Threads: post() and call() from any other.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "block/io_context.hpp"
#include "devices/worker/worker.hpp"

namespace lodge::devices {

class IoThread final : public Worker {
 public:
  static Result<std::unique_ptr<IoThread>> start(const std::string& name, block::IoContext::Kind kind = block::IoContext::Kind::Automatic);
  ~IoThread() override;  // all that works here must have ended, except for watches
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  [[nodiscard]] block::IoContext& context() { return *context_; }
  void post(std::function<void()> work) override { context_->post(std::move(work)); }
  [[nodiscard]] std::unique_ptr<Watch> watch(int eventfd, std::function<void()> ready) override;

  // Runs the task that `make` gives there to its end; its result here.
  template <typename Make>
  auto call(Make make) {
    using T = decltype(make().take());
    std::promise<T> promise;
    auto result = promise.get_future();
    post([&] { block::spawn(carry<T>(make, promise)); });
    return result.get();
  }

 private:
  class CoroutineWatch;
  explicit IoThread(std::unique_ptr<block::IoContext> context) : context_(std::move(context)) {}
  template <typename T, typename Make>
  static block::Task<> carry(Make& make, std::promise<T>& promise) {
    promise.set_value(co_await make());
  }
  block::Task<> wait_for_watches();

  std::unique_ptr<block::IoContext> context_;
  unsigned watches_ = 0;
  std::thread thread_;
};

}  // namespace lodge::devices
