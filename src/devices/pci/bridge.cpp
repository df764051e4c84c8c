#include "devices/pci/bridge.hpp"

#include <cassert>

#include "base/error.hpp"
#include "devices/pci/express.hpp"

namespace lodge::devices::pci {

namespace {

constexpr uint8_t kType1 = 0x01;
constexpr uint32_t kPrefetchable64 = 0x1;  // of the window's registers: it has 64 bits (3.2.5.9)
// Parity, SERR#, ISA, VGA, the reset of the secondary bus (3.2.5.18).
constexpr uint32_t kControlBits = 0x004f;

}  // namespace

Bridge::Bridge(const Identity& identity, std::string name) : Function(identity, std::move(name)) {
  ConfigSpace& space = config();
  space.set(kHeaderType, 1, kType1);
  space.set(kSubsystemVendorId, 4, 0);  // other registers are there (3.2)
  space.allow(kCommand, 2, kIoSpace | kMemorySpace);
  for (const unsigned at : {kPrimaryBus, kSecondaryBus, kSubordinateBus}) space.allow(at, 1, 0xff);
  space.allow(kIoBase, 1, 0xf0);
  space.allow(kIoLimit, 1, 0xf0);
  space.allow(kMemoryBase, 2, 0xfff0);
  space.allow(kMemoryLimit, 2, 0xfff0);
  space.define(kPrefetchableBase, 2, kPrefetchable64, 0xfff0);
  space.define(kPrefetchableLimit, 2, kPrefetchable64, 0xfff0);
  space.allow(kPrefetchableBaseHigh, 4, 0xffffffff);
  space.allow(kPrefetchableLimitHigh, 4, 0xffffffff);
  space.allow(kBridgeControl, 2, kControlBits);
}

bool Bridge::passes(BarKind kind, uint64_t address, uint64_t size) const {
  const ConfigSpace& space = config_space();
  const auto within = [&](uint64_t base, uint64_t limit) { return base <= limit && address >= base && address + (size - 1) <= limit; };
  const uint32_t command = space.read(kCommand, 2);
  if (kind == BarKind::Io) {
    const uint64_t base = (space.read(kIoBase, 1) & 0xf0) << 8, limit = (space.read(kIoLimit, 1) & 0xf0) << 8 | 0xfff;
    return (command & kIoSpace) && within(base, limit);
  }
  const auto megabytes = [&](unsigned at, unsigned high) {
    return uint64_t{high == 0 ? 0 : space.read(high, 4)} << 32 | (space.read(at, 2) & 0xfff0) << 16;
  };
  constexpr uint64_t kLastOfMegabyte = 0xfffff;
  return (command & kMemorySpace) && (within(megabytes(kMemoryBase, 0), megabytes(kMemoryLimit, 0) | kLastOfMegabyte) ||
                                      within(megabytes(kPrefetchableBase, kPrefetchableBaseHigh),
                                             megabytes(kPrefetchableLimit, kPrefetchableLimitHigh) | kLastOfMegabyte));
}

Identity RootPort::identity_of(unsigned number) {
  assert(number >= 1 && number <= kMost);
  constexpr uint16_t kIntel = 0x8086, kFirst = 0x2940;  // ICH9, 20.1.2: every second number
  return {.vendor = kIntel,
          .device = static_cast<uint16_t>(kFirst + 2 * (number - 1)),
          .revision = 2,
          .class_code = 0x060400,
          .subsystem_vendor = 0,
          .subsystem = 0};
}

RootPort::RootPort(unsigned number) : Bridge(identity_of(number), fmt::format("PCI Express root port {}", number)) {
  add_interrupt_pin();
  config().set(kInterruptPin, 1, (number - 1) % 4 + 1);
  add_express_capability(config(), ExpressType::RootPort, number);
  add_msi(1);
}

}  // namespace lodge::devices::pci
