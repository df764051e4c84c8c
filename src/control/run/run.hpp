// `lodge run`: boots a kernel.
#pragma once

#include <span>
#include <string>

namespace lodge::control {

// `argc` and `argv` are main()'s, for the name that ps shows; `arguments` are those behind `run`. The exit code
// (machine::ExitCode); messages go to standard error.
[[nodiscard]] int run_run(int argc, char** argv, std::span<const std::string> arguments);

}  // namespace lodge::control
