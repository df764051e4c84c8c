// The interrupt router of Intel's ISA bridges (82371SB, 2.2.9; ICH9, 13.1.11): a PIRQ line leads to the ISA interrupt that its register
// names, or nowhere. Several lines may lead to the same one, which is up while one of them is.
//
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/mutex.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices::chipset {

class PciIrqRouter {
 public:
  static constexpr unsigned kIsaLines = 16;
  static constexpr uint8_t kDisabled = 0x80, kWritable = 0x8f;  // of a route register

  // `isa`: the pins of interrupts 0 to 15.
  PciIrqRouter(unsigned lines, std::array<IrqPin, kIsaLines> isa);

  void set_line(unsigned line, bool level) LODGE_EXCLUDES(mutex_);
  void set_route(unsigned line, uint8_t value) LODGE_EXCLUDES(mutex_);

 private:
  struct Line {
    uint8_t route = kDisabled;
    bool level = false;
  };
  // Reserved are 0, 1, 2, 8 and 13: they lead nowhere.
  [[nodiscard]] static bool leads(uint8_t route);
  void update(unsigned isa) LODGE_REQUIRES(mutex_);

  const std::array<IrqPin, kIsaLines> isa_;
  Mutex mutex_;
  std::vector<Line> lines_ LODGE_GUARDED_BY(mutex_);
  std::array<bool, kIsaLines> driven_ LODGE_GUARDED_BY(mutex_) = {};
};

}  // namespace lodge::devices::chipset
