// What the tests of the interrupt controller have in place of a VM: a clock that stands still until told, and vCPUs
// that count their wake-ups.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "engine/soft/irqchip/irqchip.hpp"

namespace lodge::engine::soft {

struct FakeVcpu {
  unsigned wakes = 0;
  uint64_t tsc = 0;

  VcpuEvents events() {
    return {.wake = [](void* self) { ++static_cast<FakeVcpu*>(self)->wakes; },
            .guest_tsc = [](void* self) { return static_cast<FakeVcpu*>(self)->tsc; },
            .vcpu = this};
  }
};

struct FakeVm {
  uint64_t now = 1000;
  unsigned pit_changes = 0;
  FakeVcpu vcpus[4];
  std::unique_ptr<IrqChip> chip =
      std::make_unique<IrqChip>(VmHost{.now_ns = [](void* self) { return static_cast<FakeVm*>(self)->now; },
                                       .pit_changed = [](void* self) { ++static_cast<FakeVm*>(self)->pit_changes; },
                                       .context = this});

  explicit FakeVm(uint32_t count) {
    for (uint32_t id = 0; id < count; ++id) chip->attach_vcpu(id, id == 0, vcpus[id].events());
  }

  // The xAPIC page of a vCPU.
  void write(uint32_t vcpu, uint32_t offset, uint32_t value) { EXPECT_TRUE(chip->mmio_write(vcpu, 0xfee00000 + offset, 4, value)); }
  uint32_t read(uint32_t vcpu, uint32_t offset) {
    uint64_t value = 0;
    EXPECT_TRUE(chip->mmio_read(vcpu, 0xfee00000 + offset, 4, value));
    return static_cast<uint32_t>(value);
  }
  void enable(uint32_t vcpu) { write(vcpu, 0xf0, 0x1ff); }
  void redirect(unsigned pin, uint32_t low, uint8_t destination = 0) {
    ioapic(0x11 + 2 * pin, uint32_t{destination} << 24);
    ioapic(0x10 + 2 * pin, low);
  }
  void ioapic(uint32_t index, uint32_t value) {
    EXPECT_TRUE(chip->mmio_write(0, 0xfec00000, 4, index));
    EXPECT_TRUE(chip->mmio_write(0, 0xfec00010, 4, value));
  }
  void out(uint16_t port, uint8_t value) { EXPECT_TRUE(chip->port_write(port, 1, value)); }
  uint8_t in(uint16_t port) {
    uint32_t value = 0;
    EXPECT_TRUE(chip->port_read(port, 1, value));
    return static_cast<uint8_t>(value);
  }
  void init_pics() {
    for (const uint8_t value : {0x20, 0x04, 0x01}) {
      if (value == 0x20) out(0x20, 0x11);
      out(0x21, value);
    }
    for (const uint8_t value : {0x28, 0x02, 0x01}) {
      if (value == 0x28) out(0xa0, 0x11);
      out(0xa1, value);
    }
  }
};

}  // namespace lodge::engine::soft
