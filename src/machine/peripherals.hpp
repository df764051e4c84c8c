// The host's side of the machine's devices: open files, networks and their threads. They live as long as the process, over all resets;
// each machine makes its devices on them.
//
// Threads: the main thread.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "devices/worker/loop_thread.hpp"
#include "machine/config.hpp"
#include "machine/console_line.hpp"
#include "machine/drive.hpp"
#include "machine/nic.hpp"

namespace lodge::machine {

class Peripherals {
 public:
  // `quit`, on any thread: the person at a console asks for the end. Errors name the file, the network or the option.
  static Result<std::unique_ptr<Peripherals>> open(const Config& config, const std::function<void()>& quit);

  [[nodiscard]] const std::vector<std::unique_ptr<Drive>>& drives() const { return drives_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Nic>>& nics() const { return nics_; }
  [[nodiscard]] ConsoleLine* console() const { return console_.get(); }  // null: none
  // For devices without a host's side that waits.
  [[nodiscard]] devices::LoopThread& services() const { return *services_; }

 private:
  std::vector<std::unique_ptr<Drive>> drives_;
  std::vector<std::unique_ptr<Nic>> nics_;
  std::unique_ptr<ConsoleLine> console_;
  std::unique_ptr<devices::LoopThread> services_;
};

}  // namespace lodge::machine
