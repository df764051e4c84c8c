// The escape key of a raw terminal: Ctrl-A, then x (quit), h (help) or Ctrl-A (the key itself).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace lodge::console {

class EscapeFilter {
 public:
  enum class Command { None, Quit, Help };
  struct Outcome {
    std::vector<uint8_t> input;       // what the guest gets
    Command command = Command::None;  // the last one of these bytes
  };
  [[nodiscard]] Outcome feed(std::span<const uint8_t> typed);

  static constexpr std::string_view kHelp = "\r\nCtrl-A x       quit\r\nCtrl-A h       this help\r\nCtrl-A Ctrl-A  type Ctrl-A\r\n";

 private:
  bool escaped_ = false;
};

}  // namespace lodge::console
