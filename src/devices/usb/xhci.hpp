// A USB controller (eXtensible Host Controller Interface for USB, revision 1.1; section numbers are its), as a PCI function.
//
// Two ports of USB 2.0; 8 slots; one interrupter by MSI-X or the pin; contexts of 32 bytes, no streams. Transfers are carried out when the
// guest rings and when a device has something to say.
//
// Deviations: no isochronous or bulk endpoints (a device that has some cannot be configured), no interrupt moderation, no bandwidth, no
// power management of links beyond their states, no debug capability, no save and restore of state.
//
// Threads: registers from any vCPU's thread; devices wake it from any.
#pragma once

#include <array>
#include <deque>
#include <memory>

#include "base/clock.hpp"
#include "base/mutex.hpp"
#include "devices/pci/function.hpp"
#include "devices/usb/device.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::devices::usb {

class Xhci final : public pci::Function {
 public:
  static constexpr unsigned kPorts = 2, kSlots = 8;

  Xhci(memory::GuestMemory& memory, const Clock& clock);

  // Port 1 or 2, before the first access; the device outlives this object.
  void attach(unsigned port, Device& device);

 protected:
  uint64_t bar_read(unsigned, uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void bar_write(unsigned, uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);

 private:
  // A Transfer Request Block (4.11).
  struct Trb {
    uint64_t parameter = 0;
    uint32_t status = 0, control = 0;
    uint64_t address = 0;  // where it was read
    [[nodiscard]] unsigned type() const { return control >> 10 & 0x3f; }
    [[nodiscard]] unsigned slot() const { return control >> 24; }
    [[nodiscard]] unsigned endpoint() const { return control >> 16 & 0x1f; }
  };
  struct Ring {
    uint64_t dequeue = 0;
    bool cycle = true;
  };
  struct Endpoint {
    uint8_t state = 0;  // 6.2.3, table 58: 0 disabled, 1 running, 2 halted, 3 stopped
    Ring ring;
    Setup setup{};  // of the control transfer that is under way
    bool has_setup = false;
    std::vector<uint8_t> data;  // that it moves
    size_t moved = 0;
  };
  struct Slot {
    bool enabled = false;
    unsigned port = 0;     // 0: none
    uint64_t context = 0;  // the output device context
    std::array<Endpoint, 32> endpoints{};
  };
  struct Port {
    Device* device = nullptr;
    uint32_t status = 0;
  };

  [[nodiscard]] uint32_t read_register(uint64_t offset) LODGE_REQUIRES(mutex_);
  void write_register(uint64_t offset, uint32_t value) LODGE_REQUIRES(mutex_);
  void write_operational(uint64_t offset, uint32_t value) LODGE_REQUIRES(mutex_);
  void write_runtime(uint64_t offset, uint32_t value) LODGE_REQUIRES(mutex_);
  void write_port(unsigned port, uint32_t value) LODGE_REQUIRES(mutex_);
  void write_command_register(uint32_t value) LODGE_REQUIRES(mutex_);
  void reset_controller() LODGE_REQUIRES(mutex_);

  [[nodiscard]] std::optional<Trb> fetch(Ring& ring) LODGE_REQUIRES(mutex_);
  void run_commands() LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t command(const Trb& trb, unsigned& slot) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t address_device(Slot& slot, unsigned number, const Trb& trb) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t configure_endpoints(Slot& slot, const Trb& trb) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t evaluate_context(Slot& slot, const Trb& trb) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t stop_endpoint(Slot& slot, const Trb& trb) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t set_dequeue(Slot& slot, const Trb& trb) LODGE_REQUIRES(mutex_);
  void disable_endpoints(Slot& slot, unsigned from) LODGE_REQUIRES(mutex_);
  void load_endpoint(Slot& slot, unsigned number, uint64_t input) LODGE_REQUIRES(mutex_);
  void set_endpoint_state(Slot& slot, unsigned number, uint8_t state) LODGE_REQUIRES(mutex_);

  void ring_doorbell(unsigned slot, unsigned target) LODGE_REQUIRES(mutex_);
  void serve_control(unsigned number, Endpoint& endpoint) LODGE_REQUIRES(mutex_);
  void serve_interrupt(unsigned number, unsigned target, Endpoint& endpoint) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t control_stage(Device& device, Endpoint& endpoint, const Trb& trb, uint32_t& left) LODGE_REQUIRES(mutex_);
  [[nodiscard]] Device* device_of(const Slot& slot) LODGE_REQUIRES(mutex_);
  void device_woke(unsigned port, unsigned endpoint) LODGE_EXCLUDES(mutex_);

  void post(uint64_t parameter, uint32_t status, uint32_t control) LODGE_REQUIRES(mutex_);
  void write_events() LODGE_REQUIRES(mutex_);
  void transfer_event(const Trb& trb, unsigned slot, unsigned target, uint8_t code, uint32_t left) LODGE_REQUIRES(mutex_);
  void port_event(unsigned port) LODGE_REQUIRES(mutex_);
  void raise() LODGE_REQUIRES(mutex_);
  void update_pin() LODGE_REQUIRES(mutex_);

  template <typename T>
  [[nodiscard]] T load(uint64_t address) const;
  template <typename T>
  void store(uint64_t address, T value);
  [[nodiscard]] uint32_t load_context(uint64_t context, unsigned index, unsigned dword) const;
  void store_context(uint64_t context, unsigned index, unsigned dword, uint32_t value);

  memory::GuestMemory& memory_;
  const Clock& clock_;
  Mutex mutex_;
  uint32_t command_ LODGE_GUARDED_BY(mutex_) = 0, status_ LODGE_GUARDED_BY(mutex_) = 0, notification_ LODGE_GUARDED_BY(mutex_) = 0,
                    configuration_ LODGE_GUARDED_BY(mutex_) = 0;
  Ring commands_ LODGE_GUARDED_BY(mutex_);
  bool commands_run_ LODGE_GUARDED_BY(mutex_) = false;
  uint64_t contexts_ LODGE_GUARDED_BY(mutex_) = 0;  // DCBAAP
  // The interrupter.
  uint32_t management_ LODGE_GUARDED_BY(mutex_) = 0, moderation_ LODGE_GUARDED_BY(mutex_) = 0, segments_ LODGE_GUARDED_BY(mutex_) = 0;
  uint64_t segment_table_ LODGE_GUARDED_BY(mutex_) = 0, dequeue_ LODGE_GUARDED_BY(mutex_) = 0;
  uint32_t segment_ LODGE_GUARDED_BY(mutex_) = 0, place_ LODGE_GUARDED_BY(mutex_) = 0;
  bool cycle_ LODGE_GUARDED_BY(mutex_) = true;
  std::deque<Trb> events_ LODGE_GUARDED_BY(mutex_);  // that found no room in the ring
  std::array<Port, kPorts> ports_ LODGE_GUARDED_BY(mutex_) = {};
  std::array<Slot, kSlots + 1> slots_ LODGE_GUARDED_BY(mutex_) = {};
};

}  // namespace lodge::devices::usb
