#include "base/log.hpp"

#include <unistd.h>

#include <atomic>
#include <string>

namespace lodge::log {

namespace {
std::atomic<Level> lowest_level{Level::Warning};

std::string_view prefix(Level level) {
  switch (level) {
    case Level::Debug: return "lodge: debug: ";
    case Level::Info: return "lodge: ";
    case Level::Warning: return "lodge: warning: ";
    case Level::Error: return "lodge: error: ";
  }
  return "lodge: ";
}
}  // namespace

void set_level(Level lowest) { lowest_level.store(lowest, std::memory_order_relaxed); }

bool enabled(Level level) { return level >= lowest_level.load(std::memory_order_relaxed); }

void write(Level level, std::string_view line) {
  std::string text;
  text.reserve(line.size() + 24);
  text.append(prefix(level)).append(line).append("\n");
  // One write per line keeps the lines of several threads apart. There is nowhere to report a failure to.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace lodge::log
