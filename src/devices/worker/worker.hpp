// The thread that serves a device's queues, so that vCPUs only ring and go on.
#pragma once

#include <functional>
#include <memory>

namespace lodge::devices {

class Worker {
 public:
  // Ends when it goes. Worker's thread.
  class Watch {
   public:
    virtual ~Watch() = default;
  };

  virtual ~Worker() = default;
  virtual void post(std::function<void()> work) = 0;  // any thread; in the order of the calls
  // Calls `ready` on the worker's thread whenever the eventfd has been written, which counts as read then. Worker's thread.
  [[nodiscard]] virtual std::unique_ptr<Watch> watch(int eventfd, std::function<void()> ready) = 0;
};

}  // namespace lodge::devices
