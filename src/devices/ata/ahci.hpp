// The SATA controller of Intel's ICH9 in AHCI mode (order number 316972, chapter 15; Serial ATA AHCI 1.3.1): six ports, 32 commands each,
// with the native queue.
//
// Deviations: no port multipliers, no enclosure management, no coalescing of interrupts, no partial or slumber states of the links; the
// IDE mode of the chip, with its ports, is not there, and the MAP register says so.
//
// Threads: configuration under the host bridge's lock; registers from any vCPU's thread; the devices' answers from their disks' threads.
#pragma once

#include <array>

#include "devices/ata/ahci_port.hpp"
#include "devices/ata/controller.hpp"
#include "devices/pci/function.hpp"

namespace lodge::devices::ata {

class Ahci final : public pci::Function, public Controller, private AhciPort::Host {
 public:
  static constexpr unsigned kPorts = 6, kMemoryBar = 5, kIndexBar = 4;

  explicit Ahci(memory::GuestMemory& memory);

  [[nodiscard]] Link& link(unsigned place) override { return ports_[place]; }
  void attach(unsigned place, std::unique_ptr<Device> device) override;
  void shut_down() override;

 protected:
  uint64_t bar_read(unsigned index, uint64_t offset, unsigned size) override LODGE_EXCLUDES(mutex_);
  void bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) override LODGE_EXCLUDES(mutex_);
  void bus_master_changed(bool allowed) override LODGE_EXCLUDES(mutex_);

 private:
  [[nodiscard]] Mutex& mutex() override { return mutex_; }
  [[nodiscard]] memory::GuestMemory& memory() override { return memory_; }
  [[nodiscard]] bool may_master() const override { return may_master_; }
  void interrupts_changed() override;

  [[nodiscard]] uint32_t read_register(uint32_t offset);
  void write_register(uint32_t offset, uint32_t value);
  void reset();
  void update_interrupt(bool again);

  memory::GuestMemory& memory_;
  Mutex mutex_;
  // All that follows and the ports: under it.
  std::array<AhciPort, kPorts> ports_;
  uint32_t control_ = 0, interrupt_status_ = 0;
  uint32_t index_ = 0;  // of the register behind the ports of BAR 4
  bool may_master_ = false, resetting_ = false, level_ = false;
};

}  // namespace lodge::devices::ata
