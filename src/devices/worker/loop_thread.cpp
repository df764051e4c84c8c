#include "devices/worker/loop_thread.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/eventfd.hpp"

namespace lodge::devices {

namespace {

// The descriptor is a duplicate, so that its owner may close its own at any time.
class LoopWatch final : public Worker::Watch {
 public:
  LoopWatch(EventLoop& loop, Fd event, std::function<void()> ready) : loop_(loop), event_(std::move(event)) {
    handle_ = loop_.add_source(
        event_.get(), [] { return POLLIN; },
        [this, ready = std::move(ready)](short) {
          eventfd_t count = 0;
          if (eventfd_read(event_.get(), &count) == 0) ready();
        });
  }
  ~LoopWatch() override { loop_.remove(handle_); }
  LoopWatch(const LoopWatch&) = delete;
  LoopWatch& operator=(const LoopWatch&) = delete;

 private:
  EventLoop& loop_;
  Fd event_;
  EventLoop::Handle handle_;
};

}  // namespace

Result<std::unique_ptr<LoopThread>> LoopThread::start(const std::string& name) {
  std::unique_ptr<LoopThread> made(new LoopThread(TRY(EventLoop::create())));
  made->thread_ = std::thread([loop = made->loop_.get(), name = name.substr(0, 15)] {
    pthread_setname_np(pthread_self(), name.c_str());
    loop->run();
  });
  return made;
}

LoopThread::~LoopThread() {
  loop_->stop();
  thread_.join();
}

std::unique_ptr<Worker::Watch> LoopThread::watch(int eventfd, std::function<void()> ready) {
  auto event = duplicate(eventfd);
  // Without descriptors the device is never served: as good as a broken one.
  if (!event) return nullptr;
  return std::make_unique<LoopWatch>(*loop_, std::move(*event), std::move(ready));
}

}  // namespace lodge::devices
