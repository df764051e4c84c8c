// Against a server of another project (nbdkit), which also makes mistakes on request.
#include "block/nbd.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "base/test_folder.hpp"

namespace lodge::block {
namespace {

// A server behind a socket that listens before it runs, so that nobody has to wait for it (sd_listen_fds(3)).
class Server {
 public:
  Server(const std::string& socket_path, std::vector<std::string> arguments) {
    unlink(socket_path.c_str());
    const int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(listening, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listening, 4), 0);
    arguments.insert(arguments.begin(), {"nbdkit", "-f", "--exit-with-parent"});
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      fcntl(listening, F_SETFD, 0);  // where it is 3 already
      if (listening != 3) dup2(listening, 3);
      setenv("LISTEN_FDS", "1", 1);
      setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
      execvp(pointers[0], pointers.data());
      _exit(127);
    }
    ::close(listening);
  }
  ~Server() { kill(); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  void kill() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

class NbdTest : public testing::TestWithParam<IoContext::Kind> {
 protected:
  void SetUp() override {
    if (access("/usr/sbin/nbdkit", X_OK) != 0 && access("/usr/bin/nbdkit", X_OK) != 0) GTEST_SKIP() << "nbdkit is not installed";
    auto made = IoContext::create(GetParam());
    if (!made) GTEST_SKIP() << made.error().message;
    context_ = std::move(*made);
  }
  std::unique_ptr<Nbd> connect() {
    auto node = context_->run(Nbd::open(*context_, "nbd:unix:" + socket_, {}));
    EXPECT_TRUE(node) << node.error().message;
    return node ? std::move(*node) : nullptr;
  }
  Result<> run(Task<Result<>> task) { return context_->run(std::move(task)); }

  test::Folder folder_;
  const std::string socket_ = folder_ / "socket";
  std::unique_ptr<IoContext> context_;
};

TEST_P(NbdTest, HoldsWhatAModelHolds) {
  constexpr uint64_t kSize = 3 << 20;
  const Server server(socket_, {"memory", std::to_string(kSize)});
  auto node = connect();
  ASSERT_TRUE(node);
  ASSERT_EQ(node->size(), kSize);
  std::vector<std::byte> model(kSize);
  std::mt19937_64 random(1);
  for (int i = 0; i < 400; ++i) {
    const uint64_t offset = random() % kSize, length = 1 + random() % std::min<uint64_t>(kSize - offset, 200'000);
    switch (random() % 4) {
      case 0: {
        Request zero(Operation::WriteZeroes, offset, length);
        zero.unmap = random() % 2;
        zero.fua = random() % 2;
        ASSERT_TRUE(run(node->submit(zero)));
        std::fill_n(model.begin() + static_cast<ptrdiff_t>(offset), length, std::byte{0});
        break;
      }
      case 1: {
        std::vector<std::byte> data(length);
        ASSERT_TRUE(run(read(*node, offset, data.data(), length)));
        ASSERT_TRUE(std::equal(data.begin(), data.end(), model.begin() + static_cast<ptrdiff_t>(offset)));
        break;
      }
      default: {  // in pieces, as guests have them
        std::vector<std::byte> data(length);
        for (auto& byte : data) byte = static_cast<std::byte>(random());
        Buffers pieces(data.data(), length / 3);
        pieces.append(data.data() + length / 3, length - length / 3);
        Request request(Operation::Write, offset, pieces);
        request.fua = random() % 2;
        ASSERT_TRUE(run(node->submit(request)));
        std::ranges::copy(data, model.begin() + static_cast<ptrdiff_t>(offset));
      }
    }
  }
  ASSERT_TRUE(run(flush(*node)));
  std::vector<std::byte> all(kSize);
  ASSERT_TRUE(run(read(*node, 0, all.data(), kSize)));
  EXPECT_TRUE(all == model);
  EXPECT_TRUE(run(node->close()));
}

TEST_P(NbdTest, ManyAtOnce) {
  constexpr uint64_t kSize = 1 << 20, kPart = 4096;
  const Server server(socket_, {"memory", std::to_string(kSize)});
  auto node = connect();
  ASSERT_TRUE(node);
  std::vector<std::byte> data(kSize);
  std::mt19937_64 random(2);
  for (auto& byte : data) byte = static_cast<std::byte>(random());
  const auto all = [&](Operation what, std::vector<std::byte>& memory) -> Task<Result<>> {
    TaskGroup group(64);
    const auto one = [&](uint64_t offset) -> Task<Result<>> {
      const Request request(what, offset, Buffers(&memory[offset], kPart));
      co_return co_await node->submit(request);
    };
    for (uint64_t offset = 0; offset < kSize; offset += kPart) co_await group.add(one(offset));
    co_return co_await group.finish();
  };
  ASSERT_TRUE(run(all(Operation::Write, data)));
  std::vector<std::byte> back(kSize);
  ASSERT_TRUE(run(all(Operation::Read, back)));
  EXPECT_TRUE(back == data);
}

TEST_P(NbdTest, Extents) {
  const Server server(socket_, {"memory", "1M"});
  auto node = connect();
  ASSERT_TRUE(node);
  const std::vector<std::byte> data(65536, std::byte{1});
  ASSERT_TRUE(run(write(*node, 131072, data.data(), data.size())));
  auto hole = context_->run(node->map(0, node->size()));
  ASSERT_TRUE(hole) << hole.error().message;
  EXPECT_TRUE(hole->zero);
  EXPECT_EQ(hole->length, 131072u);
  auto there = context_->run(node->map(131072, node->size() - 131072));
  ASSERT_TRUE(there);
  EXPECT_TRUE(there->data);
  EXPECT_EQ(there->length, 65536u);
}

TEST_P(NbdTest, ErrorsOfTheServer) {
  const Server server(socket_, {"--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"});
  auto node = connect();
  ASSERT_TRUE(node);
  const auto done = run(write(*node, 0, "x", 1));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().os_errno, ENOSPC);
  char byte = 1;
  EXPECT_TRUE(run(read(*node, 0, &byte, 1)));
  EXPECT_EQ(byte, 0);
}

TEST_P(NbdTest, ServerThatGoesAwayAndComesBack) {
  // One whose writes take for ever: they are in flight when it dies.
  auto server = std::make_unique<Server>(socket_, std::vector<std::string>{"--filter=delay", "memory", "1M", "wdelay=1000"});
  auto node = connect();
  ASSERT_TRUE(node);
  const auto many = [&]() -> Task<Result<>> {
    TaskGroup group(8);
    static const std::vector<std::byte> data(4096);
    const auto one = [&](uint64_t offset) -> Task<Result<>> {
      auto done = co_await write(*node, offset, data.data(), data.size());
      EXPECT_FALSE(done);
      if (!done) {
        EXPECT_EQ(done.error().os_errno, EIO) << done.error().message;
      }
      co_return done;
    };
    for (uint64_t n = 0; n < 8; ++n) co_await group.add(one(n * 4096));
    server->kill();
    co_return co_await group.finish();
  };
  EXPECT_FALSE(run(many()));
  const auto later = run(write(*node, 0, "x", 1));
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().os_errno, EIO);
  unlink(socket_.c_str());

  auto other = std::make_unique<Server>(socket_, std::vector<std::string>{"memory", "1M"});
  auto again = connect();
  ASSERT_TRUE(again);
  other->kill();
  char byte = 0;
  // The first request after it has gone may find the connection dead only in flight, and fails then; the next one tries to connect.
  const Server third(socket_, {"memory", "1M"});
  if (!run(read(*again, 0, &byte, 1))) {
    const auto back = run(read(*again, 0, &byte, 1));
    EXPECT_TRUE(back) << back.error().message;
  }
  EXPECT_TRUE(run(again->close()));
}

TEST_P(NbdTest, NobodyThere) {
  auto node = context_->run(Nbd::open(*context_, "nbd:unix:" + folder_ / "nobody", {}));
  ASSERT_FALSE(node);
  EXPECT_EQ(node.error().kind, ErrorKind::Usage);
  EXPECT_NE(node.error().message.find("cannot connect to the NBD server"), std::string::npos) << node.error().message;
}

INSTANTIATE_TEST_SUITE_P(Contexts, NbdTest, testing::Values(IoContext::Kind::Uring, IoContext::Kind::Threads),
                         [](const auto& tested) { return tested.param == IoContext::Kind::Uring ? "Uring" : "Threads"; });

TEST(NbdName, IsMadeAUri) {
  EXPECT_EQ(*Nbd::uri_of("nbd://host:1/x"), "nbd://host:1/x");
  EXPECT_EQ(*Nbd::uri_of("nbd:host:10809"), "nbd://host:10809/");
  EXPECT_EQ(*Nbd::uri_of("nbd:host:10809:exportname=a b"), "nbd://host:10809/a%20b");
  EXPECT_EQ(*Nbd::uri_of("nbd:unix:/run/s:exportname=x"), "nbd+unix:///x?socket=/run/s");
  EXPECT_FALSE(Nbd::uri_of("nbd:host"));
}

}  // namespace
}  // namespace lodge::block
