#include "base/error.hpp"

#include <cstring>

namespace lodge {

namespace {

ErrorKind kind_of(int error) {
  switch (error) {
    case ENOENT:
    case ENODEV:
    case ENXIO: return ErrorKind::NotFound;
    case EACCES:
    case EPERM: return ErrorKind::Permission;
    case ENOMEM:
    case ENOSPC:
    case EMFILE:
    case ENFILE:
    case EDQUOT: return ErrorKind::Resource;
    case EINTR: return ErrorKind::Interrupted;
    case ENOSYS:
    case ENOTTY:
    case EOPNOTSUPP: return ErrorKind::Unsupported;
    default: return ErrorKind::Internal;
  }
}

}  // namespace

Error os_error(std::string what, int error) {
  char buffer[128];
  return Error{kind_of(error), fmt::format("{}: {}", what, strerror_r(error, buffer, sizeof buffer)), error};
}

std::unexpected<Error> os_fail(std::string what, int error) { return std::unexpected(os_error(std::move(what), error)); }

}  // namespace lodge
