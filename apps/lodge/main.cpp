// lodge: runs virtual machines on Linux.

#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "console/cleanup.hpp"
#include "control/check/check.hpp"
#include "control/image/image.hpp"
#include "control/remote/remote.hpp"
#include "control/run/options.hpp"
#include "control/run/run.hpp"

namespace {

constexpr int kBadUsage = 2;

const std::string kHelp =
    "Lodge runs virtual machines on Linux, with the kernel's KVM and without it.\n"
    "\n"
    "Usage:\n"
    "  lodge run [options] [DISK...]     start a virtual machine ('lodge help run' lists the options)\n"
    "  lodge image COMMAND ...           make, look at and change disk images ('lodge image --help')\n"
    "  lodge check [--json]              can this machine run VMs, how well, and what to do\n"
    "  lodge help [run]                  this help\n"
    "  lodge --version\n"
    "\n"
    "Machines that run:\n" +
    lodge::control::remote_help();

int show(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return 0;
}

int help(std::span<const std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "run") return show(lodge::control::run_help());
  return show(kHelp);
}

int check(std::span<const std::string> arguments) {
  lodge::control::CheckOptions options;
  for (const std::string& argument : arguments) {
    if (argument != "--json") {
      lodge::log::error("unknown option '{}': lodge check takes --json", argument);
      return kBadUsage;
    }
    options.json = true;
  }
  return lodge::control::run_check(options);
}

int dispatch(int argc, char** argv) {
  const std::vector<std::string> all(argv + 1, argv + argc);
  const std::string_view called = argv[0];
  if (called.substr(called.rfind('/') + 1) == "qemu-img") return lodge::control::run_image(all, true);
  if (all.empty()) {
    std::fputs(kHelp.c_str(), stderr);
    return kBadUsage;
  }
  const std::string& command = all[0];
  const std::span<const std::string> arguments = std::span(all).subspan(1);
  const auto asks_for_help = [&] { return !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h"); };
  if (command == "run") return asks_for_help() ? show(lodge::control::run_help()) : lodge::control::run_run(argc, argv, arguments);
  if (command == "image") return lodge::control::run_image(arguments, false);
  if (lodge::control::is_remote_command(command)) return lodge::control::run_remote(command, arguments);
  if (command == "check") return check(arguments);
  if (command == "help" || command == "--help" || command == "-h") return help(arguments);
  if (command == "--version" || command == "version") return show("lodge " LODGE_VERSION "\n");
  lodge::log::error("unknown command '{}': see 'lodge help'", command);
  return kBadUsage;
}

}  // namespace

int main(int argc, char** argv) {
  lodge::console::cleanup::install_handlers();
  return dispatch(argc, argv);
}
