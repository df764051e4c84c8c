#include "devices/chipset/piix3.hpp"

#include "devices/chipset/identities.hpp"

namespace lodge::devices::chipset {

namespace {

// Registers (2.2).
constexpr unsigned kIsaIoRecovery = 0x4c, kXBusChipSelect = 0x4e, kPirqRoute = 0x60, kTopOfMemory = 0x69, kMiscellaneousStatus = 0x6a,
                   kMotherboardIrq = 0x70, kMotherboardDma = 0x76, kProgrammableChipSelect = 0x78, kApicBase = 0x80,
                   kDeterministicLatency = 0x82, kSmiControl = 0xa0, kSmiBytes = 0x10;

constexpr pci::Identity kIdentity = intel(0x7000, 0, 0x060100);

}  // namespace

Piix3::Piix3(std::array<IrqPin, PciIrqRouter::kIsaLines> isa) : Function(kIdentity, "PIIX3"), router_(kLines, std::move(isa)) {
  pci::ConfigSpace& space = config();
  // It always answers, and is always a master (2.2.3); software that finds these bits clear takes ISA's ports for unreachable.
  space.set(pci::kCommand, 2, pci::kIoSpace | pci::kMemorySpace | pci::kBusMaster);
  space.set(pci::kStatus, 2, pci::kDevselMedium);
  space.define(kIsaIoRecovery, 1, 0x4d, 0xff);
  space.define(kXBusChipSelect, 2, 0x0003, 0xffff);
  for (unsigned i = 0; i < kLines; ++i) {
    space.define(kPirqRoute + i, 1, PciIrqRouter::kDisabled, PciIrqRouter::kWritable);
  }
  space.define(kTopOfMemory, 1, 0x02, 0xff);
  space.allow(kMiscellaneousStatus, 2, 0xffff);
  space.define(kMotherboardIrq, 1, 0x80, 0xff);
  space.define(kMotherboardDma, 2, 0x0c0c, 0xffff);
  space.define(kProgrammableChipSelect, 2, 0x0002, 0xffff);
  space.allow(kApicBase, 1, 0x7f);
  space.allow(kDeterministicLatency, 1, 0x0f);
  space.set(kSmiControl, 1, 0x08);
  for (unsigned i = 0; i < kSmiBytes; i += 4) space.allow(kSmiControl + i, 4, 0xffffffff);
}

void Piix3::config_written(unsigned offset, unsigned size) {
  for (unsigned i = 0; i < kLines; ++i)
    if (pci::overlaps(offset, size, kPirqRoute + i, 1)) router_.set_route(i, static_cast<uint8_t>(config().read(kPirqRoute + i, 1)));
}

}  // namespace lodge::devices::chipset
