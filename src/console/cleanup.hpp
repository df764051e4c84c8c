// What must be undone however the process ends: the terminal's modes and the files it made.
//
// Undone by undo_all(), at exit, and in the handlers of fatal signals, which then end the process by the same
// signal. An engine that handles SIGSEGV and its kin itself must hand on what is not its own to the handler that
// it found installed. A guard process does it when the process is killed by SIGKILL: nothing is left behind.
#pragma once

#include <termios.h>

#include <string>

#include "base/error.hpp"

namespace lodge::console::cleanup {

// Call once, early in main(), before there are threads and before an engine is opened.
void install_handlers();

// At most one terminal, standard input, and a few files. One thread at a time.
[[nodiscard]] Result<> keep_terminal(int fd, const termios& modes);
// A file that is there by now is removed only as long as it is that one, and not another of the name.
[[nodiscard]] Result<> remove_at_end(const std::string& path);

// Such a file goes now, and is no duty any more.
void remove_now(const std::string& path);

// In a child process that lives on without exec(): the parent's duties are not its own.
void forget_after_fork();

// Async-signal-safe.
void undo_all();

}  // namespace lodge::console::cleanup
