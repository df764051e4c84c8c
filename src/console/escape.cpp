#include "console/escape.hpp"

#include <fmt/format.h>

namespace lodge::console {

namespace {
constexpr uint8_t kEscape = 'A' & 0x1f;
}

EscapeFilter::Outcome EscapeFilter::feed(std::span<const uint8_t> typed) {
  Outcome outcome;
  for (const uint8_t key : typed) {
    if (!escaped_) {
      if (key == kEscape)
        escaped_ = true;
      else
        outcome.input.push_back(key);
      continue;
    }
    escaped_ = false;
    switch (key) {
      case 'x':
      case 'X': outcome.command = Command::Quit; break;
      case 'h':
      case 'H':
      case '?': outcome.command = Command::Help; break;
      case kEscape: outcome.input.push_back(kEscape); break;
      default: break;  // an unknown key after Ctrl-A is dropped
    }
  }
  return outcome;
}

std::string EscapeFilter::help(std::string_view quit) {
  return fmt::format("\r\nCtrl-A x       {}\r\nCtrl-A h       this help\r\nCtrl-A Ctrl-A  type Ctrl-A\r\n", quit);
}

}  // namespace lodge::console
