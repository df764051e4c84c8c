// A floppy disk controller (Intel 82077AA, order number 290166) with up to two drives, at the ports of the PC/AT.
//
// Data goes by DMA, channel 2, or byte by byte through the FIFO (SPECIFY's ND). A sector has 512 bytes.
//
// Deviations: heads and motors move in no time, and a motor need not turn; deleted data marks are not kept (what is written so reads as
// plain data); SCAN commands are not there, nor tape drives, nor the status registers A and B of other modes than the AT's.
//
// Threads: ports from any vCPU's thread; the disks' answers come from their threads; media change on the main thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/mutex.hpp"
#include "devices/bus.hpp"
#include "devices/floppy/format.hpp"
#include "devices/irq_pin.hpp"
#include "devices/isa_dma/i8237.hpp"
#include "devices/storage/requests.hpp"

namespace lodge::devices::floppy {

class Controller {
 public:
  static constexpr unsigned kDrives = 2, kDmaChannel = 2;
  static constexpr uint16_t kPorts = 0x3f0, kLength = 6, kDirPort = 0x3f7;  // 0x3f6 is the IDE controller's

  Controller(IrqPin irq, I8237& dma) : irq_(std::move(irq)), dma_(dma) {}
  ~Controller() { shut_down(); }
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  [[nodiscard]] Result<> attach(PortBus& ports);
  // A drive, with a medium or without; before the first access. The medium outlives its stay.
  void add_drive(unsigned number, storage::Disk* medium) LODGE_EXCLUDES(mutex_);
  // Another medium, or none. When this returns the old one is used no more.
  void set_medium(unsigned number, storage::Disk* medium) LODGE_EXCLUDES(mutex_);
  // What firmware reads in the CMOS memory: the types of both drives, the first one's in the upper half; 0: none.
  [[nodiscard]] uint8_t drive_types() LODGE_EXCLUDES(mutex_);
  // Waits until nothing is on any disk's thread.
  void shut_down() LODGE_EXCLUDES(mutex_);

 private:
  enum class Phase : uint8_t { Command, Execution, Result };
  struct Drive {
    bool there = false;
    storage::Disk* medium = nullptr;
    std::optional<Format> format;
    uint8_t type = 0;
    uint8_t cylinder = 0;     // the head's place
    uint8_t present = 0;      // what SENSE INTERRUPT STATUS calls it (PCN)
    uint8_t next_sector = 1;  // that will pass under the head
    bool changed = true;      // the medium, since the head moved last
  };
  enum class Work : uint8_t { Read, Write, Verify, Format };
  // A command that moves sectors.
  struct Transfer {
    Work work = Work::Read;
    bool multi_track = false, whole_track = false;
    uint8_t drive = 0, cylinder = 0, head = 0, sector = 0, size_code = 0, last = 0;
    uint8_t fill = 0;  // of FORMAT TRACK
    uint8_t left = 0;  // sectors that it has still to do
    bool terminal_count = false;
  };
  class Ports final : public BytePortDevice {
   public:
    explicit Ports(Controller& chip) : chip_(chip) {}

   protected:
    uint8_t read_byte(uint64_t offset) override { return chip_.read(static_cast<unsigned>(offset)); }
    void write_byte(uint64_t offset, uint8_t value) override { chip_.write(static_cast<unsigned>(offset), value); }

   private:
    Controller& chip_;
  };
  class DirPort final : public BytePortDevice {
   public:
    explicit DirPort(Controller& chip) : chip_(chip) {}

   protected:
    uint8_t read_byte(uint64_t) override { return chip_.read_input(); }
    void write_byte(uint64_t, uint8_t value) override { chip_.write_rate(value); }

   private:
    Controller& chip_;
  };

  [[nodiscard]] uint8_t read(unsigned offset) LODGE_EXCLUDES(mutex_);
  void write(unsigned offset, uint8_t value) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint8_t read_input() LODGE_EXCLUDES(mutex_);
  void write_rate(uint8_t value) LODGE_EXCLUDES(mutex_);

  void write_output(uint8_t value) LODGE_REQUIRES(mutex_);
  void reset() LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t main_status() LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t read_fifo() LODGE_REQUIRES(mutex_);
  void write_fifo(uint8_t value) LODGE_REQUIRES(mutex_);
  void execute() LODGE_REQUIRES(mutex_);
  void answer(std::vector<uint8_t> bytes, bool interrupt) LODGE_REQUIRES(mutex_);
  void seek(uint8_t drive, uint8_t cylinder, uint8_t status) LODGE_REQUIRES(mutex_);
  void sense_interrupt() LODGE_REQUIRES(mutex_);
  void sense_drive() LODGE_REQUIRES(mutex_);
  void read_id() LODGE_REQUIRES(mutex_);
  void begin_transfer(Work work) LODGE_REQUIRES(mutex_);
  void begin_format() LODGE_REQUIRES(mutex_);
  void next_sector() LODGE_REQUIRES(mutex_);
  void move_on() LODGE_REQUIRES(mutex_);
  void sector_read() LODGE_REQUIRES(mutex_);
  void fifo_done() LODGE_REQUIRES(mutex_);
  void format_sector() LODGE_REQUIRES(mutex_);
  void store_sector() LODGE_REQUIRES(mutex_);
  void finish(uint8_t status0, uint8_t status1 = 0, uint8_t status2 = 0) LODGE_REQUIRES(mutex_);
  [[nodiscard]] bool readable(const Drive& drive) LODGE_REQUIRES(mutex_);
  [[nodiscard]] std::optional<uint64_t> sector_address() LODGE_REQUIRES(mutex_);
  void submit(block::Operation operation, uint64_t sector, std::function<void(bool ok)> then) LODGE_REQUIRES(mutex_);
  void put_medium(Drive& drive, storage::Disk* medium) LODGE_REQUIRES(mutex_);
  void update_pin() LODGE_REQUIRES(mutex_);

  IrqPin irq_;
  I8237& dma_;
  Ports ports_{*this};
  DirPort dir_port_{*this};
  Mutex mutex_;
  std::array<Drive, kDrives> drives_ LODGE_GUARDED_BY(mutex_);
  uint8_t output_ LODGE_GUARDED_BY(mutex_) = 0, rate_ LODGE_GUARDED_BY(mutex_) = k250Kbps, tape_ LODGE_GUARDED_BY(mutex_) = 0;
  Phase phase_ LODGE_GUARDED_BY(mutex_) = Phase::Command;
  std::vector<uint8_t> command_ LODGE_GUARDED_BY(mutex_), result_ LODGE_GUARDED_BY(mutex_);
  size_t result_read_ LODGE_GUARDED_BY(mutex_) = 0;
  std::array<uint8_t, 2> specified_ LODGE_GUARDED_BY(mutex_) = {};
  uint8_t configuration_ LODGE_GUARDED_BY(mutex_) = 0x20, precompensation_ LODGE_GUARDED_BY(mutex_) = 0,
                         perpendicular_ LODGE_GUARDED_BY(mutex_) = 0;  // FIFO off after power-on
  bool locked_ LODGE_GUARDED_BY(mutex_) = false;
  unsigned polls_ LODGE_GUARDED_BY(mutex_) = 0;             // status changes of a reset that nobody has asked for
  std::optional<uint8_t> sought_ LODGE_GUARDED_BY(mutex_);  // status register 0 of a seek that nobody has asked for
  uint8_t seeking_ LODGE_GUARDED_BY(mutex_) = 0;            // drives
  bool interrupt_ LODGE_GUARDED_BY(mutex_) = false, level_ LODGE_GUARDED_BY(mutex_) = false;
  Transfer transfer_ LODGE_GUARDED_BY(mutex_);
  storage::Requests requests_;                              // under the mutex
  std::optional<size_t> fifo_at_ LODGE_GUARDED_BY(mutex_);  // of the buffer's bytes, while they go through the FIFO
};

}  // namespace lodge::devices::floppy
