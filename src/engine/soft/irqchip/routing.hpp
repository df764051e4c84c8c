// The GSI routing table of a VM (KVM_SET_GSI_ROUTING): which chip pins or which MSI a GSI stands for.
//
// Threads: none of its own. The owner serialises all calls (IrqChip's routing lock).
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>

namespace lodge::engine::soft {

struct Route {
  enum class Kind : uint8_t { Pic, Ioapic, Msi };
  Kind kind = Kind::Pic;
  uint8_t pin = 0;  // of the PIC pair: 0-15
  uint64_t address = 0;
  uint32_t data = 0;
};

// The routes of one GSI: at most one to each of the three chips, or one MSI.
struct GsiRoutes {
  static constexpr unsigned kMost = KVM_NR_IRQCHIPS;
  unsigned count = 0;
  Route routes[kMost];
};

class RoutingTable {
 public:
  static constexpr uint32_t kGsis = 4096;
  static constexpr uint32_t kEntries = 4096;

  RoutingTable() { set_default(); }

  // KVM's: GSI 0-15 to the 8259 pin and the IOAPIC pin of the same number, 16-23 to the IOAPIC.
  void set_default();
  // Replaces the table. False, with the table unchanged, for entries that KVM answers with EINVAL.
  [[nodiscard]] bool set(const kvm_irq_routing_entry* entries, size_t count);
  [[nodiscard]] GsiRoutes find(uint32_t gsi) const;
  // The IOAPIC pins that the GSI leads to, as a mask.
  [[nodiscard]] uint32_t ioapic_pins(uint32_t gsi) const;

 private:
  static constexpr uint16_t kEnd = 0xffff;
  struct Entry {
    Route route;
    uint16_t next;
  };

  void clear();
  void add(uint32_t gsi, const Route& route);

  uint16_t first_[kGsis];
  Entry entries_[kEntries];
  uint32_t used_ = 0;
};

}  // namespace lodge::engine::soft
