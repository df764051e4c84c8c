// All of some bytes into a descriptor, however many calls that takes.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>

namespace lodge {

// 0, or an errno. At `offset` of a file, or else where the descriptor stands.
[[nodiscard]] inline int write_all(int fd, std::span<const uint8_t> bytes, std::optional<uint64_t> offset = {}) {
  while (!bytes.empty()) {
    const ssize_t written =
        offset ? pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(*offset)) : write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    bytes = bytes.subspan(static_cast<size_t>(written));
    if (offset) *offset += static_cast<uint64_t>(written);
  }
  return 0;
}

}  // namespace lodge
