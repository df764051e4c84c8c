// A graphics card under a driver that writes anything into its registers and its memory, and a viewer that looks in between: no access
// beyond the memory, and a picture of a size that can be.
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "devices/vga/card.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

class CardMemory final : public vga::LinearMemory {
 public:
  std::span<uint8_t> bytes() override { return memory_; }
  void show(std::optional<uint64_t>) override {}
  vga::DirtyPages take_dirty() override { return vga::DirtyPages(memory_.size() / 4096 / 64, dirty); }
  uint64_t dirty = 0;

 private:
  // Exactly so large: what goes beyond is seen by the sanitizer.
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(256 << 10);
};

class Cells final : public vga::CellWindow {
 public:
  std::span<uint8_t> cells() override { return bytes_; }
  void show_cells(bool shown) override { require(shown != std::exchange(shown_, shown), "cells shown or hidden twice"); }
  bool take_cells_written() override { return true; }

 private:
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(kBytes);
  bool shown_ = false;
};

class Machine {
 public:
  Machine() {
    static_cast<void>(card_.attach(ports_, mmio_));
    card_.write_config(4, 2, 3);
  }
  void step(Input& input) {
    const unsigned size = 1u << (input.take<uint8_t>() % 3);
    switch (input.take<uint8_t>() % 8) {
      case 0: ports_.write(vga::kPorts + input.take<uint8_t>() % vga::kPortBytes, size, input.take<uint32_t>()); break;
      case 1: static_cast<void>(ports_.read(vga::kPorts + input.take<uint8_t>() % vga::kPortBytes, size)); break;
      case 2: mmio_.write(vga::kWindow + (input.take<uint32_t>() & 0x1ffff), size, input.take<uint32_t>()); break;
      case 3: static_cast<void>(mmio_.read(vga::kWindow + (input.take<uint32_t>() & 0x1ffff), size)); break;
      case 4:  // a register of the extensions, small enough to be drawn often
        ports_.write(0x1ce, 2, input.take<uint8_t>() % 16);
        ports_.write(0x1cf, 2, input.take<uint16_t>() & 0x1ff);
        break;
      case 5: card_.write_bar(2, input.take<uint16_t>() & 0xfff, size, input.take<uint32_t>()); break;
      case 6: static_cast<void>(card_.read_bar(2, input.take<uint16_t>() & 0xff8, size)); break;
      default: look(input);
    }
  }

 private:
  void look(Input& input) {
    if (looks_++ == 8) return;  // drawing is what takes the time
    memory_.dirty = input.take<uint8_t>();
    display::Damage damage;
    card_.refresh(picture_, damage, uint64_t{input.take<uint8_t>()} << 26, (input.take<uint8_t>() & 1) != 0);
    require(picture_.pixels.size() == size_t{picture_.width} * picture_.height, "a picture without all its pixels");
    for (const display::Rectangle& area : damage.areas())
      require(area.x + area.width <= picture_.width && area.y + area.height <= picture_.height, "damage beside the picture");
  }

  CardMemory memory_;
  FakeClock clock_;
  PortBus ports_;
  MmioBus mmio_;
  Cells cells_;
  vga::Card card_{memory_, &cells_, {}, clock_};
  display::Picture picture_;
  unsigned looks_ = 0;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lodge;
  fuzz::Input input({data, size});
  fuzz::Machine machine;
  fuzz::drive(machine, input, 300);
  return 0;
}
