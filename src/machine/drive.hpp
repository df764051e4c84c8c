// A disk of the machine as the host sees it: an image, open, with a thread of its own. It lives as long as the process, over all resets.
//
// Threads: the main thread; the image itself is its thread's.
#pragma once

#include <memory>
#include <string>

#include "block/open.hpp"
#include "devices/storage/disk.hpp"
#include "devices/virtio/block/block.hpp"
#include "devices/worker/io_thread.hpp"

namespace lodge::machine {

enum class DriveInterface : uint8_t {
  Automatic,  // the machine's own: IDE or SATA where there is some, else virtio
  Virtio,
  Ata,     // IDE or SATA, as the machine has it
  Floppy,  // the floppy disk controller
};

enum class Media : uint8_t { Disk, Optical, Floppy };

struct DriveConfig {
  std::string file;  // empty: a drive without its CD or floppy disk
  DriveInterface interface = DriveInterface::Automatic;
  Media media = Media::Disk;
  bool check = true;    // of a CD: only with a file system of CDs on it
  unsigned place = 0;   // at the machine's controller
  unsigned number = 0;  // of all drives, in their order
  block::ImageOptions image;
  devices::storage::DiskOptions disk;
  devices::virtio::BlockOptions virtio;
  bool packed = false;        // packed rings offered
  bool transitional = false;  // of virtio: drivers older than 1.0 can use it
  unsigned port = 0;          // of virtio: the PCI Express root port that it is behind; 0: it sits on bus 0
};

// "cd0", "cd1", ..., "floppy0", ...: a drive whose medium can be changed, by its number among those of its kind.
[[nodiscard]] std::string removable_name(Media media, unsigned number);

class Drive {
 public:
  // Errors name the image.
  static Result<std::unique_ptr<Drive>> open(const DriveConfig& config, unsigned number);
  ~Drive();  // closes it; an error is a message
  Drive(const Drive&) = delete;
  Drive& operator=(const Drive&) = delete;

  [[nodiscard]] const DriveConfig& config() const { return config_; }
  // What a machine's controllers work on. Of one for CDs or floppy disks: only if there is a medium.
  [[nodiscard]] devices::storage::Disk& disk() const { return *disk_; }
  [[nodiscard]] devices::storage::Disk* medium() const { return disk_.get(); }

  // Another medium for a drive for CDs or floppy disks; no controller uses the old one any more. With an error the old one is in it again,
  // if that can be.
  [[nodiscard]] Result<> insert(const std::string& file);
  void take_out();

 private:
  Drive(const DriveConfig& config, unsigned number) : config_(config), number_(number) {}
  [[nodiscard]] Result<> open_image();
  [[nodiscard]] Result<> check_cd();
  void close();
  DriveConfig config_;
  const unsigned number_;
  std::unique_ptr<devices::IoThread> thread_;
  std::unique_ptr<block::Node> node_;
  std::unique_ptr<devices::storage::Disk> disk_;
};

}  // namespace lodge::machine
