// The host's side of the machine's devices: open files, networks and their threads. They live as long as the process, over all resets;
// each machine makes its devices on them.
//
// Threads: the main thread.
#pragma once

#include <memory>
#include <vector>

#include "machine/config.hpp"
#include "machine/drive.hpp"
#include "machine/nic.hpp"

namespace lodge::machine {

class Peripherals {
 public:
  // Errors name the file or the network.
  static Result<std::unique_ptr<Peripherals>> open(const Config& config);

  [[nodiscard]] const std::vector<std::unique_ptr<Drive>>& drives() const { return drives_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Nic>>& nics() const { return nics_; }

 private:
  std::vector<std::unique_ptr<Drive>> drives_;
  std::vector<std::unique_ptr<Nic>> nics_;
};

}  // namespace lodge::machine
