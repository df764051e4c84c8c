// For fuzz targets: a disk and a CD over images in memory, whose requests fail now and then.
#pragma once

#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/log.hpp"
#include "block/memory_node.hpp"
#include "devices/storage/disk.hpp"
#include "input.hpp"

namespace lodge::fuzz {

class Disks {
 public:
  static constexpr uint64_t kBytes = 192 << 10;

  Disks(Input& input, bool read_only) {
    const auto fails = input.take<uint8_t>();
    for (unsigned i = 0; i < kCount; ++i) {
      auto image = std::make_shared<block::MemoryDisk>();
      image->bytes.resize(kBytes);
      image->fault = [fails, count = 0u](const block::Request& request) mutable {
        require(request.offset <= kBytes && request.length <= kBytes - request.offset, "a request beyond the disk");
        return fails != 0 && ++count % fails == 0 ? EIO : 0;
      };
      nodes_[i] = std::make_unique<block::MemoryNode>(std::move(image));
      const devices::storage::DiskOptions options{.read_only = i == 1 || read_only, .on_write_error = devices::storage::OnError::Report};
      disks_[i] = std::make_unique<devices::storage::Disk>("disk", thread(), *nodes_[i], options);
    }
  }
  ~Disks() {
    thread().call([this]() -> block::Task<int> {
      for (unsigned i = 0; i < kCount; ++i) {
        co_await disks_[i]->settle();
        disks_[i].reset();
        nodes_[i].reset();
      }
      co_return 0;
    });
  }
  Disks(const Disks&) = delete;
  Disks& operator=(const Disks&) = delete;

  [[nodiscard]] devices::storage::Disk& disk() { return *disks_[0]; }
  [[nodiscard]] devices::storage::Disk& medium() { return *disks_[1]; }

  // Until what is on the thread has come some way.
  static void settle() {
    thread().call([]() -> block::Task<int> {
      for (int turn = 0; turn < 4; ++turn) co_await block::IoContext::yield();
      co_return 0;
    });
  }

 private:
  static constexpr unsigned kCount = 2;
  static devices::IoThread& thread() {
    static const auto one = std::move(*devices::IoThread::start("disk"));
    return *one;
  }

  std::array<std::unique_ptr<block::Node>, kCount> nodes_;
  std::array<std::unique_ptr<devices::storage::Disk>, kCount> disks_;
};

// A controller of disks, made of the input and whether they can only be read, and driven by it.
template <typename Controller>
int drive_controller(std::span<const uint8_t> data) {
  log::set_level(log::Level::Error);
  Input input(data);
  const bool read_only = input.take<uint8_t>() & 1;
  Controller controller(input, read_only);
  drive(controller, input, 200);
  return 0;
}

}  // namespace lodge::fuzz
