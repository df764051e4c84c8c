// The PC's board: the chips around the processor, at their ports and interrupt lines.
//
// The interrupt controllers and the 8254 with port 0x61 are the driver's.
// Threads: read/write of ports and memory from any vCPU's thread; the rest from the main thread.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "console/backend.hpp"
#include "devices/acpi_pm.hpp"
#include "devices/bus.hpp"
#include "devices/chipset_ports.hpp"
#include "devices/floppy/controller.hpp"
#include "devices/hpet.hpp"
#include "devices/isa_dma/i8237.hpp"
#include "devices/mc146818.hpp"
#include "devices/ps2/controller.hpp"
#include "devices/serial_port.hpp"
#include "devices/shared_line.hpp"
#include "engine/api/engine.hpp"
#include "machine/chipset.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine {

class Pc {
 public:
  struct Host {
    EventLoop& loop;
    console::Backend& serial;
    int debug_console;                                          // descriptor, or -1
    const Clock& clock;                                         // of all chips
    std::function<void()> power_off;                            // from a vCPU's thread
    std::function<void()> reset;                                // of the machine
    std::function<void()> init;                                 // of the processors alone, by their INIT# line
    std::function<void(bool)> a20{};                            // address line 20 is let through, or not any more
    devices::chipset::ShadowControl::Changed shadow_changed{};  // of machines with firmware
    std::function<void()> panicked{};                           // from a vCPU's thread, as what follows
    std::function<void(uint32_t)> debug_exit{};                 // empty: there is no such port
    bool floppy = false;                                        // there are floppy drives, of machines with firmware
    unsigned root_ports = 0;                                    // of Kind::Q35
  };
  static Result<std::unique_ptr<Pc>> create(Kind kind, engine::Vm& vm, const MemoryMap& map, memory::GuestMemory& memory, Host host);
  ~Pc();
  Pc(const Pc&) = delete;
  Pc& operator=(const Pc&) = delete;

  [[nodiscard]] devices::PortBus& ports() { return ports_; }
  [[nodiscard]] devices::MmioBus& mmio() { return mmio_; }
  // Puts a function onto the PCI bus as function 0 of device 1 to 31; it must outlive the board. All before start().
  Result<> plug(devices::pci::Function& function, unsigned device) { return chipset_->pci().plug(function, device); }
  // As the only function behind this root port, from 1 on, of those that Host has asked for.
  Result<> plug_behind(devices::pci::Function& function, unsigned port) {
    return chipset_->pci().plug_behind(*chipset_->root_port(port), function);
  }
  // Power-on; then the guest may run.
  Result<> start();
  [[nodiscard]] acpi::Board acpi_board(uint32_t vcpus) { return chipset_->acpi_board(vcpus); }
  [[nodiscard]] devices::ata::Controller* ata() { return chipset_->ata(); }
  // Null: there are no drives.
  [[nodiscard]] devices::floppy::Controller* floppy() { return floppy_.get(); }
  [[nodiscard]] devices::ps2::Controller& keyboard() { return keyboard_; }
  void press_power_button() { acpi_.press_power_button(); }

 private:
  Pc(Kind kind, engine::Vm& vm, Host host);
  [[nodiscard]] Result<> attach_all(Kind kind, const MemoryMap& map, memory::GuestMemory& memory);
  void connect_host();
  [[nodiscard]] devices::IrqPin pin(uint32_t gsi) const;
  [[nodiscard]] devices::IrqPin rtc_pin();
  [[nodiscard]] devices::IrqPin board_pin(uint32_t gsi);
  [[nodiscard]] Result<> attach_hpet();
  void replace_timers(bool by_hpet);
  void send_message(uint64_t address, uint32_t data) const;
  void debug_byte(uint8_t byte) const;

  engine::Vm& vm_;
  Host host_;
  devices::SerialPort com1_;
  devices::Mc146818 rtc_;
  devices::A20Gate a20_;
  devices::ps2::Controller keyboard_;
  devices::AcpiPm acpi_;
  devices::ResetControl reset_control_;
  devices::SystemControlA system_control_a_;
  devices::PostCode post_code_;
  devices::ApmPorts apm_;
  devices::PanicEvent panic_event_;
  devices::DebugExit debug_exit_;
  devices::DebugConsole bochs_console_;
  devices::DebugConsole ovmf_console_;
  devices::PortBus beside_pci_;  // ports under those of the PCI host bridge
  devices::PortBus ports_;
  devices::MmioBus mmio_;
  // Inputs of the IOAPIC that the board's bridges share with the HPET, 20 to 23.
  std::vector<std::unique_ptr<devices::SharedLine>> shared_lines_;
  std::unique_ptr<devices::Hpet> hpet_;  // null: the machine direct
  std::atomic<bool> timers_replaced_ = false;
  std::unique_ptr<devices::I8237> dma_;  // null: the machine direct
  std::unique_ptr<devices::floppy::Controller> floppy_;
  std::unique_ptr<Chipset> chipset_;
  std::vector<EventLoop::Handle> deadlines_;
};

// How the board's lines reach the interrupt controllers: the 8254 to IOAPIC input 2, the rest one to one.
[[nodiscard]] std::vector<kvm_irq_routing_entry> pc_gsi_routing();

}  // namespace lodge::machine
