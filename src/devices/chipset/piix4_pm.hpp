// Intel 82371AB (PIIX4), function 3: power management of the machine "pc" (order number 290562). Its registers are the ACPI block's
// (acpi_pm.hpp), at the port that PMBA names.
//
// There is no system management mode, and the chip says so: the bit that a machine's firmware sets when it has installed its handler
// is already set (DEVACTB's APMC_EN). The SMBus controller cannot be enabled.
// Threads: those of configuration space.
#pragma once

#include <atomic>

#include "devices/chipset/port_block.hpp"
#include "devices/pci/function.hpp"

namespace lodge::devices::chipset {

class Piix4Pm final : public pci::Function {
 public:
  static constexpr uint16_t kBlockBytes = 0x40;
  static constexpr uint8_t kSciIrq = 9;  // wired

  // `block`: the registers, kBlockBytes of them.
  Piix4Pm(PortBus& ports, PortDevice& block);

  [[nodiscard]] uint16_t base() const { return base_; }  // of the registers, whether or not they answer; any thread

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void config_written(unsigned offset, unsigned size) override;

 private:
  PortBlock block_;
  std::atomic<uint16_t> base_ = 0;
};

}  // namespace lodge::devices::chipset
