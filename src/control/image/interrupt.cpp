#include "control/image/interrupt.hpp"

#include <unistd.h>

#include <csignal>

#include "console/cleanup.hpp"

namespace lodge::control::image {

namespace {

volatile std::sig_atomic_t caught = 0;

void note(int signal) {
  if (caught) {
    console::cleanup::undo_all();
    _exit(128 + signal);
  }
  caught = signal;
}

}  // namespace

void watch_for_interrupts() {
  struct sigaction action{};
  action.sa_handler = note;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
}

int interrupt_signal() { return caught; }

Result<> interrupted() {
  if (!caught) return {};
  return fail(ErrorKind::Interrupted, "interrupted");
}

}  // namespace lodge::control::image
