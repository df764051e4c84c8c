#include "monitor/client.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>

#include "base/clock.hpp"
#include "monitor/commands.hpp"
#include "monitor/runtime_folder.hpp"

namespace lodge::monitor {

namespace {

using nlohmann::json;

constexpr uint64_t kPatienceNs = 5 * kSecondNs;

uint64_t now_ns() { return HostClock().monotonic_ns(); }

}  // namespace

std::unexpected<Error> Client::hung() const {
  return fail(ErrorKind::Resource, "the machine '{}' does not answer: its process may be stopped or hang; 'lodge kill {}' ends it", name_,
              name_);
}

Result<Client> Client::connect(const std::string& name) {
  TRY(check_name(name));
  const RuntimeFolder folder = TRY(RuntimeFolder::open());
  const sockaddr_un address = TRY(address_of(folder.socket_path(name)));
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return os_fail("socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Client client(name, Fd());
    if (errno == EAGAIN) return client.hung();
    const std::vector<std::string> names = folder.names();
    std::string there;
    for (const std::string& other : names) there += (there.empty() ? "" : ", ") + other;
    return fail(ErrorKind::NotFound, "there is no running machine '{}': {}", name,
                there.empty() ? std::string("none runs ('lodge run' starts one)") : "these run: " + there);
  }
  Client client(name, std::move(fd));
  TRY(client.receive());  // the greeting
  TRY(client.execute("qmp_capabilities"));
  return client;
}

bool Client::wait(short events, uint64_t until_ns) const {
  for (;;) {
    const uint64_t now = now_ns();
    if (now >= until_ns) return false;
    pollfd entry{fd_.get(), events, 0};
    const int ready = poll(&entry, 1, static_cast<int>((until_ns - now) / 1'000'000 + 1));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Result<json> Client::receive() {
  const uint64_t until = now_ns() + kPatienceNs;
  for (;;) {
    if (const auto text = input_.next()) {
      json message = json::parse(*text, nullptr, false);
      if (!message.is_object()) return fail(ErrorKind::Internal, "the machine '{}' answers with what is no JSON object", name_);
      if (message.contains("event")) continue;
      return message;
    }
    if (!wait(POLLIN, until)) return hung();
    std::array<char, 4096> buffer{};
    const ssize_t got = read(fd_.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return fail(ErrorKind::NotFound, "the machine '{}' has ended", name_);
    input_.append({buffer.data(), static_cast<size_t>(got)});
  }
}

Result<json> Client::execute(const std::string& command, const json& arguments) {
  const std::string request =
      json{{"execute", command}, {"arguments", arguments}}.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  const uint64_t until = now_ns() + kPatienceNs;
  for (size_t done = 0; done < request.size();) {
    const ssize_t sent = send(fd_.get(), request.data() + done, request.size() - done, MSG_NOSIGNAL);
    if (sent >= 0) {
      done += static_cast<size_t>(sent);
    } else if (errno == EAGAIN) {
      if (!wait(POLLOUT, until)) return hung();
    } else if (errno != EINTR) {
      return fail(ErrorKind::NotFound, "the machine '{}' has ended", name_);
    }
  }
  json reply = TRY(receive());
  if (const auto error = reply.find("error"); error != reply.end())
    return fail(ErrorKind::Usage, "{}: {}", name_, error->value("desc", std::string("it refused")));
  return std::move(reply["return"]);
}

Result<Client::Console> Client::take_console() {
  TRY(execute(Commands::kConsole));
  // The answer's line may not have ended yet; what follows it is the console's.
  std::string rest = input_.take_rest();
  const uint64_t until = now_ns() + kPatienceNs;
  while (rest.find('\n') == std::string::npos) {
    if (!wait(POLLIN, until)) return hung();
    char byte = 0;
    if (read(fd_.get(), &byte, 1) != 1) return fail(ErrorKind::NotFound, "the machine '{}' has ended", name_);
    rest += byte;
  }
  return Console{.fd = std::move(fd_), .begun = rest.substr(rest.find('\n') + 1)};
}

bool Client::wait_for_end(uint64_t ns) {
  const uint64_t until = now_ns() + ns;
  std::array<char, 4096> buffer{};
  while (wait(POLLIN, until)) {
    const ssize_t got = read(fd_.get(), buffer.data(), buffer.size());
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return true;
  }
  return false;
}

}  // namespace lodge::monitor
