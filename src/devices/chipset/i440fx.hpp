// Intel 82441FX (PMC): the host bridge of the machine "pc", as a function of the PCI bus (order number 290549).
//
// Memory's geometry and timing registers only hold what is written. The subsystem numbers are those by which firmware knows a virtual
// machine (QEMU's docs/specs/pci-ids).
// Threads: those of configuration space.
#pragma once

#include "devices/chipset/shadow_control.hpp"
#include "devices/pci/function.hpp"

namespace lodge::devices::chipset {

class I440Fx final : public pci::Function {
 public:
  explicit I440Fx(ShadowControl::Changed shadow_changed);

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
  void config_written(unsigned offset, unsigned size) override;

 private:
  ShadowControl shadow_;
};

}  // namespace lodge::devices::chipset
