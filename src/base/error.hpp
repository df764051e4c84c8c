// Errors and results of the host side.
//
// Host mistakes (a missing file, a refused ioctl) travel as Result<T>: a value or an Error with a short
// kind that callers branch on and a message for the person in front of the terminal. Guest mistakes are
// not errors: they become faults, status bits or ignored writes in the devices and the engine.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <expected>
#include <string>
#include <utility>

namespace lodge {

enum class ErrorKind {
  Usage,        // bad option or bad input file: exit code 2
  NotFound,     // a file or device does not exist
  Permission,   // it exists, but this user may not
  Unsupported,  // the host or the engine cannot do this
  Resource,     // memory, descriptors, disk space
  Interrupted,  // a kick or a signal came first; nothing is lost
  Internal,     // Lodge's own mistake or an unexpected host failure
};

struct Error {
  ErrorKind kind = ErrorKind::Internal;
  std::string message;
  int os_errno = 0;  // 0 when no system call failed
};

template <typename T = void>
using Result = std::expected<T, Error>;

template <typename... Args>
[[nodiscard]] std::unexpected<Error> fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{kind, fmt::format(format, std::forward<Args>(args)...), 0});
}

// A failed system call: "<what>: <strerror(error)>", kind chosen after the errno.
[[nodiscard]] Error os_error(std::string what, int error = errno);
[[nodiscard]] std::unexpected<Error> os_fail(std::string what, int error = errno);

// TRY(x): the value of the Result x, or return its error from the enclosing function.
#define LODGE_CONCAT_(a, b) a##b
#define LODGE_CONCAT(a, b) LODGE_CONCAT_(a, b)
// `auto v = TRY(expr);` with GNU statement expressions (g++ and clang both have them).
#define TRY(expression)                                                           \
  __extension__({                                                                 \
    auto lodge_result_ = (expression);                                            \
    if (!lodge_result_) return std::unexpected(std::move(lodge_result_).error()); \
    std::move(lodge_result_).value();                                             \
  })

}  // namespace lodge
