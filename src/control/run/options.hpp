// The options of `lodge run`: one table that feeds the parser, the help and docs/running.md.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "machine/config.hpp"

namespace lodge::control {

struct Option {
  std::string_view name;        // "--kernel"
  std::string_view short_name;  // "-m", or empty
  std::string_view argument;    // "FILE", or empty for a switch
  std::string_view help;
  bool hidden;  // for developers; works, but the help does not show it
  Result<> (*apply)(machine::Config& config, std::string_view value);
};

[[nodiscard]] std::span<const Option> run_options();

// `arguments` are those behind `lodge run`. ErrorKind::Usage names the argument that is wrong.
[[nodiscard]] Result<machine::Config> parse_run_options(std::span<const std::string> arguments);

// A size: a number of MiB, or one with the suffix K, M, G or T (powers of 1024). Bytes.
[[nodiscard]] Result<uint64_t> parse_size(std::string_view text);

[[nodiscard]] std::string run_help();

}  // namespace lodge::control
