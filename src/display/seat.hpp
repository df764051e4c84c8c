// Where a person sits: the screen, keyboard and mouse of the machine that runs now. It outlives machines, which come and go with resets;
// while there is none, the last picture stays and keys go nowhere.
//
// Threads: any.
#pragma once

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "display/input.hpp"
#include "display/screen.hpp"

namespace lodge::display {

class Seat {
 public:
  struct Machine {
    Screen* screen = nullptr;
    KeyboardInput* keyboard = nullptr;
    MouseInput* mouse = nullptr;
    TabletInput* tablet = nullptr;
  };
  // The parts must live until the next call, which waits for those that use them.
  void connect(const Machine& machine) LODGE_EXCLUDES(mutex_);
  void disconnect() { connect({}); }

  // For whoever follows what happens on the screen, one in all: brings `copy` up to date; `damage` is what has changed in it.
  void follow(Picture& copy, Damage& damage) LODGE_EXCLUDES(mutex_);
  // The picture as it is now, with the cursor and all that blinks.
  [[nodiscard]] Picture picture() LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool has_screen() LODGE_EXCLUDES(mutex_);

  void key(Key key, bool down) LODGE_EXCLUDES(mutex_);
  // Where the person's pointer is on the picture, and how far it has moved: a tablet in use takes the first, else the mouse the second.
  struct Motion {
    unsigned x, y;
    int dx, dy, wheel;
    uint8_t buttons;
  };
  void point(const Motion& motion) LODGE_EXCLUDES(mutex_);
  // By the tablet alone, in its own measure; nothing where there is none in use.
  struct Place {
    unsigned x, y;
    uint8_t buttons;
  };
  void place(const Place& place) LODGE_EXCLUDES(mutex_);
  void move(int dx, int dy, int wheel, uint8_t buttons) LODGE_EXCLUDES(mutex_);

 private:
  void refresh(uint64_t time_ns) LODGE_REQUIRES(mutex_);

  const HostClock clock_;
  Mutex mutex_;
  Machine machine_ LODGE_GUARDED_BY(mutex_);
  bool whole_ LODGE_GUARDED_BY(mutex_) = true;
  Picture picture_ LODGE_GUARDED_BY(mutex_);
  Damage unseen_ LODGE_GUARDED_BY(mutex_);  // by follow()
};

}  // namespace lodge::display
