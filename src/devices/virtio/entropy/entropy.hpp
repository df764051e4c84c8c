// virtio-rng (virtio 1.2, section 5.4): random bytes, the host's.
#pragma once

#include "devices/virtio/device.hpp"

namespace lodge::devices::virtio {

class Entropy final : public Device {
 public:
  explicit Entropy(Worker& worker);

  [[nodiscard]] uint64_t features() const override { return 0; }
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;

 protected:
  void serve(unsigned queue) override;

 private:
  Chain chain_;
};

}  // namespace lodge::devices::virtio
