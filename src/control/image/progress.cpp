#include "control/image/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/size.hpp"

namespace lodge::control::image {

namespace {
constexpr auto kInterval = std::chrono::milliseconds(200);
constexpr unsigned kWidth = 30;
}  // namespace

Progress::Progress(bool asked, bool quiet, bool as_qemu_img) {
  if (quiet) return;
  if (asked)
    kind_ = Kind::Percent;
  else if (!as_qemu_img && isatty(STDERR_FILENO))
    kind_ = Kind::Bar;
}

Progress::~Progress() {
  if (!drawn_) return;
  if (kind_ == Kind::Percent) {
    draw(done_, total_, bytes_);
    std::fputc('\n', stdout);
  } else {
    std::fputs("\r\x1b[K", stderr);
  }
}

void Progress::show(uint64_t done, uint64_t total, bool bytes) {
  done_ = done;
  total_ = total;
  bytes_ = bytes;
  if (kind_ == Kind::Off) return;
  const auto now = Clock::now();
  if (drawn_ && now - last_ < kInterval) return;
  if (!drawn_ && kind_ == Kind::Bar && now - begun_ < kInterval) return;  // what is done at once needs no bar
  last_ = now;
  drawn_ = true;
  draw(done, total, bytes);
}

void Progress::draw(uint64_t done, uint64_t total, bool bytes) {
  const double part = total ? static_cast<double>(done) / static_cast<double>(total) : 1;
  if (kind_ == Kind::Percent) {
    fmt::print("    ({:.2f}/100%)\r", part * 100);
    std::fflush(stdout);
    return;
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begun_).count();
  const auto full = static_cast<unsigned>(part * kWidth);
  std::string text = fmt::format("\r[{:#<{}}{:<{}}] {:5.1f} %", "", full, "", kWidth - full, part * 100);
  if (bytes && seconds > 0) text += fmt::format("  {}/s", format_bytes(static_cast<uint64_t>(static_cast<double>(done) / seconds)));
  if (part > 0.01) {
    const auto left = static_cast<uint64_t>(seconds / part - seconds + 0.5);
    text += fmt::format("  {}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60);
  }
  text += "\x1b[K";
  std::fputs(text.c_str(), stderr);
}

}  // namespace lodge::control::image
