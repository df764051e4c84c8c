// The line of a virtio console, with the thread that serves it. It lives as long as the process, over all resets.
//
// Threads: the main thread; the backend is its thread's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "console/backend.hpp"
#include "devices/virtio/console/console.hpp"
#include "devices/worker/loop_thread.hpp"

namespace lodge::machine {

class ConsoleLine {
 public:
  // `specification` as of --console. `quit` is called on the line's thread. Errors name the option.
  static Result<std::unique_ptr<ConsoleLine>> open(const std::string& specification, std::function<void()> quit);
  ~ConsoleLine();
  ConsoleLine(const ConsoleLine&) = delete;
  ConsoleLine& operator=(const ConsoleLine&) = delete;

  [[nodiscard]] std::unique_ptr<devices::virtio::Console> make_device() const;
  // Lets output that waits for a reader be.
  void shut_down() { backend_->shut_down(); }

 private:
  explicit ConsoleLine(std::unique_ptr<devices::LoopThread> thread) : thread_(std::move(thread)) {}

  std::unique_ptr<devices::LoopThread> thread_;
  std::unique_ptr<console::Backend> backend_;
};

}  // namespace lodge::machine
