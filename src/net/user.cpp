#include "net/user.hpp"

#include <arpa/inet.h>
#include <poll.h>
#include <slirp/libslirp.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <deque>
#include <map>
#include <utility>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "net/checksum.hpp"
#include "net/loopback_guard.hpp"

namespace lodge::net {

namespace {

constexpr uint32_t kDefaultNetwork = 0x0a000200, kDefaultMask = 0xffffff00;  // 10.0.2.0/24
constexpr uint32_t kGateway = 2, kDns = 3, kFirstGuest = 15;
constexpr unsigned kPrefixBits = 64;
// Frames that wait for a guest which gives no buffers; more are lost, as in a switch.
constexpr size_t kMostWaiting = 512;
constexpr uint64_t kMsNs = 1'000'000;

in_addr address(uint32_t host_order) { return {htonl(host_order)}; }
uint32_t number(in_addr of) { return ntohl(of.s_addr); }

UserAddresses addresses_of(const UserOptions& options) {
  const uint32_t mask = options.mask.s_addr ? number(options.mask) : kDefaultMask;
  const uint32_t network = options.mask.s_addr ? number(options.network) & mask : kDefaultNetwork;
  UserAddresses all{.network = address(network),
                    .mask = address(mask),
                    .gateway = address(network | kGateway),
                    .dns = address(network | kDns),
                    .prefix6 = {},
                    .prefix6_bits = kPrefixBits,
                    .dns6 = {}};
  inet_pton(AF_INET6, "fec0::", &all.prefix6);
  inet_pton(AF_INET6, "fec0::3", &all.dns6);
  return all;
}

class UserNetwork final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> open(EventLoop& loop, const UserOptions& options) {
    std::unique_ptr<UserNetwork> made(new UserNetwork(loop, options));
    TRY(made->start());
    return made;
  }
  ~UserNetwork() override {
    for (const EventLoop::Handle handle : handles_) loop_.remove(handle);
    if (slirp_) slirp_cleanup(slirp_);
  }
  UserNetwork(const UserNetwork&) = delete;
  UserNetwork& operator=(const UserNetwork&) = delete;

  // libslirp takes a packet of any size and no unfinished checksums: one pass over the bytes here saves the guest many frames.
  [[nodiscard]] Offloads takes() const override { return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true}; }
  void connect(Receiver* receiver, const Offloads& guest_takes) override {
    receiver_ = receiver;
    change_offloads(guest_takes);
    waiting_.clear();
  }
  void change_offloads(const Offloads& guest_takes) override { checked_ = guest_takes.checksum; }
  void room(unsigned) override {
    while (!waiting_.empty() && deliver(waiting_.front())) waiting_.pop_front();
    end_batch();
  }
  [[nodiscard]] bool send(unsigned pair, const Header& header, std::span<const iovec> frame) override;

 private:
  struct Timer {
    uint64_t due_ms = UINT64_MAX;
    SlirpTimerId id = SLIRP_TIMER_RA;
    void* opaque = nullptr;
  };

  UserNetwork(EventLoop& loop, const UserOptions& options)
      : loop_(loop), options_(options), addresses_(addresses_of(options)), guard_(addresses_) {}
  [[nodiscard]] Result<> start();
  [[nodiscard]] Result<> forward(const HostForward& rule);
  void frame_to_guest(std::span<const std::byte> frame);
  [[nodiscard]] bool deliver(std::span<const std::byte> frame);
  void end_batch() {
    if (std::exchange(delivered_, false) && receiver_) receiver_->received(0);
  }
  void fill(std::vector<pollfd>& fds);
  void polled(std::span<const pollfd> fds);
  [[nodiscard]] static uint64_t now_ms() { return HostClock().monotonic_ns() / kMsNs; }
  [[nodiscard]] uint64_t next_deadline() const;
  void run_timers();

  static UserNetwork& self(void* opaque) { return *static_cast<UserNetwork*>(opaque); }
  static const SlirpCb& callbacks();

  EventLoop& loop_;
  const UserOptions options_;
  const UserAddresses addresses_;
  LoopbackGuard guard_;
  Slirp* slirp_ = nullptr;
  std::vector<EventLoop::Handle> handles_;
  std::vector<std::unique_ptr<Timer>> timers_;
  uint64_t poll_by_ms_ = UINT64_MAX;  // libslirp's own timeouts
  Receiver* receiver_ = nullptr;
  bool checked_ = false;  // the guest trusts our word for checksums
  bool delivered_ = false;
  std::deque<std::vector<std::byte>> waiting_;
  std::vector<std::byte> outgoing_;
  std::span<const pollfd> results_;
};

const SlirpCb& UserNetwork::callbacks() {
  static const SlirpCb kCallbacks{
      .send_packet = [](const void* bytes, size_t size, void* opaque) -> ssize_t {
        self(opaque).frame_to_guest({static_cast<const std::byte*>(bytes), size});
        return static_cast<ssize_t>(size);
      },
      .guest_error = [](const char* message, void*) { log::debug("user network: {}", message); },
      .clock_get_ns = [](void*) { return static_cast<int64_t>(HostClock().monotonic_ns()); },
      .timer_new = nullptr,
      .timer_free = [](void* timer,
                       void* opaque) { std::erase_if(self(opaque).timers_, [timer](const auto& one) { return one.get() == timer; }); },
      .timer_mod = [](void* timer, int64_t due_ms, void*) { static_cast<Timer*>(timer)->due_ms = static_cast<uint64_t>(due_ms); },
      .register_poll_fd = [](int, void*) {},  // all are asked for before each wait
      .unregister_poll_fd = [](int, void*) {},
      .notify = [](void*) {},  // the next wait asks again anyhow
      .init_completed = nullptr,
      .timer_new_opaque = [](SlirpTimerId id, void* timer_opaque, void* opaque) -> void* {
        auto& timers = self(opaque).timers_;
        timers.push_back(std::make_unique<Timer>(Timer{.id = id, .opaque = timer_opaque}));
        return timers.back().get();
      },
  };
  return kCallbacks;
}

Result<> UserNetwork::start() {
  SlirpConfig config{};
  config.version = 4;
  config.restricted = options_.restrict;
  config.in_enabled = true;
  config.vnetwork = addresses_.network;
  config.vnetmask = addresses_.mask;
  config.vhost = addresses_.gateway;
  config.in6_enabled = options_.ipv6;
  config.vprefix_addr6 = addresses_.prefix6;
  config.vprefix_len = kPrefixBits;
  config.vhost6 = addresses_.prefix6;
  config.vhost6.s6_addr[15] = kGateway;
  config.vhostname = options_.hostname.empty() ? nullptr : options_.hostname.c_str();
  config.vdhcp_start = address(number(addresses_.network) + kFirstGuest);
  config.vnameserver = addresses_.dns;
  config.vnameserver6 = addresses_.dns6;
  slirp_ = slirp_new(&config, &callbacks(), this);
  if (!slirp_) return fail(ErrorKind::Internal, "the user network could not be set up");
  for (const HostForward& rule : options_.forwards) TRY(forward(rule));
  handles_.push_back(
      loop_.add_group([this](std::vector<pollfd>& fds) { fill(fds); }, [this](std::span<const pollfd> fds) { polled(fds); }));
  handles_.push_back(loop_.add_deadline([this] { return next_deadline(); }, [this] { run_timers(); }));
  return {};
}

Result<> UserNetwork::forward(const HostForward& rule) {
  const in_addr guest = rule.guest_address.s_addr ? rule.guest_address : address(number(addresses_.network) + kFirstGuest);
  errno = 0;
  if (slirp_add_hostfwd(slirp_, rule.udp, rule.host_address, rule.host_port, guest, rule.guest_port) == 0) return {};
  std::array<char, INET_ADDRSTRLEN> text{};
  inet_ntop(AF_INET, &rule.host_address, text.data(), text.size());
  return fail(ErrorKind::Usage, "hostfwd: {} port {} of the host's {} cannot be had: {}", rule.udp ? "UDP" : "TCP", rule.host_port,
              text.data(), os_error("bind").message);
}

// --- Frames

bool UserNetwork::send(unsigned, const Header& header, std::span<const iovec> frame) {
  outgoing_.clear();
  for (const iovec& piece : frame) {
    const auto* from = static_cast<const std::byte*>(piece.iov_base);
    if (piece.iov_len > kMostFrameBytes - outgoing_.size()) return true;
    outgoing_.insert(outgoing_.end(), from, from + piece.iov_len);
  }
  if (!complete_checksum(header, outgoing_)) return true;
  if (!options_.loopback && !guard_.allows(outgoing_)) {
    if (const auto answer = LoopbackGuard::refusal(outgoing_); !answer.empty()) frame_to_guest(answer);
    end_batch();
    return true;
  }
  slirp_input(slirp_, reinterpret_cast<const uint8_t*>(outgoing_.data()), static_cast<int>(outgoing_.size()));
  end_batch();
  return true;
}

void UserNetwork::frame_to_guest(std::span<const std::byte> frame) {
  guard_.note_incoming(frame);
  if (!receiver_) return;
  if (waiting_.empty() && deliver(frame)) return;
  if (waiting_.size() < kMostWaiting) waiting_.emplace_back(frame.begin(), frame.end());
}

bool UserNetwork::deliver(std::span<const std::byte> frame) {
  // libslirp has just made the checksums, or checked them.
  Header header{};
  if (checked_) header.flags = kDataValid;
  if (!receiver_->receive(0, header, frame)) return false;
  delivered_ = true;
  return true;
}

// --- Sockets and time

void UserNetwork::fill(std::vector<pollfd>& fds) {
  struct Ours {
    std::vector<pollfd>& all;
    size_t first;
  } ours{fds, fds.size()};
  uint32_t timeout_ms = UINT32_MAX;
  slirp_pollfds_fill(
      slirp_, &timeout_ms,
      [](int fd, int events, void* opaque) {
        auto& [all, first] = *static_cast<Ours*>(opaque);
        const int wanted =
            (events & SLIRP_POLL_IN ? POLLIN : 0) | (events & SLIRP_POLL_OUT ? POLLOUT : 0) | (events & SLIRP_POLL_PRI ? POLLPRI : 0);
        all.push_back({fd, static_cast<short>(wanted), 0});
        return static_cast<int>(all.size() - 1 - first);
      },
      &ours);
  // 0 would be asked for over and over within the last millisecond.
  poll_by_ms_ = timeout_ms == UINT32_MAX ? UINT64_MAX : now_ms() + std::max(timeout_ms, 1u);
}

void UserNetwork::polled(std::span<const pollfd> fds) {
  results_ = fds;
  slirp_pollfds_poll(
      slirp_, 0,
      [](int index, void* opaque) {
        const short got = self(opaque).results_[static_cast<size_t>(index)].revents;
        return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) | (got & POLLPRI ? SLIRP_POLL_PRI : 0) |
               (got & POLLERR ? SLIRP_POLL_ERR : 0) | (got & POLLHUP ? SLIRP_POLL_HUP : 0);
      },
      this);
  end_batch();
}

uint64_t UserNetwork::next_deadline() const {
  uint64_t due = poll_by_ms_;
  for (const auto& timer : timers_) due = std::min(due, timer->due_ms);
  return due > UINT64_MAX / kMsNs ? kNever : due * kMsNs;
}

void UserNetwork::run_timers() {
  const uint64_t now = now_ms();
  std::vector<Timer> due;
  for (const auto& timer : timers_)
    if (timer->due_ms <= now) due.push_back({std::exchange(timer->due_ms, UINT64_MAX), timer->id, timer->opaque});
  for (const Timer& timer : due) slirp_handle_timer(slirp_, timer.id, timer.opaque);
  end_batch();
}

// --- Options

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return fail(ErrorKind::Usage, "'{}' is not a port", text);
  return port;
}

Result<in_addr> parse_address(std::string_view text) {
  in_addr parsed{};
  if (inet_pton(AF_INET, std::string(text).c_str(), &parsed) != 1) return fail(ErrorKind::Usage, "'{}' is not an IPv4 address", text);
  return parsed;
}

}  // namespace

Result<HostForward> parse_host_forward(std::string_view text) {
  HostForward rule;
  constexpr std::string_view kForm = "[tcp|udp]:[HOST-ADDRESS]:HOST-PORT-[GUEST-ADDRESS]:GUEST-PORT";
  const size_t dash = text.find('-');
  const std::string_view host = text.substr(0, dash), guest = dash == std::string_view::npos ? "" : text.substr(dash + 1);
  const size_t first = host.find(':'), second = first == std::string_view::npos ? first : host.find(':', first + 1);
  const size_t guest_colon = guest.find(':');
  if (dash == std::string_view::npos || second == std::string_view::npos || guest_colon == std::string_view::npos)
    return fail(ErrorKind::Usage, "'{}' is not {}, such as tcp::2222-:22", text, kForm);
  const std::string_view protocol = host.substr(0, first);
  if (protocol != "" && protocol != "tcp" && protocol != "udp") return fail(ErrorKind::Usage, "'{}' is neither tcp nor udp", protocol);
  rule.udp = protocol == "udp";
  const std::string_view host_address = host.substr(first + 1, second - first - 1), guest_address = guest.substr(0, guest_colon);
  rule.host_address = address(INADDR_LOOPBACK);
  if (!host_address.empty()) rule.host_address = TRY(parse_address(host_address));
  rule.host_port = TRY(parse_port(host.substr(second + 1)));
  if (!guest_address.empty()) rule.guest_address = TRY(parse_address(guest_address));
  rule.guest_port = TRY(parse_port(guest.substr(guest_colon + 1)));
  return rule;
}

Result<> parse_network(std::string_view text, UserOptions& options) {
  const size_t slash = text.find('/');
  unsigned bits = 0;
  const std::string_view length = slash == std::string_view::npos ? "" : text.substr(slash + 1);
  const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), bits);
  constexpr unsigned kLeast = 8, kMost = 27;  // room for the guest's address, .15 and up
  if (error != std::errc() || end != length.data() + length.size() || bits < kLeast || bits > kMost)
    return fail(ErrorKind::Usage, "'{}' is not a network such as 10.0.2.0/24, of {} to {} bits", text, kLeast, kMost);
  const uint32_t mask = ~uint32_t{0} << (32 - bits);
  const uint32_t network = number(TRY(parse_address(text.substr(0, slash))));
  if ((network & ~mask) != 0 || network >> 24 == 127 || network >> 24 == 0)
    return fail(ErrorKind::Usage, "'{}' is not the first address of a network", text);
  options.network = address(network);
  options.mask = address(mask);
  return {};
}

Result<std::unique_ptr<Backend>> open_user_network(EventLoop& loop, const UserOptions& options) { return UserNetwork::open(loop, options); }

}  // namespace lodge::net
