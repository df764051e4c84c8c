#include "monitor/runtime_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

namespace lodge::monitor {

namespace {

constexpr size_t kLongestName = 64;
constexpr std::string_view kSocketSuffix = ".sock";

bool allowed(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

// In a folder that others can write, somebody else may have put one of that name there.
Result<> make_private(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return os_fail("the folder of running machines, " + path);
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) return os_fail("the folder of running machines, " + path);
  if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0)
    return fail(ErrorKind::Permission,
                "{} is not a folder of this user's alone (mode 0700), as the control of machines needs it: remove it", path);
  return {};
}

// A connection to whoever listens there; nothing if nobody does. Not yet accepted, it says that the process lives, even if that stands
// still.
Result<std::optional<Fd>> try_connect(const std::string& path) {
  const sockaddr_un address = TRY(address_of(path));
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return os_fail("socket");
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN)
    return std::optional(std::move(fd));
  if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTSOCK) return std::optional<Fd>();
  return os_fail(path);
}

}  // namespace

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(ErrorKind::Usage, "the path of the machine's socket is too long: {}", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<> check_name(std::string_view name) {
  if (!name.empty() && name.size() <= kLongestName && name[0] != '.' && name[0] != '-' && std::ranges::all_of(name, allowed)) return {};
  return fail(ErrorKind::Usage,
              "'{}' cannot be a machine's name: use letters, digits, '.', '_' and '-', at most {}, and begin with a letter or digit", name,
              kLongestName);
}

std::string make_name(std::string_view wish) {
  std::string name(wish.substr(0, kLongestName - 4));  // room for "-123"
  for (char& c : name)
    if (!allowed(c)) c = '_';
  if (name.empty()) return "machine";
  if (name[0] == '.' || name[0] == '-') name[0] = '_';
  return name;
}

Result<RuntimeFolder> RuntimeFolder::open() {
  std::string path;
  const std::string user_folder = fmt::format("/run/user/{}", geteuid());
  if (const char* given = std::getenv("XDG_RUNTIME_DIR"); given && given[0] == '/' && access(given, W_OK | X_OK) == 0)
    path = std::string(given) + "/lodge";
  else if (access(user_folder.c_str(), W_OK | X_OK) == 0)
    path = user_folder + "/lodge";
  else
    path = fmt::format("/tmp/lodge-{}", geteuid());
  TRY(make_private(path));
  return RuntimeFolder(path);
}

std::string RuntimeFolder::socket_path(std::string_view name) const { return fmt::format("{}/{}{}", path_, name, kSocketSuffix); }
Fd RuntimeFolder::turn() const {
  Fd fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  while (fd && flock(fd.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  return fd;
}

std::vector<std::string> RuntimeFolder::names() const {
  const Fd mine = turn();
  std::vector<std::string> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(path_, ignored)) {
    const std::string file = entry.path().filename();
    if (!file.ends_with(kSocketSuffix)) continue;
    const auto alive = try_connect(entry.path());
    if (alive && !*alive)
      unlink(entry.path().c_str());  // nobody's: its process was killed
    else
      found.push_back(file.substr(0, file.size() - kSocketSuffix.size()));
  }
  std::ranges::sort(found);
  return found;
}

Result<pid_t> RuntimeFolder::owner(const std::string& name) const {
  TRY(check_name(name));
  const auto connection = TRY(try_connect(socket_path(name)));
  ucred peer{};
  socklen_t length = sizeof peer;
  if (!connection || getsockopt(connection->get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid <= 0)
    return fail(ErrorKind::NotFound, "there is no running machine '{}'", name);
  return peer.pid;
}

Result<NameClaim> NameClaim::take(const RuntimeFolder& folder, const std::string& name, bool or_similar) {
  TRY(check_name(name));
  const Fd mine = folder.turn();
  for (unsigned number = 1; number < 1000; ++number) {
    const std::string tried = number == 1 ? name : fmt::format("{}-{}", name, number);
    const std::string path = folder.socket_path(tried);
    if (TRY(try_connect(path))) {
      if (!or_similar)
        return fail(ErrorKind::Usage, "a machine named '{}' runs already ('lodge ps' lists them): choose another --name", name);
      continue;
    }
    unlink(path.c_str());
    const sockaddr_un address = TRY(address_of(path));
    Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener) return os_fail("socket");
    if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || chmod(path.c_str(), 0600) != 0 ||
        listen(listener.get(), 64) != 0)
      return os_fail(path);
    return NameClaim(tried, path, std::move(listener));
  }
  return fail(ErrorKind::Usage, "a thousand machines named '{}' run already: choose a --name", name);
}

NameClaim::~NameClaim() {
  if (listener_) unlink(path_.c_str());
}

}  // namespace lodge::monitor
