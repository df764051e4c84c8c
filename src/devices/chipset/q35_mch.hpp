// Intel 82Q35 (MCH): the host bridge of the machine "q35", as a function of the PCI bus (order number 316966).
//
// There is no SMRAM, and DMI, graphics and the memory's own registers are not there. The subsystem numbers are those by which firmware
// knows a virtual machine (QEMU's docs/specs/pci-ids).
// Threads: those of configuration space.
#pragma once

#include <functional>
#include <optional>

#include "devices/chipset/shadow_control.hpp"
#include "devices/pci/function.hpp"
#include "devices/pci/host_bridge.hpp"

namespace lodge::devices::chipset {

class Q35Mch final : public pci::Function {
 public:
  using EcamMoved = std::function<void(std::optional<pci::Window> where)>;
  Q35Mch(ShadowControl::Changed shadow_changed, EcamMoved ecam_moved);

  // Where the guest has configuration space in memory now (PCIEXBAR).
  [[nodiscard]] std::optional<pci::Window> ecam();

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void config_written(unsigned offset, unsigned size) override;

 private:
  ShadowControl shadow_;
  const EcamMoved ecam_moved_;
};

}  // namespace lodge::devices::chipset
