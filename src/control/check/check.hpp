// `lodge check`: can this machine run VMs, how well, and what should be done?
#pragma once

namespace lodge::control {

struct CheckOptions {
  bool json = false;  // for programs; else plain words for a person
};

// Prints its findings on standard output. Returns the exit code: 0 if some engine works, 1 otherwise.
[[nodiscard]] int run_check(const CheckOptions& options);

}  // namespace lodge::control
