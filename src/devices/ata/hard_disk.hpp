// An ATA disk (ATA/ATAPI-7; TRIM and the rotation rate after ACS-3): PIO, PIO multiple and DMA with addresses by cylinder, head and
// sector, of 28 bits and of 48. On a serial link it has
// the native queue (SATA 2.6, 13.6), with the log of the command that failed; the link names the commands.
//
// Threads: as Device.
#pragma once

#include <array>

#include "devices/ata/device.hpp"

namespace lodge::devices::ata {

// The geometry that the disk has by default (ATA/ATAPI-6, annex C), or that the guest has set.
struct Geometry {
  uint32_t cylinders = 0;
  uint8_t heads = 16, sectors = 63;
};

class HardDisk final : public Device, private NativeQueue {
 public:
  // `number`: which of the machine's disks, for a serial number where the user gave none. The disk must outlive it.
  HardDisk(Link& link, storage::Disk& disk, unsigned number);

  void block_moved() override;
  void dma_memory(block::Buffers memory, Announcement announcement) override;

  [[nodiscard]] NativeQueue* native_queue() override { return has_queue() ? this : nullptr; }

  // The 256 words of IDENTIFY DEVICE.
  [[nodiscard]] std::array<uint16_t, 256> identify() const;

 protected:
  void execute(uint8_t command) override;
  void reset_device() override;

 private:
  enum class Addressing : uint8_t { Short, Long };
  // A command that moves sectors, as far as it has come.
  struct Transfer {
    bool write = false, fua = false, dma = false;
    uint64_t sector = 0, left = 0;  // what is still to be moved between disk and buffer
    unsigned block_sectors = 1;     // through the data register at once
    uint64_t position = 0;          // bytes of the buffer that have been moved
  };

  [[nodiscard]] bool has_queue() const { return link().serial(); }
  [[nodiscard]] std::optional<QueuedEnd> refuse_queued(const QueuedCommand& command) override;
  void execute_queued(const QueuedCommand& command, block::Buffers memory, Announcement announcement,
                      std::function<void(QueuedEnd)> then) override;

  void identify_to_host();
  void buffer_to_host();
  void read_log();
  [[nodiscard]] QueuedEnd queued_error(const QueuedCommand& command, uint8_t error);
  void set_features();
  void set_multiple();
  void set_geometry();
  void flush();
  void verify(Addressing addressing);
  void native_maximum(Addressing addressing);
  void trim();
  void start_pio(bool write, bool multiple, Addressing addressing, bool fua = false);
  void start_dma(bool write, Addressing addressing, bool fua = false);
  [[nodiscard]] bool take_range(Addressing addressing);
  [[nodiscard]] bool first_sector(Addressing addressing, uint64_t& sector) const;
  [[nodiscard]] uint64_t sector_count(Addressing addressing) const;
  void show_sector(uint64_t sector);
  void fit_buffer();
  void fill_buffer();
  void next_block(bool interrupt);
  void transfer_sectors(block::Buffers memory, Announcement announcement = nullptr);
  void transferred();
  void trim_ranges(size_t index);

  storage::Disk& disk_;
  const unsigned number_;
  Geometry geometry_;
  uint8_t multiple_ = 0;  // sectors; 0: not set
  bool write_cache_ = true, read_ahead_ = true;
  uint8_t transfer_mode_ = 0;  // as SET FEATURES gave it
  Transfer transfer_;
  bool trimming_ = false;
  std::array<uint8_t, 14> queued_error_{};  // the log's beginning
  size_t block_bytes_ = 0;                  // of the block at the data register; 0: what is there is no sectors
};

}  // namespace lodge::devices::ata
