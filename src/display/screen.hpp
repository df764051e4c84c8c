// The two ends of a graphics card and of a keyboard: what a person's side (display/seat.hpp) and a device say to each other.
#pragma once

#include <cstdint>

#include "display/picture.hpp"

namespace lodge::display {

// A source of pictures.
class Screen {
 public:
  virtual ~Screen() = default;
  // Brings the picture up to date, and gives it the screen's size if it has another; what has changed is added to `damage`. `time_ns`:
  // which phase blinking is in. `whole`: the picture is another one than last time. One thread at a time.
  virtual void refresh(Picture& picture, Damage& damage, uint64_t time_ns, bool whole) = 0;
};

}  // namespace lodge::display
