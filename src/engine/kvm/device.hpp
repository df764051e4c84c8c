// What system, VM and vCPU of the kernel's engine share: ioctls as Results.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>

#include "base/error.hpp"

namespace lodge::engine::kvm {

// An ioctl of the KVM interface whose result is 0 (or a count, or a descriptor) on success. Calls that a signal
// stopped before they did anything are repeated: only KVM_RUN gives EINTR a meaning, and it does not come this way.
template <typename Argument>
[[nodiscard]] Result<int> call(int fd, unsigned long request, const char* name, Argument argument) {
  int result;
  do {
    result = ::ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  if (result < 0) return os_fail(name);
  return result;
}

}  // namespace lodge::engine::kvm
