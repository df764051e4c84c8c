// An IDE channel: the registers of its two devices at the ports, the data register, and INTRQ (ATA/ATAPI-7 volume 2, clause 8 to 11).
//
// Writes of the command block reach both devices, reads come from the selected one. Where there is none, reads are ones but for DD7, which
// the host pulls down so that nobody waits for a busy device that is not there (volume 2, 4.2).
//
// Threads: ports from any vCPU's thread; the devices' answers come from their disks' threads.
#pragma once

#include <array>
#include <memory>

#include "base/mutex.hpp"
#include "devices/ata/device.hpp"
#include "devices/bus.hpp"
#include "devices/irq_pin.hpp"

namespace lodge::devices::ata {

// What moves data by DMA: the bus master of a PCI controller. Under the channel's mutex.
class DmaEngine {
 public:
  virtual ~DmaEngine() = default;
  // A device of the channel waits; answered by Channel::dma_memory() when the guest has set it going.
  virtual void wanted(Direction direction, uint64_t bytes) = 0;
  virtual void moved(uint64_t bytes) = 0;
  virtual void abandoned() = 0;    // a reset came in between
  virtual void interrupted() = 0;  // INTRQ has risen
};

class Channel final : public Link {
 public:
  static constexpr uint16_t kCommandPorts = 8, kControlPorts = 1;

  explicit Channel(IrqPin pin) : pin_(std::move(pin)) {}
  ~Channel() override;

  // Device 0 or 1, before the first access.
  void attach(unsigned number, std::unique_ptr<Device> device);
  void set_dma(DmaEngine* engine) { dma_ = engine; }

  [[nodiscard]] PortDevice& command_ports() { return command_ports_; }
  [[nodiscard]] PortDevice& control_ports() { return control_ports_; }

  // The bus master's answer to wanted(). Under the mutex.
  void dma_memory(block::Buffers memory, Announcement announcement);
  // Waits until nothing of the devices is on any disk's thread.
  void shut_down();

  // --- Link
  [[nodiscard]] Mutex& mutex() override { return mutex_; }
  [[nodiscard]] bool serial() const override { return false; }
  void move_block(Device& device, Direction direction, std::span<uint8_t> block, bool interrupt) override;
  void want_dma(Device& device, Direction direction, uint64_t bytes) override;
  void dma_moved(Device& device, uint64_t bytes) override;
  void finished(Device& device) override;

 private:
  struct CommandPorts final : PortDevice {
    explicit CommandPorts(Channel& c) : channel(c) {}
    uint32_t read(uint64_t offset, unsigned size) override;
    void write(uint64_t offset, unsigned size, uint32_t value) override;
    Channel& channel;
  };
  struct ControlPorts final : BytePortDevice {
    explicit ControlPorts(Channel& c) : channel(c) {}
    uint8_t read_byte(uint64_t offset) override;
    void write_byte(uint64_t offset, uint8_t value) override;
    Channel& channel;
  };

  [[nodiscard]] uint8_t read_register(unsigned offset);
  void write_register(unsigned offset, uint8_t value);
  void write_command(uint8_t value);
  void write_control(uint8_t value);
  [[nodiscard]] uint32_t read_data(unsigned size);
  void write_data(unsigned size, uint32_t value);
  [[nodiscard]] Device* selected() { return devices_[selected_].get(); }
  void reset_all();
  void diagnose();
  void raise(Device& device);
  void update_pin();
  void end_block();

  IrqPin pin_;
  CommandPorts command_ports_{*this};
  ControlPorts control_ports_{*this};
  DmaEngine* dma_ = nullptr;
  // All that follows and the devices' state: under this.
  Mutex mutex_;
  std::array<std::unique_ptr<Device>, 2> devices_;
  unsigned selected_ = 0;
  uint8_t control_ = 0;
  bool level_ = false;
  // The block at the data register.
  Device* block_owner_ = nullptr;
  Direction block_direction_ = Direction::ToHost;
  std::span<uint8_t> block_;
  size_t block_position_ = 0;
  Device* dma_owner_ = nullptr;
};

}  // namespace lodge::devices::ata
