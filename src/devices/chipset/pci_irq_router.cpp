#include "devices/chipset/pci_irq_router.hpp"

#include <algorithm>

namespace lodge::devices::chipset {

PciIrqRouter::PciIrqRouter(unsigned lines, std::array<IrqPin, kIsaLines> isa) : isa_(std::move(isa)), lines_(lines) {}

bool PciIrqRouter::leads(uint8_t route) {
  constexpr unsigned kReserved = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13;
  return !(route & kDisabled) && !(kReserved >> (route & 0xf) & 1);
}

void PciIrqRouter::update(unsigned isa) {
  const bool level =
      std::ranges::any_of(lines_, [isa](const Line& line) { return line.level && leads(line.route) && (line.route & 0xf) == isa; });
  if (level == driven_[isa]) return;
  driven_[isa] = level;
  isa_[isa].set(level);
}

void PciIrqRouter::set_line(unsigned line, bool level) {
  MutexLock lock(mutex_);
  lines_[line].level = level;
  if (leads(lines_[line].route)) update(lines_[line].route & 0xf);
}

void PciIrqRouter::set_route(unsigned line, uint8_t value) {
  MutexLock lock(mutex_);
  const uint8_t before = lines_[line].route;
  lines_[line].route = value & kWritable;
  if (leads(before)) update(before & 0xf);
  if (leads(lines_[line].route)) update(lines_[line].route & 0xf);
}

}  // namespace lodge::devices::chipset
