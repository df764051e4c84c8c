// The registers of an ATA device and what their bits mean (ATA/ATAPI-7 volume 1, clause 5 and 6; ACS-3, clause 6).
#pragma once

#include <array>
#include <cstdint>

namespace lodge::devices::ata {

enum Status : uint8_t {
  kError = 0x01,  // CHK of the packet feature set
  kDataRequest = 0x08,
  kServiceOrSeekComplete = 0x10,
  kDeviceFault = 0x20,
  kReady = 0x40,
  kBusy = 0x80,
};

enum ErrorBit : uint8_t {
  kAborted = 0x04,
  kIdNotFound = 0x10,
  kUncorrectable = 0x40,
};

// The device register.
constexpr uint8_t kDeviceLba = 0x40, kDeviceSecond = 0x10, kDeviceHead = 0x0f, kDeviceObsolete = 0xa0;
// The device control register.
constexpr uint8_t kControlNoInterrupt = 0x02, kControlSoftReset = 0x04, kControlHighOrder = 0x80;
// Interrupt reason, in the sector count register of the packet feature set.
constexpr uint8_t kReasonCommand = 0x01, kReasonToHost = 0x02;

// The command block. Registers with two bytes hold what was written last and, above it, what before that (48-bit addresses).
struct Registers {
  uint16_t features = 0, count = 0, low = 0, mid = 0, high = 0;
  uint8_t device = 0, command = 0;
  uint8_t status = 0, error = 0;

  static void push(uint16_t& reg, uint8_t value) { reg = static_cast<uint16_t>(reg << 8 | value); }
  static void set(uint16_t& reg, unsigned value) { reg = static_cast<uint16_t>(value); }
};

}  // namespace lodge::devices::ata
