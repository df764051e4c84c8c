// virtio-balloon (virtio 1.2, section 5.5): memory that the guest gives back to the host, for as long as it is asked to or has no use for
// it, and what it says of its memory.
//
// Queues: inflate, deflate, then those of the features taken, in this order: statistics, free page reports. Linux's driver and QEMU number
// them so, where the specification's table has gaps.
//
// Threads: as Device; set_target() and actual() from any.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <optional>

#include "devices/virtio/device.hpp"

namespace lodge::devices::virtio {

// 5.5.6.3, by tag; what the driver does not tell is absent.
struct MemoryStatistics {
  enum Tag : uint16_t { SwapIn, SwapOut, MajorFaults, MinorFaults, Free, Total, Available, Caches, HugePages, HugePageFailures, kTags };
  std::array<std::optional<uint64_t>, kTags> values;
};

class Balloon final : public Device {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  // `target`: pages that the balloon is to have from the beginning.
  Balloon(Worker& worker, uint32_t target);

  // Pages that the balloon is to have; the driver takes its time.
  void set_target(uint32_t pages);
  [[nodiscard]] uint32_t actual() const { return actual_; }
  // Asks the driver once; `tell` is called on the worker's thread when it answers. False: there is no driver that would, or it still
  // owes the last answer. Worker's thread.
  bool ask_statistics(std::function<void(const MemoryStatistics&)> tell);

  [[nodiscard]] uint64_t features() const override;
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;
  void write_config(uint64_t offset, std::span<const uint8_t> from) override;

 protected:
  void serve(unsigned queue) override;
  void queue_stopping(unsigned queue) override;
  void stopped() override;

 private:
  [[nodiscard]] unsigned statistics_queue() const;
  [[nodiscard]] unsigned report_queue() const;
  void inflate(const Chain& chain);
  void read_statistics(unsigned queue);
  void discard(uint64_t gpa, uint64_t bytes);

  std::atomic<uint32_t> target_, actual_ = 0;
  Chain chain_, statistics_;
  bool holds_statistics_ = false;  // the buffer with which the next ones are asked for
  std::function<void(const MemoryStatistics&)> tell_;
};

}  // namespace lodge::devices::virtio
