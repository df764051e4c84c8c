// A port of an AHCI controller (Serial ATA AHCI 1.3.1; section numbers are its): the registers of one Serial ATA link, the command list and
// the frames (FIS) that the device sends, and the device at its end.
//
// A command that the link cannot serve because the guest's list or table is no memory stops the port with a host bus error, as on the
// hardware; one whose table holds less than the device wants to move is aborted (PxIS.OFS).
//
// Threads: everything under the controller's mutex; the device's answers come from its disk's thread, with the mutex held.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "devices/ata/device.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices::ata {

class AhciPort final : public Link {
 public:
  static constexpr unsigned kSlots = 32, kBytes = 0x80;

  // The controller, as its ports see it.
  class Host {
   public:
    virtual ~Host() = default;
    [[nodiscard]] virtual Mutex& mutex() = 0;
    [[nodiscard]] virtual memory::GuestMemory& memory() = 0;
    [[nodiscard]] virtual bool may_master() const = 0;  // the function may reach memory
    virtual void interrupts_changed() = 0;              // of some port
  };
  explicit AhciPort(Host& host) : host_(host) { reset(); }

  void attach(std::unique_ptr<Device> device);  // before the first access

  [[nodiscard]] uint32_t read(unsigned offset) const;
  void write(unsigned offset, uint32_t value);
  [[nodiscard]] bool interrupts() const { return (interrupt_status() & interrupt_enable_) != 0; }
  void reset();    // the controller's (10.4.3): with it goes the link's
  void proceed();  // with all that can be done now
  // Nothing of an earlier command reaches memory any more.
  [[nodiscard]] bool quiet() const { return !device_ || device_->idle(); }
  [[nodiscard]] Device* device() { return device_.get(); }

  // --- Link
  [[nodiscard]] Mutex& mutex() override { return host_.mutex(); }
  [[nodiscard]] bool serial() const override { return true; }
  void move_block(Device& device, Direction direction, std::span<uint8_t> block, bool interrupt) override;
  void want_dma(Device& device, Direction direction, uint64_t bytes) override;
  void dma_moved(Device& device, uint64_t bytes) override;
  void finished(Device& device) override;

 private:
  // 4.2.2, table 9, as it stands in memory.
  struct CommandHeader {
    uint16_t flags = 0, table_length = 0;
    uint32_t moved = 0;
    uint64_t table = 0;
  };
  // The command that the device works on, but for queued ones.
  struct Command {
    unsigned slot = 0;
    CommandHeader header;
    bool packet_sent = false;
    // As far as its table has been used, and what the device has moved.
    unsigned entry = 0;
    uint64_t entry_used = 0, moved = 0;
  };
  struct Block {
    Direction direction;
    std::span<uint8_t> bytes;
    bool interrupt;
  };
  struct Memory {
    block::Buffers buffers;
    std::vector<memory::Range> ranges;
  };
  using Frame = std::array<uint8_t, 20>;

  [[nodiscard]] uint32_t interrupt_status() const;
  [[nodiscard]] uint32_t command_register() const;
  void write_command(uint32_t value);
  void write_control(uint32_t value);
  void stop();
  void reset_link();
  void show_signature();

  [[nodiscard]] bool may_issue() const;
  void issue(unsigned slot);
  void start(const Command& command, const Frame& frame);
  void start_queued(const Command& command, const Frame& frame);
  void queued_ended(uint8_t tag, QueuedEnd end);
  void refuse_with(uint8_t error);
  void take_registers(const Frame& frame);
  void soft_reset(unsigned slot, bool asserted);
  void move_block_now();
  void command_over(bool error);
  void host_bus_error();

  // Which memory the command's table names next, up to so many bytes; nothing where it names what is no memory.
  [[nodiscard]] std::optional<Memory> take_memory(Command& command, uint64_t bytes) const;
  [[nodiscard]] std::optional<CommandHeader> read_header(unsigned slot) const;
  void write_moved(const Command& command);
  void receive(unsigned offset, std::span<const uint8_t> frame);
  void send_registers(bool interrupt);
  void send_pio_setup(Direction direction, uint8_t status, bool interrupt, size_t bytes);
  void raise(uint32_t causes);

  Host& host_;
  std::unique_ptr<Device> device_;
  uint64_t list_ = 0, received_ = 0;
  uint32_t interrupt_status_ = 0, interrupt_enable_ = 0, command_ = 0, control_ = 0, error_ = 0, active_ = 0, issued_ = 0;
  uint32_t signature_ = ~0u;
  uint16_t task_file_ = 0;
  unsigned current_slot_ = 0, next_slot_ = 0;
  bool halted_ = false;           // by an error, until software stops and starts the port
  bool signature_waits_ = false;  // the device's first frame, which nobody has received yet
  bool in_soft_reset_ = false, running_ = false;
  uint32_t queued_ = 0;  // tags that the device works on
  std::optional<Command> running_command_;
  std::optional<Block> block_;
};

}  // namespace lodge::devices::ata
