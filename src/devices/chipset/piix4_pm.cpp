#include "devices/chipset/piix4_pm.hpp"

#include "devices/chipset/identities.hpp"

namespace lodge::devices::chipset {

namespace {

// Registers (7.1).
constexpr unsigned kPmBase = 0x40, kCountA = 0x44, kCountB = 0x48, kGeneralPurposeInput = 0x4c, kDeviceResourceD = 0x50,
                   kDeviceActivityA = 0x54, kDeviceActivityB = 0x58, kDeviceResourceA = 0x5c, kPmMiscellaneous = 0x80, kSmbusBase = 0x90;
constexpr uint32_t kPmBaseBits = 0xffc0, kApmcEnable = 1 << 25;
constexpr uint8_t kPmIoEnable = 1;

constexpr pci::Identity kIdentity = intel(0x7113, 3, 0x068000);

}  // namespace

Piix4Pm::Piix4Pm(PortBus& ports, PortDevice& block)
    : Function(kIdentity, "PIIX4 power management"), block_(ports, block, kBlockBytes, "ACPI") {
  pci::ConfigSpace& space = config();
  space.allow(pci::kCommand, 2, pci::kIoSpace);
  space.set(pci::kStatus, 2, pci::kFastBackToBack | pci::kDevselMedium);
  add_interrupt_pin();
  space.set(pci::kInterruptLine, 1, kSciIrq);
  space.define(kPmBase, 4, 1, kPmBaseBits);
  for (const unsigned offset : {kCountA, kCountB, kGeneralPurposeInput, kDeviceResourceD, kDeviceActivityA, kDeviceActivityB})
    space.allow(offset, 4, 0xffffffff);
  for (unsigned offset = kDeviceResourceA; offset < kPmMiscellaneous; offset += 4) space.allow(offset, 4, 0xffffffff);
  space.set(kDeviceActivityB, 4, kApmcEnable);
  space.allow(kPmMiscellaneous, 1, kPmIoEnable);
  space.define(kSmbusBase, 4, 1, 0xfff0);
}

void Piix4Pm::config_written(unsigned offset, unsigned size) {
  if (!pci::overlaps(offset, size, kPmBase, 4) && !pci::overlaps(offset, size, kPmMiscellaneous, 1)) return;
  base_ = static_cast<uint16_t>(config().read(kPmBase, 4) & kPmBaseBits);
  if (config().read(kPmMiscellaneous, 1) & kPmIoEnable)
    block_.move(base_);
  else
    block_.move({});
}

}  // namespace lodge::devices::chipset
