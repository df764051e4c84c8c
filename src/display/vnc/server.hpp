// Viewers of the screen: VNC (RFC 6143), directly or out of a browser.
//
// For browsers one port serves both noVNC's files and the WebSocket by which they come back. Viewers share screen and keyboard. Whatever a
// viewer sends or does not read hurts neither the guest nor, for longer than a moment, the other viewers.
//
// Threads: one of its own ("vnc").
#pragma once

#include <memory>
#include <string>

#include "base/error.hpp"
#include "display/seat.hpp"
#include "display/vnc/address.hpp"

namespace lodge::display::vnc {

struct Options {
  bool web = false;
  std::string address;        // empty: the usual one, or the next that is free
  std::string password_file;  // its first line; empty: no password
  std::string keymap = "us";  // of viewers that send characters
  std::string title;
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(const Options& options, Seat& seat);
  virtual ~Server() = default;
  // A URL for browsers, or host and port.
  [[nodiscard]] virtual std::string where() const = 0;
};

}  // namespace lodge::display::vnc
