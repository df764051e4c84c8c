// Message signalled interrupts (PCI 3.0, 6.8.1): up to 32 vectors, a 64-bit address, a mask and a pending bit for each.
//
// Threads: signal() from any; the rest under the host bridge's lock on configuration space.
#pragma once

#include <cstdint>
#include <functional>

#include "base/mutex.hpp"
#include "devices/pci/config_space.hpp"

namespace lodge::devices::pci {

// A memory write by which a function interrupts. Called with a lock of the sender's held: must not call back.
using SendMessage = std::function<void(uint64_t address, uint32_t data)>;

class Msi {
 public:
  // Adds the capability. `vectors`: 1, 2, 4, 8, 16 or 32.
  Msi(ConfigSpace& config, unsigned vectors, SendMessage send);

  void config_written() LODGE_EXCLUDES(mutex_);  // after any write to the capability
  void config_reading() LODGE_EXCLUDES(mutex_);  // before a read: the pending bits come up to date
  void set_bus_master(bool allowed) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool enabled() const;

  // Interrupts, or notes it while masked. A vector beyond those that software has granted is folded into them (6.8.3.4).
  void signal(unsigned vector) LODGE_EXCLUDES(mutex_);

 private:
  void send_pending() LODGE_REQUIRES(mutex_);

  ConfigSpace& config_;
  unsigned at_ = 0;
  const SendMessage send_;
  Mutex mutex_;
  bool enabled_ LODGE_GUARDED_BY(mutex_) = false;
  bool bus_master_ LODGE_GUARDED_BY(mutex_) = false;
  unsigned granted_ LODGE_GUARDED_BY(mutex_) = 1;
  uint64_t address_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t data_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t mask_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t pending_ LODGE_GUARDED_BY(mutex_) = 0;
};

}  // namespace lodge::devices::pci
