// Ctrl-C and its kin while a command works: it ends at a good place, and what it was making goes.
#pragma once

#include "base/error.hpp"

namespace lodge::control::image {

// SIGINT, SIGTERM and SIGHUP are taken note of from here on. A second one ends the process at once.
void watch_for_interrupts();
// ErrorKind::Interrupted once one has come.
[[nodiscard]] Result<> interrupted();
// The signal, for the exit code 128 + n; 0: none.
[[nodiscard]] int interrupt_signal();

}  // namespace lodge::control::image
