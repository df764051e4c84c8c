// Intel ICH9 (82801I), device 31 function 0: the bridge to ISA's devices of the machine "q35" (order number 316972, chapter 13), with its
// PCI interrupt router, power management at the port that PMBASE names, and the chipset configuration registers at RCBA.
//
// There is no system management mode, and the chip says so: the bit that a machine's firmware sets when it has installed its handler is
// already set (SMI_EN's APMC_EN). There is no TCO watchdog, and "no reboot" is strapped (GCS). GPIO, ISA decoding and the routes of the
// ICH9's own functions only hold what is written.
// Threads: configuration under the host bridge's lock; set_line() from any.
#pragma once

#include <array>
#include <atomic>
#include <functional>

#include "devices/acpi_pm.hpp"
#include "devices/chipset/pci_irq_router.hpp"
#include "devices/chipset/port_block.hpp"
#include "devices/pci/function.hpp"

namespace lodge::devices::chipset {

class Ich9Lpc final : public pci::Function {
 public:
  static constexpr unsigned kLines = 8;
  struct Board {
    PortBus& ports;
    MmioBus& memory;
    AcpiPm& power;
    std::array<IrqPin, PciIrqRouter::kIsaLines> isa;
    std::array<IrqPin, kLines> apic;  // the inputs of PIRQA to PIRQH at the IOAPIC
  };
  explicit Ich9Lpc(Board board);

  void set_line(unsigned line, bool level);
  [[nodiscard]] uint16_t power_base() const { return power_base_; }  // whether or not the registers answer; any thread

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void config_written(unsigned offset, unsigned size) override;

 private:
  // The 128 bytes at PMBASE: ACPI's registers, and SMI_EN.
  class PowerPorts final : public BytePortDevice {
   public:
    explicit PowerPorts(AcpiPm& acpi) : acpi_(acpi) {}

   protected:
    uint8_t read_byte(uint64_t offset) override;
    void write_byte(uint64_t offset, uint8_t value) override;

   private:
    AcpiPm& acpi_;
  };
  // The 16 KiB at RCBA.
  class RootComplex final : public MmioDevice {
   public:
    uint64_t read(uint64_t offset, unsigned size) override;
    void write(uint64_t, unsigned, uint64_t) override {}
  };

  PciIrqRouter router_;
  const std::array<IrqPin, kLines> apic_;
  PowerPorts power_ports_;
  RootComplex root_complex_;
  PortBlock power_block_;
  MemoryBlock root_complex_block_;
  std::atomic<uint16_t> power_base_ = 0;
};

}  // namespace lodge::devices::chipset
