// Intel 82540EM, a Gigabit Ethernet controller with a copper PHY (order number 317453; section numbers are its), as a PCI function that is
// plugged into a net::Backend.
//
// Deviations: the link is up at once, at 1 Gbit/s in full duplex, whatever is negotiated; interrupts are neither delayed nor throttled;
// received checksums are left to software (IXSM); no wake-up, no flow control, no flash memory, no loopback but a frame to oneself
// goes nowhere.
//
// Threads: registers from any vCPU's thread; frames on the network's thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.hpp"
#include "devices/e1000/eeprom.hpp"
#include "devices/e1000/segments.hpp"
#include "devices/pci/function.hpp"
#include "devices/worker/worker.hpp"
#include "memory/guest_memory.hpp"
#include "net/backend.hpp"
#include "net/mac_address.hpp"

namespace lodge::devices::e1000 {

class E1000 final : public pci::Function, private net::Receiver {
 public:
  static constexpr unsigned kMemoryBar = 0, kPortBar = 1;

  // `rom`: of firmware's network boot; empty: none. Worker, backend and memory outlive it. The network begins with start().
  E1000(memory::GuestMemory& memory, Worker& worker, net::Backend& backend, const net::MacAddress& mac, bool link,
        std::span<const uint8_t> rom);

  // Both on the worker's thread; stop() after the last vCPU has gone.
  void start() { backend_.connect(this, {}); }
  void stop() { backend_.connect(nullptr, {}); }

 protected:
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);
  void bus_master_changed(bool allowed) override LODGE_EXCLUDES(mutex_);

 private:
  // A ring of descriptors of 16 bytes: the registers by which software gives it.
  struct Ring {
    uint64_t base = 0;
    uint32_t length = 0, head = 0, tail = 0;
    [[nodiscard]] uint32_t entries() const { return length / 16; }
    void advance() { head = head + 1 < entries() ? head + 1 : 0; }
    [[nodiscard]] uint32_t available() const {
      return entries() == 0 || head >= entries() || tail >= entries() ? 0 : (tail + entries() - head) % entries();
    }
  };
  struct Descriptor {
    uint64_t address = 0, rest = 0;
  };
  struct Counters {
    uint64_t good_received = 0, good_received_bytes = 0, sent = 0, sent_bytes = 0, broadcasts = 0, multicasts = 0, missed = 0;
  };
  // What the transmit unit has taken of a packet.
  struct Packet {
    std::vector<std::byte> bytes;
    bool begun = false, segmented = false, ip_checksum = false, payload_checksum = false, tagged = false, too_long = false;
    uint16_t tag = 0;
  };

  // --- Receiver
  [[nodiscard]] bool receive(unsigned pair, const net::Header& header, std::span<const std::byte> frame) override LODGE_EXCLUDES(mutex_);
  void received(unsigned pair) override LODGE_EXCLUDES(mutex_);
  void sendable(unsigned pair) override;

  [[nodiscard]] uint32_t read_register(uint32_t offset) LODGE_REQUIRES(mutex_);
  void write_register(uint32_t offset, uint32_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint32_t* plain_register(uint32_t offset) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint32_t read_counter(uint32_t offset) LODGE_REQUIRES(mutex_);
  void write_phy(uint32_t value) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint16_t read_phy(unsigned reg) LODGE_REQUIRES(mutex_);
  void reset() LODGE_REQUIRES(mutex_);
  void raise(uint32_t causes) LODGE_REQUIRES(mutex_);
  void update_interrupt() LODGE_REQUIRES(mutex_);

  void transmit() LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool flush() LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool take_packet() LODGE_REQUIRES(mutex_);
  void take_descriptor(const Descriptor& descriptor) LODGE_REQUIRES(mutex_);
  void take_context(const Descriptor& descriptor) LODGE_REQUIRES(mutex_);
  void take_data(uint64_t address, uint32_t bytes) LODGE_REQUIRES(mutex_);
  void finish_packet() LODGE_REQUIRES(mutex_);

  [[nodiscard]] bool wanted(std::span<const std::byte> frame) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint32_t buffer_bytes() const LODGE_REQUIRES(mutex_);
  void store(std::span<const std::byte> frame, uint16_t tag, bool tagged) LODGE_REQUIRES(mutex_);

  memory::GuestMemory& memory_;
  Worker& worker_;
  net::Backend& backend_;
  const bool link_;
  Mutex mutex_;
  Eeprom eeprom_ LODGE_GUARDED_BY(mutex_);
  uint32_t control_ LODGE_GUARDED_BY(mutex_) = 0, eeprom_control_ LODGE_GUARDED_BY(mutex_) = 0, mdi_ LODGE_GUARDED_BY(mutex_) = 0,
                    eeprom_read_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t cause_ LODGE_GUARDED_BY(mutex_) = 0, mask_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t receive_control_ LODGE_GUARDED_BY(mutex_) = 0, transmit_control_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t port_address_ LODGE_GUARDED_BY(mutex_) = 0;
  std::array<uint16_t, 32> phy_ LODGE_GUARDED_BY(mutex_){};
  Ring receive_ring_ LODGE_GUARDED_BY(mutex_), transmit_ring_ LODGE_GUARDED_BY(mutex_);
  std::array<uint32_t, 32> addresses_ LODGE_GUARDED_BY(mutex_){};
  std::array<uint32_t, 128> multicast_ LODGE_GUARDED_BY(mutex_){}, vlans_ LODGE_GUARDED_BY(mutex_){};
  std::array<uint32_t, 16> held_ LODGE_GUARDED_BY(mutex_){};  // registers that only hold what is written
  Counters counters_ LODGE_GUARDED_BY(mutex_);
  Context context_ LODGE_GUARDED_BY(mutex_);
  Packet packet_ LODGE_GUARDED_BY(mutex_);
  bool starved_ LODGE_GUARDED_BY(mutex_) = false;    // the network waits for descriptors
  bool scheduled_ LODGE_GUARDED_BY(mutex_) = false;  // transmit() is on its way
  bool stored_ LODGE_GUARDED_BY(mutex_) = false;     // frames of this batch
  // The worker's own: frames that the network has not taken yet.
  std::deque<std::vector<std::byte>> outgoing_;
};

}  // namespace lodge::devices::e1000
