#include "devices/chipset/ich9_lpc.hpp"

#include "devices/chipset/identities.hpp"

namespace lodge::devices::chipset {

namespace {

// Registers (13.1).
constexpr unsigned kPmBase = 0x40, kAcpiControl = 0x44, kGpioBase = 0x48, kGpioControl = 0x4c, kPirqA = 0x60, kSerialIrq = 0x64,
                   kPirqE = 0x68, kIoDecode = 0x80, kLpcEnable = 0x82, kGenericDecode1 = 0x84, kGenericDecodes = 4,
                   kPmConfiguration1 = 0xa0, kPmConfigurationBytes = 0x10, kBiosControl = 0xdc, kRootComplexBase = 0xf0;
constexpr uint32_t kPmBaseBits = 0xff80, kGpioBaseBits = 0xffc0, kRootComplexBits = 0xffffc000, kEnable = 1;
constexpr uint8_t kAcpiEnable = 0x80, kAcpiControlBits = 0x87;
constexpr uint64_t kPowerBytes = 128, kRootComplexBytes = 16 << 10;

// At PMBASE (13.8.3).
constexpr uint64_t kAcpiBytes = 0x30, kSmiEnable = 0x30;
constexpr uint8_t kApmcEnable = 1 << 5;
// At RCBA (10.1): General Control and Status, with the strap that keeps the TCO timer from rebooting.
constexpr uint64_t kGcs = 0x3410;
constexpr uint64_t kNoReboot = 1 << 5;

constexpr pci::Identity kIdentity = intel(0x2918, 2, 0x060100);

// Where the router's registers are: PIRQA to PIRQD, and PIRQE to PIRQH.
constexpr unsigned route_register(unsigned line) { return line < 4 ? kPirqA + line : kPirqE + line - 4; }

}  // namespace

Ich9Lpc::Ich9Lpc(Board board)
    : Function(kIdentity, "ICH9 LPC"),
      router_(kLines, std::move(board.isa)),
      apic_(std::move(board.apic)),
      power_ports_(board.power),
      power_block_(board.ports, power_ports_, kPowerBytes, "ICH9 power management"),
      root_complex_block_(board.memory, root_complex_, kRootComplexBytes, "ICH9 chipset configuration") {
  pci::ConfigSpace& space = config();
  space.set(pci::kCommand, 2, pci::kIoSpace | pci::kMemorySpace | pci::kBusMaster);  // wired (13.1.3)
  space.set(pci::kStatus, 2, pci::kDevselMedium);
  space.define(kPmBase, 4, 1, kPmBaseBits);
  space.allow(kAcpiControl, 1, kAcpiControlBits);
  space.define(kGpioBase, 4, 1, kGpioBaseBits);
  space.allow(kGpioControl, 1, 0x10);
  for (unsigned line = 0; line < kLines; ++line) space.define(route_register(line), 1, PciIrqRouter::kDisabled, PciIrqRouter::kWritable);
  space.define(kSerialIrq, 1, 0x10, 0xff);
  space.allow(kIoDecode, 2, 0x1377);
  space.allow(kLpcEnable, 2, 0x3f0f);
  for (unsigned i = 0; i < kGenericDecodes; ++i) space.allow(kGenericDecode1 + 4 * i, 4, 0x00fcfffd);
  for (unsigned i = 0; i < kPmConfigurationBytes; i += 4) space.allow(kPmConfiguration1 + i, 4, 0xffffffff);
  space.allow(kBiosControl, 1, 0x0f);
  space.allow(kRootComplexBase, 4, kRootComplexBits | kEnable);
}

void Ich9Lpc::set_line(unsigned line, bool level) {
  router_.set_line(line, level);
  apic_[line].set(level);
}

void Ich9Lpc::config_written(unsigned offset, unsigned size) {
  for (unsigned line = 0; line < kLines; ++line)
    if (const unsigned at = route_register(line); pci::overlaps(offset, size, at, 1))
      router_.set_route(line, static_cast<uint8_t>(config().read(at, 1)));
  if (pci::overlaps(offset, size, kPmBase, 5)) {
    power_base_ = static_cast<uint16_t>(config().read(kPmBase, 4) & kPmBaseBits);
    const bool enabled = (config().read(kAcpiControl, 1) & kAcpiEnable) != 0;
    power_block_.move(enabled ? std::optional<uint64_t>(power_base_) : std::nullopt);
  }
  if (pci::overlaps(offset, size, kRootComplexBase, 4)) {
    const uint32_t value = config().read(kRootComplexBase, 4);
    root_complex_block_.move(value & kEnable ? std::optional<uint64_t>(value & kRootComplexBits) : std::nullopt);
  }
}

uint8_t Ich9Lpc::PowerPorts::read_byte(uint64_t offset) {
  if (offset < kAcpiBytes) return static_cast<uint8_t>(acpi_.read(offset, 1));
  return offset == kSmiEnable ? kApmcEnable : 0;
}

void Ich9Lpc::PowerPorts::write_byte(uint64_t offset, uint8_t value) {
  if (offset < kAcpiBytes) acpi_.write(offset, 1, value);
}

uint64_t Ich9Lpc::RootComplex::read(uint64_t offset, unsigned size) {
  if (offset > kGcs || offset + size <= kGcs) return 0;
  return kNoReboot << (8 * (kGcs - offset));
}

}  // namespace lodge::devices::chipset
