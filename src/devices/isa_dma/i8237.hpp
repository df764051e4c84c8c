// The PC/AT's two DMA controllers (Intel 8237A, order number 231466) with their page registers: channels 0 to 3 move bytes, 4 leads from
// one to the other, and 5 to 7 move words.
//
// A device moves its data by move(), and learns whether the channel's count has come to its end (TC). Demand, single and block mode are
// the same here; memory to memory, compressed timing and rotating priority are not there.
//
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices {

class I8237 {
 public:
  static constexpr uint16_t kBytesPorts = 0x00, kBytesLength = 0x10, kPagePorts = 0x81, kPageLength = 0x0f, kWordsPorts = 0xc0,
                            kWordsLength = 0x20;
  static constexpr unsigned kChannels = 8, kCascade = 4;

  explicit I8237(memory::GuestMemory& memory) : memory_(memory) {}

  [[nodiscard]] Result<> attach(PortBus& ports);

  enum class Direction : uint8_t { ToMemory, FromMemory };
  struct Moved {
    size_t bytes = 0;
    bool terminal_count = false;
  };
  // Moves what the channel has room for. Nothing while the channel is masked, its controller is off, or it is set up the other way. The
  // memory that is none takes nothing and reads as ones.
  Moved move(unsigned channel, Direction direction, std::span<uint8_t> data) LODGE_EXCLUDES(mutex_);

 private:
  struct Channel {
    uint16_t base_address = 0, base_count = 0, address = 0, count = 0;
    uint8_t mode = 0, page = 0;
    bool masked = true;
  };
  struct Controller {
    std::array<Channel, 4> channels;
    uint8_t command = 0, reached = 0;  // terminal counts since the last read of the status
    bool high_byte = false;            // the flip-flop
  };
  class ControllerPorts final : public BytePortDevice {
   public:
    ControllerPorts(I8237& chip, unsigned number) : chip_(chip), number_(number) {}

   protected:
    uint8_t read_byte(uint64_t offset) override { return chip_.read(number_, static_cast<unsigned>(offset) >> number_); }
    void write_byte(uint64_t offset, uint8_t value) override { chip_.write(number_, static_cast<unsigned>(offset) >> number_, value); }

   private:
    I8237& chip_;
    const unsigned number_;  // registers of the second one are two ports apart
  };
  class PagePorts final : public BytePortDevice {
   public:
    explicit PagePorts(I8237& chip) : chip_(chip) {}

   protected:
    uint8_t read_byte(uint64_t offset) override { return chip_.read_page(static_cast<unsigned>(offset)); }
    void write_byte(uint64_t offset, uint8_t value) override { chip_.write_page(static_cast<unsigned>(offset), value); }

   private:
    I8237& chip_;
  };

  [[nodiscard]] uint8_t read(unsigned controller, unsigned reg) LODGE_EXCLUDES(mutex_);
  void write(unsigned controller, unsigned reg, uint8_t value) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint8_t read_page(unsigned offset) LODGE_EXCLUDES(mutex_);
  void write_page(unsigned offset, uint8_t value) LODGE_EXCLUDES(mutex_);
  void access(uint64_t address, Direction direction, std::span<uint8_t> data);

  memory::GuestMemory& memory_;
  ControllerPorts byte_ports_{*this, 0}, word_ports_{*this, 1};
  PagePorts page_ports_{*this};
  Mutex mutex_;
  std::array<Controller, 2> controllers_ LODGE_GUARDED_BY(mutex_);
  std::array<uint8_t, kPageLength> spare_pages_ LODGE_GUARDED_BY(mutex_) = {};  // of ports that belong to no channel
};

}  // namespace lodge::devices
