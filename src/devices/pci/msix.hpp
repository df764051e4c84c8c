// MSI-X (PCI 3.0, 6.8.2): a table of messages and an array of pending bits in the function's own memory.
//
// Threads: signal(), read() and write() from any; the rest under the host bridge's lock on configuration space. A message is sent with the
// lock held, so that none is under way when a write that masks it has returned (6.8.3.5: nor must it be).
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/mutex.hpp"
#include "devices/pci/config_space.hpp"
#include "devices/pci/msi.hpp"

namespace lodge::devices::pci {

class Msix {
 public:
  static constexpr unsigned kMostVectors = 2048, kEntryBytes = 16;
  struct Layout {
    unsigned vectors;
    unsigned bar;  // of both
    uint32_t table_offset, pending_offset;
  };
  [[nodiscard]] static constexpr uint32_t table_bytes(unsigned vectors) { return vectors * kEntryBytes; }
  [[nodiscard]] static constexpr uint32_t pending_bytes(unsigned vectors) { return (vectors + 63) / 64 * 8; }

  // Adds the capability.
  Msix(ConfigSpace& config, const Layout& layout, SendMessage send);

  void config_written() LODGE_EXCLUDES(mutex_);  // after any write to the capability
  void set_bus_master(bool allowed) LODGE_EXCLUDES(mutex_);
  [[nodiscard]] bool enabled() const { return enabled_.load(std::memory_order_acquire); }
  [[nodiscard]] unsigned vectors() const { return static_cast<unsigned>(entries_.size()); }

  // The table and the pending bits in the BAR. An access belongs to them if covers() its first byte.
  [[nodiscard]] bool covers(unsigned bar, uint64_t offset) const;
  [[nodiscard]] uint64_t read(uint64_t offset, unsigned size) LODGE_EXCLUDES(mutex_);
  void write(uint64_t offset, unsigned size, uint64_t value) LODGE_EXCLUDES(mutex_);

  // Interrupts, or notes it while masked. Nothing while MSI-X is off.
  void signal(unsigned vector) LODGE_EXCLUDES(mutex_);

 private:
  struct Entry {
    uint64_t address = 0;
    uint32_t data = 0;
    bool masked = true;  // 6.8.2.9: after reset
    bool pending = false;
  };
  [[nodiscard]] bool silent() const LODGE_REQUIRES(mutex_) { return !enabled_ || function_masked_ || !bus_master_; }
  void send_if_ready(Entry& entry) LODGE_REQUIRES(mutex_);
  void send_all_ready() LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t table_byte(uint64_t at) LODGE_REQUIRES(mutex_);
  [[nodiscard]] uint8_t pending_byte(uint64_t at) LODGE_REQUIRES(mutex_);
  void write_table_dword(uint64_t at, uint32_t value) LODGE_REQUIRES(mutex_);

  ConfigSpace& config_;
  const Layout layout_;
  unsigned at_ = 0;
  const SendMessage send_;
  std::atomic<bool> enabled_ = false;
  Mutex mutex_;
  bool function_masked_ LODGE_GUARDED_BY(mutex_) = false;
  bool bus_master_ LODGE_GUARDED_BY(mutex_) = false;
  std::vector<Entry> entries_;
};

}  // namespace lodge::devices::pci
