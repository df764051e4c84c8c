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

std::vector<monitor::Tray> Steering::trays() const {
  std::vector<monitor::Tray> all;
  if (!peripherals_) return all;
  for (const auto& drive : peripherals_->drives()) {
    if (!drive->config().optical) continue;
    monitor::Tray tray{.name = optical_name(static_cast<unsigned>(all.size())), .file = drive->config().file};
    if (auto* const inside = machine_ ? machine_->optical(*drive) : nullptr) {
      const auto state = inside->tray();
      tray.open = state.open;
      tray.locked = state.locked;
    }
    all.push_back(std::move(tray));
  }
  return all;
}

Result<Drive*> Steering::optical(const std::string& name) const {
  unsigned number = 0;
  if (peripherals_)
    for (const auto& drive : peripherals_->drives())
      if (drive->config().optical && optical_name(number++) == name) return drive.get();
  if (number == 0) return fail(ErrorKind::NotFound, "the machine has no CD drive: --cdrom none gives it an empty one");
  return fail(ErrorKind::NotFound, "the machine has no drive '{}': {} is the last", name, optical_name(number - 1));
}

Result<> Steering::eject(const std::string& name, bool force) {
  Drive* const drive = TRY(optical(name));
  if (auto* const inside = machine_ ? machine_->optical(*drive) : nullptr) {
    if (inside->tray().locked && !force) {
      inside->press_button();
      return fail(ErrorKind::Usage, "the guest has locked the drive {}; it has been asked to let go of the medium: try again, or force it",
                  name);
    }
    machine_->put_medium(*drive, nullptr);
  }
  drive->take_out();
  return {};
}

Result<> Steering::insert(const std::string& name, const std::string& file, bool force) {
  Drive* const drive = TRY(optical(name));
  TRY(eject(name, force));
  TRY(drive->insert(file));
  if (machine_) machine_->put_medium(*drive, drive->medium());
  return {};
}

void Steering::reset() {
  if (machine_) machine_->end(Outcome::Restart);
}

void Steering::quit() {
  quit_ = true;
  if (machine_) machine_->end(Outcome::Quit);
}

}  // namespace lodge::machine
