// Where things stand in a function's configuration space (PCI Local Bus Specification 3.0, chapter 6 and appendix H), one name a
// register. Offsets are in bytes.
#pragma once

#include <cstdint>

namespace lodge::devices::pci {

// The type 0 header (6.1, figure 6-1).
enum Register : uint8_t {
  kVendorId = 0x00,
  kDeviceId = 0x02,
  kCommand = 0x04,
  kStatus = 0x06,
  kRevisionId = 0x08,
  kClassCode = 0x09,  // programming interface, sub-class, base class
  kCacheLineSize = 0x0c,
  kLatencyTimer = 0x0d,
  kHeaderType = 0x0e,
  kBar0 = 0x10,
  kSubsystemVendorId = 0x2c,
  kSubsystemId = 0x2e,
  kExpansionRom = 0x30,
  kCapabilitiesPointer = 0x34,
  kInterruptLine = 0x3c,
  kInterruptPin = 0x3d,
  kHeaderEnd = 0x40,
};

// What the type 1 header has instead (PCI-to-PCI Bridge Architecture 1.2, 3.2).
enum BridgeRegister : uint8_t {
  kPrimaryBus = 0x18,
  kSecondaryBus = 0x19,
  kSubordinateBus = 0x1a,
  kIoBase = 0x1c,
  kIoLimit = 0x1d,
  kMemoryBase = 0x20,
  kMemoryLimit = 0x22,
  kPrefetchableBase = 0x24,
  kPrefetchableLimit = 0x26,
  kPrefetchableBaseHigh = 0x28,
  kPrefetchableLimitHigh = 0x2c,
  kBridgeControl = 0x3e,
};

// 6.2.2, table 6-1.
enum Command : uint16_t {
  kIoSpace = 1 << 0,
  kMemorySpace = 1 << 1,
  kBusMaster = 1 << 2,
  kParityErrorResponse = 1 << 6,
  kSerrEnable = 1 << 8,
  kInterruptDisable = 1 << 10,
};

// 6.2.3, table 6-2.
enum Status : uint16_t { kInterruptStatus = 1 << 3, kCapabilitiesList = 1 << 4, kFastBackToBack = 1 << 7, kDevselMedium = 1 << 9 };

constexpr uint8_t kMultiFunction = 0x80;  // of the header type (6.2.1)

// 6.2.5.1: the low bits of a base address register.
constexpr uint32_t kBarIo = 0x1, kBarMemory64 = 0x4, kBarPrefetchable = 0x8;
constexpr uint32_t kBarIoFlags = 0x3, kBarMemoryFlags = 0xf;
constexpr uint32_t kRomEnable = 0x1, kRomFlags = 0x7ff;  // 6.2.5.2

// Appendix H.
enum class Capability : uint8_t { Msi = 0x05, Vendor = 0x09, Express = 0x10, MsiX = 0x11, Sata = 0x12 };

// Whether an access reaches the register of so many bytes at `from`.
constexpr bool overlaps(unsigned offset, unsigned size, unsigned from, unsigned bytes) {
  return offset < from + bytes && from < offset + size;
}

}  // namespace lodge::devices::pci
