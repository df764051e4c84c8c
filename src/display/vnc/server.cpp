#include "display/vnc/server.hpp"

#include <poll.h>
#include <rfb/rfb.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdarg>
#include <fstream>
#include <list>
#include <set>
#include <thread>

#include "base/log.hpp"
#include "display/vnc/keysyms.hpp"
#include "display/vnc/web_files.hpp"

namespace lodge::display::vnc {

namespace {

const Address kUsualVnc{.port = 5900, .tries = 100}, kUsualWeb{.port = 6080, .tries = 100};
constexpr uint64_t kFrameNs = kSecondNs / 30;
constexpr uint64_t kPatienceNs = 5 * kSecondNs;  // for a browser's first words
constexpr int kLongestWaitMs = 2000;             // for a viewer that does not read
constexpr size_t kMostViewers = 32, kMostNewcomers = 64;
constexpr unsigned kFirstWidth = 640, kFirstHeight = 400;

// --- QEMU's key events, which say which key it is whatever the viewer's layout (its docs/interop/vnc-ledstate and RFB's registry, -258)

constexpr int kExtendedKeys = -258;
constexpr uint8_t kQemuMessage = 255, kKeyEvent = 0;

uint64_t now_ns() { return HostClock().monotonic_ns(); }

[[gnu::format(printf, 1, 2)]] void log_line(const char* format, ...) {
  if (!log::enabled(log::Level::Debug)) return;
  std::array<char, 500> text{};
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  std::string_view line = text.data();
  while (line.ends_with('\n')) line.remove_suffix(1);
  log::debug("vnc: {}", line);
}

Result<std::string> read_password(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!in) return fail(ErrorKind::NotFound, "--vnc-password {}: {}", path, os_error("cannot read it").message);
  std::getline(in, line);
  if (line.empty()) return fail(ErrorKind::Usage, "--vnc-password {}: its first line is empty: write the password there", path);
  constexpr size_t kLongest = 8;
  if (line.size() > kLongest) log::warning("--vnc-password {}: VNC looks at the first {} characters only", path, kLongest);
  return line;
}

class RfbServer;

// What a viewer holds down, and where its pointer is.
struct Viewer {
  RfbServer* server;
  std::set<Key> keys;
  int x = -1, y = -1;
  uint8_t buttons = 0;
};

class RfbServer final : public Server {
 public:
  static Result<std::unique_ptr<RfbServer>> create(const Options& options, Seat& seat) {
    std::unique_ptr<RfbServer> server(new RfbServer(seat));
    TRY(server->open(options));
    server->thread_ = std::thread([s = server.get()] { s->run(); });
    return server;
  }
  ~RfbServer() override {
    stop_ = true;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
    if (!screen_) return;
    rfbShutdownServer(screen_, TRUE);
    screen_->frameBuffer = nullptr;  // it is picture_'s
    rfbScreenCleanup(screen_);
  }
  RfbServer(const RfbServer&) = delete;
  RfbServer& operator=(const RfbServer&) = delete;

  [[nodiscard]] std::string where() const override {
    if (!web_) return listener_.address.text();
    return fmt::format("http://{}/", listener_.address.text());
  }

 private:
  struct Newcomer {
    Fd fd;
    uint64_t until_ns;
  };

  explicit RfbServer(Seat& seat) : seat_(seat) {}

  Result<> open(const Options& options) {
    if (options.web) TRY(check_web_files());
    layout_ = TRY(Layout::named(options.keymap));
    const auto address = parse_address(options.address, options.web ? kUsualWeb : kUsualVnc);
    if (!address) return fail(ErrorKind::Usage, "--display: {}", address.error().message);
    auto listener = listen(*address);
    if (!listener) return fail(ErrorKind::Usage, "--display: {}", listener.error().message);
    listener_ = std::move(*listener);
    if (!options.password_file.empty()) password_ = TRY(read_password(options.password_file));
    if (!listener_.loopback)
      log::warning(
          "the screen can be reached from other hosts at {}{}", listener_.address.text(),
          password_.empty() ? ", without a password (--vnc-password FILE), and nothing is encrypted" : ", and nothing is encrypted");
    wake_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_) return os_fail("eventfd");
    if (options.web) web_ = TRY(WebFiles::start());
    return open_screen(options.title);
  }

  Result<> open_screen(const std::string& title) {
    title_ = title;
    rfbLog = rfbErr = &log_line;
    rfbMaxClientWait = kLongestWaitMs;
    static std::once_flag registered;
    std::call_once(registered, [] { rfbRegisterProtocolExtension(&extension()); });
    picture_.resize(kFirstWidth, kFirstHeight);
    screen_ = rfbGetScreen(nullptr, nullptr, kFirstWidth, kFirstHeight, 8, 3, 4);
    if (!screen_) return fail(ErrorKind::Internal, "the VNC server does not start");
    set_format();
    screen_->frameBuffer = reinterpret_cast<char*>(picture_.pixels.data());
    screen_->desktopName = title_.c_str();
    screen_->port = screen_->ipv6port = screen_->httpPort = screen_->http6Port = 0;  // connections are accepted here
    screen_->autoPort = FALSE;
    screen_->alwaysShared = TRUE;
    screen_->deferUpdateTime = 0;
    screen_->cursor = nullptr;
    screen_->screenData = this;
    screen_->newClientHook = &viewer_came;
    screen_->kbdAddEvent = &key_event;
    screen_->ptrAddEvent = &pointer_event;
    if (!password_.empty()) {
      passwords_[0] = password_.data();
      screen_->authPasswdData = static_cast<void*>(passwords_.data());
      screen_->passwordCheck = &rfbCheckPasswordByList;
    }
    rfbInitServer(screen_);
    return {};
  }

  void set_format() const {
    rfbPixelFormat& format = screen_->serverFormat;
    format.redShift = 16;
    format.greenShift = 8;
    format.blueShift = 0;
  }

  // --- Threads' life

  void run() {
    prctl(PR_SET_NAME, "vnc");
    uint64_t next_frame = 0;
    while (!stop_) {
      wait(next_frame);
      accept_newcomers();
      look_at_newcomers();
      if (viewers() == 0) {
        next_frame = 0;
        continue;
      }
      if (now_ns() >= next_frame) {
        next_frame = now_ns() + kFrameNs;
        show_changes();
      }
      rfbProcessEvents(screen_, 0);
    }
  }

  // Until a descriptor has something or the next frame is due; without viewers there are no frames.
  void wait(uint64_t next_frame) {
    std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}, {listener_.fd.get(), POLLIN, 0}};
    uint64_t until = kNever;
    for (const Newcomer& newcomer : newcomers_) {
      fds.push_back({newcomer.fd.get(), POLLIN, 0});
      until = std::min(until, newcomer.until_ns);
    }
    for_each_client([&](rfbClientPtr client) {
      fds.push_back({client->sock, POLLIN, 0});
      until = std::min(until, next_frame);
    });
    const uint64_t now = now_ns();
    const int timeout = until == kNever ? -1 : until <= now ? 0 : static_cast<int>((until - now) / 1'000'000 + 1);
    poll(fds.data(), fds.size(), timeout);
  }

  template <typename Function>
  void for_each_client(Function&& function) const {
    rfbClientIteratorPtr iterator = rfbGetClientIterator(screen_);
    while (rfbClientPtr client = rfbClientIteratorNext(iterator))
      if (client->sock >= 0) function(client);
    rfbReleaseClientIterator(iterator);
  }
  [[nodiscard]] size_t viewers() const {
    size_t count = 0;
    for_each_client([&](rfbClientPtr) { ++count; });
    return count;
  }

  void accept_newcomers() {
    for (;;) {
      Fd fd(accept4(listener_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      if (!web_)
        add_viewer(std::move(fd));
      else if (newcomers_.size() < kMostNewcomers)
        newcomers_.push_back({std::move(fd), now_ns() + kPatienceNs});
    }
  }

  // A browser's request decides where it goes: one for a WebSocket is a viewer, whose handshake the library reads again.
  void look_at_newcomers() {
    std::erase_if(newcomers_, [&](Newcomer& newcomer) {
      std::array<char, 8192> text{};
      const ssize_t length = recv(newcomer.fd.get(), text.data(), text.size(), MSG_PEEK | MSG_DONTWAIT);
      if (length < 0 && (errno == EAGAIN || errno == EINTR)) return newcomer.until_ns <= now_ns();
      if (length <= 0) return true;
      const std::string_view request(text.data(), static_cast<size_t>(length));
      if (request.find("\r\n\r\n") == std::string_view::npos) return newcomer.until_ns <= now_ns() || request.size() == text.size();
      if (request.starts_with("GET /websockify"))
        add_viewer(std::move(newcomer.fd));
      else
        web_->add(std::move(newcomer.fd));
      return true;
    });
  }

  void add_viewer(Fd fd) {
    if (viewers() >= kMostViewers) return log::debug("vnc: a viewer too many is turned away");
    rfbNewClient(screen_, fd.release());
  }

  void show_changes() {
    Damage damage;
    const unsigned width = picture_.width, height = picture_.height;
    seat_.follow(picture_, damage);
    if (picture_.width == 0) return;
    if (!picture_.has_size(width, height)) {
      rfbNewFramebuffer(screen_, reinterpret_cast<char*>(picture_.pixels.data()), static_cast<int>(picture_.width),
                        static_cast<int>(picture_.height), 8, 3, 4);
      set_format();
      return;
    }
    for (const Rectangle& area : damage.areas())
      rfbMarkRectAsModified(screen_, static_cast<int>(area.x), static_cast<int>(area.y), static_cast<int>(area.x + area.width),
                            static_cast<int>(area.y + area.height));
  }

  // --- What viewers do. All on the thread.

  static Viewer& viewer_of(rfbClientPtr client) { return *static_cast<Viewer*>(client->clientData); }

  static rfbNewClientAction viewer_came(rfbClientPtr client) {
    client->clientData = new Viewer{.server = static_cast<RfbServer*>(client->screen->screenData), .keys = {}};
    client->clientGoneHook = &viewer_went;
    return RFB_CLIENT_ACCEPT;
  }
  static void viewer_went(rfbClientPtr client) {
    const std::unique_ptr<Viewer> viewer(&viewer_of(client));
    // Nobody is there any more to let them go.
    for (const Key key : viewer->keys) viewer->server->seat_.key(key, false);
    if (viewer->buttons != 0 && viewer->x >= 0)
      viewer->server->seat_.point(
          {.x = static_cast<unsigned>(viewer->x), .y = static_cast<unsigned>(viewer->y), .dx = 0, .dy = 0, .wheel = 0, .buttons = 0});
  }

  static void press(Viewer& viewer, Key key, bool down) {
    if (down)
      viewer.keys.insert(key);
    else
      viewer.keys.erase(key);
    viewer.server->seat_.key(key, down);
  }

  static void key_event(rfbBool down, rfbKeySym keysym, rfbClientPtr client) {
    Viewer& viewer = viewer_of(client);
    if (const auto key = key_of_keysym(keysym, *viewer.server->layout_)) press(viewer, *key, down != 0);
  }

  // RFC 6143, 7.5.5: buttons 1 to 5 are left, middle, right, wheel up, wheel down. A mouse wants to know how far it has moved, a tablet
  // where it is.
  static void pointer_event(int mask, int x, int y, rfbClientPtr client) {
    Viewer& viewer = viewer_of(client);
    const auto buttons = static_cast<uint8_t>((mask & 1 ? kLeft : 0) | (mask & 2 ? kMiddle : 0) | (mask & 4 ? kRight : 0));
    const int wheel = (mask & 16 ? 1 : 0) - (mask & 8 ? 1 : 0);
    const bool first = viewer.x < 0;
    const int dx = first ? 0 : x - viewer.x, dy = first ? 0 : y - viewer.y;
    viewer.x = x;
    viewer.y = y;
    viewer.buttons = buttons;
    viewer.server->seat_.point({.x = static_cast<unsigned>(std::max(x, 0)),
                                .y = static_cast<unsigned>(std::max(y, 0)),
                                .dx = dx,
                                .dy = dy,
                                .wheel = wheel,
                                .buttons = buttons});
  }

  // The library keeps a pointer to it.
  static rfbProtocolExtension& extension() {
    static std::array<int, 2> encodings{kExtendedKeys, 0};
    static rfbProtocolExtension one{
        .pseudoEncodings = encodings.data(), .enablePseudoEncoding = &extended_keys_wanted, .handleMessage = &qemu_message};
    return one;
  }
  // The viewer lists the pseudo-encoding; an empty rectangle of it says that its messages are understood.
  static rfbBool extended_keys_wanted(rfbClientPtr client, void**, int encoding) {
    if (encoding != kExtendedKeys) return FALSE;
    const std::array<uint8_t, 16> update{rfbFramebufferUpdate, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xfe, 0xfe};
    return rfbWriteExact(client, reinterpret_cast<const char*>(update.data()), static_cast<int>(update.size())) > 0 ? TRUE : FALSE;
  }
  static rfbBool qemu_message(rfbClientPtr client, void*, const rfbClientToServerMsg* message) {
    if (message->type != kQemuMessage) return FALSE;
    // Subtype, down as 16 bits, keysym, code of the key in set 1.
    std::array<uint8_t, 11> rest{};
    if (rfbReadExact(client, reinterpret_cast<char*>(rest.data()), static_cast<int>(rest.size())) <= 0 || rest[0] != kKeyEvent) {
      rfbCloseClient(client);
      return TRUE;
    }
    const auto number = [&](size_t at) { return uint32_t{rest[at]} << 24 | rest[at + 1] << 16 | rest[at + 2] << 8 | rest[at + 3]; };
    const bool down = (rest[1] | rest[2]) != 0;
    Viewer& viewer = viewer_of(client);
    if (const auto key = key_of_scan_code(number(7)))
      press(viewer, *key, down);
    else
      key_event(down, number(3), client);
    return TRUE;
  }

  Seat& seat_;
  const Layout* layout_ = nullptr;
  Listener listener_;
  std::string password_, title_;
  std::array<char*, 2> passwords_{};
  Fd wake_;
  std::unique_ptr<WebFiles> web_;
  rfbScreenInfoPtr screen_ = nullptr;
  Picture picture_;
  std::list<Newcomer> newcomers_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::start(const Options& options, Seat& seat) {
  return std::unique_ptr<Server>(TRY(RfbServer::create(options, seat)));
}

}  // namespace lodge::display::vnc
