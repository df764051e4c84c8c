#include "control/remote/console_command.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <span>
#include <string_view>

#include "base/log.hpp"
#include "console/cleanup.hpp"
#include "console/escape.hpp"
#include "console/stdio.hpp"
#include "console/writer.hpp"
#include "monitor/client.hpp"

namespace lodge::control {

namespace {

using console::EscapeFilter;

std::span<const uint8_t> bytes_of(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

class Session {
 public:
  Session(Fd machine, bool terminal) : machine_(std::move(machine)), terminal_(terminal) {}

  bool show(std::span<const uint8_t> bytes) { return out_.write_all(STDOUT_FILENO, bytes); }
  // True: the machine has ended; false: the person has left.
  bool run() {
    std::array<uint8_t, 4096> buffer;
    for (;;) {
      std::array<pollfd, 2> entries{{{machine_.get(), POLLIN, 0}, {typing_ ? STDIN_FILENO : -1, POLLIN, 0}}};
      if (poll(entries.data(), entries.size(), -1) < 0) continue;  // a signal that is nobody's end
      if (entries[0].revents != 0) {
        const ssize_t got = read(machine_.get(), buffer.data(), buffer.size());
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return true;
        if (got > 0 && !show({buffer.data(), static_cast<size_t>(got)})) return false;
      }
      if (entries[1].revents != 0) {
        const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
        if (got <= 0) typing_ = false;  // what is printed is still of interest
        if (got > 0 && !type({buffer.data(), static_cast<size_t>(got)})) return false;
      }
    }
  }

 private:
  // False: the person leaves.
  bool type(std::span<const uint8_t> typed) {
    if (!terminal_) return in_.write_all(machine_.get(), typed);
    const EscapeFilter::Outcome outcome = keys_.feed(typed);
    if (outcome.command == EscapeFilter::Command::Help) show(bytes_of(EscapeFilter::help("leave the console; the machine goes on")));
    return in_.write_all(machine_.get(), outcome.input) && outcome.command != EscapeFilter::Command::Quit;
  }

  const Fd machine_;
  const bool terminal_;
  bool typing_ = true;
  EscapeFilter keys_;
  console::Writer in_, out_;
};

}  // namespace

Result<> share_console(const std::string& name) {
  auto client = TRY(monitor::Client::connect(name));
  auto [fd, begun] = TRY(client.take_console());
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) {
    log::write(log::Level::Info, fmt::format("the console of {}: Ctrl-A x leaves it, Ctrl-A h helps", name));
    TRY(console::make_terminal_raw());
  }
  Session session(std::move(fd), terminal);
  const bool ended = !session.show(bytes_of(begun)) || session.run();
  console::cleanup::undo_all();
  if (terminal) log::write(log::Level::Info, fmt::format("{} {}", name, ended ? "has ended" : "goes on"));
  return {};
}

}  // namespace lodge::control
