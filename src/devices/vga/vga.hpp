// The VGA as programs see it: its ports, the window at 0xA0000, and the Bochs extensions for large linear modes.
//
// After IBM's PS/2 Hardware Interface Technical Reference ("Video Subsystem") and the Bochs VBE display API. The chip alone: the card
// (card.hpp) gives it its memory and its place on a bus.
//
// Deviations: no light pen, no vertical interrupt, no sense of the monitor's type (a colour one); the timing registers only hold what is
// written, and the retrace is one of 70 a second.
//
// In plain text modes the window holds cells, characters and attributes by turns, and each write is what it seems. Then they stand in
// memory of their own, which the processor may reach without this chip (CellWindow); the planes get them when somebody looks.
//
// Threads: any.
#pragma once

#include <span>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/vga/state.hpp"

namespace lodge::devices::vga {

// Memory in the place of the window's upper part, kCells and on, while the chip says so.
class CellWindow {
 public:
  static constexpr uint64_t kBase = 0xb8000, kBytes = 0x8000;
  virtual ~CellWindow() = default;
  [[nodiscard]] virtual std::span<uint8_t> cells() = 0;  // kBytes of them
  virtual void show_cells(bool shown) = 0;               // under the chip's lock
  // Whether some have been written since the last call, or may have been.
  [[nodiscard]] virtual bool take_cells_written() = 0;
};

class Vga {
 public:
  // `memory`: a power of two of bytes, at least 256 KiB; it outlives this object.
  // `cells` null: every access comes here. It outlives this object as well.
  Vga(std::span<uint8_t> memory, const Clock& clock, CellWindow* cells = nullptr);

  [[nodiscard]] PortDevice& ports() { return ports_; }        // at kPorts
  [[nodiscard]] PortDevice& dispi_ports() { return dispi_; }  // at kDispiIndexPort
  [[nodiscard]] MmioDevice& window() { return window_; }      // at kWindow

  [[nodiscard]] uint8_t read_port(uint16_t port) LODGE_EXCLUDES(mutex_);
  void write_port(uint16_t port, uint8_t value) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint16_t read_dispi(unsigned index) LODGE_EXCLUDES(mutex_);
  void write_dispi(unsigned index, uint16_t value) LODGE_EXCLUDES(mutex_);

  struct Snapshot {
    State state;
    bool changed;  // registers, or memory through the window, since the last one
  };
  [[nodiscard]] Snapshot take_snapshot() LODGE_EXCLUDES(mutex_);

 private:
  struct Ports final : BytePortDevice {
    explicit Ports(Vga& v) : vga(v) {}
    uint8_t read_byte(uint64_t offset) override { return vga.read_port(static_cast<uint16_t>(kPorts + offset)); }
    void write_byte(uint64_t offset, uint8_t value) override { vga.write_port(static_cast<uint16_t>(kPorts + offset), value); }
    Vga& vga;
  };
  struct DispiPorts final : PortDevice {
    explicit DispiPorts(Vga& v) : vga(v) {}
    uint32_t read(uint64_t offset, unsigned size) override;
    void write(uint64_t offset, unsigned size, uint32_t value) override;
    Vga& vga;
  };
  struct Window final : MmioDevice {
    explicit Window(Vga& v) : vga(v) {}
    uint64_t read(uint64_t offset, unsigned size) override { return vga.read_window(static_cast<uint32_t>(offset), size); }
    void write(uint64_t offset, unsigned size, uint64_t value) override { vga.write_window(static_cast<uint32_t>(offset), size, value); }
    Vga& vga;
  };

  [[nodiscard]] uint64_t read_window(uint32_t offset, unsigned size) LODGE_EXCLUDES(mutex_);
  void write_window(uint32_t offset, unsigned size, uint64_t value) LODGE_EXCLUDES(mutex_);
  // Where an address of the window lies in what the chip decodes of it; kNowhere if it does not.
  [[nodiscard]] uint32_t decode(uint32_t offset) const LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t read_memory(uint32_t address) LODGE_REQUIRES(mutex_);
  void write_memory(uint32_t address, uint8_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t* dword_at(uint32_t address) LODGE_REQUIRES(mutex_);
  // The window is nothing but cells.
  [[nodiscard]] bool has_plain_cells() const LODGE_REQUIRES(mutex_);
  void update_cells() LODGE_REQUIRES(mutex_);  // after each change of what decides it
  void store_cells() LODGE_REQUIRES(mutex_);   // into the planes
  [[nodiscard]] uint8_t read_status1() LODGE_REQUIRES(mutex_);
  void write_attribute(uint8_t value) LODGE_REQUIRES(mutex_);
  void write_crtc(uint8_t value) LODGE_REQUIRES(mutex_);
  void enable_dispi(uint16_t value) LODGE_REQUIRES(mutex_);
  void set_virtual_width(uint16_t value) LODGE_REQUIRES(mutex_);

  const std::span<uint8_t> memory_;
  const Clock& clock_;
  CellWindow* const cells_;
  Ports ports_{*this};
  DispiPorts dispi_{*this};
  Window window_{*this};
  Mutex mutex_;
  State state_ LODGE_GUARDED_BY(mutex_);
  std::array<uint8_t, 4> latch_ LODGE_GUARDED_BY(mutex_) = {};
  uint16_t dispi_index_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t dac_index_ LODGE_GUARDED_BY(mutex_) = 0;  // of bytes: three a colour
  bool dac_reads_ LODGE_GUARDED_BY(mutex_) = false;
  std::array<uint8_t, 3> dac_entry_ LODGE_GUARDED_BY(mutex_) = {};
  bool cells_shown_ LODGE_GUARDED_BY(mutex_) = false;
  bool changed_ LODGE_GUARDED_BY(mutex_) = true;
};

}  // namespace lodge::devices::vga
