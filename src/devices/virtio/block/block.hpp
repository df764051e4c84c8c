// virtio-blk (virtio 1.2, section 5.2): a disk over a node of the block layer.
//
// Threads: as Device; the node lives on the worker's I/O context.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "block/node.hpp"
#include "devices/virtio/device.hpp"
#include "devices/virtio/io_thread.hpp"

namespace lodge::devices::virtio {

// What the guest sees when the host's disk fails.
enum class OnError : uint8_t {
  Report,       // an I/O error
  Stop,         // nothing: the machine stands still until the request can be done
  StopOnSpace,  // that for lack of space, an I/O error otherwise
  Ignore,       // success
};

struct BlockOptions {
  bool read_only = false;
  bool discard = true;           // offer it
  std::string serial;            // at most 20 bytes are seen
  uint16_t queues = 1;           // 1 to kMostQueues
  uint16_t queue_entries = 256;  // a power of two
  OnError on_read_error = OnError::Report, on_write_error = OnError::StopOnSpace;

  static constexpr uint16_t kMostQueues = 64;
};

class Block final : public Device {
 public:
  // How the device stops and restarts the machine for OnError::Stop. Worker's thread.
  struct Host {
    std::function<void(const std::string& why)> pause;
    std::function<void()> resume;
  };
  // Both must outlive the device.
  Block(std::string name, IoThread& thread, block::Node& node, const BlockOptions& options, Host host);

  ~Block() override;

  [[nodiscard]] uint64_t features() const override { return features_; }
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;
  void write_config(uint64_t offset, std::span<const uint8_t> from) override;

 protected:
  void started() override;
  void serve(unsigned queue) override;
  void queue_started(unsigned) override { give_up_ = false; }
  void queue_stopping(unsigned queue) override;
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
  [[nodiscard]] bool waits_for(const Error& error, bool write) const;
  block::Task<> wait_for_retry();
  block::Task<> tick();
  [[nodiscard]] bool in_range(uint64_t sector, uint64_t bytes) const;
  void report(const Error& error);

  block::IoContext& context_;
  block::Node& node_;
  const BlockOptions options_;
  const Host host_;
  const uint64_t sectors_;
  uint64_t features_ = 0;
  std::array<uint8_t, 60> config_{};
  std::atomic<bool> writeback_ = true;
  std::vector<std::unique_ptr<Work>> spare_;
  std::vector<bool> interrupt_due_;
  uint64_t errors_ = 0;
  // Those who wait to try again.
  block::WaitQueue retry_;
  unsigned waiting_ = 0;
  bool give_up_ = false;
  Fd timer_;
};

}  // namespace lodge::devices::virtio
