// What holds a machine's ATA devices: places, each with a link of its own (an IDE channel has two).
//
// Threads: as the devices' links; shut_down() from the main thread.
#pragma once

#include <memory>

#include "devices/ata/device.hpp"

namespace lodge::devices::ata {

class Controller {
 public:
  virtual ~Controller() = default;
  [[nodiscard]] virtual Link& link(unsigned place) = 0;
  // Before the first access; a device made for that place's link.
  virtual void attach(unsigned place, std::unique_ptr<Device> device) = 0;
  // Waits until nothing of the devices is on any disk's thread.
  virtual void shut_down() = 0;
};

}  // namespace lodge::devices::ata
