#include "devices/worker/io_thread.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "base/eventfd.hpp"

namespace lodge::devices {

Result<std::unique_ptr<IoThread>> IoThread::start(const std::string& name, block::IoContext::Kind kind) {
  std::unique_ptr<IoThread> made(new IoThread(TRY(block::IoContext::create(kind))));
  made->thread_ = std::thread([context = made->context_.get(), name = name.substr(0, 15)] {
    pthread_setname_np(pthread_self(), name.c_str());
    context->run();
  });
  return made;
}

IoThread::~IoThread() {
  post([this] { block::spawn(wait_for_watches()); });
  thread_.join();
}

block::Task<> IoThread::wait_for_watches() {
  while (watches_ != 0) co_await block::IoContext::yield();
  context_->stop();
}

// The descriptor is a duplicate, so that its owner may close its own at any time. What waits for it cannot be taken back: it is woken, and
// sees then that it is not wanted any more.
class IoThread::CoroutineWatch final : public Watch {
 public:
  struct State {
    IoThread& thread;
    Fd event;
    std::function<void()> ready;
    bool ended = false;
  };
  explicit CoroutineWatch(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ~CoroutineWatch() override {
    state_->ended = true;
    eventfd_write(state_->event.get(), 1);
  }
  CoroutineWatch(const CoroutineWatch&) = delete;
  CoroutineWatch& operator=(const CoroutineWatch&) = delete;

  static block::Task<> wait(std::shared_ptr<State> state) {
    ++state->thread.watches_;
    while (!state->ended) {
      static_cast<void>(co_await state->thread.context_->poll(state->event.get(), POLLIN));
      eventfd_t count = 0;
      if (!state->ended && eventfd_read(state->event.get(), &count) == 0) state->ready();
    }
    --state->thread.watches_;
  }

 private:
  std::shared_ptr<State> state_;
};

std::unique_ptr<Worker::Watch> IoThread::watch(int eventfd, std::function<void()> ready) {
  auto event = duplicate(eventfd);
  // Without descriptors the device is never served: as good as a broken one.
  if (!event) return nullptr;
  auto state = std::make_shared<CoroutineWatch::State>(*this, std::move(*event), std::move(ready));
  block::spawn(CoroutineWatch::wait(state));
  return std::make_unique<CoroutineWatch>(std::move(state));
}

}  // namespace lodge::devices
