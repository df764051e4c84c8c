// For tests: a disk over an image in memory.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "block/memory_node.hpp"
#include "devices/storage/disk.hpp"

namespace lodge::devices::storage::test {

// An image in memory and the disk over it, with a thread.
struct Image {
  explicit Image(uint64_t sectors, const DiskOptions& options = {}) {
    memory->bytes.resize(sectors * block::kSector);
    for (size_t i = 0; i < memory->bytes.size(); ++i) memory->bytes[i] = static_cast<std::byte>(i / 512 * 7 + i);
    node = std::make_unique<block::MemoryNode>(memory);
    disk = std::make_unique<Disk>("disk", *thread, *node, options);
    disk->set_machine({.pause = [](const std::string&) {}, .resume = [] {}});
  }
  ~Image() {
    thread->call([this]() -> block::Task<int> {
      co_await disk->settle();
      disk.reset();
      node.reset();
      co_return 0;
    });
  }
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  [[nodiscard]] std::string text(uint64_t offset, uint64_t length) const {
    return {reinterpret_cast<const char*>(&memory->bytes[offset]), length};
  }

  std::shared_ptr<block::MemoryDisk> memory = std::make_shared<block::MemoryDisk>();
  std::unique_ptr<IoThread> thread = std::move(*IoThread::start("disk"));
  std::unique_ptr<block::Node> node;
  std::unique_ptr<Disk> disk;
};

}  // namespace lodge::devices::storage::test
