#include "devices/chipset/q35_mch.hpp"

#include <array>

#include "devices/chipset/identities.hpp"

namespace lodge::devices::chipset {

namespace {

// Registers (5.1).
constexpr unsigned kPciexbar = 0x60, kPam0 = 0x90, kSmram = 0x9d, kExtendedSmram = 0x9e;
constexpr uint8_t kSmramCompatible = 0x02;    // C_BASE_SEG is fixed at A0000 (5.1.28)
constexpr uint8_t kExtendedSmramBits = 0x38;  // wired (5.1.29)

// PCIEXBAR (5.1.16): an enable bit, a length, and the base, of which the length says how many bits count.
constexpr uint32_t kPciexbarDefault = 0xe0000000, kPciexbarWritable = 0xfc000007, kPciexbarHighWritable = 0xf;
constexpr uint32_t kPciexbarEnable = 1;
constexpr std::array<uint64_t, 3> kPciexbarLengths{256 << 20, 128 << 20, 64 << 20};

constexpr pci::Identity kIdentity = intel(0x29c0, 2, 0x060000);

}  // namespace

Q35Mch::Q35Mch(ShadowControl::Changed shadow_changed, EcamMoved ecam_moved)
    : Function(kIdentity, "Q35 MCH"), shadow_(std::move(shadow_changed)), ecam_moved_(std::move(ecam_moved)) {
  pci::ConfigSpace& space = config();
  space.set(pci::kCommand, 2, pci::kMemorySpace | pci::kBusMaster);  // wired (5.1.3)
  space.define(kPciexbar, 4, kPciexbarDefault, kPciexbarWritable);
  space.allow(kPciexbar + 4, 4, kPciexbarHighWritable);
  for (unsigned i = 0; i < ShadowControl::kRegisters; ++i)
    space.allow(kPam0 + i, 1, i == 0 ? ShadowControl::kFirstWritable : ShadowControl::kWritable);
  space.set(kSmram, 1, kSmramCompatible);
  space.set(kExtendedSmram, 1, kExtendedSmramBits);
}

std::optional<pci::Window> Q35Mch::ecam() {
  const uint32_t low = config().read(kPciexbar, 4);
  const uint64_t address = (uint64_t{config().read(kPciexbar + 4, 4)} << 32 | low) & ~uint64_t{7};
  const uint32_t length = low >> 1 & 3;
  if (!(low & kPciexbarEnable) || length >= kPciexbarLengths.size()) return std::nullopt;
  return pci::Window{address & ~(kPciexbarLengths[length] - 1), kPciexbarLengths[length]};
}

void Q35Mch::config_written(unsigned offset, unsigned size) {
  for (unsigned i = 0; i < ShadowControl::kRegisters; ++i)
    if (pci::overlaps(offset, size, kPam0 + i, 1)) shadow_.written(i, static_cast<uint8_t>(config().read(kPam0 + i, 1)));
  if (pci::overlaps(offset, size, kPciexbar, 8)) ecam_moved_(ecam());
}

}  // namespace lodge::devices::chipset
