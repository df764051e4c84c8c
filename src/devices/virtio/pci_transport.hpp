// virtio over PCI (virtio 1.2, section 4.1): the function, its capabilities and the structures in its BAR.
//
//   BAR 0, of transitional devices BAR 4: 64-bit memory, 32 KiB
//     0x0000  common configuration        0x3000  notifications, 4 bytes a queue
//     0x1000  interrupt status            0x4000  MSI-X table
//     0x2000  device configuration        0x7000  MSI-X pending bits
//
// A transitional device also speaks to drivers that are older than virtio 1.0, by ports behind BAR 0 (4.1.4.10; pci_legacy.cpp).
//
// Resets are not instant: the status reads as it was, and the bits of a queue's reset as they were written, until the device has let go
// of the driver's buffers (4.1.4.3.1).
//
// Threads: those of pci::Function; the device's worker calls DriverPort. shut_down() from a thread that is not the worker, with no vCPU
// running.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "base/mutex.hpp"
#include "devices/pci/function.hpp"
#include "devices/virtio/device.hpp"

namespace lodge::devices::virtio {

class PciTransport final : public pci::Function, private DriverPort {
 public:
  // A doorbell: writes of any width to the address count into the eventfd instead of reaching the function. It ends when what is returned
  // goes; null: there is none, and the writes arrive as others do.
  using AttachDoorbell = std::function<std::shared_ptr<void>(uint64_t address, int eventfd)>;
  struct Options {
    bool express = false;               // it is one of PCI Express, behind a root port
    bool transitional = false;          // older drivers can use it too
    bool packed = false;                // offer packed rings
    std::span<const uint8_t> rom = {};  // firmware's driver; empty: none
  };

  static Result<std::unique_ptr<PciTransport>> create(std::unique_ptr<Device> device, memory::GuestMemory& memory, AttachDoorbell attach,
                                                      const Options& options);
  static Result<std::unique_ptr<PciTransport>> create(std::unique_ptr<Device> device, memory::GuestMemory& memory, AttachDoorbell attach) {
    return create(std::move(device), memory, std::move(attach), Options());
  }
  ~PciTransport() override;

  [[nodiscard]] Device& device() { return *device_; }
  // The device lets go of guest memory, whatever its driver thinks; returns when it has.
  void shut_down();

 protected:
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);
  void bar_moved(unsigned index, std::optional<uint64_t> address) override;
  void bus_master_changed(bool allowed) override;
  void config_reading(unsigned offset, unsigned size) override;
  void config_written(unsigned offset, unsigned size) override;

 private:
  struct QueueState {
    uint16_t size = 0;
    uint16_t vector = 0;
    bool enabled = false, resetting = false;
    uint64_t descriptors = 0, driver_area = 0, device_area = 0;
  };
  PciTransport(std::unique_ptr<Device> device, memory::GuestMemory& memory, AttachDoorbell attach, const Options& options);
  void add_capabilities();
  unsigned add_structure(uint8_t type, uint32_t offset, uint32_t length, std::span<const uint8_t> more);
  [[nodiscard]] uint64_t offered() const;
  [[nodiscard]] unsigned modern_bar() const { return options_.transitional ? 4 : 0; }

  // --- Older drivers
  [[nodiscard]] uint64_t read_legacy(uint64_t offset, unsigned size) LODGE_EXCLUDES(mutex_);
  void write_legacy(uint64_t offset, unsigned size, uint64_t value) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] uint32_t read_legacy_field(unsigned field) LODGE_REQUIRES(mutex_);
  void write_legacy_field(unsigned field, uint32_t value) LODGE_REQUIRES(mutex_);
  void place_legacy_queue(uint32_t page) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint64_t legacy_offered() const;
  [[nodiscard]] unsigned legacy_config_at();

  void start_device() LODGE_REQUIRES(mutex_);

  [[nodiscard]] uint64_t read_common(unsigned field) LODGE_REQUIRES(mutex_);
  void write_common(unsigned offset, unsigned size, uint64_t value) LODGE_EXCLUDES(mutex_);
  void write_common_field(unsigned field, uint32_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t read_common_byte(uint64_t offset) LODGE_REQUIRES(mutex_);
  [[nodiscard]] QueueState* selected() LODGE_REQUIRES(mutex_);
  void write_status(uint8_t value) LODGE_REQUIRES(mutex_);
  void enable_queue(unsigned queue) LODGE_REQUIRES(mutex_);
  void reset_queue(unsigned queue) LODGE_REQUIRES(mutex_);
  void reset() LODGE_REQUIRES(mutex_);
  void forget() LODGE_REQUIRES(mutex_);
  [[nodiscard]] QueueSetup setup_of(const QueueState& queue) const LODGE_REQUIRES(mutex_);
  void set_vector(std::atomic<uint16_t>& place, uint16_t vector);
  [[nodiscard]] uint8_t take_interrupt_status();
  void signal(uint16_t vector, uint8_t status_bit);
  void notify() const;

  // --- DriverPort
  void queue_interrupt(unsigned queue) override;
  void config_interrupt() override;
  void needs_reset() override LODGE_EXCLUDES(mutex_);

  const std::unique_ptr<Device> device_;
  memory::GuestMemory& memory_;
  const AttachDoorbell attach_;
  const Options options_;
  Fd kick_;  // rung by the driver: one for all queues
  std::unique_ptr<Worker::Watch> watch_;
  std::vector<std::shared_ptr<void>> doorbells_;  // under the bridge's lock
  unsigned config_window_ = 0;                    // offset of the capability by which configuration accesses reach the BAR (4.1.4.9)

  std::vector<std::atomic<uint16_t>> queue_vectors_;
  std::atomic<uint16_t> config_vector_;
  std::atomic<uint8_t> interrupt_status_ = 0;
  std::atomic<uint8_t> generation_ = 0;

  Mutex mutex_;
  uint32_t device_feature_select_ LODGE_GUARDED_BY(mutex_) = 0, driver_feature_select_ LODGE_GUARDED_BY(mutex_) = 0;
  uint64_t driver_features_ LODGE_GUARDED_BY(mutex_) = 0;
  uint16_t queue_select_ LODGE_GUARDED_BY(mutex_) = 0;
  uint8_t status_ LODGE_GUARDED_BY(mutex_) = 0;
  bool resetting_ LODGE_GUARDED_BY(mutex_) = false;
  bool started_ LODGE_GUARDED_BY(mutex_) = false;  // the device works: DRIVER_OK, or an older driver that does not wait for it
  std::atomic<bool> driver_is_old_ = false;        // who reaches memory without asking for it (bus mastering)
  std::vector<QueueState> queues_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::devices::virtio
