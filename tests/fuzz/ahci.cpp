// A SATA controller with a disk and a CD drive, under a driver that writes anything anywhere: registers, command lists, frames, tables,
// resets in the middle of it all. No access beyond memory or image, no write that never ends, no endless work.
#include "devices/ata/ahci.hpp"

#include <array>
#include <memory>

#include "devices/ata/hard_disk.hpp"
#include "devices/ata/optical_drive.hpp"
#include "disks.hpp"
#include "guest_memory.hpp"
#include "input.hpp"

namespace lodge::fuzz {
namespace {

using namespace devices;

// Of each port: 64 KiB of memory.
constexpr uint64_t kPortMemory = 0x10000, kList = 0, kReceived = 0x400, kTables = 0x1000, kTableBytes = 0x400, kData = 0x9000;
constexpr unsigned kClb = 0x00, kFb = 0x08, kIe = 0x14, kCmd = 0x18, kSctl = 0x2c, kSact = 0x34, kCi = 0x38;

class Controller {
 public:
  Controller(Input& input, bool read_only) : disks_(input, read_only) {
    memory_.clear();
    sata_ = std::make_unique<ata::Ahci>(*memory_.guest);
    sata_->attach(0, std::make_unique<ata::HardDisk>(sata_->link(0), disks_.disk(), 0));
    sata_->attach(1, std::make_unique<ata::OpticalDrive>(sata_->link(1), &disks_.medium(), 1));
    sata_->write_config(4, 2, 7);
    put(0x04, 2);
    for (unsigned port = 0; port < 2; ++port) {
      put(at(port, kClb), static_cast<uint32_t>(port * kPortMemory + kList));
      put(at(port, kFb), static_cast<uint32_t>(port * kPortMemory + kReceived));
      put(at(port, kIe), ~0u);
      put(at(port, kCmd), 0x11);
    }
  }
  ~Controller() {
    sata_->shut_down();
    require(memory_.open == 0, "a write that never ends");
  }
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void step(Input& input) {
    const auto what = input.take<uint8_t>();
    const unsigned port = what >> 7, slot = input.take<uint8_t>() % 32;
    switch (what % 10) {
      case 0: put(input.take<uint16_t>() & 0xffc, input.take<uint32_t>()); break;
      case 1: static_cast<void>(sata_->read_bar(5, input.take<uint16_t>() & 0xff8, 1u << (slot & 3))); break;
      case 2: memory_.put(input.take<uint16_t>() * uint64_t{4}, input.take_bytes(input.take<uint8_t>())); break;
      case 3: sata_->write_config(input.take<uint8_t>() & 0xfc, 4, input.take<uint32_t>()); break;
      case 4: put(at(port, kSctl), input.take<uint8_t>() & 0xf); break;
      case 5:  // stopped and started
        put(at(port, kCmd), input.take<uint8_t>());
        put(at(port, kCmd), 0x11);
        break;
      case 6:
      case 7: command(input, port, slot); break;
      case 8: put(at(port, input.take<uint8_t>() & 1 ? kCi : kSact), input.take<uint32_t>()); break;
      default: Disks::settle();
    }
  }

 private:
  static unsigned at(unsigned port, unsigned reg) { return 0x100 + port * 0x80 + reg; }
  void put(unsigned offset, uint32_t value) { sata_->write_bar(5, offset, 4, value); }

  // One with a frame and a table that make sense, but for what the input has in its place.
  void command(Input& input, unsigned port, unsigned slot) {
    constexpr std::array<uint8_t, 12> kCodes{0x60, 0x61, 0x25, 0x35, 0x20, 0x30, 0xec, 0xa0, 0xa1, 0x06, 0x2f, 0xea};
    const uint64_t base = port * kPortMemory, table = base + kTables + slot % 8 * kTableBytes;
    const auto code = input.take<uint8_t>(), regions = static_cast<uint8_t>(1 + input.take<uint8_t>() % 4);
    const uint8_t control = input.take<uint8_t>();
    memory_.put_value<uint32_t>(base + kList + 32 * slot, static_cast<uint32_t>(regions) << 16 | 5 | (code % 12 == 7 ? 0x20 : 0));
    memory_.put_value<uint64_t>(base + kList + 32 * slot + 8, table);
    std::array<uint8_t, 20> frame{0x27, 0x80, code < 240 ? kCodes[code % 12] : code, input.take<uint8_t>()};
    frame[4] = input.take<uint8_t>();
    frame[5] = input.take<uint8_t>() & 1;
    frame[7] = 0x40;
    frame[12] = code % 12 < 2 ? static_cast<uint8_t>(slot << 3) : input.take<uint8_t>();
    if (control < 16) frame = {0x27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, static_cast<uint8_t>(control & 4)};
    memory_.put(table, frame);
    memory_.put(table + 0x40, input.take_bytes(12));
    for (unsigned i = 0; i < regions; ++i) {
      const bool anywhere = input.take<uint8_t>() < 16;
      memory_.put_value<uint64_t>(table + 0x80 + 16 * i,
                                  anywhere ? input.take<uint32_t>() : base + kData + input.take<uint16_t>() % 0x8000);
      memory_.put_value<uint32_t>(table + 0x8c + 16 * i, input.take<uint16_t>() % 0x2000);
    }
    if (code % 12 < 2) put(at(port, kSact), 1u << slot);
    put(at(port, kCi), 1u << slot);
    if (control & 0x80) Disks::settle();
  }

  static inline Memory memory_;
  Disks disks_;
  std::unique_ptr<ata::Ahci> sata_;
};

}  // namespace
}  // namespace lodge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return lodge::fuzz::drive_controller<lodge::fuzz::Controller>({data, size});
}
