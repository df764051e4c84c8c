// The PCI host bridge with bus 0, and the buses behind bridges there: configuration mechanism #1 at 0xCF8 and 0xCFC (PCI 3.0, 3.2.2.3.2),
// memory-mapped configuration (PCI Express Base 4.0, 7.2.2), the windows in which BARs answer, and the interrupt lines.
//
// A BAR answers while its command bit is set, it lies in the window of its kind, and no other BAR that came first lies there. One that must
// give way is placed as soon as the other has gone.
//
// Where there is no firmware, assign_resources() does what firmware would: it gives every BAR an address and enables decoding.
//
// Locks: the one on configuration space first, then the ECAM's, those of the functions and of the buses, then that of the interrupt lines.
// Threads: configuration and windows from any vCPU's thread; plug() and assign_resources() before the first of them runs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"
#include "devices/pci/bridge.hpp"
#include "devices/pci/function.hpp"
#include "devices/shared_line.hpp"

namespace lodge::devices::pci {

struct Window {
  uint64_t base = 0, size = 0;
  [[nodiscard]] bool holds(uint64_t at, uint64_t bytes) const { return at >= base && bytes <= size && at - base <= size - bytes; }
};

class HostBridge {
 public:
  static constexpr unsigned kDevices = 32, kFunctions = 8, kPins = 4;
  static constexpr unsigned kLines = 8;                      // interrupt lines that a board may have: PIRQA to PIRQH
  static constexpr uint64_t kEcamBytes = uint64_t{1} << 20;  // of one bus
  static constexpr uint16_t kConfigAddress = 0xcf8, kConfigData = 0xcfc;

  struct Board {
    PortBus& ports;
    MmioBus& memory;
    // Only a dword at 0xCF8 is this bridge's; all else there goes to what lies under it, such as the reset control at 0xCF9.
    const PortBus& beside_config_address;
    Window io, memory32, memory64;
    std::optional<Window> ecam;                          // after power-on; none: show_ecam() says, or there is no such thing
    SendMessage send_message;                            // any thread
    std::array<IrqPin, kLines> lines;                    // level-triggered, driven from any thread
    std::array<uint8_t, kLines> interrupt_numbers = {};  // what assign_resources() says of them in the interrupt line registers
    // Which line a device's pin (1: INTA#) leads to: the board's wiring, as the ACPI tables or the firmware must know it.
    unsigned (*line_of)(unsigned device, unsigned pin) = &HostBridge::line_of;
    Function* bridge = nullptr;  // what answers as device 0; null: a bridge without registers of its own. It outlives this object.
  };
  static Result<std::unique_ptr<HostBridge>> create(Board board);
  ~HostBridge();
  HostBridge(const HostBridge&) = delete;
  HostBridge& operator=(const HostBridge&) = delete;

  // The function must outlive the bridge.
  Result<> plug(Function& function, unsigned device, unsigned number = 0) LODGE_EXCLUDES(mutex_);
  // A bridge on bus 0, and a function as the only one of the bus behind it.
  Result<> plug_bridge(Bridge& bridge, unsigned device, unsigned number) LODGE_EXCLUDES(mutex_);
  Result<> plug_behind(const Bridge& bridge, Function& function) LODGE_EXCLUDES(mutex_);
  Result<> assign_resources() LODGE_EXCLUDES(mutex_);
  // Where configuration is memory now, or that it is nowhere: a whole number of buses' kEcamBytes. A place that is taken is the guest's
  // mistake: it is nowhere then. Also under the lock on configuration space.
  void show_ecam(std::optional<Window> where) LODGE_EXCLUDES(ecam_mutex_);
  [[nodiscard]] std::optional<Window> ecam() LODGE_EXCLUDES(ecam_mutex_);  // any thread

  // The usual wiring.
  [[nodiscard]] static constexpr unsigned line_of(unsigned device, unsigned pin) { return (device + pin - 1) % kPins; }

 private:
  class ConfigAddressPort;
  class ConfigDataPort;
  class Ecam;
  class MemoryBar;
  class PortBar;
  class Slot;
  class Root;

  explicit HostBridge(Board board);
  [[nodiscard]] Result<> attach();
  // Where an access to configuration space goes.
  struct Place {
    unsigned bus, device, function;
  };
  [[nodiscard]] Slot* find(const Place& place) LODGE_REQUIRES(mutex_);
  [[nodiscard]] Result<> add_slot(Function& function, const Bridge* itself, const Slot* parent, unsigned device, unsigned number)
      LODGE_REQUIRES(mutex_);
  void mark_several(unsigned device) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint32_t read_config(const Place& place, unsigned offset, unsigned size) LODGE_REQUIRES(mutex_);
  void write_config(const Place& place, unsigned offset, unsigned size, uint32_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool acceptable(const Slot& slot, const Bar& bar, uint64_t address) const;
  void remap() LODGE_REQUIRES(mutex_);
  [[nodiscard]] Result<> place(Function& function, unsigned index, std::array<uint64_t, 3>& next);

  const Board board_;
  std::unique_ptr<Root> root_;
  std::unique_ptr<ConfigAddressPort> address_port_;
  std::unique_ptr<ConfigDataPort> data_port_;
  std::unique_ptr<Ecam> ecam_;
  Mutex mutex_;
  uint32_t config_address_ LODGE_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Slot>> slots_ LODGE_GUARDED_BY(mutex_);
  Mutex ecam_mutex_;
  std::optional<Window> shown_ecam_ LODGE_GUARDED_BY(ecam_mutex_);
  // A function's pin is one of those who drive a line, by the order in which they were plugged in.
  std::vector<std::unique_ptr<SharedLine>> lines_;
};

}  // namespace lodge::devices::pci
