// Intel 82371SB (PIIX3), function 0: the PCI-to-ISA bridge of the machine "pc" (order number 290550), with its PCI interrupt router.
//
// What steers the X-Bus, ISA timing, distributed DMA and the APIC's address only holds what is written.
// Threads: configuration under the host bridge's lock; set_line() from any.
#pragma once

#include "devices/chipset/pci_irq_router.hpp"
#include "devices/pci/function.hpp"

namespace lodge::devices::chipset {

class Piix3 final : public pci::Function {
 public:
  static constexpr unsigned kLines = 4;
  explicit Piix3(std::array<IrqPin, PciIrqRouter::kIsaLines> isa);

  // PIRQA to PIRQD.
  void set_line(unsigned line, bool level) { router_.set_line(line, level); }

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void config_written(unsigned offset, unsigned size) override;

 private:
  PciIrqRouter router_;
};

}  // namespace lodge::devices::chipset
