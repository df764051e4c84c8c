#include "machine/steering.hpp"

#include <algorithm>
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

std::vector<std::pair<std::string, Drive*>> Steering::removables() const {
  std::vector<std::pair<std::string, Drive*>> all;
  if (!peripherals_) return all;
  unsigned optical = 0, floppies = 0;
  for (const auto& drive : peripherals_->drives()) {
    const Media media = drive->config().media;
    if (media != Media::Disk) all.emplace_back(removable_name(media, media == Media::Floppy ? floppies++ : optical++), drive.get());
  }
  return all;
}

std::vector<monitor::Tray> Steering::trays() const {
  std::vector<monitor::Tray> all;
  for (const auto& [name, drive] : removables()) {
    monitor::Tray tray{.name = name, .file = drive->config().file, .read_only = drive->config().disk.read_only};
    if (auto* const inside = machine_ ? machine_->optical(*drive) : nullptr) {
      const auto state = inside->tray();
      tray.open = state.open;
      tray.locked = state.locked;
    }
    all.push_back(std::move(tray));
  }
  return all;
}

Result<Drive*> Steering::removable(const std::string& name) const {
  const auto all = removables();
  const auto found = std::ranges::find(all, name, &std::pair<std::string, Drive*>::first);
  if (found != all.end()) return found->second;
  if (all.empty())
    return fail(ErrorKind::NotFound,
                "the machine has no drive for CDs or floppy disks: --cdrom none or --floppy none gives it an empty one");
  std::string names;
  for (const auto& [known, drive] : all) names += (names.empty() ? "" : ", ") + known;
  return fail(ErrorKind::NotFound, "the machine has no drive '{}': there is {}", name, names);
}

Result<Drive*> Steering::unload(const std::string& name, bool force) {
  Drive* const drive = TRY(removable(name));
  if (!machine_) return drive;
  if (auto* const inside = machine_->optical(*drive); inside && inside->tray().locked && !force) {
    inside->press_button();
    return fail(ErrorKind::Usage, "the guest has locked the drive {}; it has been asked to let go of the medium: try again, or force it",
                name);
  }
  machine_->put_medium(*drive, nullptr);
  return drive;
}

Result<> Steering::eject(const std::string& name, bool force) {
  TRY(unload(name, force))->take_out();
  return {};
}

Result<> Steering::insert(const std::string& name, const std::string& file, bool force) {
  Drive* const drive = TRY(unload(name, force));
  Result<> inserted = drive->insert(file);
  if (machine_) machine_->put_medium(*drive, drive->medium());
  return inserted;
}

Result<> Steering::attach_console(Fd peer) {
  if (!console_) return fail(ErrorKind::Resource, "the machine has no serial console yet");
  return console_->attach(std::move(peer));
}

void Steering::reset() {
  if (machine_) machine_->end(Outcome::Restart);
}

void Steering::quit() {
  quit_ = true;
  if (machine_) machine_->end(Outcome::Quit);
}

}  // namespace lodge::machine
