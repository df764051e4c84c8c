#include "machine/memory_map.hpp"

#include <algorithm>

namespace lodge::machine {

MemoryMap::MemoryMap(uint64_t memory_bytes, uint64_t hole)
    : low_end(std::min(memory_bytes, hole)), above_size(memory_bytes > hole ? memory_bytes - hole : 0) {}

std::vector<memory::Range> MemoryMap::backing() const {
  std::vector<memory::Range> ranges{{0, kEbdaEnd}, {kRom, kRomEnd - kRom}, {kHighMemory, low_end - kHighMemory}};
  if (above_size > 0) ranges.push_back({kAbove4G, above_size});
  return ranges;
}

std::vector<memory::Range> MemoryMap::backing_with_firmware() const {
  std::vector<memory::Range> ranges{{0, low_end}};
  if (above_size > 0) ranges.push_back({kAbove4G, above_size});
  return ranges;
}

std::vector<E820Entry> e820(const MemoryMap& map) {
  std::vector<E820Entry> entries{{0, kEbda, E820Type::Ram},
                                 {kEbda, kEbdaEnd - kEbda, E820Type::Reserved},
                                 {kRom, kRomEnd - kRom, E820Type::Reserved},
                                 {kHighMemory, map.low_end - kHighMemory, E820Type::Ram},
                                 // An operating system uses the ECAM only if it is reserved (PCI Firmware 3.2, 4.1.2).
                                 {kPciConfiguration, kPciConfigurationBytes, E820Type::Reserved}};
  if (map.above_size > 0) entries.push_back({kAbove4G, map.above_size, E820Type::Ram});
  return entries;
}

}  // namespace lodge::machine
