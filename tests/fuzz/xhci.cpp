// A USB controller with a tablet under a driver that writes anything anywhere: registers, rings that lead into themselves, contexts of
// nonsense. No access beyond memory, no write that never ends, no endless work.
#include "devices/usb/xhci.hpp"

#include <array>
#include <memory>

#include "base/clock.hpp"
#include "devices/usb/keyboard.hpp"
#include "devices/usb/tablet.hpp"
#include "guest_memory.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

constexpr uint64_t kContexts = 0x1000, kCommands = 0x1100, kEventTable = 0x1400, kEvents = 0x1500, kInput = 0x1800, kOutput = 0x1c00,
                   kRings = 0x2000;

class Controller {
 public:
  Controller() {
    memory_.clear();
    usb_.attach(1, tablet_);
    usb_.attach(2, keyboard_);
    usb_.write_config(4, 2, 6);
    put(0x70, kContexts);
    put(0x78, 8);
    put(0x58, kCommands | 1);
    store(kEventTable, kEvents);
    store(kEventTable + 8, 16);
    put(0x1028, 1);
    put(0x1038, kEvents);
    put(0x1030, kEventTable);
    put(0x1034, 0);
    put(0x1020, 2);
    for (uint64_t slot = 1; slot <= 8; ++slot) store(kContexts + 8 * slot, kOutput);
    put(0x40, 5);
  }
  ~Controller() { require(memory_.open == 0, "a write that never ends"); }
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void step(Input& input) {
    switch (input.take<uint8_t>() % 10) {
      case 0: usb_.write_bar(0, input.take<uint16_t>() & 0x3ffc, 4, input.take<uint32_t>()); break;
      case 1: usb_.write_bar(0, input.take<uint16_t>() & 0x3ff8, 8, input.take<uint64_t>()); break;
      case 2: static_cast<void>(usb_.read_bar(0, input.take<uint16_t>() & 0x3ff8, 1u << (input.take<uint8_t>() & 3))); break;
      case 3: memory_.put(input.take<uint16_t>() * uint64_t{4}, input.take_bytes(input.take<uint8_t>())); break;
      case 4: {  // a command
        trb(kCommands + 16 * (commands_++ % 32), input.take<uint8_t>() & 1 ? kInput : input.take<uint16_t>(),
            (9 + input.take<uint8_t>() % 10) << 10 | (input.take<uint8_t>() & 1 ? 1 : input.take<uint8_t>() % 9) << 24 |
                (input.take<uint8_t>() % 5) << 16,
            0);
        put(0x2000, 0);
        break;
      }
      case 5: {  // an input context that makes sense, but for a part
        store(kInput, 0);
        store(kInput + 4, 3 | (input.take<uint8_t>() & 8));
        store(kInput + 32 + 4, 1 << 16);
        store(kInput + 64 + 8, kRings | 1);
        store(kInput + 128 + 4, 7 << 3);
        store(kInput + 128 + 8, (kRings + 0x400) | 1);
        store(kInput + (input.take<uint8_t>() & 0xfc), input.take<uint32_t>());
        break;
      }
      case 6: {  // a stage of a control transfer
        const auto type = input.take<uint8_t>() % 10;
        trb(kRings + 16 * (control_++ % 32), type == 2 ? input.take<uint64_t>() : input.take<uint32_t>(),
            static_cast<uint32_t>(type) << 10 | (input.take<uint8_t>() & 0x7e) | 0x60, input.take<uint32_t>());
        put(0x2004, 1);
        break;
      }
      case 7:
        trb(kRings + 0x400 + 16 * (interrupt_++ % 32), input.take<uint32_t>(), 1 << 10 | 0x20, input.take<uint8_t>());
        put(0x2004, 3);
        break;
      case 8:
        tablet_.point(input.take<uint16_t>(), input.take<uint16_t>(), input.take<int8_t>(), input.take<uint8_t>());
        keyboard_.key(input.take<uint8_t>(), (input.take<uint8_t>() & 1) != 0);
        break;
      default: put(0x1038, kEvents + 16 * (input.take<uint8_t>() % 16) + 8); put(0x103c, 0);
    }
  }

 private:
  void put(uint64_t offset, uint64_t value) { usb_.write_bar(0, offset, 4, value); }
  static void store(uint64_t at, uint64_t value) {
    std::array<uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &value, bytes.size());
    memory_.put(at, bytes);
  }
  static void trb(uint64_t at, uint64_t parameter, uint32_t control, uint32_t status) {
    store(at, parameter);
    store(at + 4, parameter >> 32);
    store(at + 8, status);
    store(at + 12, control | 1);
  }

  static inline Memory memory_;
  FakeClock clock_;
  usb::Tablet tablet_;
  usb::Keyboard keyboard_;
  usb::Xhci usb_{*memory_.guest, clock_};
  unsigned commands_ = 0, control_ = 0, interrupt_ = 0;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lodge;
  fuzz::Input input({data, size});
  fuzz::Controller controller;
  fuzz::drive(controller, input, 200);
  return 0;
}
