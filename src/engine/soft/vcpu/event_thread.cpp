#include "engine/soft/vcpu/event_thread.hpp"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

namespace lodge::engine::soft {

Result<std::unique_ptr<EventThread>> EventThread::create() {
  std::unique_ptr<EventThread> result(new EventThread());
  result->epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!result->epoll_) return os_fail("epoll_create1");
  result->end_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!result->end_) return os_fail("eventfd");
  TRY(result->add(result->end_.get(), nullptr));
  result->thread_ = std::thread([thread = result.get()] { thread->loop(); });
  pthread_setname_np(result->thread_.native_handle(), "irqfd");
  return result;
}

EventThread::~EventThread() {
  if (!thread_.joinable()) return;
  eventfd_write(end_.get(), 1);
  thread_.join();
}

Result<> EventThread::add(int fd, std::function<void()> handler) {
  const std::lock_guard lock(mutex_);
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return os_fail("watching an eventfd");
  handlers_[fd] = std::move(handler);
  return {};
}

void EventThread::remove(int fd) {
  const std::lock_guard lock(mutex_);
  if (handlers_.erase(fd) != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

void EventThread::serve(int fd) {
  const std::lock_guard lock(mutex_);
  const auto found = handlers_.find(fd);
  eventfd_t count = 0;
  if (found != handlers_.end() && eventfd_read(fd, &count) == 0) found->second();
}

void EventThread::loop() {
  for (;;) {
    epoll_event event = {};
    if (epoll_wait(epoll_.get(), &event, 1, -1) < 1) continue;
    if (event.data.fd == end_.get()) return;
    serve(event.data.fd);
  }
}

}  // namespace lodge::engine::soft
