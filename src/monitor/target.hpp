// What can be done to a running machine from outside. Main thread.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "display/seat.hpp"

namespace lodge::monitor {

class Target {
 public:
  virtual ~Target() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  [[nodiscard]] virtual bool paused() const = 0;
  [[nodiscard]] virtual uint64_t memory_bytes() const = 0;
  [[nodiscard]] virtual uint32_t processors() const = 0;
  [[nodiscard]] virtual std::string engine() const = 0;
  [[nodiscard]] virtual std::string display() const = 0;  // where it can be seen: a URL or an address; empty: nowhere

  virtual void pause() = 0;
  virtual void resume() = 0;
  virtual void press_power_button() = 0;
  virtual void reset() = 0;
  virtual void quit() = 0;
  [[nodiscard]] virtual display::Seat& seat() = 0;
};

}  // namespace lodge::monitor
