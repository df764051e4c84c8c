// A CD/DVD drive: an ATA packet device (ATA/ATAPI-7 volume 1, 6.24; commands after SPC-3 and MMC-5) over an image of 2048-byte sectors.
//
// The medium may be absent, be changed from outside while nobody reads, and be shut out by the guest: then the tray is open, and the
// medium lies in it until the guest or a reset closes it.
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

  // --- From outside; any thread but that of the medium's disk, without the link's mutex.
  struct Tray {
    bool open, locked;
  };
  [[nodiscard]] Tray tray();
  // The guest is asked to let go of the medium, as by the button of the drive.
  void press_button();
  [[nodiscard]] bool has_medium();
  // Another medium, or none, in a closed tray. When this returns the old one is used no more.
  void set_medium(storage::Disk* medium);

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

  [[nodiscard]] bool can_be_read() const { return medium_ && !open_; }
  [[nodiscard]] uint64_t sectors() const { return can_be_read() ? medium_->sectors() * block::kSector / kSectorBytes : 0; }
  [[nodiscard]] bool tells_of_change(uint8_t command);
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
  bool locked_ = false, open_ = false;
  bool changed_ = false;  // the guest has not heard of it: a unit attention
  uint8_t event_ = 0;     // of the media, not yet told (MMC-5, table 253)
  Phase phase_ = Phase::None;
  bool dma_ = false;                     // of the current packet
  uint32_t byte_limit_ = 0;              // what the host takes at once
  size_t sent_ = 0, chunk_ = 0;          // bytes of the buffer that have been moved, that are being moved
  uint64_t next_sector_ = 0, left_ = 0;  // still to be read
  uint8_t transfer_mode_ = 0;
};

}  // namespace lodge::devices::ata
