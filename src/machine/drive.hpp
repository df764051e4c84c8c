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
  Automatic,  // the machine's own: IDE on a PC, else virtio
  Virtio,
  Ide,
};

struct DriveConfig {
  std::string file;
  DriveInterface interface = DriveInterface::Automatic;
  bool optical = false;  // a CD or DVD
  unsigned place = 0;    // of Ide: 0 and 1 on the first channel, 2 and 3 on the second
  unsigned number = 0;   // of all drives, in their order
  block::ImageOptions image;
  devices::storage::DiskOptions disk;
  devices::virtio::BlockOptions virtio;
  bool packed = false;  // packed rings offered
};

class Drive {
 public:
  // Errors name the image.
  static Result<std::unique_ptr<Drive>> open(const DriveConfig& config, unsigned number);
  ~Drive();  // closes it; an error is a message
  Drive(const Drive&) = delete;
  Drive& operator=(const Drive&) = delete;

  [[nodiscard]] const DriveConfig& config() const { return config_; }
  // What a machine's controllers work on.
  [[nodiscard]] devices::storage::Disk& disk() const { return *disk_; }

 private:
  explicit Drive(const DriveConfig& config) : config_(config) {}
  const DriveConfig config_;
  std::unique_ptr<devices::IoThread> thread_;
  std::unique_ptr<block::Node> node_;
  std::unique_ptr<devices::storage::Disk> disk_;
};

}  // namespace lodge::machine
