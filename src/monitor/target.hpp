// What can be done to a running machine from outside. Main thread.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "display/seat.hpp"

namespace lodge::monitor {

// A drive whose medium can be changed.
struct Tray {
  std::string name, file;  // empty: no medium
  bool open = false, locked = false, read_only = true;
};

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
  [[nodiscard]] virtual std::vector<Tray> trays() const = 0;
  // ErrorKind::NotFound: no such drive; Usage: the guest has locked it, or the file cannot be opened (the drive is empty then).
  [[nodiscard]] virtual Result<> eject(const std::string& drive, bool force) = 0;
  [[nodiscard]] virtual Result<> insert(const std::string& drive, const std::string& file, bool force) = 0;
  // The peer shares the serial console from here on: a stream socket that does not block. ErrorKind::Resource: too many do.
  [[nodiscard]] virtual Result<> attach_console(Fd peer) = 0;
  [[nodiscard]] virtual display::Seat& seat() = 0;
};

}  // namespace lodge::monitor
