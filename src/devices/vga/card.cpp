#include "devices/vga/card.hpp"

#include <algorithm>
#include <cstring>

namespace lodge::devices::vga {

namespace {

constexpr unsigned kMemoryBar = 0, kRegisterBar = 2;
constexpr uint64_t kRegisterBytes = 0x1000;
constexpr uint64_t kVgaRegisters = 0x400, kVgaRegisterBytes = 0x20, kDispiWords = 0x500, kExtension = 0x600, kByteOrder = 0x604;
constexpr uint32_t kExtensionBytes = 8, kLittleEndian = 0x1e1e1e1e;
constexpr uint16_t kFirstVgaPort = 0x3c0;

constexpr pci::Identity kIdentity{
    .vendor = 0x1234, .device = 0x1111, .revision = 2, .class_code = 0x030000, .subsystem_vendor = 0x1af4, .subsystem = 0x1100};

}  // namespace

Card::Card(LinearMemory& memory, CellWindow* cells, std::span<const uint8_t> rom, const Clock& clock)
    : Function(kIdentity, "VGA"), memory_(memory), vga_(memory.bytes(), clock, cells) {
  // It answers at VGA's addresses as long as these bits are set, which firmware does before it runs the ROM.
  config().allow(pci::kCommand, 2, pci::kIoSpace);
  add_bar(kMemoryBar, {.kind = pci::BarKind::Memory32, .size = memory.bytes().size(), .prefetchable = true});
  add_bar(kRegisterBar, {.kind = pci::BarKind::Memory32, .size = kRegisterBytes});
  if (!rom.empty()) add_rom(rom);
}

Result<> Card::attach(PortBus& ports, MmioBus& memory) {
  TRY(ports.attach(kPorts, kPortBytes, vga_.ports(), "VGA"));
  TRY(ports.attach(kDispiIndexPort, kDispiPortBytes, vga_.dispi_ports(), "VGA extensions"));
  return memory.attach(kWindow, kWindowBytes, vga_.window(), "VGA memory");
}

void Card::bar_moved(unsigned index, std::optional<uint64_t> address) {
  if (index == kMemoryBar) memory_.show(address);
}

// --- BARs. The memory's accesses end here only while the processor does not reach it itself.

uint8_t Card::read_register(uint64_t offset) {
  if (offset < edid_.size()) return edid_[offset];
  if (offset - kVgaRegisters < kVgaRegisterBytes) return vga_.read_port(static_cast<uint16_t>(kFirstVgaPort + (offset - kVgaRegisters)));
  if (offset >= kDispiWords && offset < kDispiWords + 2 * kDispiRegisters)
    return static_cast<uint8_t>(vga_.read_dispi(static_cast<unsigned>(offset - kDispiWords) / 2) >> (8 * (offset & 1)));
  if (offset >= kExtension && offset < kExtension + kExtensionBytes)
    return static_cast<uint8_t>((offset < kByteOrder ? kExtensionBytes : kLittleEndian) >> (8 * (offset & 3)));
  return 0;
}

uint64_t Card::bar_read(unsigned index, uint64_t offset, unsigned size) {
  uint64_t value = 0;
  if (index == kMemoryBar) {
    std::memcpy(&value, &memory_.bytes()[offset], size);
  } else {
    for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_register(offset + i)} << (8 * i);
  }
  return value;
}

void Card::bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) {
  if (index == kMemoryBar) {
    std::memcpy(&memory_.bytes()[offset], &value, size);
    return;
  }
  if (offset - kVgaRegisters < kVgaRegisterBytes) {
    for (unsigned i = 0; i < size && offset + i - kVgaRegisters < kVgaRegisterBytes; ++i)
      vga_.write_port(static_cast<uint16_t>(kFirstVgaPort + (offset + i - kVgaRegisters)), static_cast<uint8_t>(value >> (8 * i)));
  } else if (offset >= kDispiWords && offset < kDispiWords + 2 * kDispiRegisters && offset % 2 == 0) {
    for (unsigned i = 0; i < std::max(size, 2u); i += 2)
      vga_.write_dispi(static_cast<unsigned>(offset + i - kDispiWords) / 2, static_cast<uint16_t>(value >> (8 * i)));
  }
}

// --- The picture

void Card::refresh(display::Picture& picture, display::Damage& damage, uint64_t time_ns, bool whole) {
  // The cursor blinks every 8 frames, characters every 16 ("Cursor Start register", "Attribute Mode Control register").
  constexpr uint64_t kCursorNs = kSecondNs * 8 / 70;
  const Renderer::Phase phase{.cursor = time_ns / kCursorNs % 2 == 0, .blinking = time_ns / (2 * kCursorNs) % 2 == 0};
  // What is written after this shows next time.
  DirtyPages dirty = memory_.take_dirty();
  const auto [state, changed] = vga_.take_snapshot();
  const bool written = dirty.empty() || std::ranges::any_of(dirty, [](uint64_t word) { return word != 0; });
  const bool blinks = !state.extended() && (phase.cursor != shown_.cursor || phase.blinking != shown_.blinking);
  if (!whole && !changed && !written && !blinks) return;
  shown_ = phase;
  if (whole || changed) dirty.clear();
  renderer_.render(state, memory_.bytes(), dirty, phase, picture, damage);
}

}  // namespace lodge::devices::vga
