// A network card under a driver that writes anything anywhere, and a network that gives any frame: registers, rings, descriptors, resets in
// the middle of it all. No access beyond memory, no write that never ends, no endless work.
#include "devices/e1000/e1000.hpp"

#include <vector>

#include "guest_memory.hpp"
#include "input.hpp"
#include "wire.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

constexpr uint64_t kReceiveRing = 0x1000, kTransmitRing = 0x2000, kBuffers = 0x4000;
constexpr uint32_t kRctl = 0x100, kTctl = 0x400, kReceive = 0x2800, kTransmit = 0x3800;
constexpr unsigned kEntries = 16;

struct Queue final : Worker {
  void post(std::function<void()> work) override { waiting.push_back(std::move(work)); }
  [[nodiscard]] std::unique_ptr<Watch> watch(int, std::function<void()>) override { return nullptr; }
  void run() {
    for (size_t i = 0; i < waiting.size(); ++i) {
      require(i < 10000, "endless work");
      const auto work = std::move(waiting[i]);
      work();
    }
    waiting.clear();
  }
  std::vector<std::function<void()>> waiting;
};

class Card {
 public:
  Card() {
    memory_.clear();
    chip_.write_config(4, 2, 7);
    chip_.start();
    for (unsigned i = 0; i < kEntries; ++i) memory_.put_value<uint64_t>(kReceiveRing + 16 * i, kBuffers + 0x800 * i);
    put(kReceive, kReceiveRing);
    put(kReceive + 8, kEntries * 16);
    put(kReceive + 0x18, kEntries - 1);
    put(kTransmit, kTransmitRing);
    put(kTransmit + 8, kEntries * 16);
    put(kRctl, 0x801a);
    put(kTctl, 2);
  }
  ~Card() {
    worker_.run();
    chip_.stop();
    require(memory_.open == 0, "a write that never ends");
  }
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;

  void step(Input& input) {
    switch (input.take<uint8_t>() % 10) {
      case 0: put(input.take<uint16_t>() & 0x7ffc, input.take<uint32_t>()); break;
      case 1: static_cast<void>(chip_.read_bar(0, input.take<uint32_t>() & 0x1fff8, 1u << (input.take<uint8_t>() & 3))); break;
      case 2: memory_.put(input.take<uint16_t>() * uint64_t{4}, input.take_bytes(input.take<uint8_t>())); break;
      case 3: put(input.take<uint8_t>() & 1 ? kReceive + 0x18 : kTransmit + 0x18, input.take<uint8_t>()); break;
      case 4:
      case 5: {  // a descriptor
        const uint64_t at = kTransmitRing + 16 * (next_++ % kEntries);
        const bool anywhere = input.take<uint8_t>() < 16;
        memory_.put_value<uint64_t>(at, anywhere ? input.take<uint64_t>() : kBuffers + input.take<uint16_t>());
        memory_.put_value<uint64_t>(at + 8, uint64_t{input.take<uint32_t>()} << 32 | uint64_t{input.take<uint8_t>()} << 24 |
                                                uint64_t{input.take<uint8_t>() % 2u} << 20 | input.take<uint16_t>());
        put(kTransmit + 0x18, next_ % kEntries);
        break;
      }
      case 6: {  // a context that makes sense but for a part
        const uint64_t at = kTransmitRing + 16 * (next_++ % kEntries);
        memory_.put_value<uint64_t>(at, 14 | 24 << 8 | uint64_t{33} << 16 | uint64_t{34} << 32 | uint64_t{50} << 40);
        memory_.put_value<uint64_t>(at + 8, input.take<uint16_t>() | uint64_t{0x20u | (input.take<uint8_t>() & 7u)} << 24 |
                                                uint64_t{54} << 40 | uint64_t{input.take<uint16_t>()} << 48);
        memory_.put(at + input.take<uint8_t>() % 16, input.take_bytes(1));
        put(kTransmit + 0x18, next_ % kEntries);
        break;
      }
      case 7: {
        std::vector<uint8_t> frame(input.take<uint16_t>() % 9000);
        const auto bytes = input.take_bytes(20);
        std::copy_n(bytes.begin(), std::min(bytes.size(), frame.size()), frame.begin());
        static_cast<void>(wire_.card->receive(0, {}, std::as_bytes(std::span(frame))));
        wire_.card->received(0);
        break;
      }
      case 8:
        wire_.full = !wire_.full;
        wire_.card->sendable(0);
        break;
      default: worker_.run();
    }
  }

 private:
  void put(uint32_t offset, uint32_t value) { chip_.write_bar(0, offset, 4, value); }

  static inline Memory memory_;
  Queue worker_;
  Wire wire_;
  unsigned next_ = 0;
  e1000::E1000 chip_{*memory_.guest, worker_, wire_, {0x52, 0x54, 0, 1, 2, 3}, true, {}};
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lodge;
  fuzz::Input input({data, size});
  fuzz::Card card;
  fuzz::drive(card, input, 300);
  return 0;
}
