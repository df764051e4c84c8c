#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/fd.hpp"
#include "console/backend.hpp"
#include "console/cleanup.hpp"
#include "console/escape.hpp"
#include "console/shared_line.hpp"

namespace lodge::console {
namespace {

std::span<const uint8_t> bytes(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }
std::string text(std::span<const uint8_t> what) { return {what.begin(), what.end()}; }

TEST(Escape, OrdinaryKeysPass) {
  EscapeFilter filter;
  const auto outcome = filter.feed(bytes("ls\r\x03\x1b[A"));
  EXPECT_EQ(text(outcome.input), "ls\r\x03\x1b[A");
  EXPECT_EQ(outcome.command, EscapeFilter::Command::None);
}

TEST(Escape, ControlAThenXQuitsAlsoAcrossReads) {
  EscapeFilter filter;
  EXPECT_EQ(filter.feed(bytes("\x01x")).command, EscapeFilter::Command::Quit);
  EXPECT_TRUE(filter.feed(bytes("\x01")).input.empty());
  const auto second = filter.feed(bytes("xy"));
  EXPECT_EQ(second.command, EscapeFilter::Command::Quit);
  EXPECT_EQ(text(second.input), "y");
}

TEST(Escape, HelpAndLiteral) {
  EscapeFilter filter;
  EXPECT_EQ(filter.feed(bytes("\x01h")).command, EscapeFilter::Command::Help);
  const auto outcome = filter.feed(bytes("a\x01\x01x"));
  EXPECT_EQ(text(outcome.input), "a\x01x") << "the literal key does not start another escape";
  EXPECT_EQ(outcome.command, EscapeFilter::Command::None);
}

class BackendTest : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "/lodge-console-XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    loop = std::move(*EventLoop::create());
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r '" + folder + "'").c_str()), 0); }
  auto open(const std::string& specification) {
    return open_backend("--serial", specification, *loop, [] {});
  }
  // Runs the loop until the sink has got this many bytes.
  InputSink sink_until(size_t wanted) {
    return {.space = [this] { return space; },
            .receive =
                [this, wanted](std::span<const uint8_t> got) {
                  EXPECT_LE(got.size(), space);
                  received += text(got);
                  if (received.size() >= wanted) loop->stop();
                }};
  }
  Fd connect_to(const std::string& path) {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.c_str(), path.size());
    Fd peer(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0) << strerror(errno);
    return peer;
  }
  std::string folder, received;
  size_t space = 4096;
  std::unique_ptr<EventLoop> loop;
};

TEST_F(BackendTest, UnknownKindsAreRefused) {
  for (const char* wrong : {"", "pty", "file:", "unix:", "stdio:x"}) {
    const auto backend = open(wrong);
    ASSERT_FALSE(backend) << wrong;
    EXPECT_EQ(backend.error().kind, ErrorKind::Usage);
  }
}

TEST_F(BackendTest, NullTakesEverything) {
  const auto backend = open("null");
  ASSERT_TRUE(backend);
  (*backend)->write(bytes("gone"));
}

TEST_F(BackendTest, FileHoldsTheOutput) {
  const auto backend = open("file:" + folder + "/out");
  ASSERT_TRUE(backend);
  (*backend)->write(bytes("boot\n"));
  (*backend)->write(bytes("prompt"));
  std::ostringstream content;
  content << std::ifstream(folder + "/out").rdbuf();
  EXPECT_EQ(content.str(), "boot\nprompt");
}

TEST_F(BackendTest, FileThatCannotBeMadeIsBadInput) {
  const auto backend = open("file:" + folder + "/no/such/folder");
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().kind, ErrorKind::Usage);
  EXPECT_NE(backend.error().message.find("/no/such/folder"), std::string::npos);
}

TEST_F(BackendTest, SocketCarriesBothWaysAndTakesANewPeer) {
  const std::string path = folder + "/serial";
  {
    const auto backend = open("unix:" + path);
    ASSERT_TRUE(backend) << backend.error().message;
    (*backend)->write(bytes("nobody listens"));
    for (const std::string word : {"first", "second"}) {
      received.clear();
      (*backend)->set_sink(sink_until(word.size()));
      const Fd peer = connect_to(path);
      ASSERT_EQ(write(peer.get(), word.data(), word.size()), static_cast<ssize_t>(word.size()));
      loop->run();
      EXPECT_EQ(received, word);
      (*backend)->write(bytes("answer"));
      char answer[6];
      ASSERT_EQ(recv(peer.get(), answer, sizeof answer, MSG_WAITALL), 6);
      EXPECT_EQ(std::string(answer, 6), "answer");
    }
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0) << "the socket's file is removed";
}

TEST_F(BackendTest, SocketReadsNoMoreThanTheGuestTakes) {
  const std::string path = folder + "/serial";
  const auto backend = open("unix:" + path);
  ASSERT_TRUE(backend);
  space = 3;
  (*backend)->set_sink(sink_until(10));
  const Fd peer = connect_to(path);
  ASSERT_EQ(write(peer.get(), "0123456789", 10), 10);
  loop->run();
  EXPECT_EQ(received, "0123456789") << "in pieces of three, none lost";
}

TEST_F(BackendTest, SocketOfADeadProcessIsReplacedButNothingElse) {
  const std::string path = folder + "/serial";
  {
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path, path.c_str(), path.size());
    const Fd dead(socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  EXPECT_TRUE(open("unix:" + path));
  std::ofstream(path) << "a file";
  EXPECT_FALSE(open("unix:" + path));
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
}

// The guard removes the file of a process that had no chance to do it.
TEST_F(BackendTest, KilledProcessLeavesNoSocketBehind) {
  const std::string path = folder + "/serial";
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    cleanup::forget_after_fork();
    const auto backend = open("unix:" + path);
    const char byte = backend ? 'y' : 'n';
    [[maybe_unused]] const ssize_t told = write(ready[1], &byte, 1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  // The guard is nobody's child: its work is seen by the file's going, which takes a moment.
  for (int i = 0; i < 5000 && access(path.c_str(), F_OK) == 0; ++i) usleep(1000);
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  close(ready[0]);
  close(ready[1]);
}

// A child process whose standard input and output are a terminal, with the stdio line opened on it.
class TerminalTest : public testing::Test {
 protected:
  void SetUp() override {
    master = Fd(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(master);
    ASSERT_EQ(grantpt(master.get()), 0);
    ASSERT_EQ(unlockpt(master.get()), 0);
    // Kept open, so that the terminal and its modes outlive the child.
    slave = Fd(::open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(slave);
    ASSERT_TRUE(echoes());
  }
  [[nodiscard]] bool echoes() const {
    termios modes{};
    EXPECT_EQ(tcgetattr(slave.get(), &modes), 0);
    return modes.c_lflag & ECHO;
  }
  // Returns when the terminal is raw; `then` is what the child does next.
  pid_t start(void (*then)(EventLoop&, Backend&)) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      cleanup::forget_after_fork();
      cleanup::install_handlers();
      dup2(slave.get(), STDIN_FILENO);
      dup2(slave.get(), STDOUT_FILENO);
      const auto loop = std::move(*EventLoop::create());
      const auto backend = open_backend("--serial", "stdio", *loop, [&] { loop->stop(); });
      [[maybe_unused]] const ssize_t told = write(ready[1], backend ? "y" : "n", 1);
      then(*loop, **backend);
      exit(0);
    }
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    EXPECT_FALSE(echoes()) << "raw while it runs";
    return child;
  }
  static int end_of(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return status;
  }
  Fd master, slave;
};

TEST_F(TerminalTest, ControlAXQuitsAndRestores) {
  const pid_t child = start([](EventLoop& loop, Backend&) { loop.run(); });
  ASSERT_EQ(write(master.get(), "\x01x", 2), 2);
  EXPECT_EQ(end_of(child), 0);
  EXPECT_TRUE(echoes());
}

TEST_F(TerminalTest, CrashRestoresAndEndsByItsSignal) {
  const pid_t child = start([](EventLoop&, Backend&) {
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) == 1) raise(SIGSEGV);
  });
  ASSERT_EQ(write(master.get(), "c", 1), 1);
  const int status = end_of(child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
  EXPECT_TRUE(echoes());
}

TEST_F(TerminalTest, GuardRestoresAfterSigkill) {
  const pid_t child = start([](EventLoop&, Backend&) { pause(); });
  kill(child, SIGKILL);
  end_of(child);
  for (int i = 0; i < 5000 && !echoes(); ++i) usleep(1000);
  EXPECT_TRUE(echoes());
}

// --- A line that is shared

class SharedTest : public BackendTest {
 protected:
  struct Own final : Backend {
    explicit Own(std::string& printed) : printed_(printed) {}
    void write(std::span<const uint8_t> bytes) override { printed_ += text(bytes); }
    void set_sink(InputSink) override {}
    std::string& printed_;
  };
  // Both ends of a connection; the line has one of them.
  Fd join() {
    turn();
    std::array<int, 2> ends{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    EXPECT_TRUE(line->attach(Fd(ends[0])));
    return Fd(ends[1]);
  }
  // What has come to a peer once the loop has nothing more to do.
  std::string seen_by(const Fd& peer) {
    turn();
    std::string all;
    std::array<uint8_t, 4096> buffer{};
    for (;;) {
      const ssize_t got = read(peer.get(), buffer.data(), buffer.size());
      if (got <= 0) return all;
      all += text(std::span(buffer).first(static_cast<size_t>(got)));
      turn();
    }
  }
  void turn() {
    for (int i = 0; i < 3; ++i) {
      // The outer work before the sources are looked at, the inner one behind.
      loop->post([this] { loop->post([this] { loop->stop(); }); });
      loop->run();
    }
  }
  void SetUp() override {
    BackendTest::SetUp();
    line.emplace(std::make_unique<Own>(printed), *loop);
  }
  void TearDown() override {
    line.reset();
    BackendTest::TearDown();
  }
  std::string printed;
  std::optional<SharedLine> line;
};

TEST_F(SharedTest, WhoComesSeesWhatWasPrintedAndWhatFollows) {
  line->write(bytes("before "));
  const Fd first = join();
  line->write(bytes("after"));
  const Fd second = join();
  EXPECT_EQ(seen_by(first), "before after");
  EXPECT_EQ(seen_by(second), "before after");
  EXPECT_EQ(printed, "before after") << "its own end";
  for (int i = 0; i < 40; ++i) line->write(bytes(std::string(8192, static_cast<char>('a' + i % 26))));
  const Fd late = join();
  const std::string seen = seen_by(late);
  EXPECT_EQ(seen.size(), SharedLine::kKept);
  EXPECT_EQ(seen.back(), 'a' + 39 % 26);
}

TEST_F(SharedTest, EverybodyTypes) {
  line->set_sink(sink_until(1000));
  const Fd first = join(), second = join();
  ASSERT_EQ(::write(first.get(), "one ", 4), 4);
  turn();
  ASSERT_EQ(::write(second.get(), "two", 3), 3);
  turn();
  EXPECT_EQ(received, "one two");
}

TEST_F(SharedTest, WhoGoesIsForgotten) {
  line->set_sink(sink_until(1000));
  for (size_t i = 0; i < 2 * SharedLine::kMostPeers; ++i) {
    const Fd peer = join();
    line->write(bytes("x"));
  }
  turn();
  std::vector<Fd> peers;
  for (size_t i = 0; i < SharedLine::kMostPeers; ++i) peers.push_back(join());
  EXPECT_FALSE(line->attach(Fd(dup(peers[0].get())))) << "so many and no more";
}

TEST_F(SharedTest, OneThatDoesNotReadHoldsNobodyUp) {
  const Fd asleep = join();
  const std::string much(64 << 10, 'm');
  for (int i = 0; i < 100; ++i) line->write(bytes(much));
  EXPECT_EQ(printed.size(), 100 * much.size());
  EXPECT_LE(seen_by(asleep).size(), SharedLine::kMostWaiting + (1 << 20));
}

}  // namespace
}  // namespace lodge::console
