// An interrupt message on the bus between IOAPIC, MSI sources and local APICs (SDM vol. 3, 11.6 and 11.11).
#pragma once

#include <cstdint>

namespace lodge::engine::soft {

// The encoding of bits 10:8 of the ICR, the LVTs, redirection entries and MSI data.
enum class DeliveryMode : uint8_t { Fixed = 0, LowestPriority = 1, Smi = 2, Reserved = 3, Nmi = 4, Init = 5, StartUp = 6, ExtInt = 7 };

// The encoding of ICR bits 19:18.
enum class Shorthand : uint8_t { None = 0, Self = 1, AllIncludingSelf = 2, AllExcludingSelf = 3 };

struct InterruptMessage {
  uint32_t destination = 0;
  bool wide = false;  // destination has 32 bits (an x2APIC's ICR), so that 0xff is no broadcast
  bool logical = false;
  bool level_triggered = false;
  bool assert = true;
  DeliveryMode mode = DeliveryMode::Fixed;
  Shorthand shorthand = Shorthand::None;
  uint8_t vector = 0;

  [[nodiscard]] bool broadcast() const { return destination == (wide ? 0xffffffffu : 0xffu); }
};

}  // namespace lodge::engine::soft
