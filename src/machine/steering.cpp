#include "machine/steering.hpp"

#include <utility>

namespace lodge::machine {

void Steering::set_machine(Machine* machine) {
  machine_ = machine;
  if (machine_ && paused_) machine_->pause();
}

void Steering::pause() {
  if (std::exchange(paused_, true)) return;
  if (machine_) machine_->pause();
  announce("STOP");
}

void Steering::resume() {
  if (!std::exchange(paused_, false)) return;
  if (machine_) machine_->resume();
  announce("RESUME");
}

void Steering::press_power_button() {
  if (machine_) machine_->press_power_button();
  announce("POWERDOWN");
}

void Steering::reset() {
  if (machine_) machine_->end(Outcome::Restart);
}

void Steering::quit() {
  quit_ = true;
  if (machine_) machine_->end(Outcome::Quit);
}

}  // namespace lodge::machine
