// A tap interface: the guest's Ethernet is one of the host's (Linux Documentation/networking/tuntap.rst, linux/if_tun.h).
//
// Threads: the event loop's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "net/backend.hpp"

namespace lodge::net {

struct TapOptions {
  std::string interface;  // its name; one that does not exist is made, and goes with the process
  std::vector<int> fds;   // instead: descriptors of queues of one tap interface (or macvtap), inherited; owned from open_tap() on
  unsigned pairs = 1;     // of queues; with `fds` as many as there are
};

// ErrorKind::Usage says what is missing: the device, the right, the interface, its kind.
[[nodiscard]] Result<std::unique_ptr<Backend>> open_tap(EventLoop& loop, const TapOptions& options);

}  // namespace lodge::net
