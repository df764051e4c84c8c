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

std::unique_ptr<devices::virtio::Device> Nic::make_virtio() const {
  return std::make_unique<devices::virtio::Network>(
      fmt::format("network card {}", net::to_string(mac_)), *thread_, *backend_,
      devices::virtio::NetworkOptions{.mac = mac_, .pairs = config_.pairs, .link = config_.link});
}

std::unique_ptr<Nic::E1000> Nic::make_e1000(memory::GuestMemory& memory, std::span<const uint8_t> rom) const {
  return std::make_unique<E1000>(*this, memory, rom);
}

Nic::E1000::E1000(const Nic& nic, memory::GuestMemory& memory, std::span<const uint8_t> rom)
    : thread_(*nic.thread_), chip_(memory, thread_, *nic.backend_, nic.mac_, nic.config_.link, rom) {
  thread_.call([this] { chip_.start(); });
}

void Nic::E1000::shut_down() {
  thread_.call([this] { chip_.stop(); });
}

}  // namespace lodge::machine
