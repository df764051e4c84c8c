// A floppy disk controller with two drives and the DMA controllers under a driver that writes anything anywhere: commands, registers,
// resets and other disks in the middle of it all. No access beyond memory or image, no write that never ends, no endless work.
#include <memory>

#include "devices/floppy/controller.hpp"
#include "disks.hpp"
#include "guest_memory.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

class Controller {
 public:
  Controller(Input& input, bool read_only) : disks_(input, read_only) {
    memory_.clear();
    require(dma_.attach(ports_) && chip_.attach(ports_), "the ports");
    chip_.add_drive(0, &disks_.disk());
    chip_.add_drive(1, &disks_.medium());
    out(0xd4, 0);
    out(0x3f2, 0x3c);
    out(0x3f7, 1);
  }
  ~Controller() {
    chip_.shut_down();
    require(memory_.open == 0, "a write that never ends");
  }
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void step(Input& input) {
    switch (input.take<uint8_t>() % 9) {
      case 0: ports_.write(0x3f0 + input.take<uint8_t>() % 8, 1u << (input.take<uint8_t>() % 3), input.take<uint32_t>()); break;
      case 1: static_cast<void>(ports_.read(0x3f0 + input.take<uint8_t>() % 8, 1u << (input.take<uint8_t>() % 3))); break;
      case 2: ports_.write(input.take<uint8_t>() & 0xdf, 1, input.take<uint8_t>()); break;
      case 3: static_cast<void>(ports_.read(input.take<uint8_t>() & 0xdf, 1)); break;
      case 4: {  // a transfer that is set up
        out(0x0c, 0);
        out(0x0b, (input.take<uint8_t>() & 0x3c) | 0x42);
        for (const uint16_t port : {0x04, 0x04, 0x05, 0x05}) out(port, input.take<uint8_t>());
        out(0x81, input.take<uint8_t>() & 3);
        out(0x0a, 2);
        break;
      }
      case 5: {  // a command that makes sense
        constexpr std::array<uint8_t, 6> kCodes{0x46, 0xc5, 0xe6, 0x56, 0x4d, 0x4a};
        const uint8_t code = kCodes[input.take<uint8_t>() % kCodes.size()], drive = input.take<uint8_t>() & 7,
                      cylinder = input.take<uint8_t>() % 48;
        for (const uint8_t byte : {uint8_t{0x0f}, drive, cylinder, uint8_t{0x08}}) out(0x3f5, byte);
        results();
        out(0x3f5, code);
        out(0x3f5, drive);
        if (code == 0x4a) break;
        if (code != 0x4d) out(0x3f5, cylinder);
        if (code != 0x4d) out(0x3f5, input.take<uint8_t>() & 1);
        if (code != 0x4d) out(0x3f5, input.take<uint8_t>() % 12);
        out(0x3f5, 2);
        for (int i = 0; i < 3; ++i) out(0x3f5, input.take<uint8_t>() % 12);
        break;
      }
      case 6: results(); break;
      case 7: {
        const auto number = input.take<uint8_t>();
        chip_.set_medium(number & 1, number & 2 ? nullptr : number & 1 ? &disks_.medium() : &disks_.disk());
        break;
      }
      default: Disks::settle();
    }
  }

 private:
  void out(uint16_t port, uint8_t value) { ports_.write(port, 1, value); }
  // As many bytes as there are, but of a sector that goes through the FIFO without end.
  void results() {
    for (int i = 0; i < 600 && (ports_.read(0x3f4, 1) & 0xc0) == 0xc0; ++i) static_cast<void>(ports_.read(0x3f5, 1));
  }

  static inline Memory memory_;
  Disks disks_;
  PortBus ports_;
  I8237 dma_{*memory_.guest};
  floppy::Controller chip_{IrqPin(), dma_};
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lodge::fuzz::drive_controller<lodge::fuzz::Controller>({data, size});
}
