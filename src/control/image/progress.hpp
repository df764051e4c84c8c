// How far a command is: a bar on a terminal, or qemu-img's -p.
#pragma once

#include <chrono>
#include <cstdint>

namespace lodge::control::image {

class Progress {
 public:
  enum class Kind {
    Off,
    Bar,      // one line of the standard error, with the rate and the time that is left
    Percent,  // "    (12.34/100%)" on the standard output
  };
  // `asked`: -p was given. Without it a bar, where the standard error is a terminal.
  Progress(bool asked, bool quiet, bool as_qemu_img);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` bytes (or whatever is counted: then without a rate). Written a few times a second.
  void show(uint64_t done, uint64_t total, bool bytes = true);

 private:
  using Clock = std::chrono::steady_clock;
  void draw(uint64_t done, uint64_t total, bool bytes);
  Kind kind_ = Kind::Off;
  bool drawn_ = false;
  Clock::time_point begun_ = Clock::now(), last_{};
  uint64_t done_ = 0, total_ = 0;
  bool bytes_ = true;
};

}  // namespace lodge::control::image
