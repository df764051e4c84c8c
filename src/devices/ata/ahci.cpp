#include "devices/ata/ahci.hpp"

#include <algorithm>

#include "devices/chipset/identities.hpp"
#include "devices/pci/dwords.hpp"

namespace lodge::devices::ata {

namespace {

// Generic host control (3.1).
enum Register : uint16_t { kCapabilities = 0x00, kControl = 0x04, kInterruptStatus = 0x08, kImplemented = 0x0c, kVersion = 0x10 };
constexpr uint32_t kPortRegisters = 0x100, kMemoryBytes = 0x1000;
constexpr uint32_t kReset = 1u << 0, kInterruptEnable = 1u << 1, kAhciEnable = 1u << 31;  // GHC
// CAP: AHCI only, 3 Gbit/s, command list override, native queue, 64-bit addresses.
constexpr uint32_t kCap = (Ahci::kPorts - 1) | (AhciPort::kSlots - 1) << 8 | 1u << 18 | 2u << 20 | 1u << 24 | 1u << 30 | 1u << 31;
constexpr uint32_t kVersion12 = 0x00010200;
constexpr uint32_t kPortsThere = (1u << Ahci::kPorts) - 1;

// Index and data ports (ICH9, 15.3): behind those of the IDE mode's bus master.
constexpr uint64_t kIndexBytes = 32, kIndexPort = 0x10, kDataPort = 0x14;

// Configuration registers (ICH9, 15.1).
constexpr unsigned kMap = 0x90, kPortControl = 0x92;
constexpr uint8_t kMapAhci = 0x40;
constexpr pci::Identity kIdentity = chipset::intel(0x2922, 2, 0x010601);

}  // namespace

Ahci::Ahci(memory::GuestMemory& memory)
    : Function(kIdentity, "ICH9 AHCI"),
      memory_(memory),
      ports_{AhciPort(*this), AhciPort(*this), AhciPort(*this), AhciPort(*this), AhciPort(*this), AhciPort(*this)} {
  add_bar(kIndexBar, {.kind = pci::BarKind::Io, .size = kIndexBytes});
  add_bar(kMemoryBar, {.kind = pci::BarKind::Memory32, .size = kMemoryBytes});
  add_interrupt_pin();
  // SATA capability, revision 1.0: where the index and data ports are (15.1.34).
  constexpr uint8_t kRevision = 0x10, kInBar4 = 0x08;
  config().set(pci::kStatus, 2, pci::kFastBackToBack | pci::kDevselMedium);
  config().add_capability(pci::Capability::Sata, std::array<uint8_t, 6>{kRevision, 0, kInBar4 | (kIndexPort / 4) << 4, 0, 0, 0});
  add_msi(1);
  config().set(kMap, 1, kMapAhci);
  config().define(kPortControl, 2, kPortsThere | 1u << 15, kPortsThere);
  MutexLock lock(mutex_);
  reset();
}

void Ahci::attach(unsigned place, std::unique_ptr<Device> device) {
  MutexLock lock(mutex_);
  ports_[place].attach(std::move(device));
}

void Ahci::shut_down() {
  for (AhciPort& port : ports_)
    if (port.device()) port.device()->wait_until_idle();
}

void Ahci::bus_master_changed(bool allowed) {
  MutexLock lock(mutex_);
  may_master_ = allowed;
  for (AhciPort& port : ports_) port.proceed();
}

// --- Registers

void Ahci::reset() {
  control_ = kAhciEnable;
  interrupt_status_ = 0;
  for (AhciPort& port : ports_) port.reset();
  update_interrupt(false);
}

uint32_t Ahci::read_register(uint32_t offset) {
  if (offset >= kPortRegisters) {
    const uint32_t port = (offset - kPortRegisters) / AhciPort::kBytes;
    return port < kPorts ? ports_[port].read((offset - kPortRegisters) % AhciPort::kBytes) : 0;
  }
  switch (offset) {
    case kCapabilities: return kCap;
    case kControl:
      // The reset is over when nothing of before reaches memory any more.
      resetting_ = resetting_ && !std::ranges::all_of(ports_, &AhciPort::quiet);
      return control_ | (resetting_ ? kReset : 0);
    case kInterruptStatus: return interrupt_status_;
    case kImplemented: return kPortsThere;
    case kVersion: return kVersion12;
    default: return 0;
  }
}

void Ahci::write_register(uint32_t offset, uint32_t value) {
  if (offset >= kPortRegisters) {
    const uint32_t port = (offset - kPortRegisters) / AhciPort::kBytes;
    if (port < kPorts) ports_[port].write((offset - kPortRegisters) % AhciPort::kBytes, value);
    return;
  }
  if (offset == kControl) {
    if (value & kReset) {
      resetting_ = true;
      return reset();
    }
    control_ = kAhciEnable | (value & kInterruptEnable);
    update_interrupt(false);
  } else if (offset == kInterruptStatus) {
    interrupt_status_ &= ~value;
    // What a port still has to say is said again (10.7.2.1).
    update_interrupt(true);
  }
}

// By memory, or by the index and data ports.
uint64_t Ahci::bar_read(unsigned index, uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  return pci::read_dwords(offset, size, [&](uint64_t at) -> uint32_t {
    if (index == kMemoryBar) return read_register(static_cast<uint32_t>(at));
    return at == kIndexPort ? index_ : at == kDataPort ? read_register(index_) : 0;
  });
}

void Ahci::bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  pci::write_dwords(offset, size, value, [&](uint64_t at, uint32_t dword) {
    if (index == kMemoryBar)
      write_register(static_cast<uint32_t>(at), dword);
    else if (at == kIndexPort)
      index_ = dword & (kMemoryBytes - 4);
    else if (at == kDataPort)
      write_register(index_, dword);
  });
}

// --- Interrupts

void Ahci::interrupts_changed() { update_interrupt(false); }

// IS holds what ports had to say until software clears it. A message is sent for each that is new, and `again`.
void Ahci::update_interrupt(bool again) {
  const uint32_t before = interrupt_status_;
  for (unsigned i = 0; i < kPorts; ++i)
    if (ports_[i].interrupts()) interrupt_status_ |= 1u << i;
  const bool level = interrupt_status_ != 0 && (control_ & kInterruptEnable) != 0;
  const bool fresh = level && (!level_ || again || (interrupt_status_ & ~before) != 0);
  level_ = level;
  if (fresh && msi()->enabled()) msi()->signal(0);
  set_intx(level);
}

}  // namespace lodge::devices::ata
