// The commands for machines that run: lodge ps, stop, kill, reset, pause, resume, screenshot, key, type.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lodge::control {

// The command is one of them.
[[nodiscard]] bool is_remote_command(std::string_view command);
// The process's exit code.
[[nodiscard]] int run_remote(const std::string& command, std::span<const std::string> arguments);
[[nodiscard]] std::string remote_help();  // a line a command, for lodge's own help

}  // namespace lodge::control
