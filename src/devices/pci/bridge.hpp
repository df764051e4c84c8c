// A bridge to another bus (PCI-to-PCI Bridge Architecture 1.2; section numbers are its): a type 1 header, with the numbers of the buses
// behind it and the windows through which their addresses are reached.
//
// Deviations: what functions behind it write to memory passes whether or not the bridge may be a bus master; the VGA and ISA bits of the
// bridge control register only hold what is written; a reset of the secondary bus resets nothing.
//
// Threads: as pci::Function.
#pragma once

#include "devices/pci/function.hpp"

namespace lodge::devices::pci {

class Bridge : public Function {
 public:
  Bridge(const Identity& identity, std::string name);

  // Configuration accesses to a bus from the first to the last of them are for something behind the bridge.
  [[nodiscard]] unsigned secondary_bus() const { return config_space().read(kSecondaryBus, 1); }
  // The whole range lies in one of the windows, and that is open.
  [[nodiscard]] bool passes(BarKind kind, uint64_t address, uint64_t size) const;

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
};

// A root port of PCI Express (Base 4.0, 7.5.3), as the ICH9's are: one lane, and what is behind it was there from the beginning. It has a
// pin and a message for services, of which there are none.
class RootPort final : public Bridge {
 public:
  static constexpr unsigned kMost = 6;
  explicit RootPort(unsigned number);  // from 1 to kMost: as function number - 1 of its device

 private:
  static Identity identity_of(unsigned number);
};

}  // namespace lodge::devices::pci
