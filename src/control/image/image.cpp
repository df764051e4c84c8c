#include "control/image/image.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "base/log.hpp"
#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"
#include "control/image/target.hpp"

namespace lodge::control {

namespace {

using image::Chosen;

constexpr int kDone = 0, kUsage = 2, kQemuImgError = 1;

// A size that is taken off or added looks like an option to the parser.
std::vector<std::string> take_last_argument(std::span<const std::string> arguments, Chosen& chosen) {
  std::vector<std::string> left(arguments.begin(), arguments.end());
  if (left.size() < 2 || left[0] != "resize") return left;
  const std::string& last = left.back();
  if (last.size() > 1 && (last[0] == '-' || last[0] == '+') && last[1] >= '0' && last[1] <= '9') {
    chosen.last_argument = last;
    left.pop_back();
  }
  return left;
}

// '-o help', which wants no file: the options of the format that -f (create) or -O (convert) names.
std::optional<block::Format> asks_for_options(std::span<const std::string> arguments) {
  bool asked = false;
  block::Format format = block::Format::Raw;
  const std::string_view names_format = !arguments.empty() && arguments[0] == "convert" ? "-O" : "-f";
  for (size_t n = 1; n + 1 < arguments.size(); ++n) {
    if (arguments[n] == "-o" && (arguments[n + 1] == "help" || arguments[n + 1] == "?")) asked = true;
    if (arguments[n] == names_format) format = block::parse_format(arguments[n + 1]).value_or(format);
  }
  return asked ? std::optional(format) : std::nullopt;
}

}  // namespace

int run_image(std::span<const std::string> arguments, bool as_qemu_img) {
  const std::string program = as_qemu_img ? "qemu-img" : "lodge image";
  if (const auto format = asks_for_options(arguments)) {
    image::say(image::target_help(*format));
    return kDone;
  }
  Chosen chosen;
  chosen.as_qemu_img = as_qemu_img;
  chosen.error_code = as_qemu_img ? kQemuImgError : kUsage;
  CLI::App app("Makes, looks at and changes disk images.", program);
  app.require_subcommand(1);
  if (as_qemu_img) app.set_version_flag("-V,--version", "qemu-img (lodge " LODGE_VERSION ")");
  for (const auto add : {image::add_create, image::add_info, image::add_check, image::add_convert, image::add_resize, image::add_rebase,
                         image::add_commit, image::add_snapshot, image::add_map, image::add_compare, image::add_bench})
    add(app, chosen);
  const auto known = app.get_subcommands([](CLI::App*) { return true; });
  if (!arguments.empty() && !arguments[0].starts_with('-') &&
      std::ranges::none_of(known, [&](const CLI::App* one) { return one->get_name() == arguments[0]; })) {
    log::error("{}: there is no command '{}'; see '{} --help'", program, arguments[0], program);
    return chosen.error_code;
  }
  std::vector<std::string> left = take_last_argument(arguments, chosen);
  std::ranges::reverse(left);
  try {
    app.parse(std::move(left));
  } catch (const CLI::Success& asked) {  // --help, --version
    app.exit(asked);
    return kDone;
  } catch (const CLI::ParseError& wrong) {
    std::string where = program;
    for (const CLI::App* command : app.get_subcommands()) where += " " + command->get_name();
    log::error("{}: {}; see '{} --help'", where, wrong.what(), where);
    return chosen.error_code;
  }
  auto context = block::IoContext::create();
  if (!context) {
    log::error("{}", context.error().message);
    return chosen.error_code;
  }
  image::watch_for_interrupts();
  const auto code = (*context)->run(chosen.run(**context));
  if (std::fflush(stdout) != 0 && code) {
    log::error("cannot write the output");
    return chosen.error_code;
  }
  if (code) return *code;
  if (const int signal = image::interrupt_signal(); signal && code.error().kind == ErrorKind::Interrupted) return 128 + signal;
  log::error("{}", code.error().message);
  return chosen.error_code;
}

}  // namespace lodge::control
