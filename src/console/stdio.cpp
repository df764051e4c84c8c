#include "console/stdio.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "console/cleanup.hpp"
#include "console/escape.hpp"
#include "console/writer.hpp"

namespace lodge::console {

namespace {

class Stdio final : public Backend {
 public:
  Stdio(EventLoop& loop, std::function<void()> quit, bool terminal) : loop_(loop), quit_(std::move(quit)), terminal_(terminal) {
    source_ = loop_.add_source(STDIN_FILENO, [this] { return interest(); }, [this](short) { read_input(); });
  }
  ~Stdio() override {
    loop_.remove(source_);
    if (terminal_) cleanup::undo_all();
  }

  void write(std::span<const uint8_t> bytes) override { writer_.write_all(STDOUT_FILENO, bytes); }
  void set_sink(InputSink sink) override { sink_ = std::move(sink); }
  void shut_down() override { writer_.closing(); }
  [[nodiscard]] std::optional<Size> size() const override {
    winsize window{};
    if (!terminal_ || ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0) return std::nullopt;
    return Size{window.ws_col, window.ws_row};
  }

 private:
  // A terminal is always listened to: Ctrl-A x must work while the guest takes nothing.
  [[nodiscard]] short interest() const {
    if (ended_) return 0;
    const bool room = sink_.space && sink_.space() > 0;
    return room || terminal_ ? POLLIN : 0;
  }

  void read_input() {
    std::array<uint8_t, 4096> buffer;
    size_t room = sink_.space ? sink_.space() : 0;
    if (terminal_) room = buffer.size();
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), std::min(room, buffer.size()));
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) ended_ = true;  // the guest lives on
    if (got <= 0) return;
    const std::span<const uint8_t> typed(buffer.data(), static_cast<size_t>(got));
    if (!terminal_) {
      sink_.receive(typed);
      return;
    }
    take_keys(typed);
  }

  void take_keys(std::span<const uint8_t> typed) {
    const EscapeFilter::Outcome outcome = escape_.feed(typed);
    // What a guest does not take from a keyboard is lost, as it is on a real line.
    const size_t taken = std::min(outcome.input.size(), sink_.space ? sink_.space() : 0);
    if (taken > 0) sink_.receive(std::span(outcome.input).first(taken));
    if (outcome.command == EscapeFilter::Command::Help) {
      const std::string text = EscapeFilter::help("quit");
      write({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    }
    if (outcome.command == EscapeFilter::Command::Quit) quit_();
  }

  EventLoop& loop_;
  std::function<void()> quit_;
  bool terminal_;
  bool ended_ = false;
  EscapeFilter escape_;
  InputSink sink_;
  Writer writer_;
  EventLoop::Handle source_ = 0;
};

}  // namespace

Result<> make_terminal_raw() {
  termios modes{};
  if (tcgetattr(STDIN_FILENO, &modes) != 0) return os_fail("reading the terminal's modes");
  TRY(cleanup::keep_terminal(STDIN_FILENO, modes));
  cfmakeraw(&modes);
  modes.c_oflag |= OPOST;  // Lodge's own messages still get their carriage returns
  // A process in the background would be stopped by SIGTTOU here, which is what the shell's user expects.
  if (tcsetattr(STDIN_FILENO, TCSANOW, &modes) != 0) return os_fail("setting the terminal's modes");
  return {};
}

Result<std::unique_ptr<Backend>> open_stdio(EventLoop& loop, std::function<void()> quit) {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) TRY(make_terminal_raw());
  return std::make_unique<Stdio>(loop, std::move(quit), terminal);
}

}  // namespace lodge::console
