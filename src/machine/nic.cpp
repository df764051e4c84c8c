#include "machine/nic.hpp"

#include "base/log.hpp"

namespace lodge::machine {

Result<std::unique_ptr<Nic>> Nic::open(const NicConfig& config, std::shared_ptr<devices::LoopThread> thread, const net::MacAddress& mac) {
  std::unique_ptr<Nic> nic(new Nic(config, std::move(thread), mac));
  nic->backend_ = TRY(nic->thread_->call([&]() -> Result<std::unique_ptr<net::Backend>> {
    EventLoop& loop = nic->thread_->loop();
    return config.kind == NicConfig::Kind::User ? net::open_user_network(loop, config.user) : net::open_tap(loop, config.tap);
  }));
  return nic;
}

Nic::~Nic() {
  thread_->call([this] { backend_.reset(); });
}

std::unique_ptr<devices::virtio::Device> Nic::make_device() const {
  return std::make_unique<devices::virtio::Network>(
      fmt::format("network card {}", net::to_string(mac_)), *thread_, *backend_,
      devices::virtio::NetworkOptions{.mac = mac_, .pairs = config_.pairs, .link = config_.link});
}

}  // namespace lodge::machine
