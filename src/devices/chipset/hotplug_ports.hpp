// The event and hot-plug registers that SeaBIOS's own ACPI tables describe on a 440FX machine (QEMU's docs/specs: acpi_pci_hotplug,
// acpi_cpu_hotplug; general-purpose events at 0xAFE0). Nothing is ever plugged in or out here, and they say so: as open bus they would
// read as "all slots are to be ejected".
//
// Threads: any.
#pragma once

#include "base/error.hpp"
#include "devices/bus.hpp"

namespace lodge::devices::chipset {

class HotplugPorts final : public BytePortDevice {
 public:
  static constexpr uint16_t kPci = 0xae00, kPciBytes = 0x14, kProcessors = 0xaf00, kProcessorsBytes = 0x20, kEvents = 0xafe0,
                            kEventsBytes = 4;

  [[nodiscard]] Result<> attach(PortBus& ports) {
    TRY(ports.attach(kPci, kPciBytes, *this, "PCI hot-plug"));
    TRY(ports.attach(kProcessors, kProcessorsBytes, *this, "processor hot-plug"));
    return ports.attach(kEvents, kEventsBytes, *this, "general-purpose events");
  }

 protected:
  uint8_t read_byte(uint64_t) override { return 0; }
  void write_byte(uint64_t, uint8_t) override {}
};

}  // namespace lodge::devices::chipset
