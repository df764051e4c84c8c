// A virtio device without its transport (virtio 1.2, chapters 2 and 5): features, configuration, and queues that it serves.
//
// The life of a queue: started with what the driver set up; served whenever the driver has notified; stopped when the driver resets it or
// the device, which lasts until the device holds none of its buffers any more.
//
// Threads: features and configuration from any vCPU's thread; all that has to do with queues from the worker's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/queue.hpp"
#include "devices/worker/worker.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices::virtio {

enum class Type : uint16_t { Network = 1, Block = 2, Console = 3, Entropy = 4, Balloon = 5 };  // chapter 5

constexpr uint64_t feature(unsigned bit) { return uint64_t{1} << bit; }

// How a device reaches its driver. Any thread.
class DriverPort {
 public:
  virtual ~DriverPort() = default;
  virtual void queue_interrupt(unsigned queue) = 0;
  virtual void config_interrupt() = 0;  // the configuration has changed
  virtual void needs_reset() = 0;       // 2.1.1: nothing goes on before
};

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] Type type() const { return type_; }
  [[nodiscard]] const std::string& name() const { return name_; }  // in messages: "drive disk.qcow2"
  [[nodiscard]] Worker& worker() const { return worker_; }
  [[nodiscard]] unsigned queue_count() const { return static_cast<unsigned>(slots_.size()); }
  [[nodiscard]] uint16_t queue_most_entries(unsigned queue) const { return slots_[queue].most_entries; }
  void connect(DriverPort& driver) { driver_ = &driver; }  // before anything else

  // --- Any thread
  // Those of the type; the ring's own are the transport's to offer.
  [[nodiscard]] virtual uint64_t features() const = 0;
  // The device configuration space (2.5). Bytes beyond what the device has read as zeros and are not written.
  virtual void read_config(uint64_t offset, std::span<uint8_t> into) const = 0;
  virtual void write_config(uint64_t offset, std::span<const uint8_t> from);
  // What the bus lets the device do: nothing of memory is touched for new buffers while it does not.
  void allow_access(bool allowed) { access_allowed_.store(allowed, std::memory_order_release); }

  // --- The worker's thread
  void start(memory::GuestMemory& memory, uint64_t features);  // DRIVER_OK; the queues follow
  void start_queue(unsigned queue, const QueueSetup& setup);
  // `stopped` is called when the device has given back the queue's buffers, in here or later. It may end the device.
  void stop_queue(unsigned queue, std::function<void()> stopped);
  void stop(std::function<void()> stopped);  // all of them, and forgets the features
  void notified();                           // there may be new buffers in any queue

 protected:
  Device(Type type, std::string name, Worker& worker, std::vector<uint16_t> queue_sizes);

  // --- What a device does, on the worker's thread
  virtual void serve(unsigned queue) = 0;   // there may be new buffers
  virtual void started() {}                 // features() are known, the queues are not
  virtual void queue_started(unsigned) {}   //
  virtual void queue_stopping(unsigned) {}  // gives back what it holds for later; what is being worked on may take its time
  virtual void stopped() {}                 // all queues have

  // --- For serve() and what follows from it
  [[nodiscard]] bool has(unsigned feature_bit) const { return (features_ & feature(feature_bit)) != 0; }
  [[nodiscard]] memory::GuestMemory& memory() const { return *memory_; }
  [[nodiscard]] bool running(unsigned queue) const { return slots_[queue].running; }
  // The next buffer: taken until it is returned or put back.
  [[nodiscard]] bool take(unsigned queue, Chain& chain);
  void give_back(unsigned queue, const Chain& chain, uint64_t written);
  void give_back(unsigned queue, std::span<const Queue::Used> all);
  void put_back(unsigned queue, const Chain& chain);  // the last one taken, as if it had not been
  // Work on the queue that is more than its buffers: the queue stops no sooner than it is released, which may end the device.
  void hold(unsigned queue) { ++slots_[queue].taken; }
  void release(unsigned queue) { settle(queue, 1); }
  // After a batch of give_back().
  void interrupt(unsigned queue);
  // Takes all buffers there are, one after the other, as long as `handle` returns true; then the driver notifies again.
  template <typename Handle>
  void for_each_buffer(unsigned queue, Chain& chain, Handle&& handle) {
    do {
      suppress_notifications(queue);
      while (take(queue, chain))
        if (!handle(chain)) return;
    } while (allow_notifications(queue));
  }
  void suppress_notifications(unsigned queue) { slots_[queue].queue.suppress_notifications(); }
  [[nodiscard]] bool allow_notifications(unsigned queue);
  void config_changed() const { driver_->config_interrupt(); }
  // The driver broke the rules in a way that leaves no sense in going on; said once in the log.
  void broken(std::string_view what);

 private:
  struct Slot {
    uint16_t most_entries = 0;
    Queue queue;
    bool running = false;
    unsigned taken = 0;  // buffers, and what else holds it
    std::function<void()> stopped;
  };
  void settle(unsigned queue, unsigned returned);

  const Type type_;
  const std::string name_;
  Worker& worker_;
  DriverPort* driver_ = nullptr;
  memory::GuestMemory* memory_ = nullptr;
  uint64_t features_ = 0;
  std::vector<Slot> slots_;
  std::atomic<bool> access_allowed_ = false;
  bool broken_ = false;
};

}  // namespace lodge::devices::virtio
