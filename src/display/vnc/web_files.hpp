// The files of noVNC, a viewer that runs in browsers, over HTTP.
//
// Threads: one of its own; add() from any.
#pragma once

#include <memory>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"

struct MHD_Daemon;

namespace lodge::display::vnc {

// Whether this host has them, and what to install if not.
[[nodiscard]] Result<> check_web_files();

class WebFiles {
 public:
  static Result<std::unique_ptr<WebFiles>> start();
  ~WebFiles();
  WebFiles(const WebFiles&) = delete;
  WebFiles& operator=(const WebFiles&) = delete;
  void add(Fd connection);  // of a client that speaks HTTP

  static constexpr const char* kPage = "/vnc.html?autoconnect=true&resize=scale&path=websockify";

 private:
  explicit WebFiles(MHD_Daemon* daemon) : daemon_(daemon) {}
  MHD_Daemon* const daemon_;
};

}  // namespace lodge::display::vnc
