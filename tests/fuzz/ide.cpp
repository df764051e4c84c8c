// An IDE controller with a disk and a CD drive, under a driver that writes anything anywhere: registers, packets, tables of regions, resets
// in the middle of it all. No access beyond memory or image, no write that never ends, no command that the end of the machine waits for.
#include <memory>

#include "devices/ata/hard_disk.hpp"
#include "devices/ata/optical_drive.hpp"
#include "devices/ata/piix_ide.hpp"
#include "disks.hpp"
#include "guest_memory.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

constexpr uint64_t kTable = 0x1000;

class Controller {
 public:
  Controller(Input& input, bool read_only) : disks_(input, read_only) {
    memory_.clear();
    ide_ = std::make_unique<ata::PiixIde>(*memory_.guest, ports_, std::array<IrqPin, 2>{});
    ide_->channel(0).attach(0, std::make_unique<ata::HardDisk>(ide_->channel(0), disks_.disk(), 0));
    ide_->channel(1).attach(0, std::make_unique<ata::OpticalDrive>(ide_->channel(1), &disks_.medium(), 1));
    ide_->write_config(4, 2, 5);
    ide_->write_config(0x40, 4, 0x80008000);
  }
  ~Controller() {
    ide_->shut_down();
    require(memory_.open == 0, "a write that never ends");
  }
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void step(Input& input) {
    const auto what = input.take<uint8_t>();
    const uint16_t base = what & 0x80 ? 0x170 : 0x1f0;
    const unsigned size = 1u << (input.take<uint8_t>() % 3);
    switch (what % 12) {
      case 0: ports_.write(base + input.take<uint8_t>() % 8, size, input.take<uint32_t>()); break;
      case 1: static_cast<void>(ports_.read(base + input.take<uint8_t>() % 8, size)); break;
      case 2: ports_.write(base + 0x206, 1, input.take<uint8_t>()); break;
      case 3: ide_->write_bar(4, input.take<uint8_t>() % 16, 1, input.take<uint8_t>()); break;
      case 4: {  // a table, and the master at it
        memory_.put(kTable, input.take_bytes(32));
        ide_->write_bar(4, base == 0x1f0 ? 4 : 12, 4, kTable);
        ide_->write_bar(4, base == 0x1f0 ? 0 : 8, 1, input.take<uint8_t>());
        break;
      }
      case 5: memory_.put(input.take<uint16_t>() * uint64_t{4}, input.take_bytes(input.take<uint8_t>())); break;
      case 6: ide_->write_config(input.take<uint8_t>() & 0xfc, 4, input.take<uint32_t>()); break;
      case 7: {  // a disk's command with sensible registers
        ports_.write(0x1f6, 1, 0xe0);
        for (uint16_t at = 1; at < 6; ++at) ports_.write(0x1f0 + at, 1, input.take<uint8_t>() & 3);
        ports_.write(0x1f7, 1, input.take<uint8_t>());
        Disks::settle();
        break;
      }
      case 8: {  // a packet
        ports_.write(0x171, 1, input.take<uint8_t>() & 1);
        ports_.write(0x174, 2, input.take<uint16_t>());
        ports_.write(0x177, 1, 0xa0);
        for (unsigned i = 0; i < 6; ++i) ports_.write(0x170, 2, input.take<uint16_t>());
        Disks::settle();
        break;
      }
      case 9:
        for (unsigned count = input.take<uint16_t>() % 1024; count != 0; --count)
          static_cast<void>(ports_.read(base, size == 1 ? 2 : size));
        Disks::settle();
        break;
      case 10:
        for (unsigned count = input.take<uint16_t>() % 1024; count != 0; --count) ports_.write(base, size == 1 ? 2 : size, count);
        Disks::settle();
        break;
      default: Disks::settle();
    }
  }

 private:
  static inline Memory memory_;
  PortBus ports_;
  Disks disks_;
  std::unique_ptr<ata::PiixIde> ide_;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lodge::fuzz::drive_controller<lodge::fuzz::Controller>({data, size});
}
