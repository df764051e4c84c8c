// Where running machines of a user are found: a folder of the user's own with a socket (NAME.sock) and a lock (NAME.lock) a machine.
//
// A machine's process holds its lock for as long as it lives, so that a name is in use exactly then, however the process ended; what a
// killed one left behind is cleared away by whoever comes next.
//
// Threads: any.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace lodge::monitor {

// Letters, digits, '.', '_' and '-', at most 64, none of "." in front. ErrorKind::Usage if not.
[[nodiscard]] Result<> check_name(std::string_view name);
// The nearest name that check_name() takes.
[[nodiscard]] std::string make_name(std::string_view wish);

class RuntimeFolder {
 public:
  // $XDG_RUNTIME_DIR/lodge, or /run/user/UID/lodge, or /tmp/lodge-UID: made if it is not there, refused if it is not this user's alone.
  static Result<RuntimeFolder> open();
  // For tests: that folder, which must be there.
  static RuntimeFolder at(std::string path) { return RuntimeFolder(std::move(path)); }

  [[nodiscard]] std::string socket_path(std::string_view name) const;
  [[nodiscard]] std::vector<std::string> names() const;  // of machines that live, sorted
  // The process of the machine. ErrorKind::NotFound: there is none of that name.
  [[nodiscard]] Result<pid_t> owner(const std::string& name) const;

 private:
  friend class NameClaim;
  explicit RuntimeFolder(std::string path) : path_(std::move(path)) {}
  [[nodiscard]] std::string lock_path(std::string_view name) const;
  // Held while locks are tried, so that one who only looks is not taken for an owner.
  [[nodiscard]] Fd turn() const;
  std::string path_;
};

// A name, as long as this object lives.
class NameClaim {
 public:
  // ErrorKind::Usage: another machine has it. With `or_similar`, NAME-2 and on are tried then.
  static Result<NameClaim> take(const RuntimeFolder& folder, const std::string& name, bool or_similar);
  NameClaim(NameClaim&&) noexcept = default;
  NameClaim& operator=(NameClaim&&) = delete;
  ~NameClaim();

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& socket_path() const { return socket_; }

 private:
  NameClaim(std::string name, std::string socket, std::string lock_path, Fd lock)
      : name_(std::move(name)), socket_(std::move(socket)), lock_path_(std::move(lock_path)), lock_(std::move(lock)) {}
  std::string name_, socket_, lock_path_;
  Fd lock_;
};

}  // namespace lodge::monitor
