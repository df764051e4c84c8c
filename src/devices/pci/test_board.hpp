// A host bridge on buses of its own, for tests: what it sends and which lines it drives is written down.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/pci/host_bridge.hpp"

namespace lodge::devices::pci::test {

struct Board {
  static constexpr uint64_t kEcam = 0xe0000000;
  static constexpr Window kIo{0x1000, 0xf000}, kMemory32{0xc0000000, 0x20000000}, kMemory64{0x800000000, 0x800000000};

  PortBus ports, beside;
  MmioBus memory;
  std::vector<std::pair<uint64_t, uint32_t>> messages;
  std::array<bool, 4> lines{};
  unsigned line_changes = 0;
  std::unique_ptr<HostBridge> bridge;

  Board() {
    std::array<IrqPin, HostBridge::kLines> pins;
    for (unsigned i = 0; i < lines.size(); ++i)
      pins[i] = IrqPin([this, i](bool level) {
        lines[i] = level;
        ++line_changes;
      });
    auto made = HostBridge::create({.ports = ports,
                                    .memory = memory,
                                    .beside_config_address = beside,
                                    .io = kIo,
                                    .memory32 = kMemory32,
                                    .memory64 = kMemory64,
                                    .ecam = Window{kEcam, HostBridge::kEcamBytes},
                                    .send_message = [this](uint64_t address, uint32_t data) { messages.emplace_back(address, data); },
                                    .lines = pins,
                                    .interrupt_numbers = {10, 11, 5, 7}});
    EXPECT_TRUE(made) << made.error().message;
    if (made) bridge = std::move(*made);
  }

  // Through ports 0xCF8 and 0xCFC.
  uint32_t read(unsigned device, unsigned offset, unsigned size, unsigned function = 0) {
    select(device, function, offset);
    return ports.read(0xcfc + (offset & 3), size);
  }
  void write(unsigned device, unsigned offset, unsigned size, uint32_t value, unsigned function = 0) {
    select(device, function, offset);
    ports.write(0xcfc + (offset & 3), size, value);
  }
  void select(unsigned device, unsigned function, unsigned offset, unsigned bus = 0) {
    ports.write(0xcf8, 4, 0x80000000 | bus << 16 | device << 11 | function << 8 | (offset & 0xfc));
  }
  static uint64_t ecam(unsigned device, unsigned offset, unsigned function = 0) { return kEcam + (device << 15 | function << 12) + offset; }
};

}  // namespace lodge::devices::pci::test
