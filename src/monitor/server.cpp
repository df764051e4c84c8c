#include "monitor/server.hpp"

#include <sys/socket.h>

#include "base/clock.hpp"
#include "base/log.hpp"

namespace lodge::monitor {

namespace {

using nlohmann::json;

constexpr size_t kMostClients = 32, kMostInput = 1 << 20, kMostOutput = 4 << 20;

}  // namespace

Server::Server(int listener, Target& target, EventLoop& loop) : loop_(loop), target_(target), commands_(target, loop), listener_(listener) {
  source_ = loop.add_source(
      listener_, [this] { return static_cast<short>(clients_.size() < kMostClients ? POLLIN : 0); }, [this](short) { accept_client(); });
}

Server::~Server() {
  loop_.remove(source_);
  for (Client& client : clients_) {
    flush(client);  // the answer to "quit" is still wanted
    loop_.remove(client.source);
  }
}

void Server::accept_client() {
  Fd fd(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  Client& client = clients_.emplace_back();
  client.fd = std::move(fd);
  client.source = loop_.add_source(
      client.fd.get(), [&client] { return static_cast<short>(client.closing ? 0 : POLLIN | (client.output.empty() ? 0 : POLLOUT)); },
      [this, &client](short events) { serve(client, events); });
  send(client, {{"QMP", {{"version", Commands::version()}, {"capabilities", json::array()}}}});
}

// Not now: whoever calls goes on with the client.
void Server::remove_later(Client& client) {
  if (std::exchange(client.closing, true)) return;
  loop_.post([this, &client] {
    loop_.remove(client.source);
    clients_.remove_if([&](const Client& other) { return &other == &client; });
  });
}

void Server::serve(Client& client, short events) {
  if (client.closing) return;
  if (events & POLLOUT) flush(client);
  if (events & (POLLIN | POLLHUP | POLLERR)) receive(client);
}

void Server::receive(Client& client) {
  std::array<char, 4096> buffer{};
  const ssize_t got = read(client.fd.get(), buffer.data(), buffer.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return remove_later(client);
  client.input.append({buffer.data(), static_cast<size_t>(got)});
  while (!client.closing) {
    const auto request = client.input.next();
    if (!request) break;
    answer(client, *request);
  }
  if (client.input.waiting() > kMostInput) {
    log::debug("a client of the control socket sends without end");
    remove_later(client);
  }
}

void Server::answer(Client& client, const std::string& text) {
  const json request = json::parse(text, nullptr, false);
  json reply = json::object();
  const auto fail_with = [&](const char* kind, const std::string& description) {
    reply["error"] = {{"class", kind}, {"desc", description}};
    send(client, reply);
  };
  if (request.is_discarded()) return fail_with("GenericError", "JSON parse error");
  if (!request.is_object()) return fail_with("GenericError", "QMP input must be a JSON object");
  if (const auto id = request.find("id"); id != request.end()) reply["id"] = *id;
  const auto command = request.find("execute");
  if (command == request.end() || !command->is_string()) return fail_with("GenericError", "QMP input lacks member 'execute'");
  if (!client.negotiated && *command != "qmp_capabilities")
    return fail_with("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
  const auto arguments = request.find("arguments");
  auto result = commands_.execute(command->get_ref<const std::string&>(), arguments == request.end() ? json::object() : *arguments);
  if (!result) return fail_with(result.error().kind.c_str(), result.error().description);
  client.negotiated = true;
  reply["return"] = std::move(*result);
  send(client, reply);
  if (*command == Commands::kConsole) hand_over(client);
}

// The socket is the console's from here on, and this client none any more.
void Server::hand_over(Client& client) {
  if (client.closing || !client.output.empty()) return remove_later(client);
  Fd peer(dup(client.fd.get()));
  if (!peer || !target_.attach_console(std::move(peer))) log::debug("a client of the control socket cannot have the console");
  remove_later(client);
}

void Server::send(Client& client, const json& message) {
  // Whatever a name holds that is not UTF-8 is replaced, not thrown at.
  client.output += message.dump(-1, ' ', false, json::error_handler_t::replace) + "\r\n";
  flush(client);
  if (client.output.size() > kMostOutput) {
    log::debug("a client of the control socket does not read");
    remove_later(client);
  }
}

void Server::flush(Client& client) {
  while (!client.output.empty()) {
    const ssize_t sent = ::send(client.fd.get(), client.output.data(), client.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) return remove_later(client);
    client.output.erase(0, static_cast<size_t>(sent));
  }
}

void Server::announce(const char* event, const json& data) {
  const int64_t now = HostClock().realtime_ns();
  constexpr auto kSecond = static_cast<int64_t>(kSecondNs);
  const json message{{"event", event}, {"data", data}, {"timestamp", {{"seconds", now / kSecond}, {"microseconds", now % kSecond / 1000}}}};
  for (Client& client : clients_)
    if (client.negotiated && !client.closing) send(client, message);
}

}  // namespace lodge::monitor
