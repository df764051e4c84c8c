// The control socket as its clients see it.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/test_folder.hpp"
#include "monitor/client.hpp"
#include "monitor/runtime_folder.hpp"
#include "monitor/server.hpp"

namespace lodge::monitor {
namespace {

using nlohmann::json;

using test::Folder;

class FakeTarget final : public Target {
 public:
  [[nodiscard]] std::string name() const override { return "test"; }
  [[nodiscard]] bool paused() const override { return is_paused; }
  [[nodiscard]] uint64_t memory_bytes() const override { return 1 << 30; }
  [[nodiscard]] uint32_t processors() const override { return 2; }
  [[nodiscard]] std::string engine() const override { return "soft"; }
  [[nodiscard]] std::string display() const override { return ""; }
  void pause() override { is_paused = true; }
  void resume() override { is_paused = false; }
  void press_power_button() override { done += "power "; }
  void reset() override { done += "reset "; }
  void quit() override { done += "quit "; }
  [[nodiscard]] std::vector<Tray> trays() const override { return {{.name = "cd0", .file = disc, .locked = true}}; }
  [[nodiscard]] Result<> eject(const std::string& drive, bool force) override {
    if (drive != "cd0") return fail(ErrorKind::NotFound, "no drive");
    if (!force) return fail(ErrorKind::Usage, "locked");
    disc.clear();
    return {};
  }
  [[nodiscard]] Result<> insert(const std::string& drive, const std::string& file, bool force) override {
    TRY(eject(drive, force));
    disc = file;
    return {};
  }
  [[nodiscard]] Result<> attach_console(Fd peer) override {
    console = std::move(peer);
    return {};
  }
  [[nodiscard]] display::Seat& seat() override { return the_seat; }

  bool is_paused = false;
  std::string done, disc = "/a.iso";
  Fd console;
  display::Seat the_seat;
};

class Keys final : public display::KeyboardInput {
 public:
  void key(display::Key key, bool down) override { seen += fmt::format("{}{} ", down ? '+' : '-', key); }
  std::string seen;
};

// --- Names

TEST(RuntimeFolder, NamesAreChecked) {
  for (const char* good : {"a", "debian-12", "A.b_c"}) EXPECT_TRUE(check_name(good)) << good;
  for (const std::string& bad : {std::string(), std::string("../x"), std::string("a/b"), std::string(".a"), std::string("-a"),
                                 std::string("a b"), std::string(65, 'a')})
    EXPECT_FALSE(check_name(bad)) << bad;
  EXPECT_EQ(make_name("vmlinuz 6.1/ü"), "vmlinuz_6.1___");
  EXPECT_EQ(make_name(""), "machine");
  EXPECT_TRUE(check_name(make_name(std::string(200, '.'))));
}

TEST(RuntimeFolder, ANameIsInUseAsLongAsItsOwnerLives) {
  const Folder folder;
  const RuntimeFolder names = RuntimeFolder::at(folder.path());
  {
    const auto first = NameClaim::take(names, "vm", false);
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_EQ(names.names(), std::vector<std::string>{"vm"});
    EXPECT_EQ(names.owner("vm"), getpid());
    const auto second = NameClaim::take(names, "vm", false);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().kind, ErrorKind::Usage);
    const auto third = NameClaim::take(names, "vm", true);
    ASSERT_TRUE(third);
    EXPECT_EQ(third->name(), "vm-2");
  }
  EXPECT_TRUE(names.names().empty());
  EXPECT_FALSE(names.owner("vm"));
  EXPECT_TRUE(NameClaim::take(names, "vm", false));
}

TEST(RuntimeFolder, LeftoversAreClearedAway) {
  const Folder folder;
  const RuntimeFolder names = RuntimeFolder::at(folder.path());
  std::ofstream(folder.path() + "/dead.sock") << "";
  EXPECT_TRUE(names.names().empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(RuntimeFolder, AFolderOfOthersIsRefused) {
  const Folder folder;
  ASSERT_EQ(setenv("XDG_RUNTIME_DIR", folder.path().c_str(), 1), 0);
  EXPECT_TRUE(RuntimeFolder::open());
  ASSERT_EQ(chmod((folder.path() + "/lodge").c_str(), 0755), 0);
  const auto refused = RuntimeFolder::open();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::Permission);
  unsetenv("XDG_RUNTIME_DIR");
}

// --- JSON in pieces

TEST(JsonStream, FindsWhereValuesEnd) {
  JsonStream stream;
  stream.append("  {\"a\": \"}\\\"{\"}{\"b\"");
  EXPECT_EQ(stream.next(), "{\"a\": \"}\\\"{\"}");
  EXPECT_FALSE(stream.next());
  stream.append(": [1]}\nhello\n");
  EXPECT_EQ(stream.next(), "{\"b\": [1]}");
  EXPECT_EQ(stream.next(), "hello");
  EXPECT_FALSE(stream.next());
}

// --- The socket

class ControlSocket : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(setenv("XDG_RUNTIME_DIR", folder.path().c_str(), 1), 0);
    loop = std::move(*EventLoop::create());
    auto claimed = NameClaim::take(*RuntimeFolder::open(), "test", false);
    ASSERT_TRUE(claimed);
    claim.emplace(std::move(*claimed));
    server = std::make_unique<Server>(claim->listener(), target, *loop);
    thread = std::thread([this] { loop->run(); });
  }
  void TearDown() override {
    loop->stop();
    if (thread.joinable()) thread.join();
    server.reset();
    unsetenv("XDG_RUNTIME_DIR");
  }
  // A connection without a client's manners.
  Fd raw() {
    const sockaddr_un address = *address_of(claim->path());
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }
  static json read_value(const Fd& fd, JsonStream& stream) {
    for (;;) {
      if (const auto text = stream.next()) return json::parse(*text);
      std::array<char, 1000> buffer{};
      const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
      if (got <= 0) return nullptr;
      stream.append({buffer.data(), static_cast<size_t>(got)});
    }
  }
  static void write_text(const Fd& fd, std::string_view text) {
    EXPECT_EQ(send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  const Folder folder;
  FakeTarget target;
  std::unique_ptr<EventLoop> loop;
  std::optional<NameClaim> claim;
  std::unique_ptr<Server> server;
  std::thread thread;
};

TEST_F(ControlSocket, CommandsReachTheMachine) {
  auto client = Client::connect("test");
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_EQ((*client->execute("query-status"))["running"], true);
  EXPECT_TRUE(client->execute("stop"));
  EXPECT_EQ((*client->execute("query-status"))["status"], "paused");
  EXPECT_TRUE(client->execute("cont"));
  EXPECT_TRUE(client->execute("system_powerdown"));
  EXPECT_TRUE(client->execute("system_reset"));
  EXPECT_TRUE(client->execute("quit"));
  EXPECT_EQ((*client->execute("query-name"))["name"], "test");
  EXPECT_EQ((*client->execute("x-lodge-query-machine"))["cpus"], 2);
  EXPECT_EQ(target.done, "power reset quit ");
}

TEST_F(ControlSocket, MediaAreChanged) {
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  const auto drives = client->execute("query-block");
  ASSERT_TRUE(drives);
  EXPECT_EQ((*drives)[0]["device"], "cd0");
  EXPECT_EQ((*drives)[0]["inserted"]["file"], "/a.iso");
  EXPECT_FALSE(client->execute("eject", {{"device", "cd0"}}));
  EXPECT_FALSE(client->execute("eject", {{"id", "cd7"}, {"force", true}}));
  EXPECT_TRUE(client->execute("eject", {{"device", "cd0"}, {"force", true}}));
  EXPECT_FALSE((*client->execute("query-block"))[0].contains("inserted"));
  EXPECT_FALSE(client->execute("blockdev-change-medium", {{"device", "cd0"}, {"force", true}})) << "which file?";
  EXPECT_TRUE(client->execute("blockdev-change-medium", {{"filename", "/b.iso"}, {"force", true}}));
  EXPECT_EQ(target.disc, "/b.iso");
}

TEST_F(ControlSocket, KeysGoDownAndUp) {
  Keys keys;
  target.the_seat.connect({.keyboard = &keys});
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  const json chord = {{{"type", "qcode"}, {"data", "ctrl"}}, {{"type", "number"}, {"data", 0x1e}}};
  EXPECT_TRUE(client->execute("send-key", {{"keys", chord}, {"hold-time", 0}}));
  EXPECT_TRUE(client->execute("query-name"));
  loop->stop();
  thread.join();
  target.the_seat.disconnect();
  EXPECT_EQ(keys.seen, "+29 +30 -30 -29 ");
}

TEST_F(ControlSocket, WrongArgumentsAreRefused) {
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  EXPECT_FALSE(client->execute("no-such-command"));
  EXPECT_FALSE(client->execute("send-key"));
  EXPECT_FALSE(client->execute("send-key", {{"keys", json::array()}}));
  EXPECT_FALSE(client->execute("send-key", {{"keys", {{{"type", "qcode"}, {"data", "any"}}}}}));
  EXPECT_FALSE(client->execute("send-key", {{"keys", {{{"type", "qcode"}, {"data", "a"}}}}, {"hold-time", -1}}));
  EXPECT_FALSE(client->execute("screendump"));
  EXPECT_FALSE(client->execute("screendump", {{"filename", "/x"}, {"format", "gif"}}));
  EXPECT_FALSE(client->execute("screendump", {{"filename", folder.path() + "/x.png"}})) << "there is no screen";
  EXPECT_FALSE(client->execute("input-send-event", {{"events", 5}}));
  EXPECT_FALSE(client->execute("query-name", json::array()));
  EXPECT_TRUE(client->execute("query-name"));
}

TEST_F(ControlSocket, SpeaksTheProtocolOfQmp) {
  const Fd fd = raw();
  JsonStream stream;
  EXPECT_TRUE(read_value(fd, stream).contains("QMP"));
  write_text(fd, "{\"execute\":\"query-name\", \"id\": 7}");
  const json early = read_value(fd, stream);
  EXPECT_EQ(early["error"]["class"], "CommandNotFound");
  EXPECT_EQ(early["id"], 7);
  write_text(fd, "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-name\"");
  EXPECT_TRUE(read_value(fd, stream).contains("return"));
  write_text(fd, ", \"id\": \"x\"}\n");
  EXPECT_EQ(read_value(fd, stream)["id"], "x");
  for (const char* bad : {"nonsense\n", "{\"a\": tru}", "[1]", "{}", "{\"execute\": 5}"}) {
    write_text(fd, bad);
    EXPECT_TRUE(read_value(fd, stream).contains("error")) << bad;
  }
}

TEST_F(ControlSocket, EventsReachThoseWhoSpoke) {
  const Fd fd = raw();
  JsonStream stream;
  read_value(fd, stream);
  write_text(fd, "{\"execute\":\"qmp_capabilities\"}");
  read_value(fd, stream);
  loop->post([this] { server->announce("RESET"); });
  const json event = read_value(fd, stream);
  EXPECT_EQ(event["event"], "RESET");
  EXPECT_TRUE(event["timestamp"].contains("seconds"));
}

TEST_F(ControlSocket, HandsTheConsoleOver) {
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  auto console = client->take_console();
  ASSERT_TRUE(console) << console.error().message;
  loop->stop();
  thread.join();
  ASSERT_TRUE(target.console);
  // What is printed reaches the client as it is, and what it types the machine.
  std::array<char, 16> buffer{};
  ASSERT_EQ(write(target.console.get(), "{\"QMP\"", 6), 6);
  ASSERT_EQ(write(console->fd.get(), "ls\n", 3), 3);
  EXPECT_EQ(read(target.console.get(), buffer.data(), buffer.size()), 3);
  pollfd entry{console->fd.get(), POLLIN, 0};
  ASSERT_EQ(poll(&entry, 1, -1), 1);
  EXPECT_EQ(read(console->fd.get(), buffer.data(), buffer.size()) + static_cast<ssize_t>(console->begun.size()), 6);
}

TEST_F(ControlSocket, AFloodingClientIsCutOffAndHurtsNobody) {
  const Fd fd = raw();
  const std::string flood(64 << 10, '[');
  bool cut = false;
  for (int i = 0; i < 1000 && !cut; ++i) cut = send(fd.get(), flood.data(), flood.size(), MSG_NOSIGNAL) < 0;
  EXPECT_TRUE(cut);
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  EXPECT_TRUE(client->execute("query-name"));
}

TEST_F(ControlSocket, AClientThatDoesNotReadIsCutOff) {
  const Fd fd = raw();
  std::string requests;
  for (int i = 0; i < 100; ++i) requests += "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-commands\"}";
  bool cut = false;
  for (int i = 0; i < 10000 && !cut; ++i) cut = send(fd.get(), requests.data(), requests.size(), MSG_NOSIGNAL) < 0;
  EXPECT_TRUE(cut);
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  EXPECT_TRUE(client->execute("query-name"));
}

TEST_F(ControlSocket, UnknownMachinesAreNamed) {
  const auto none = Client::connect("other");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::NotFound);
  EXPECT_NE(none.error().message.find("test"), std::string::npos) << "it says which there are";
}

TEST_F(ControlSocket, TheEndIsSeen) {
  auto client = Client::connect("test");
  ASSERT_TRUE(client);
  EXPECT_FALSE(client->wait_for_end(1));
  loop->stop();
  thread.join();
  server.reset();
  EXPECT_TRUE(client->wait_for_end(60 * kSecondNs));
}

}  // namespace
}  // namespace lodge::monitor
