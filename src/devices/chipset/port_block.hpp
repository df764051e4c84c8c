// A chip's ports at an address that software chooses, as power management's are: one place for moving them.
//
// Threads: those of configuration space.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "devices/bus.hpp"

namespace lodge::devices::chipset {

class PortBlock {
 public:
  PortBlock(PortBus& bus, PortDevice& device, uint16_t length, std::string name)
      : bus_(bus), device_(device), length_(length), name_(std::move(name)) {}
  ~PortBlock() { move({}); }
  PortBlock(const PortBlock&) = delete;
  PortBlock& operator=(const PortBlock&) = delete;

  // Where the ports are now, or that they are nowhere. A place that is taken is the guest's mistake: they are nowhere then.
  void move(std::optional<uint16_t> base) {
    if (base == base_) return;
    if (base_) bus_.detach(*base_);
    base_.reset();
    if (base && bus_.attach(*base, length_, device_, name_)) base_ = base;
  }

 private:
  PortBus& bus_;
  PortDevice& device_;
  const uint16_t length_;
  const std::string name_;
  std::optional<uint16_t> base_;
};

}  // namespace lodge::devices::chipset
