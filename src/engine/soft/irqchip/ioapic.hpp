// The IOAPIC: 24 pins, redirection table, remote IRR (Intel 82093AA, order number 290566-001).
//
// Version 0x11 as KVM reports it: no EOI register, a level-triggered entry is freed by the local APIC's EOI broadcast or by
// switching it to edge for a moment. As in KVM the polarity bit is kept but ignored (a pin's level means asserted), and
// the ExtINT delivery mode delivers nothing.
//
// Threads: none of its own. The owner serialises all calls (IrqChip's IOAPIC lock). The sink is called within them: it may
// touch local APICs, but neither block nor come back.
#pragma once

#include <linux/kvm.h>

#include <cstdint>

#include "engine/soft/irqchip/message.hpp"

namespace lodge::engine::soft {

// Where messages go. True if at least one local APIC accepted it.
struct InterruptSink {
  bool (*deliver)(void* context, const InterruptMessage& message) = nullptr;
  void* context = nullptr;
};

class Ioapic {
 public:
  static constexpr uint64_t kDefaultBase = 0xfec00000;
  static constexpr uint64_t kWindowSize = 0x100;
  static constexpr unsigned kPins = KVM_IOAPIC_NUM_PINS;

  Ioapic() { reset(); }
  void reset();

  [[nodiscard]] bool owns(uint64_t gpa) const { return gpa - state_.base_address < kWindowSize; }
  [[nodiscard]] uint32_t read(uint64_t gpa) const;
  void write(uint64_t gpa, uint32_t value, const InterruptSink& sink);

  void set_pin(unsigned pin, bool level, const InterruptSink& sink);
  // EOI broadcast of a level-triggered vector. A pin that is still asserted interrupts again.
  void end_of_interrupt(uint8_t vector, const InterruptSink& sink);

  [[nodiscard]] bool masked(unsigned pin) const { return state_.redirtbl[pin].fields.mask; }
  [[nodiscard]] uint8_t vector(unsigned pin) const { return state_.redirtbl[pin].fields.vector; }

  // In saved state irr holds the asserted level-triggered pins and the edges not yet delivered.
  void get_state(kvm_ioapic_state& state) const;
  void set_state(const kvm_ioapic_state& state, const InterruptSink& sink);

 private:
  [[nodiscard]] uint32_t read_register(uint8_t index) const;
  void write_register(uint8_t index, uint32_t value, const InterruptSink& sink);
  void write_redirection(unsigned pin, bool high, uint32_t value, const InterruptSink& sink);
  void service(unsigned pin, const InterruptSink& sink);

  kvm_ioapic_state state_;
  uint32_t edges_delivered_;  // pins whose asserted edge has gone out
};

}  // namespace lodge::engine::soft
