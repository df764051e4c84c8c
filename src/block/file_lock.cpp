#include "block/file_lock.hpp"

#include <fcntl.h>

#include <cerrno>
#include <chrono>
#include <thread>

namespace lodge::block {

namespace {

// Permission n is held by byte 100 + n, refused to others by byte 200 + n.
constexpr int kHeld = 100, kRefused = 200;
constexpr unsigned kConsistentRead = 1u << 0, kWrite = 1u << 1, kResize = 1u << 3;
constexpr int kPermissions = 5;

const char* name_of(int permission) {
  constexpr const char* kNames[kPermissions] = {"consistent read", "write", "write unchanged", "resize", "change"};
  return kNames[permission];
}

flock byte_lock(short type, int byte) { return {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_pid = 0}; }

}  // namespace

namespace {

Result<> try_lock(int fd, const std::string& name, Sharing sharing) {
  const unsigned held = sharing == Sharing::Exclusive ? kConsistentRead | kWrite | kResize : kConsistentRead;
  const unsigned refused = sharing == Sharing::ForceShare ? 0 : kWrite | kResize;
  // First the own locks, then the look at others': of two that come at once at least one sees the other.
  for (int n = 0; n < kPermissions; ++n) {
    for (const auto& [mask, base] : {std::pair(held, kHeld), std::pair(refused, kRefused)}) {
      if (!(mask >> n & 1)) continue;
      flock lock = byte_lock(F_RDLCK, base + n);
      if (fcntl(fd, F_OFD_SETLK, &lock) == 0) continue;
      // File systems without locks (some network ones) cannot protect anybody.
      if (errno == EINVAL || errno == ENOLCK || errno == EOPNOTSUPP) return {};
      return os_fail(fmt::format("{}: cannot lock the image", name));
    }
  }
  for (int n = 0; n < kPermissions; ++n) {
    for (const auto& [mask, base] : {std::pair(held, kRefused), std::pair(refused, kHeld)}) {
      if (!(mask >> n & 1)) continue;
      flock lock = byte_lock(F_WRLCK, base + n);
      if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return os_fail(fmt::format("{}: cannot look at the image's locks", name));
      if (lock.l_type == F_UNLCK) continue;
      const char* const what = base == kRefused ? "does not let others" : "has opened it to";
      return fail(ErrorKind::Usage,
                  "{}: the image is in use: another process {} {} (lock \"{}\"). Stop the virtual machine or the tool that has it open{}.",
                  name, what, n == 0 ? "read" : "write", name_of(n),
                  sharing == Sharing::Exclusive ? "" : ", or look at it as it is with --force-share");
    }
  }
  return {};
}

}  // namespace

Result<> lock_image(int fd, const std::string& name, Sharing sharing) {
  // A process that was killed with requests in io_uring has its files a moment longer than it is there: the kernel takes the ring apart
  // on its own time.
  constexpr auto kPatience = std::chrono::milliseconds(500), kPause = std::chrono::milliseconds(10);
  const auto begun = std::chrono::steady_clock::now();
  for (;;) {
    auto locked = try_lock(fd, name, sharing);
    if (locked || locked.error().kind != ErrorKind::Usage || std::chrono::steady_clock::now() - begun > kPatience) return locked;
    unlock_image(fd);
    std::this_thread::sleep_for(kPause);
  }
}

void unlock_image(int fd) {
  flock all{.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = kHeld, .l_len = kRefused + kPermissions - kHeld, .l_pid = 0};
  fcntl(fd, F_OFD_SETLK, &all);
}

}  // namespace lodge::block
