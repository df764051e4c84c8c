// virtio-blk (virtio 1.2, section 5.2).
//
// Threads: as Device; the disk's thread is the worker.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "devices/storage/disk.hpp"
#include "devices/virtio/device.hpp"

namespace lodge::devices::virtio {

struct BlockOptions {
  uint16_t queues = 1;           // 1 to kMostQueues
  uint16_t queue_entries = 256;  // a power of two

  static constexpr uint16_t kMostQueues = 64;
};

class Block final : public Device {
 public:
  // The disk must outlive the device.
  Block(storage::Disk& disk, const BlockOptions& options);

  ~Block() override;

  [[nodiscard]] uint64_t features() const override { return features_; }
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;
  void write_config(uint64_t offset, std::span<const uint8_t> from) override;

 protected:
  void started() override;
  void serve(unsigned queue) override;
  void queue_started(unsigned) override { disk_.set_giving_up(false); }
  void queue_stopping(unsigned) override { disk_.set_giving_up(true); }
  void stopped() override;

 private:
  struct Work;
  block::Task<> carry_out(std::unique_ptr<Work> work);
  block::Task<uint8_t> perform(Work& work);
  block::Task<uint8_t> transfer(Work& work, bool write);
  block::Task<uint8_t> change_ranges(Work& work, bool zeroes);
  block::Task<uint8_t> submit(block::Request& request);
  [[nodiscard]] uint8_t tell_serial(Work& work) const;
  void finish(std::unique_ptr<Work> work, uint8_t status, uint64_t data_written);
  block::Task<> interrupt_later(unsigned queue);
  storage::Disk& disk_;
  uint64_t features_ = 0;
  std::array<uint8_t, 60> config_{};
  std::atomic<bool> writeback_ = true;
  std::vector<std::unique_ptr<Work>> spare_;
  std::vector<bool> interrupt_due_;
};

}  // namespace lodge::devices::virtio
