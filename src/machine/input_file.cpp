#include "machine/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.hpp"

namespace lodge::machine {

Result<std::vector<uint8_t>> read_file(const std::string& path, std::string_view what) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status{};
  if (!fd || fstat(fd.get(), &status) != 0) return fail(ErrorKind::Usage, "{} {}: {}", what, path, os_error("cannot read it").message);
  if (!S_ISREG(status.st_mode)) return fail(ErrorKind::Usage, "{} {}: not a regular file", what, path);
  std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size));
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t got = read(fd.get(), bytes.data() + at, bytes.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return fail(ErrorKind::Usage, "{} {}: it could not be read to its end", what, path);
    at += static_cast<size_t>(got);
  }
  if (bytes.empty()) return fail(ErrorKind::Usage, "{} {}: the file is empty", what, path);
  return bytes;
}

}  // namespace lodge::machine
