// The IDE function of Intel's 82371SB (PIIX3; order number 290550, 2.3 and 2.7): two channels at the ports of old, and a bus master for
// each (SFF-8038i, revision 1.0).
//
// Threads: configuration under the host bridge's lock; ports from any vCPU's thread.
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "devices/ata/channel.hpp"
#include "devices/ata/controller.hpp"
#include "devices/chipset/port_block.hpp"
#include "devices/pci/function.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices::ata {

// One channel's bus master: registers of 8 bytes.
class BusMaster final : public DmaEngine {
 public:
  BusMaster(Channel& channel, memory::GuestMemory& memory) : channel_(channel), memory_(memory) { channel.set_dma(this); }

  [[nodiscard]] uint8_t read(unsigned offset);
  void write(unsigned offset, uint8_t value);
  void set_allowed(bool allowed);  // the function may be a bus master

  void wanted(Direction direction, uint64_t bytes) override;
  void moved(uint64_t bytes) override;
  void abandoned() override;
  void interrupted() override;

 private:
  void begin_if_ready();
  // Which memory the guest's table names, up to so many bytes; nothing where it names what is no memory.
  struct Memory {
    block::Buffers buffers;
    std::vector<memory::Range> ranges;
  };
  [[nodiscard]] std::optional<Memory> collect(uint64_t bytes);

  Channel& channel_;
  memory::GuestMemory& memory_;
  // Under the channel's mutex.
  uint8_t command_ = 0, status_ = 0;
  uint32_t table_ = 0;
  bool allowed_ = false, waiting_ = false, running_ = false;
  bool table_ends_with_it_ = false;
  Direction direction_ = Direction::ToHost;
  uint64_t bytes_ = 0;
};

// Places 0 and 1 are the first channel's, 2 and 3 the second's.
class PiixIde final : public pci::Function, public Controller {
 public:
  static constexpr unsigned kChannels = 2;

  // `pins`: ISA interrupts 14 and 15.
  PiixIde(memory::GuestMemory& memory, PortBus& ports, std::array<IrqPin, kChannels> pins);

  [[nodiscard]] Channel& channel(unsigned number) { return channels_[number]; }

  [[nodiscard]] Link& link(unsigned place) override { return channels_[place / 2]; }
  void attach(unsigned place, std::unique_ptr<Device> device) override { channels_[place / 2].attach(place % 2, std::move(device)); }
  void shut_down() override;

 protected:
  uint64_t bar_read(unsigned, uint64_t offset, unsigned size) override;
  void bar_write(unsigned, uint64_t offset, unsigned size, uint64_t value) override;
  void config_written(unsigned offset, unsigned size) override;
  void bus_master_changed(bool allowed) override;

 private:
  void decode();

  std::array<Channel, kChannels> channels_;
  std::array<BusMaster, kChannels> masters_;
  std::array<chipset::PortBlock, kChannels> command_, control_;
};

}  // namespace lodge::devices::ata
