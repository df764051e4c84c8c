// Where running machines of a user are found: a folder of the user's own with a socket a machine, NAME.sock.
//
// A name is in use as long as somebody listens on its socket, which ends with the process, however it ended; what a killed one left behind
// is cleared away by whoever comes next.
//
// Threads: any.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

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

// A UNIX socket's. ErrorKind::Usage: the path is too long for one.
[[nodiscard]] Result<sockaddr_un> address_of(const std::string& path);

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
  // Held while names are taken and leftovers cleared away.
  [[nodiscard]] Fd turn() const;
  std::string path_;
};

// A name, as long as this object lives, with the socket that listens under it.
class NameClaim {
 public:
  // ErrorKind::Usage: another machine has it. With `or_similar`, NAME-2 and on are tried then.
  static Result<NameClaim> take(const RuntimeFolder& folder, const std::string& name, bool or_similar);
  NameClaim(NameClaim&&) noexcept = default;
  NameClaim& operator=(NameClaim&&) = delete;
  ~NameClaim();

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int listener() const { return listener_.get(); }  // does not block

 private:
  NameClaim(std::string name, std::string path, Fd listener)
      : name_(std::move(name)), path_(std::move(path)), listener_(std::move(listener)) {}
  std::string name_, path_;
  Fd listener_;
};

}  // namespace lodge::monitor
