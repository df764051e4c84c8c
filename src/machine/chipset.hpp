// The bridges of a board: how processors reach PCI and how PCI's interrupts reach the interrupt controllers. Each kind of machine has its
// own; all else on the board is the same (pc.hpp).
//
// Threads: as Pc.
#pragma once

#include <functional>
#include <memory>

#include "devices/acpi_pm.hpp"
#include "devices/ata/controller.hpp"
#include "devices/bus.hpp"
#include "devices/chipset/shadow_control.hpp"
#include "devices/irq_pin.hpp"
#include "devices/pci/host_bridge.hpp"
#include "machine/acpi/loader.hpp"
#include "machine/config.hpp"
#include "machine/memory_map.hpp"
#include "machine/pci_places.hpp"

namespace lodge::machine {

// How the board's power management is laid out.
[[nodiscard]] devices::AcpiPm::Layout acpi_layout(Kind kind);

class Chipset {
 public:
  struct Site {
    const MemoryMap& map;
    memory::GuestMemory& memory;
    devices::PortBus& ports;
    devices::MmioBus& mmio;
    const devices::PortBus& beside_pci;  // ports under those of the PCI host bridge
    devices::AcpiPm& acpi;
    std::function<devices::IrqPin(uint32_t gsi)> pin;
    devices::pci::SendMessage send_message;
    devices::chipset::ShadowControl::Changed shadow_changed;  // of machines with firmware
    bool floppy = false;                                      // the board has a controller for floppy disks
    unsigned root_ports = 0;                                  // of boards with PCI Express
  };
  static Result<std::unique_ptr<Chipset>> create(Kind kind, const Site& site);
  virtual ~Chipset() = default;

  [[nodiscard]] virtual devices::pci::HostBridge& pci() = 0;
  // The controller of IDE or SATA; null: the machine has none.
  [[nodiscard]] virtual devices::ata::Controller* ata() { return nullptr; }
  // From 1 on; null: there is no such port.
  [[nodiscard]] virtual const devices::pci::Bridge* root_port(unsigned) { return nullptr; }
  // What ACPI's tables say, of machines whose firmware asks for them, with so many vCPUs: as it is now, any thread.
  [[nodiscard]] virtual acpi::Board acpi_board(uint32_t) { return {}; }
  // All functions are plugged in; what follows is power-on.
  [[nodiscard]] virtual Result<> start() = 0;
};

}  // namespace lodge::machine
