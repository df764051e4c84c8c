// A network card of the machine as the host sees it: what it is plugged into, with the thread that serves it. It lives as long as the
// process, over all resets.
//
// Threads: the main thread; the backend is its thread's.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "devices/e1000/e1000.hpp"
#include "devices/virtio/net/network.hpp"
#include "devices/worker/loop_thread.hpp"
#include "net/tap.hpp"
#include "net/user.hpp"

namespace lodge::machine {

struct NicConfig {
  enum class Kind : uint8_t { User, Tap };
  enum class Model : uint8_t { Virtio, E1000 };
  Kind kind = Kind::User;
  Model model = Model::Virtio;
  net::UserOptions user;
  net::TapOptions tap;
  std::optional<net::MacAddress> mac;  // none: derived from the machine's name and the card's number
  uint16_t pairs = 1;                  // of queues
  bool link = true;                    // plugged in
  bool packed = false;                 // packed rings offered
  bool transitional = false;           // drivers older than virtio 1.0 can use it
  unsigned port = 0;                   // the PCI Express root port that it is behind; 0: it sits on bus 0
};

class Nic {
 public:
  // `thread` serves the card; user networks share one. Errors name the network.
  static Result<std::unique_ptr<Nic>> open(const NicConfig& config, std::shared_ptr<devices::LoopThread> thread,
                                           const net::MacAddress& mac);
  ~Nic();
  Nic(const Nic&) = delete;
  Nic& operator=(const Nic&) = delete;

  [[nodiscard]] const NicConfig& config() const { return config_; }
  // The card of a machine, by its model.
  [[nodiscard]] std::unique_ptr<devices::virtio::Device> make_virtio() const;
  // It is plugged into the network until shut_down().
  class E1000;
  [[nodiscard]] std::unique_ptr<E1000> make_e1000(memory::GuestMemory& memory, std::span<const uint8_t> rom) const;

 private:
  Nic(const NicConfig& config, std::shared_ptr<devices::LoopThread> thread, const net::MacAddress& mac)
      : config_(config), mac_(mac), thread_(std::move(thread)) {}

  const NicConfig config_;
  const net::MacAddress mac_;
  const std::shared_ptr<devices::LoopThread> thread_;
  std::unique_ptr<net::Backend> backend_;
};

class Nic::E1000 {
 public:
  E1000(const Nic& nic, memory::GuestMemory& memory, std::span<const uint8_t> rom);
  E1000(const E1000&) = delete;
  E1000& operator=(const E1000&) = delete;

  [[nodiscard]] devices::pci::Function& function() { return chip_; }
  void shut_down();  // after the last vCPU has gone

 private:
  devices::LoopThread& thread_;
  devices::e1000::E1000 chip_;
};

}  // namespace lodge::machine
