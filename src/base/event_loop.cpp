#include "base/event_loop.hpp"

#include <sys/eventfd.h>

#include <algorithm>

#include "base/clock.hpp"

namespace lodge {

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  std::unique_ptr<EventLoop> loop(new EventLoop);
  loop->wakeup_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!loop->wakeup_) return os_fail("eventfd for an event loop");
  return loop;
}

EventLoop::Handle EventLoop::add_source(int fd, std::function<short()> interest, std::function<void(short)> ready) {
  sources_.push_back({++last_handle_, fd, std::move(interest), std::move(ready)});
  return last_handle_;
}

EventLoop::Handle EventLoop::add_deadline(std::function<uint64_t()> next, std::function<void()> expired) {
  deadlines_.push_back({++last_handle_, std::move(next), std::move(expired)});
  return last_handle_;
}

EventLoop::Handle EventLoop::add_group(std::function<void(std::vector<pollfd>&)> fill,
                                       std::function<void(std::span<const pollfd>)> polled) {
  groups_.push_back({++last_handle_, std::move(fill), std::move(polled)});
  return last_handle_;
}

void EventLoop::remove(Handle handle) {
  sources_.remove_if([&](const Source& source) { return source.handle == handle; });
  deadlines_.remove_if([&](const Deadline& deadline) { return deadline.handle == handle; });
  groups_.remove_if([&](const Group& group) { return group.handle == handle; });
}

void EventLoop::post(std::function<void()> work) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(work));
  }
  wake();
}

void EventLoop::wake() const {
  const uint64_t one = 1;
  // A full counter (EAGAIN) wakes the loop just as well.
  [[maybe_unused]] const ssize_t written = write(wakeup_.get(), &one, sizeof one);
}

void EventLoop::stop() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
  }
  wake();
}

void EventLoop::run() {
  for (;;) {
    run_posted();
    {
      MutexLock lock(mutex_);
      if (stop_) {
        stop_ = false;
        return;
      }
    }
    run_expired();
    wait_and_dispatch();
  }
}

void EventLoop::run_posted() {
  std::vector<std::function<void()>> work;
  {
    MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (const auto& item : work) item();
}

uint64_t EventLoop::earliest_deadline() const {
  uint64_t earliest = kNever;
  for (const Deadline& deadline : deadlines_) earliest = std::min(earliest, deadline.next());
  return earliest;
}

void EventLoop::run_expired() {
  const uint64_t now = HostClock().monotonic_ns();
  std::vector<std::function<void()>> expired;
  for (const Deadline& deadline : deadlines_)
    if (deadline.next() <= now) expired.push_back(deadline.expired);
  for (const auto& call : expired) call();
}

void EventLoop::wait_and_dispatch() {
  std::vector<pollfd> fds{{wakeup_.get(), POLLIN, 0}};
  std::vector<Handle> handles{0};
  for (const Source& source : sources_) {
    const short events = source.interest();
    if (events == 0) continue;
    fds.push_back({source.fd, events, 0});
    handles.push_back(source.handle);
  }
  struct Part {
    Handle handle;
    size_t first, count;
  };
  std::vector<Part> parts;
  for (const Group& group : groups_) {
    const size_t first = fds.size();
    group.fill(fds);
    parts.push_back({group.handle, first, fds.size() - first});
  }

  timespec timeout{};
  const timespec* wait = nullptr;
  if (const uint64_t deadline = earliest_deadline(); deadline != kNever) {
    const uint64_t now = HostClock().monotonic_ns();
    const uint64_t left = deadline > now ? deadline - now : 0;
    timeout = {static_cast<time_t>(left / kSecondNs), static_cast<long>(left % kSecondNs)};
    wait = &timeout;
  }
  if (ppoll(fds.data(), fds.size(), wait, nullptr) < 0)
    for (pollfd& fd : fds) fd.revents = 0;

  uint64_t count = 0;
  if (fds[0].revents != 0) {
    [[maybe_unused]] const ssize_t got = read(wakeup_.get(), &count, sizeof count);
  }
  for (size_t i = 1; i < handles.size(); ++i) {
    if (fds[i].revents == 0) continue;
    // A callback may have removed this source.
    const auto source = std::ranges::find(sources_, handles[i], &Source::handle);
    if (source == sources_.end()) continue;
    const auto ready = source->ready;
    ready(fds[i].revents);
  }
  for (const Part& part : parts) {
    const auto group = std::ranges::find(groups_, part.handle, &Group::handle);
    if (group == groups_.end()) continue;
    const auto polled = group->polled;
    polled(std::span(fds).subspan(part.first, part.count));
  }
}

}  // namespace lodge
