// One PCI function with a type 0 header (PCI 3.0, chapter 6): identity, base address registers, capabilities, interrupts. A device derives
// from it and answers in its BARs; the host bridge places it in the address spaces.
//
// Deviations: no power management, no parity or system errors; the cache line size and the latency timer only hold what
// is written.
//
// Threads: configuration space under the host bridge's lock, one access at a time. read_bar() and write_bar() from any vCPU's thread,
// interrupts from any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.hpp"
#include "devices/pci/config_space.hpp"
#include "devices/pci/msi.hpp"
#include "devices/pci/msix.hpp"

namespace lodge::devices::pci {

struct Identity {
  uint16_t vendor, device;
  uint8_t revision;
  uint32_t class_code;  // base class, sub-class, programming interface: 0x020000 is an Ethernet controller
  uint16_t subsystem_vendor, subsystem;
};

enum class BarKind : uint8_t { None, Io, Memory32, Memory64, Rom };  // Memory64 takes the next register too
struct Bar {
  BarKind kind = BarKind::None;
  uint64_t size = 0;  // a power of two; at least 16 bytes, and of ports at most 256 (6.2.5.1)
  bool prefetchable = false;
};

// What a function may ask of the bus that it sits on. Any thread; neither calls back.
class FunctionPort {
 public:
  virtual ~FunctionPort() = default;
  virtual void send_message(uint64_t address, uint32_t data) = 0;
  virtual void set_intx(bool level) = 0;  // the function's own pin
};

class Function {
 public:
  static constexpr unsigned kBars = 6;
  // Ranges of addresses: the BARs, and the expansion ROM as if it were one more.
  static constexpr unsigned kRanges = kBars + 1, kRom = kBars;

  Function(const Identity& identity, std::string name);
  virtual ~Function() = default;
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  void connect(FunctionPort& port) { port_ = &port; }  // before the first access

  // --- Configuration space. The range lies within one dword.
  [[nodiscard]] uint32_t read_config(unsigned offset, unsigned size);
  void write_config(unsigned offset, unsigned size, uint32_t value);

  [[nodiscard]] const Bar& bar(unsigned index) const { return bars_[index]; }
  // Where the BAR answers now, as command and address registers say; nothing if it does not.
  [[nodiscard]] std::optional<uint64_t> decoded(unsigned index) const;
  // The host bridge has changed where (or whether) the BAR answers. Also under the lock on configuration space.
  virtual void bar_moved(unsigned index, std::optional<uint64_t> address);
  // What firmware does at power-on.
  void place_bar(unsigned index, uint64_t address);
  void set_interrupt_line(uint8_t line) { config_.set(kInterruptLine, 1, line); }
  [[nodiscard]] unsigned interrupt_pin() const { return config_.read(kInterruptPin, 1); }  // 1: INTA#, 0: none
  void mark_multi_function() { config_.set(kHeaderType, 1, config_.read(kHeaderType, 1) | kMultiFunction); }

  // --- Accesses to a BAR, at an offset within it.
  [[nodiscard]] uint64_t read_bar(unsigned index, uint64_t offset, unsigned size);
  void write_bar(unsigned index, uint64_t offset, unsigned size, uint64_t value);

 protected:
  // --- For the constructor of the derived class.
  void add_bar(unsigned index, const Bar& bar);
  // The expansion ROM (6.2.5.2): the image is filled up to a power of two, at least 2 KiB.
  void add_rom(std::span<const uint8_t> image);
  void add_interrupt_pin();  // INTA#: the one that single functions use (6.2.4)
  void add_msi(unsigned vectors);
  void add_express_endpoint();  // it is one of PCI Express, behind a root port
  void add_msix(const Msix::Layout& layout);
  ConfigSpace& config() { return config_; }
  [[nodiscard]] const ConfigSpace& config_space() const { return config_; }

  // --- What the derived class does. The BAR's accesses are those beside the MSI-X structures.
  virtual uint64_t bar_read(unsigned index, uint64_t offset, unsigned size) = 0;
  virtual void bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) = 0;
  virtual void config_reading(unsigned offset, unsigned size);  // before the bytes are taken
  virtual void config_written(unsigned offset, unsigned size);  // after they have been put
  virtual void bus_master_changed(bool allowed);

  // --- Any thread.
  [[nodiscard]] bool bus_master() const { return bus_master_.load(std::memory_order_acquire); }
  [[nodiscard]] Msi* msi() { return msi_.get(); }
  [[nodiscard]] Msix* msix() { return msix_.get(); }
  void set_intx(bool wanted) LODGE_EXCLUDES(intx_mutex_);

 private:
  [[nodiscard]] uint64_t read_rom(uint64_t offset, unsigned size) const;
  void command_written() LODGE_EXCLUDES(intx_mutex_);
  void update_intx() LODGE_REQUIRES(intx_mutex_);
  [[nodiscard]] SendMessage message_sender();

  const std::string name_;
  ConfigSpace config_;
  std::array<Bar, kRanges> bars_;
  std::vector<uint8_t> rom_;
  FunctionPort* port_ = nullptr;
  std::unique_ptr<Msi> msi_;
  std::unique_ptr<Msix> msix_;
  std::atomic<bool> bus_master_ = false;
  Mutex intx_mutex_;
  bool intx_wanted_ LODGE_GUARDED_BY(intx_mutex_) = false;
  bool intx_allowed_ LODGE_GUARDED_BY(intx_mutex_) = true;  // not disabled, and no MSI or MSI-X instead
  bool intx_level_ LODGE_GUARDED_BY(intx_mutex_) = false;
};

}  // namespace lodge::devices::pci
