#include "devices/storage/disk.hpp"

#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.hpp"

namespace lodge::devices::storage {

namespace {
constexpr itimerspec kRetryInterval{.it_interval = {1, 0}, .it_value = {1, 0}}, kNow{.it_interval = {1, 0}, .it_value = {0, 1}};
}

Disk::Disk(std::string name, IoThread& thread, block::Node& node, const DiskOptions& options)
    : name_(std::move(name)), thread_(thread), node_(node), options_(options), sectors_(node.size() / block::kSector) {}

block::Task<bool> Disk::perform(block::Request& request) {
  const bool write = request.operation != block::Operation::Read;
  bool waited = false;
  for (;;) {
    const Result<> done = co_await node_.submit(request);
    const bool again = !done && !giving_up_ && waits_for(done.error(), write);
    if (!again && waited && --waiting_ == 0) machine_.resume();
    if (done) co_return true;
    if (!again) {
      report(done.error());
      co_return (write ? options_.on_write_error : options_.on_read_error) == OnError::Ignore;
    }
    if (!waited && waiting_++ == 0) machine_.pause(done.error().message);
    waited = true;
    co_await wait_for_retry();
  }
}

void Disk::submit(block::Request request, std::function<void(bool ok)> done) {
  thread_.post([this, request = std::move(request), done = std::move(done)]() mutable {
    block::spawn(perform_and_tell(std::move(request), std::move(done)));
  });
}

block::Task<> Disk::perform_and_tell(block::Request request, std::function<void(bool ok)> done) {
  const bool ok = co_await perform(request);
  done(ok);
}

bool Disk::waits_for(const Error& error, bool write) const {
  const OnError policy = write ? options_.on_write_error : options_.on_read_error;
  return policy == OnError::Stop || (policy == OnError::StopOnSpace && (error.os_errno == ENOSPC || error.os_errno == EDQUOT));
}

block::Task<> Disk::wait_for_retry() {
  if (!timer_) {
    timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    timerfd_settime(timer_.get(), 0, &kRetryInterval, nullptr);
    block::spawn(tick());
  }
  co_await retry_.wait();
}

block::Task<> Disk::tick() {
  while (waiting_ != 0) {
    static_cast<void>(co_await thread_.context().poll(timer_.get(), POLLIN));
    uint64_t expirations = 0;
    [[maybe_unused]] const ssize_t got = read(timer_.get(), &expirations, sizeof expirations);
    retry_.wake_all();
    co_await block::IoContext::yield();
  }
  timer_.reset();
}

void Disk::set_giving_up(bool giving_up) {
  giving_up_ = giving_up;
  // Who waits for space must not keep the machine from its end.
  if (giving_up && timer_) timerfd_settime(timer_.get(), 0, &kNow, nullptr);
}

block::Task<bool> Disk::settle() {
  set_giving_up(true);
  while (timer_) co_await block::IoContext::yield();
  co_return true;
}

void Disk::report(const Error& error) {
  // The first says enough to a person; a disk that is gone fails thousands of times.
  if (errors_++ == 0)
    log::warning("{}: {}; the guest sees an I/O error (further ones are not reported)", name_, error.message);
  else
    log::debug("{}: {}", name_, error.message);
}

}  // namespace lodge::devices::storage
