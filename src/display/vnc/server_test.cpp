// The screen as viewers see it, by their own words (RFC 6143).
#include "display/vnc/server.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/input-event-codes.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <condition_variable>
#include <cstring>
#include <fstream>

#include "base/fd.hpp"

// libvncserver 0.9.14 does not free the 24 bytes in which it notes that a viewer has an extension.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:rfbEnableExtension\n"; }

namespace lodge::display::vnc {
namespace {

class Colors final : public Screen {
 public:
  void refresh(Picture& picture, Damage& damage, uint64_t, bool) override {
    MutexLock lock(mutex);
    if (!picture.has_size(width, height)) picture.resize(width, height);
    const std::vector<uint32_t> row(width, color);
    for (unsigned y = 0; y < height; ++y) update_row(picture, y, row, damage);
  }
  void set(unsigned new_width, uint32_t new_color) {
    MutexLock lock(mutex);
    width = new_width;
    color = new_color;
  }
  Mutex mutex;
  unsigned width = 80, height = 64;
  uint32_t color = 0x102030;
};

// Keys and movements, and a wait for as many of them as are expected.
class Hands final : public KeyboardInput, public MouseInput {
 public:
  void key(Key key, bool down) override { add(fmt::format("{}{}", down ? '+' : '-', key)); }
  void move(int dx, int dy, int wheel, uint8_t buttons) override { add(fmt::format("m{},{},{},{}", dx, dy, wheel, buttons)); }
  std::vector<std::string> wait_for(size_t count) {
    MutexLock lock(mutex);
    while (seen.size() < count) lock.wait(more);
    return seen;
  }

 private:
  void add(std::string what) {
    MutexLock lock(mutex);
    seen.push_back(std::move(what));
    more.notify_all();
  }
  Mutex mutex;
  std::condition_variable more;
  std::vector<std::string> seen;
};

class VncServer : public testing::Test {
 protected:
  void SetUp() override { seat.connect({.screen = &screen, .keyboard = &hands, .mouse = &hands}); }
  void TearDown() override {
    server.reset();
    seat.disconnect();
  }
  void start(const Options& options = {}) {
    auto made = Server::start(options, seat);
    ASSERT_TRUE(made) << made.error().message;
    server = std::move(*made);
  }
  Fd call() {
    const std::string where = server->where();
    const std::string port = where.substr(where.rfind(':') + 1);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
  }
  static void say(const Fd& fd, std::vector<uint8_t> bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // Empty when the server has closed the connection before.
  static std::vector<uint8_t> hear(const Fd& fd, size_t count) {
    std::vector<uint8_t> bytes(count);
    for (size_t done = 0; done < count;) {
      const ssize_t got = recv(fd.get(), bytes.data() + done, count - done, 0);
      if (got <= 0) return {};
      done += static_cast<size_t>(got);
    }
    return bytes;
  }
  static uint32_t number(const std::vector<uint8_t>& bytes, size_t at, size_t size) {
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | bytes[at + i];
    return value;
  }
  static void version(const Fd& fd) {
    EXPECT_EQ(hear(fd, 12).size(), 12U);
    const std::string_view text = "RFB 003.008\n";
    say(fd, {text.begin(), text.end()});
  }
  // A viewer that may look; the screen's size.
  std::pair<uint32_t, uint32_t> shake_hands(const Fd& fd) {
    version(fd);
    const auto count = hear(fd, 1);
    const auto types = hear(fd, count.at(0));
    EXPECT_NE(std::ranges::find(types, 1), types.end()) << "no password is wanted";
    say(fd, {1});
    EXPECT_EQ(number(hear(fd, 4), 0, 4), 0U);
    say(fd, {1});
    const auto init = hear(fd, 24);
    hear(fd, number(init, 20, 4));
    return {number(init, 0, 2), number(init, 2, 2)};
  }
  static void want_update(const Fd& fd, bool incremental, unsigned width, unsigned height) {
    say(fd, {3, incremental, 0, 0, 0, 0, static_cast<uint8_t>(width >> 8), static_cast<uint8_t>(width), static_cast<uint8_t>(height >> 8),
             static_cast<uint8_t>(height)});
  }
  static void want_encodings(const Fd& fd, std::vector<int32_t> encodings) {
    std::vector<uint8_t> bytes{2, 0, 0, static_cast<uint8_t>(encodings.size())};
    for (const int32_t encoding : encodings)
      for (const unsigned shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(static_cast<uint32_t>(encoding) >> shift));
    say(fd, bytes);
  }

  Colors screen;
  Hands hands;
  Seat seat;
  std::unique_ptr<Server> server;
};

TEST_F(VncServer, ShowsTheScreen) {
  start();
  const Fd fd = call();
  const auto first = shake_hands(fd);
  want_encodings(fd, {0, -223});  // raw, and new sizes
  // The size is told, now or with the first update.
  uint32_t width = first.first, pixel = 0;
  want_update(fd, false, 640, 400);
  while (pixel == 0) {
    const auto update = hear(fd, 4);
    ASSERT_EQ(update.at(0), 0);
    for (uint32_t i = 0; i < number(update, 2, 2); ++i) {
      const auto header = hear(fd, 12);
      const uint32_t w = number(header, 4, 2), h = number(header, 6, 2);
      if (number(header, 8, 4) == static_cast<uint32_t>(-223)) {
        width = w;
        continue;
      }
      const auto pixels = hear(fd, size_t{4} * w * h);
      ASSERT_FALSE(pixels.empty());
      if (width == screen.width) pixel = pixels[0] | pixels[1] << 8 | pixels[2] << 16;
    }
    if (pixel == 0) want_update(fd, true, width, 64);
  }
  EXPECT_EQ(pixel, 0x102030U);
}

TEST_F(VncServer, KeysReachTheMachineAndComeUpWhenTheViewerGoes) {
  start({.keymap = "de"});
  {
    const Fd fd = call();
    shake_hands(fd);
    say(fd, {4, 1, 0, 0, 0, 0, 0, 'z'});
    say(fd, {4, 0, 0, 0, 0, 0, 0, 'z'});
    say(fd, {4, 1, 0, 0, 0, 0, 0xff, 0xe3});
    hands.wait_for(3);
  }
  EXPECT_EQ(hands.wait_for(4), (std::vector<std::string>{fmt::format("+{}", KEY_Y), fmt::format("-{}", KEY_Y),
                                                         fmt::format("+{}", KEY_LEFTCTRL), fmt::format("-{}", KEY_LEFTCTRL)}));
}

TEST_F(VncServer, ExtendedKeyEventsNameThePlace) {
  start({.keymap = "fr"});
  const Fd fd = call();
  shake_hands(fd);
  want_encodings(fd, {0, -258});
  const auto answer = hear(fd, 16);
  EXPECT_EQ(number(answer, 12, 4), static_cast<uint32_t>(-258)) << "the server knows them";
  say(fd, {255, 0, 0, 1, 0, 0, 0, 'a', 0, 0, 0, 0x10});
  say(fd, {255, 0, 0, 0, 0, 0, 0, 'a', 0, 0, 0, 0xd2});
  EXPECT_EQ(hands.wait_for(2), (std::vector<std::string>{fmt::format("+{}", KEY_Q), fmt::format("-{}", KEY_INSERT)}));
}

TEST_F(VncServer, PointersBecomeMovements) {
  start();
  const Fd fd = call();
  shake_hands(fd);
  say(fd, {5, 0, 0, 10, 0, 10});
  say(fd, {5, 5, 0, 13, 0, 8});
  say(fd, {5, 16, 0, 13, 0, 8});
  EXPECT_EQ(hands.wait_for(3), (std::vector<std::string>{"m0,0,0,0", "m3,-2,0,3", "m0,0,1,0"}));
}

TEST_F(VncServer, AWrongPasswordIsRefused) {
  const std::string path = testing::TempDir() + "lodge-vnc-password";
  std::ofstream(path) << "secret\n";
  start({.password_file = path});
  const Fd fd = call();
  version(fd);
  const auto types = hear(fd, hear(fd, 1).at(0));
  ASSERT_NE(std::ranges::find(types, 2), types.end());
  EXPECT_EQ(std::ranges::find(types, 1), types.end()) << "nobody comes in without";
  say(fd, {2});
  EXPECT_EQ(hear(fd, 16).size(), 16U);
  say(fd, std::vector<uint8_t>(16));
  EXPECT_EQ(number(hear(fd, 4), 0, 4), 1U);
  unlink(path.c_str());
}

TEST_F(VncServer, PasswordFilesAreChecked) {
  const std::string path = testing::TempDir() + "lodge-vnc-empty";
  std::ofstream(path) << "\n";
  const auto empty = Server::start({.password_file = path}, seat);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().kind, ErrorKind::Usage);
  unlink(path.c_str());
  const auto none = Server::start({.password_file = path}, seat);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::NotFound);
}

TEST_F(VncServer, MalformedAndStallingViewersHurtNobody) {
  start();
  std::vector<Fd> stalling;
  for (int i = 0; i < 5; ++i) {
    stalling.push_back(call());
    shake_hands(stalling.back());
    for (int k = 0; k < 20; ++k) want_update(stalling.back(), false, 80, 64);  // and nothing is read
  }
  for (const std::vector<uint8_t>& nonsense :
       {std::vector<uint8_t>(64, 0xff), std::vector<uint8_t>{6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
        std::vector<uint8_t>{255, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, std::vector<uint8_t>{2, 0, 0xff, 0xff}, std::vector<uint8_t>{99}}) {
    const Fd fd = call();
    shake_hands(fd);
    say(fd, nonsense);
  }
  {
    const Fd silent = call();
  }
  const Fd fd = call();
  shake_hands(fd);
  say(fd, {4, 1, 0, 0, 0, 0, 0, 'a'});
  EXPECT_EQ(hands.wait_for(1)[0], fmt::format("+{}", KEY_A));
}

TEST_F(VncServer, ResizesAndChangesWhileSomebodyLooks) {
  start();
  const Fd fd = call();
  shake_hands(fd);
  want_encodings(fd, {0, -223});
  want_update(fd, false, 640, 400);
  uint32_t width = 0;
  for (unsigned wanted = 88; wanted < 200; wanted += 8) {
    screen.set(wanted, wanted);
    while (width != wanted) {
      const auto update = hear(fd, 4);
      ASSERT_EQ(update.size(), 4U);
      for (uint32_t i = 0; i < number(update, 2, 2); ++i) {
        const auto header = hear(fd, 12);
        if (number(header, 8, 4) == static_cast<uint32_t>(-223))
          width = number(header, 4, 2);
        else
          hear(fd, size_t{4} * number(header, 4, 2) * number(header, 6, 2));
      }
      want_update(fd, true, 200, 64);
    }
  }
}

}  // namespace
}  // namespace lodge::display::vnc
