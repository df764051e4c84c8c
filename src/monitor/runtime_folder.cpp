#include "monitor/runtime_folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>

namespace lodge::monitor {

namespace {

constexpr size_t kLongestName = 64;
constexpr std::string_view kSocketSuffix = ".sock", kLockSuffix = ".lock";

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

// The lock, if nobody holds it; nothing if somebody does.
Result<std::optional<Fd>> try_lock(const std::string& path) {
  for (;;) {
    Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return os_fail(path);
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return std::optional<Fd>();
    // Its last owner may have removed it between the two calls.
    struct stat mine{}, there{};
    if (fstat(fd.get(), &mine) == 0 && stat(path.c_str(), &there) == 0 && mine.st_ino == there.st_ino) return std::optional(std::move(fd));
  }
}

}  // namespace

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
std::string RuntimeFolder::lock_path(std::string_view name) const { return fmt::format("{}/{}{}", path_, name, kLockSuffix); }

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
    if (!file.ends_with(kLockSuffix)) continue;
    const std::string name = file.substr(0, file.size() - kLockSuffix.size());
    const auto lock = try_lock(entry.path());
    if (!lock) continue;
    if (*lock) {  // nobody's: its process was killed
      unlink(socket_path(name).c_str());
      unlink(entry.path().c_str());
    } else {
      found.push_back(name);
    }
  }
  std::ranges::sort(found);
  return found;
}

// Its lock file says which process holds it.
Result<pid_t> RuntimeFolder::owner(const std::string& name) const {
  TRY(check_name(name));
  const Fd mine = turn();
  const std::string path = lock_path(name);
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd || flock(fd.get(), LOCK_SH | LOCK_NB) == 0) return fail(ErrorKind::NotFound, "there is no running machine '{}'", name);
  std::array<char, 32> text{};
  const ssize_t length = read(fd.get(), text.data(), text.size());
  pid_t pid = 0;
  if (length > 0) std::from_chars(text.data(), text.data() + length, pid);
  if (pid <= 1) return fail(ErrorKind::Internal, "{} does not say which process the machine is", path);
  return pid;
}

Result<NameClaim> NameClaim::take(const RuntimeFolder& folder, const std::string& name, bool or_similar) {
  TRY(check_name(name));
  const Fd mine = folder.turn();
  for (unsigned number = 1; number < 1000; ++number) {
    const std::string tried = number == 1 ? name : fmt::format("{}-{}", name, number);
    const std::string socket = folder.socket_path(tried);
    if (socket.size() >= sizeof(sockaddr_un::sun_path))
      return fail(ErrorKind::Usage, "the path of the machine's socket is too long: {}", socket);
    auto lock = TRY(try_lock(folder.lock_path(tried)));
    if (lock) {
      unlink(socket.c_str());
      const std::string pid = fmt::format("{}\n", getpid());
      if (ftruncate(lock->get(), 0) != 0 || write(lock->get(), pid.data(), pid.size()) != static_cast<ssize_t>(pid.size()))
        return os_fail(folder.lock_path(tried));
      return NameClaim(tried, socket, folder.lock_path(tried), std::move(*lock));
    }
    if (!or_similar)
      return fail(ErrorKind::Usage, "a machine named '{}' runs already ('lodge ps' lists them): choose another --name", name);
  }
  return fail(ErrorKind::Usage, "a thousand machines named '{}' run already: choose a --name", name);
}

NameClaim::~NameClaim() {
  if (!lock_) return;  // moved from
  unlink(socket_.c_str());
  unlink(lock_path_.c_str());
}

}  // namespace lodge::monitor
