// The control socket of a machine: JSON in QMP's shape over a UNIX socket, for several clients at a time.
//
// A client that sends what is no JSON hears of it; one that sends without end or never reads is cut off, and hurts nobody else.
//
// Threads: main thread.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "monitor/commands.hpp"
#include "monitor/json_stream.hpp"

namespace lodge::monitor {

class Server {
 public:
  // `listener`: a socket that listens and does not block; it stays the caller's.
  Server(int listener, Target& target, EventLoop& loop);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // To all clients: {"event": name, "data": data, "timestamp": ...}.
  void announce(const char* event, const nlohmann::json& data = nlohmann::json::object());

 private:
  struct Client {
    Fd fd;
    EventLoop::Handle source = 0;
    JsonStream input;
    std::string output;
    bool negotiated = false, closing = false;
  };
  void accept_client();
  void serve(Client& client, short events);
  void receive(Client& client);
  void answer(Client& client, const std::string& request);
  void send(Client& client, const nlohmann::json& message);
  void flush(Client& client);
  void hand_over(Client& client);
  void remove_later(Client& client);

  EventLoop& loop_;
  Target& target_;
  Commands commands_;
  const int listener_;
  EventLoop::Handle source_ = 0;
  std::list<Client> clients_;
};

}  // namespace lodge::monitor
