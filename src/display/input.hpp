// What a person does with hands. Keys are numbered as in <linux/input-event-codes.h>: by their place on the keyboard, whatever is printed
// on them.
#pragma once

#include <cstdint>

namespace lodge::display {

using Key = uint16_t;

// Any thread.
class KeyboardInput {
 public:
  virtual ~KeyboardInput() = default;
  virtual void key(Key key, bool down) = 0;  // down again while it is down: it repeats
};

enum Button : uint8_t { kLeft = 1, kRight = 2, kMiddle = 4 };

class MouseInput {
 public:
  virtual ~MouseInput() = default;
  // Right and down are positive; `wheel`: towards the person. `buttons`: all that are down.
  virtual void move(int dx, int dy, int wheel, uint8_t buttons) = 0;
};

// A pointer that is where the person's is.
class TabletInput {
 public:
  virtual ~TabletInput() = default;
  static constexpr unsigned kMost = 0x7fff;
  // From the upper left corner, 0 to kMost each.
  virtual void point(unsigned x, unsigned y, int wheel, uint8_t buttons) = 0;
  [[nodiscard]] virtual bool in_use() = 0;  // the guest listens to it
};

}  // namespace lodge::display
