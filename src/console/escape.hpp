// The escape key of a raw terminal: Ctrl-A, then x (quit), h (help) or Ctrl-A (the key itself).
#pragma once

#include <cstdint>
#include <span>
#include <string>
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

  // What the keys do; `quit`: what Ctrl-A x is here.
  [[nodiscard]] static std::string help(std::string_view quit);

 private:
  bool escaped_ = false;
};

}  // namespace lodge::console
