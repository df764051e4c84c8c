#include "display/seat.hpp"

#include <utility>

namespace lodge::display {

namespace {

constexpr size_t kMostAreas = 256;  // beyond them, all

void copy_area(const Picture& from, Picture& to, const Rectangle& area) {
  for (unsigned y = area.y; y < area.y + area.height; ++y)
    std::ranges::copy(from.row(y).subspan(area.x, area.width), to.row(y).subspan(area.x, area.width).begin());
}

}  // namespace

void Seat::connect(const Machine& machine) {
  MutexLock lock(mutex_);
  machine_ = machine;
  whole_ = true;
}

void Seat::refresh(uint64_t time_ns) {
  if (!machine_.screen) return;
  const unsigned width = picture_.width, height = picture_.height;
  machine_.screen->refresh(picture_, unseen_, time_ns, std::exchange(whole_, false));
  const bool resized = !picture_.has_size(width, height);
  if (!resized && unseen_.areas().size() <= kMostAreas) return;
  unseen_.clear();
  unseen_.add({0, 0, picture_.width, picture_.height});
}

void Seat::follow(Picture& copy, Damage& damage) {
  MutexLock lock(mutex_);
  refresh(clock_.monotonic_ns());
  if (!copy.has_size(picture_.width, picture_.height)) {
    copy = picture_;
    damage.clear();
    damage.add({0, 0, copy.width, copy.height});
  } else {
    for (const Rectangle& area : unseen_.areas()) {
      copy_area(picture_, copy, area);
      damage.add(area);
    }
  }
  unseen_.clear();
}

Picture Seat::picture() {
  MutexLock lock(mutex_);
  refresh(0);
  return picture_;
}

bool Seat::has_screen() {
  MutexLock lock(mutex_);
  return machine_.screen != nullptr;
}

void Seat::key(Key key, bool down) {
  MutexLock lock(mutex_);
  if (machine_.keyboard) machine_.keyboard->key(key, down);
}

void Seat::point(const Motion& motion) {
  MutexLock lock(mutex_);
  if (machine_.tablet && machine_.tablet->in_use() && picture_.width > 1 && picture_.height > 1) {
    const auto scaled = [](unsigned value, unsigned size) {
      return static_cast<unsigned>(uint64_t{std::min(value, size - 1)} * TabletInput::kMost / (size - 1));
    };
    return machine_.tablet->point(scaled(motion.x, picture_.width), scaled(motion.y, picture_.height), motion.wheel, motion.buttons);
  }
  if (machine_.mouse) machine_.mouse->move(motion.dx, motion.dy, motion.wheel, motion.buttons);
}

void Seat::place(const Place& place) {
  MutexLock lock(mutex_);
  if (machine_.tablet) machine_.tablet->point(place.x, place.y, 0, place.buttons);
}

void Seat::move(int dx, int dy, int wheel, uint8_t buttons) {
  MutexLock lock(mutex_);
  if (machine_.mouse) machine_.mouse->move(dx, dy, wheel, buttons);
}

}  // namespace lodge::display
