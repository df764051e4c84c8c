// The other end of a control socket: one machine, one request after the other.
//
// Threads: one.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "monitor/json_stream.hpp"

namespace lodge::monitor {

class Client {
 public:
  // ErrorKind::NotFound: no such machine; ErrorKind::Resource: it does not answer in time. Both say what to do.
  static Result<Client> connect(const std::string& name);
  // What it returned. ErrorKind::Usage: it refused, and why.
  [[nodiscard]] Result<nlohmann::json> execute(const std::string& command, const nlohmann::json& arguments = nlohmann::json::object());
  // Until the machine has closed the connection, because its process ends; false when it has not in that time.
  [[nodiscard]] bool wait_for_end(uint64_t ns);

  // The machine's serial console, as a stream; what has come of it already is `begun`.
  struct Console {
    Fd fd;
    std::string begun;
  };
  [[nodiscard]] Result<Console> take_console();

 private:
  Client(std::string name, Fd fd) : name_(std::move(name)), fd_(std::move(fd)) {}
  [[nodiscard]] Result<nlohmann::json> receive();
  [[nodiscard]] std::unexpected<Error> hung() const;
  // False: nothing comes in that time, or nothing more at all.
  [[nodiscard]] bool wait(short events, uint64_t until_ns) const;

  std::string name_;
  Fd fd_;
  JsonStream input_;
};

}  // namespace lodge::monitor
