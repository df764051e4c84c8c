// The commands of the control socket: QEMU's QMP as far as there is something to command, with its names, arguments and errors
// (QEMU's QMP Reference Manual), so that its clients work.
//
// Threads: main thread.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/event_loop.hpp"
#include "monitor/target.hpp"

namespace lodge::monitor {

// An error as QMP has it.
struct CommandError {
  std::string kind = "GenericError", description;
};

class Commands {
 public:
  static constexpr const char* kConsole = "x-lodge-console";

  Commands(Target& target, EventLoop& loop) : target_(target), loop_(loop) {}
  ~Commands();
  Commands(const Commands&) = delete;
  Commands& operator=(const Commands&) = delete;

  [[nodiscard]] std::expected<nlohmann::json, CommandError> execute(std::string_view command, const nlohmann::json& arguments);
  [[nodiscard]] static nlohmann::json version();

  // Where clients have put the pointer, 0 to 32767 each, and which buttons they hold.
  struct Pointer {
    unsigned x = 0, y = 0;
    uint8_t buttons = 0;
  };
  [[nodiscard]] Pointer& pointer() { return pointer_; }

  // Keys that are to go up later, and when.
  void hold(std::vector<display::Key> keys, uint64_t ns);

 private:
  struct Held {
    std::vector<display::Key> keys;
    uint64_t until_ns;
  };
  void release_due();

  Target& target_;
  EventLoop& loop_;
  Pointer pointer_;
  EventLoop::Handle deadline_ = 0;
  std::vector<Held> held_;
};

}  // namespace lodge::monitor
