// The graphics card: a VGA on PCI, with its memory as one linear range, its registers once more in another, and a ROM.
//
// It is the one that QEMU calls "VGA" (its docs/specs/standard-vga): BAR 0 the memory, BAR 2 registers (the monitor's EDID at 0, VGA ports
// from 0x3C0 at 0x400, the Bochs registers as words at 0x500, the byte order at 0x604), for which Linux has bochs-drm and every other
// system its VESA driver.
//
// Threads: as pci::Function; refresh() by one other thread.
#pragma once

#include <functional>
#include <vector>

#include "devices/pci/function.hpp"
#include "devices/vga/edid.hpp"
#include "devices/vga/renderer.hpp"
#include "devices/vga/vga.hpp"
#include "display/screen.hpp"

namespace lodge::devices::vga {

// The card's memory as the processor reaches it without the card.
class LinearMemory {
 public:
  virtual ~LinearMemory() = default;
  [[nodiscard]] virtual std::span<uint8_t> bytes() = 0;
  // It is seen at that address from now on, or nowhere.
  virtual void show(std::optional<uint64_t> address) = 0;
  // Pages written there since the last call; empty where that is not known, which means all.
  [[nodiscard]] virtual DirtyPages take_dirty() = 0;
};

class Card final : public pci::Function, public display::Screen {
 public:
  static constexpr unsigned kPreferredWidth = 1280, kPreferredHeight = 800;

  // `cells` null: text modes work without it, slowly.
  Card(LinearMemory& memory, CellWindow* cells, std::span<const uint8_t> rom, const Clock& clock);

  [[nodiscard]] Result<> attach(PortBus& ports, MmioBus& memory);  // where VGAs are

  void refresh(display::Picture& picture, display::Damage& damage, uint64_t time_ns, bool whole) override;
  void bar_moved(unsigned index, std::optional<uint64_t> address) override;

 protected:
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned size) override;
  void bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) override;

 private:
  [[nodiscard]] uint8_t read_register(uint64_t offset);

  LinearMemory& memory_;
  Vga vga_;
  const std::array<uint8_t, kEdidBytes> edid_ = make_edid(kPreferredWidth, kPreferredHeight);
  Renderer renderer_;
  Renderer::Phase shown_;
};

}  // namespace lodge::devices::vga
