#include "net/tap.hpp"

#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/fd.hpp"
#include "base/log.hpp"

namespace lodge::net {

namespace {

constexpr const char* kDevice = "/dev/net/tun";
// Frames read in one go before others have their turn.
constexpr unsigned kBatch = 64;

class Tap final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> open(EventLoop& loop, const TapOptions& options) {
    std::unique_ptr<Tap> tap(new Tap(loop));
    if (options.fds.empty())
      TRY(tap->open_interface(options));
    else
      TRY(tap->adopt(options.fds));
    tap->finish();
    return tap;
  }
  ~Tap() override {
    for (const auto& queue : queues_)
      if (queue->handle != 0) loop_.remove(queue->handle);
  }
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

  [[nodiscard]] Offloads takes() const override {
    return {.checksum = with_header_, .tso4 = segments_, .tso6 = segments_, .ecn = segments_};
  }
  [[nodiscard]] unsigned most_pairs() const override { return static_cast<unsigned>(queues_.size()); }
  void connect(Receiver* receiver, const Offloads& guest_takes) override;
  void change_offloads(const Offloads& guest_takes) override;
  void use_pairs(unsigned pairs) override;
  void room(unsigned pair) override {
    if (pair >= queues_.size()) return;
    queues_[pair]->full = false;
    read_frames(pair);  // one may be in hand
  }
  [[nodiscard]] bool send(unsigned pair, const Header& header, std::span<const iovec> frame) override;

 private:
  struct Queue {
    Fd fd;
    EventLoop::Handle handle = 0;
    bool full = false;     // the guest has no buffers for frames
    bool blocked = false;  // the interface takes no more from the guest
    bool attached = true;
    std::vector<std::byte> pending;  // read, and not delivered yet
  };

  explicit Tap(EventLoop& loop) : loop_(loop) {}
  [[nodiscard]] Result<> open_interface(const TapOptions& options);
  [[nodiscard]] Result<> adopt(const std::vector<int>& fds);
  void finish();
  void read_frames(unsigned pair);
  [[nodiscard]] bool deliver(unsigned pair, std::span<const std::byte> frame);

  EventLoop& loop_;
  std::string name_;
  std::vector<std::unique_ptr<Queue>> queues_;
  bool with_header_ = false, segments_ = false, multi_queue_ = false;
  Receiver* receiver_ = nullptr;
  std::vector<std::byte> frame_;
  std::vector<iovec> out_;
};

Result<> Tap::open_interface(const TapOptions& options) {
  name_ = options.interface;
  for (unsigned i = 0; i < options.pairs; ++i) {
    Fd fd(::open(kDevice, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd) {
      if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return fail(ErrorKind::Usage, "tap: there is no {}: load the module with 'modprobe tun', or start the container with --device {}",
                    kDevice, kDevice);
      return fail(ErrorKind::Usage, "tap: {} does not open: {}", kDevice, os_error("open").message);
    }
    ifreq request{};
    // validate() has looked at the length.
    name_.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (options.pairs > 1 ? IFF_MULTI_QUEUE : 0));
    if (ioctl(fd.get(), TUNSETIFF, &request) != 0) {
      const int error = errno;
      if (error == EPERM)
        return fail(ErrorKind::Usage,
                    "tap: you may not use or make the interface {}: have it made for you with 'ip tuntap add dev {} mode tap user "
                    "$USER{}', or use --net user, which needs no right",
                    name_, name_, options.pairs > 1 ? " multi_queue" : "");
      if (error == EBUSY) return fail(ErrorKind::Usage, "tap: the interface {} is in use by another program", name_);
      if (error == EINVAL)
        return fail(ErrorKind::Usage, "tap: {} is not a tap interface, or {}", name_,
                    options.pairs > 1 ? "one without several queues (make it with multi_queue)" : "one with several queues (give queues=)");
      return fail(ErrorKind::Usage, "tap: the interface {}: {}", name_, std::strerror(error));
    }
    auto queue = std::make_unique<Queue>();
    queue->fd = std::move(fd);
    queues_.push_back(std::move(queue));
  }
  with_header_ = true;
  multi_queue_ = options.pairs > 1;
  return {};
}

Result<> Tap::adopt(const std::vector<int>& fds) {
  for (const int number : fds) {
    // First of all, so that an error closes nothing that was not given.
    if (fcntl(number, F_GETFD) < 0) return fail(ErrorKind::Usage, "tap: there is no file descriptor {}", number);
    ifreq request{};
    if (ioctl(number, TUNGETIFF, &request) != 0 || !(request.ifr_flags & IFF_TAP))
      return fail(ErrorKind::Usage, "tap: file descriptor {} is not a tap interface", number);
    if (!(request.ifr_flags & IFF_NO_PI))
      return fail(ErrorKind::Usage, "tap: the interface of file descriptor {} was opened without IFF_NO_PI", number);
    const bool header = (request.ifr_flags & IFF_VNET_HDR) != 0;
    request.ifr_name[IFNAMSIZ - 1] = 0;
    const std::string name = request.ifr_name;
    if (!queues_.empty() && (header != with_header_ || name != name_))
      return fail(ErrorKind::Usage, "tap: file descriptors {} and {} are not queues of one interface", fds[0], number);
    with_header_ = header;
    name_ = name;
    fcntl(number, F_SETFD, FD_CLOEXEC);
    fcntl(number, F_SETFL, fcntl(number, F_GETFL) | O_NONBLOCK);
    auto queue = std::make_unique<Queue>();
    queue->fd = Fd(number);
    queues_.push_back(std::move(queue));
  }
  multi_queue_ = fds.size() > 1;
  return {};
}

void Tap::finish() {
  frame_.resize(sizeof(Header) + kMostFrameBytes);
  for (unsigned pair = 0; pair < queues_.size(); ++pair) {
    Queue& queue = *queues_[pair];
    if (with_header_) {
      const int bytes = sizeof(Header);
      const int little = 1;
      // A macvtap of an old kernel may refuse: then frames go without offloads, and the header is as good as none.
      if (ioctl(queue.fd.get(), TUNSETVNETHDRSZ, &bytes) != 0) log::debug("tap {}: header size: {}", name_, std::strerror(errno));
      ioctl(queue.fd.get(), TUNSETVNETLE, &little);
      segments_ = true;
    }
    queue.handle = loop_.add_source(
        queue.fd.get(),
        [this, &queue]() -> short {
          if (!receiver_) return 0;
          return static_cast<short>((queue.full || !queue.attached ? 0 : POLLIN) | (queue.blocked ? POLLOUT : 0));
        },
        [this, pair, &queue](short events) {
          if (events & POLLIN) read_frames(pair);
          if (std::exchange(queue.blocked, queue.blocked && !(events & (POLLOUT | POLLERR)))) {
            if (!queue.blocked && receiver_) receiver_->sendable(pair);
          }
        });
  }
}

void Tap::connect(Receiver* receiver, const Offloads& guest_takes) {
  receiver_ = receiver;
  for (const auto& queue : queues_) {
    queue->full = queue->blocked = false;
    queue->pending.clear();
  }
  change_offloads(guest_takes);
  use_pairs(1);
  if (!receiver_) return;
  // What came while nobody was there is old.
  for (const auto& queue : queues_)
    while (read(queue->fd.get(), frame_.data(), frame_.size()) > 0) {
    }
}

void Tap::change_offloads(const Offloads& guest_takes) {
  if (!with_header_) return;
  unsigned flags = 0;
  if (guest_takes.checksum) {
    flags |= TUN_F_CSUM;
    if (guest_takes.tso4) flags |= TUN_F_TSO4;
    if (guest_takes.tso6) flags |= TUN_F_TSO6;
    if (guest_takes.ecn && (guest_takes.tso4 || guest_takes.tso6)) flags |= TUN_F_TSO_ECN;
  }
  if (ioctl(queues_[0]->fd.get(), TUNSETOFFLOAD, static_cast<unsigned long>(flags)) != 0)
    log::warning("tap {}: offloads: {}", name_, std::strerror(errno));
}

// A queue that the guest does not read must get no flows.
void Tap::use_pairs(unsigned pairs) {
  if (!multi_queue_) return;
  for (unsigned pair = 0; pair < queues_.size(); ++pair) {
    Queue& queue = *queues_[pair];
    const bool wanted = pair < pairs;
    if (queue.attached == wanted) continue;
    ifreq request{};
    request.ifr_flags = static_cast<short>(wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
    if (ioctl(queue.fd.get(), TUNSETQUEUE, &request) == 0)
      queue.attached = wanted;
    else
      log::debug("tap {}: queue {}: {}", name_, pair, std::strerror(errno));
  }
}

bool Tap::deliver(unsigned pair, std::span<const std::byte> frame) {
  Header header{};
  if (with_header_) {
    if (frame.size() < sizeof header) return true;
    std::memcpy(&header, frame.data(), sizeof header);
    frame = frame.subspan(sizeof header);
  }
  return receiver_->receive(pair, header, frame);
}

void Tap::read_frames(unsigned pair) {
  Queue& queue = *queues_[pair];
  if (!receiver_) return;
  if (!queue.pending.empty()) {
    if (!deliver(pair, queue.pending)) {
      queue.full = true;
      return;
    }
    queue.pending.clear();
  }
  for (unsigned count = 0; count < kBatch && receiver_; ++count) {
    const ssize_t got = read(queue.fd.get(), frame_.data(), frame_.size());
    if (got <= 0) break;
    const auto frame = std::span<const std::byte>(frame_).first(static_cast<size_t>(got));
    if (deliver(pair, frame)) continue;
    queue.pending.assign(frame.begin(), frame.end());
    queue.full = true;
    break;
  }
  if (receiver_) receiver_->received(pair);
}

bool Tap::send(unsigned pair, const Header& header, std::span<const iovec> frame) {
  Queue& queue = *queues_[std::min<size_t>(pair, queues_.size() - 1)];
  if (queue.blocked) return false;
  out_.clear();
  if (with_header_) out_.push_back({const_cast<Header*>(&header), sizeof header});
  out_.insert(out_.end(), frame.begin(), frame.end());
  if (out_.size() > IOV_MAX) return true;
  if (writev(queue.fd.get(), out_.data(), static_cast<int>(out_.size())) >= 0) return true;
  if (errno == EAGAIN) {
    queue.blocked = true;
    return false;
  }
  // A frame that makes no sense, or an interface that is down: as a cable that leads nowhere.
  log::debug("tap {}: {}", name_, std::strerror(errno));
  return true;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_tap(EventLoop& loop, const TapOptions& options) { return Tap::open(loop, options); }

}  // namespace lodge::net
