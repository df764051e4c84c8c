#include "block/io_context.hpp"

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

namespace lodge::block {

namespace {

constexpr unsigned kQueueDepth = 256;
// Of the pool: blocking calls that wait for a disk, not for a processor.
constexpr unsigned kPoolThreads = 64;

// The call as an ordinary system call.
int64_t carry_out(const IoCall& call, int flags) {
  for (;;) {
    int64_t result = -1;
    const auto count = static_cast<int>(call.vectors.size());
    switch (call.kind) {
      case IoCall::Kind::Read: result = preadv2(call.fd, call.vectors.data(), count, static_cast<off_t>(call.offset), flags); break;
      case IoCall::Kind::Write:
        result = pwritev2(call.fd, call.vectors.data(), count, static_cast<off_t>(call.offset), call.mode | flags);
        break;
      case IoCall::Kind::Sync: result = fdatasync(call.fd); break;
      case IoCall::Kind::Allocate:
        result = fallocate(call.fd, call.mode, static_cast<off_t>(call.offset), static_cast<off_t>(call.length));
        break;
      case IoCall::Kind::Poll: return -EINVAL;  // not by waiting
    }
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

}  // namespace

struct IoContext::Uring {
  io_uring ring{};
  bool usable = false, wakeup_armed = false;

  Uring() = default;
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;
  ~Uring() {
    if (usable) io_uring_queue_exit(&ring);
  }

  // 0 or an errno.
  int set_up() {
    int failed = io_uring_queue_init(kQueueDepth, &ring, IORING_SETUP_COOP_TASKRUN);
    if (failed == -EINVAL) failed = io_uring_queue_init(kQueueDepth, &ring, 0);  // before Linux 5.19
    if (failed) return -failed;
    usable = true;
    // No completion is lost when the ring is full (Linux 5.5).
    return ring.features & IORING_FEAT_NODROP ? 0 : ENOSYS;
  }

  io_uring_sqe* entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    while (!sqe) {
      io_uring_submit(&ring);
      sqe = io_uring_get_sqe(&ring);
    }
    return sqe;
  }
};

bool IoCall::await_ready() {
  if (at_once == AtOnce::No) return false;
  if (at_once == AtOnce::Always) {
    result = carry_out(*this, 0);
    return true;
  }
  const int64_t done = carry_out(*this, RWF_NOWAIT);
  never_at_once = done == -EOPNOTSUPP;
  // Whatever went wrong, the call in earnest tells.
  if (done < 0 || (done == 0 && kind == Kind::Read)) return false;
  result = done;
  return true;
}

void IoCall::await_suspend(std::coroutine_handle<> awaiter) {
  waiter = awaiter;
  context.start_call(*this);
}

void IoContext::Offload::await_suspend(std::coroutine_handle<> awaiter) {
  context.pool_->run([this, awaiter] {
    IoContext& owner = context;
    work();
    owner.post([awaiter] { awaiter.resume(); });
  });
}

IoContext::IoContext() : pool_(std::make_unique<ThreadPool>(kPoolThreads, "lodge-io")) {}

IoContext::~IoContext() { pool_.reset(); }

Result<std::unique_ptr<IoContext>> IoContext::create(Kind kind) {
  std::unique_ptr<IoContext> context(new IoContext);
  context->wakeup_.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!context->wakeup_) return os_fail("cannot create an eventfd");
  if (kind != Kind::Threads) {
    auto uring = std::make_unique<Uring>();
    const int failed = uring->set_up();
    if (failed && kind == Kind::Uring) return os_fail("this kernel gives no io_uring", failed);
    if (!failed) context->uring_ = std::move(uring);
  }
  return context;
}

unsigned IoContext::parallelism() { return std::max(1u, std::thread::hardware_concurrency()); }

void IoContext::start_call(IoCall& call) {
  if (!uring_) {
    if (call.kind == IoCall::Kind::Poll) return polled_.push_back(&call);
    pool_->run([this, &call] {
      call.result = carry_out(call, 0);
      post([&call] { call.waiter.resume(); });
    });
    return;
  }
  io_uring_sqe* const sqe = uring_->entry();
  const auto count = static_cast<unsigned>(call.vectors.size());
  switch (call.kind) {
    case IoCall::Kind::Read: io_uring_prep_readv(sqe, call.fd, call.vectors.data(), count, call.offset); break;
    case IoCall::Kind::Write: io_uring_prep_writev2(sqe, call.fd, call.vectors.data(), count, call.offset, call.mode); break;
    case IoCall::Kind::Sync: io_uring_prep_fsync(sqe, call.fd, IORING_FSYNC_DATASYNC); break;
    case IoCall::Kind::Allocate:
      io_uring_prep_fallocate(sqe, call.fd, call.mode, static_cast<off_t>(call.offset), static_cast<off_t>(call.length));
      break;
    case IoCall::Kind::Poll: io_uring_prep_poll_add(sqe, call.fd, static_cast<unsigned>(call.mode)); break;
  }
  io_uring_sqe_set_data(sqe, &call);
}

void IoContext::post(std::function<void()> work) {
  {
    MutexLock lock(mutex_);
    posted_.push_back(std::move(work));
  }
  if (sleeping_.load()) wake();
}

void IoContext::stop() {
  stop_ = true;
  wake();
}

void IoContext::wake() const {
  const uint64_t one = 1;
  // Full already: it wakes as well.
  [[maybe_unused]] const ssize_t written = ::write(wakeup_.get(), &one, sizeof one);
}

bool IoContext::run_posted() {
  std::vector<std::function<void()>> now;
  {
    MutexLock lock(mutex_);
    now.swap(posted_);
  }
  for (const auto& work : now) work();
  return !now.empty();
}

void IoContext::run() {
  while (!stop_.exchange(false)) turn();
  while (run_posted() || run_ready()) {
  }
}

void IoContext::turn() {
  // Both, whatever the first one finds.
  const bool ready = run_ready(), posted = run_posted();
  if (ready || posted) return wait(false);
  sleeping_ = true;
  // Whoever posted before it was set did not wake us.
  const bool sleep = !run_posted() && !stop_;
  wait(sleep);
  sleeping_ = false;
}

void IoContext::wait(bool sleep) {
  if (!uring_) return wait_by_poll(sleep);
  Uring& uring = *uring_;
  if (sleep && !uring.wakeup_armed) {
    io_uring_sqe* const sqe = uring.entry();
    io_uring_prep_poll_add(sqe, wakeup_.get(), POLLIN);
    io_uring_sqe_set_data(sqe, nullptr);
    uring.wakeup_armed = true;
  }
  if (sleep)
    io_uring_submit_and_wait(&uring.ring, 1);  // interrupted: there may be none, and we come again
  else if (io_uring_sq_ready(&uring.ring))
    io_uring_submit(&uring.ring);
  io_uring_cqe* cqe = nullptr;
  while (io_uring_peek_cqe(&uring.ring, &cqe) == 0 && cqe) {
    auto* const call = static_cast<IoCall*>(io_uring_cqe_get_data(cqe));
    const int result = cqe->res;
    io_uring_cqe_seen(&uring.ring, cqe);
    if (call) {
      call->result = result;
      call->waiter.resume();
    } else {
      uring.wakeup_armed = false;
      take_wakeups();
    }
  }
}

void IoContext::take_wakeups() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wakeup_.get(), &count, sizeof count);  // none left: also right
}

void IoContext::wait_by_poll(bool sleep) {
  std::vector<pollfd> descriptors{{wakeup_.get(), POLLIN, 0}};
  for (const IoCall* call : polled_) descriptors.push_back({call->fd, static_cast<short>(call->mode), 0});
  const int ready = ::poll(descriptors.data(), descriptors.size(), sleep ? -1 : 0);
  if (ready <= 0) return;
  if (descriptors[0].revents) take_wakeups();
  std::vector<IoCall*> ended;
  for (size_t i = 1; i < descriptors.size(); ++i) {
    if (!descriptors[i].revents) continue;
    polled_[i - 1]->result = descriptors[i].revents;
    ended.push_back(polled_[i - 1]);
  }
  std::erase_if(polled_, [&](IoCall* call) { return std::ranges::find(ended, call) != ended.end(); });
  for (IoCall* call : ended) call->waiter.resume();
}

}  // namespace lodge::block
