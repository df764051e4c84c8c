// A chip's ports or memory at an address that software chooses, as power management's are: one place for moving them.
//
// Threads: those of configuration space.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "devices/bus.hpp"

namespace lodge::devices::chipset {

template <typename Device>
class MovableBlock {
 public:
  MovableBlock(Bus<Device>& bus, Device& device, uint64_t length, std::string name)
      : bus_(bus), device_(device), length_(length), name_(std::move(name)) {}
  ~MovableBlock() { move({}); }
  MovableBlock(const MovableBlock&) = delete;
  MovableBlock& operator=(const MovableBlock&) = delete;

  // Where it is now, or that it is nowhere. A place that is taken is the guest's mistake: it is nowhere then.
  void move(std::optional<uint64_t> base) {
    if (base == base_) return;
    if (base_) bus_.detach(*base_);
    base_.reset();
    if (base && bus_.attach(*base, length_, device_, name_)) base_ = base;
  }

 private:
  Bus<Device>& bus_;
  Device& device_;
  const uint64_t length_;
  const std::string name_;
  std::optional<uint64_t> base_;
};

using PortBlock = MovableBlock<PortDevice>;
using MemoryBlock = MovableBlock<MmioDevice>;

}  // namespace lodge::devices::chipset
