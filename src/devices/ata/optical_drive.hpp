// A CD/DVD drive: an ATA packet device (ATA/ATAPI-7 volume 1, 6.24; commands after SPC-3 and MMC-5) over an image of 2048-byte sectors.
//
// The medium may be absent from the beginning, and the guest can eject it.
// Threads: as Device.
#pragma once

#include <array>

#include "devices/ata/device.hpp"

namespace lodge::devices::ata {

class OpticalDrive final : public Device {
 public:
  static constexpr uint64_t kSectorBytes = 2048;

  // `medium` null: no disc. It must outlive its stay in the drive.
  OpticalDrive(Link& link, storage::Disk* medium, unsigned number);

  [[nodiscard]] bool is_packet_device() const override { return true; }
  void block_moved() override;
  void dma_memory(block::Buffers memory, Announcement announcement) override;

  [[nodiscard]] std::array<uint16_t, 256> identify() const;

 protected:
  void execute(uint8_t command) override;
  void reset_device() override;

 private:
  using Packet = std::array<uint8_t, 12>;
  // SPC-3, 4.5: what went wrong.
  struct Sense {
    uint8_t key = 0, code = 0, qualifier = 0;
  };
  // What the packet's data does now.
  enum class Phase : uint8_t { None, Identify, Packet, Data };

  [[nodiscard]] uint64_t sectors() const { return medium_ ? medium_->sectors() * block::kSector / kSectorBytes : 0; }
  void packet(const Packet& packet);
  void succeed();
  void refuse(Sense sense);
  void answer(std::vector<uint8_t> data, uint64_t allocated);
  void read(uint64_t sector, uint64_t count);
  void read_cd(const Packet& packet);
  void read_chunk();
  void send_chunk();
  [[nodiscard]] bool medium_is_there();
  void inquiry(const Packet& packet);
  void request_sense(const Packet& packet);
  void read_toc(const Packet& packet);
  void mode_sense(const Packet& packet);
  void get_configuration(const Packet& packet);
  void event_status(const Packet& packet);
  void disc_information(const Packet& packet);
  void track_information(const Packet& packet);
  void dvd_structure(const Packet& packet);
  void mechanism_status(const Packet& packet);
  void start_stop(const Packet& packet);
  void set_features();

  storage::Disk* medium_;
  const unsigned number_;
  Sense sense_;
  bool locked_ = false;
  Phase phase_ = Phase::None;
  bool dma_ = false;         // of the current packet
  uint32_t byte_limit_ = 0;  // what the host takes at once
  std::vector<uint8_t> buffer_;
  size_t sent_ = 0, chunk_ = 0;          // bytes of the buffer that have been moved, that are being moved
  uint64_t next_sector_ = 0, left_ = 0;  // still to be read
  uint8_t transfer_mode_ = 0;
};

}  // namespace lodge::devices::ata
