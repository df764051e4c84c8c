// virtio-net (virtio 1.2, section 5.1): a network card plugged into a net::Backend.
//
// Queues: receiveq1, transmitq1, receiveq2, ...; the control queue comes behind all pairs if the driver has taken VIRTIO_NET_F_MQ, and
// behind the first otherwise (5.1.2).
//
// Threads: as Device; the backend is served by the same worker.
#pragma once

#include <array>
#include <atomic>
#include <string>
#include <vector>

#include "devices/virtio/device.hpp"
#include "net/backend.hpp"
#include "net/mac_address.hpp"

namespace lodge::devices::virtio {

struct NetworkOptions {
  net::MacAddress mac{};
  uint16_t pairs = 1;  // of queues, 1 to kMostPairs; no more than the backend has
  uint16_t queue_entries = 256;
  uint16_t mtu = 0;  // told to the driver; 0: nothing is
  bool link = true;  // plugged in

  static constexpr uint16_t kMostPairs = 16;
};

class Network final : public Device, private net::Receiver {
 public:
  // The backend must outlive the device.
  Network(std::string name, Worker& worker, net::Backend& backend, const NetworkOptions& options);
  ~Network() override;

  [[nodiscard]] uint64_t features() const override { return features_; }
  void read_config(uint64_t offset, std::span<uint8_t> into) const override;
  // Pulls the plug, or puts it in; the driver hears of it. Worker's thread.
  void set_link(bool up);

 protected:
  void started() override;
  void serve(unsigned queue) override;
  void queue_started(unsigned queue) override;
  void stopped() override;

 private:
  struct Pair {
    std::vector<Chain> receiving;  // buffers of the frame in hand
    Chain sending;
    bool starved = false;  // the backend waits for room
  };
  // 5.1.6.5.1: which frames the driver wants.
  struct Filter {
    bool promiscuous = true;
    bool all_multicast = false, all_unicast = false, no_multicast = false, no_unicast = false, no_broadcast = false;
    bool unicast_overflow = false, multicast_overflow = false;  // more addresses than are kept
    std::vector<net::MacAddress> unicast, multicast;
  };

  // --- Receiver
  [[nodiscard]] size_t header_bytes() const;  // in front of each frame
  [[nodiscard]] bool receive(unsigned pair, const net::Header& header, std::span<const std::byte> frame) override;
  void received(unsigned pair) override;
  void sendable(unsigned pair) override;

  [[nodiscard]] unsigned control_queue() const;
  [[nodiscard]] bool wanted(std::span<const std::byte> frame) const;
  [[nodiscard]] bool gather(unsigned pair, uint64_t bytes, size_t& used);
  void transmit(unsigned pair);
  [[nodiscard]] bool send(unsigned pair, const Chain& chain);
  void serve_control(unsigned queue);
  [[nodiscard]] bool obey(uint8_t group, uint8_t command, std::span<const uint8_t> data);
  [[nodiscard]] bool obey_receive_mode(uint8_t command, std::span<const uint8_t> data);
  [[nodiscard]] bool obey_addresses(uint8_t command, std::span<const uint8_t> data);
  [[nodiscard]] bool set_table(std::span<const uint8_t> data);
  [[nodiscard]] net::Offloads guest_takes(uint64_t features) const;

  net::Backend& backend_;
  const NetworkOptions options_;
  uint64_t features_ = 0;
  std::atomic<bool> link_;
  std::atomic<uint64_t> mac_;  // six bytes, as they lie in memory
  std::vector<Pair> pairs_;
  Filter filter_;
  std::vector<iovec> frame_;
  Chain control_;
};

}  // namespace lodge::devices::virtio
