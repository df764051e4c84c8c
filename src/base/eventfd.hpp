// Descriptors that count: eventfd(2). They never block.
#pragma once

#include <fcntl.h>
#include <sys/eventfd.h>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace lodge {

[[nodiscard]] inline Result<Fd> new_eventfd() {
  Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return os_fail("eventfd");
  return event;
}

// Another descriptor of the same counter (or file).
[[nodiscard]] inline Result<Fd> duplicate(int fd) {
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return os_fail("duplicating a descriptor");
  return copy;
}

}  // namespace lodge
