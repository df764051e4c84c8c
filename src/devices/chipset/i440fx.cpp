#include "devices/chipset/i440fx.hpp"

#include "devices/chipset/identities.hpp"

namespace lodge::devices::chipset {

namespace {

// Registers (table 1).
constexpr unsigned kPmcConfiguration = 0x50, kDramControl = 0x57, kDramTiming = 0x58, kPam0 = 0x59, kDramRowBoundary0 = 0x60, kDramRows = 8,
                   kFixedHole = 0x68, kMultiTransactionTimer = 0x70, kCpuLatencyTimer = 0x71, kSmram = 0x72, kErrorCommand = 0x90;
constexpr uint8_t kSmramCompatible = 0x02;  // C_BASE_SEG is fixed at A0000 (3.2.21)

constexpr pci::Identity kIdentity = intel(0x1237, 2, 0x060000);

}  // namespace

I440Fx::I440Fx(ShadowControl::Changed shadow_changed) : Function(kIdentity, "i440FX"), shadow_(std::move(shadow_changed)) {
  pci::ConfigSpace& space = config();
  space.set(pci::kCommand, 2, pci::kMemorySpace | pci::kBusMaster);  // wired (3.2.3)
  space.set(pci::kStatus, 2, pci::kFastBackToBack | pci::kDevselMedium);
  space.allow(kPmcConfiguration, 2, 0xffff);
  space.define(kDramControl, 1, 0x01, 0xff);
  space.allow(kDramTiming, 1, 0xff);
  for (unsigned i = 0; i < ShadowControl::kRegisters; ++i)
    space.allow(kPam0 + i, 1, i == 0 ? ShadowControl::kFirstWritable : ShadowControl::kWritable);
  for (unsigned i = 0; i < kDramRows; ++i) {
    space.define(kDramRowBoundary0 + i, 1, 0x01, 0xff);
  }
  space.allow(kFixedHole, 1, 0xc0);
  space.allow(kMultiTransactionTimer, 1, 0xf8);
  space.allow(kCpuLatencyTimer, 1, 0xff);
  space.set(kSmram, 1, kSmramCompatible);
  space.allow(kErrorCommand, 1, 0xff);
}

void I440Fx::config_written(unsigned offset, unsigned size) {
  for (unsigned i = 0; i < ShadowControl::kRegisters; ++i)
    if (pci::overlaps(offset, size, kPam0 + i, 1)) shadow_.written(i, static_cast<uint8_t>(config().read(kPam0 + i, 1)));
}

}  // namespace lodge::devices::chipset
