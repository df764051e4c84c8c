// A disk of the machine as the host sees it: an image, open, with a thread of its own. It lives as long as the process, over all resets.
//
// Threads: the main thread; the image itself is its thread's.
#pragma once

#include <memory>
#include <string>

#include "block/open.hpp"
#include "devices/virtio/block/block.hpp"
#include "devices/virtio/io_thread.hpp"

namespace lodge::machine {

struct DriveConfig {
  std::string file;
  block::ImageOptions image;
  devices::virtio::BlockOptions device;
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
  // What a machine's device works on.
  [[nodiscard]] std::unique_ptr<devices::virtio::Device> make_device(devices::virtio::Block::Host host) const;

 private:
  explicit Drive(const DriveConfig& config) : config_(config) {}
  const DriveConfig config_;
  std::unique_ptr<devices::virtio::IoThread> thread_;
  std::unique_ptr<block::Node> node_;
};

}  // namespace lodge::machine
