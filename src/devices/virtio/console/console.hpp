// virtio-console with one port (virtio 1.2, section 5.3): /dev/hvc0 in Linux, on a line of the host's.
//
// Threads: as Device; the line's loop is the worker's.
#pragma once

#include <atomic>

#include "console/backend.hpp"
#include "devices/virtio/device.hpp"

namespace lodge::devices::virtio {

class Console final : public Device {
 public:
  // The line must outlive the device.
  Console(Worker& worker, console::Backend& line);

  // The terminal may have another size now. Any thread.
  void size_changed();

  [[nodiscard]] uint64_t features() const override;
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;
  void write_config(uint64_t offset, std::span<const uint8_t> from) override;

 protected:
  void started() override;
  void serve(unsigned queue) override;
  void queue_stopping(unsigned queue) override;
  void stopped() override;

 private:
  [[nodiscard]] size_t space();
  void receive(std::span<const uint8_t> bytes);

  console::Backend& line_;
  Chain receiving_, sending_;
  bool holds_ = false;  // a buffer for what comes next
};

}  // namespace lodge::devices::virtio
