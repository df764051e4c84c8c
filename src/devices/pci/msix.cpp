#include "devices/pci/msix.hpp"

#include <array>
#include <cassert>

namespace lodge::devices::pci {

namespace {

// Offsets in the capability (figure 6-10) and bits of message control (6.8.2.3).
constexpr unsigned kControl = 2, kTable = 4, kPendingArray = 8, kBytes = 12;
constexpr uint16_t kFunctionMask = 1 << 14, kEnable = 1 << 15;
// An entry of the table (figure 6-11); behind the data its vector control (6.8.2.9).
constexpr unsigned kAddressLow = 0, kAddressHigh = 4, kData = 8;
constexpr uint32_t kMaskBit = 1;

void put(std::span<uint8_t> at, uint32_t value) {
  for (uint8_t& byte : at) {
    byte = static_cast<uint8_t>(value);
    value >>= 8;
  }
}

uint32_t entry_dword(uint64_t address, uint32_t data, bool masked, unsigned at) {
  switch (at) {
    case kAddressLow: return static_cast<uint32_t>(address);
    case kAddressHigh: return static_cast<uint32_t>(address >> 32);
    case kData: return data;
    default: return masked ? kMaskBit : 0;
  }
}

}  // namespace

Msix::Msix(ConfigSpace& config, const Layout& layout, SendMessage send)
    : config_(config), layout_(layout), send_(std::move(send)), entries_(layout.vectors) {
  // 6.8.2.4: both are qword-aligned; the low three bits of the offsets hold the BAR's number.
  assert(layout.vectors >= 1 && layout.vectors <= kMostVectors && layout.table_offset % 8 == 0 && layout.pending_offset % 8 == 0);
  std::array<uint8_t, kBytes - 2> body{};
  const std::span all(body);
  put(all.subspan(kControl - 2, 2), layout.vectors - 1);
  put(all.subspan(kTable - 2, 4), layout.table_offset | layout.bar);
  put(all.subspan(kPendingArray - 2, 4), layout.pending_offset | layout.bar);
  at_ = config.add_capability(Capability::MsiX, body);
  config.allow(at_ + kControl, 2, kFunctionMask | kEnable);
}

void Msix::config_written() {
  const uint32_t control = config_.read(at_ + kControl, 2);
  MutexLock lock(mutex_);
  enabled_.store((control & kEnable) != 0, std::memory_order_release);
  function_masked_ = (control & kFunctionMask) != 0;
  send_all_ready();
}

void Msix::set_bus_master(bool allowed) {
  MutexLock lock(mutex_);
  bus_master_ = allowed;
  send_all_ready();
}

bool Msix::covers(unsigned bar, uint64_t offset) const {
  if (bar != layout_.bar) return false;
  return offset - layout_.table_offset < table_bytes(layout_.vectors) || offset - layout_.pending_offset < pending_bytes(layout_.vectors);
}

uint8_t Msix::table_byte(uint64_t at) {
  const Entry& entry = entries_[at / kEntryBytes];
  const auto within = static_cast<unsigned>(at % kEntryBytes);
  return static_cast<uint8_t>(entry_dword(entry.address, entry.data, entry.masked, within & ~3u) >> (8 * (within & 3)));
}

uint8_t Msix::pending_byte(uint64_t at) {
  uint8_t bits = 0;
  for (uint64_t vector = 8 * at; vector < 8 * at + 8 && vector < entries_.size(); ++vector)
    if (entries_[vector].pending) bits |= static_cast<uint8_t>(1u << (vector % 8));
  return bits;
}

uint64_t Msix::read(uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    uint8_t byte = 0;
    if (const uint64_t at = offset + i - layout_.table_offset; at < table_bytes(layout_.vectors))
      byte = table_byte(at);
    else if (const uint64_t bit = offset + i - layout_.pending_offset; bit < pending_bytes(layout_.vectors))
      byte = pending_byte(bit);
    value |= static_cast<uint64_t>(byte) << (8 * i);
  }
  return value;
}

// 6.8.2: software writes whole dwords or qwords; what anything else does is undefined, and here it does nothing. The pending bits are
// read-only (6.8.2.10).
void Msix::write(uint64_t offset, unsigned size, uint64_t value) {
  if ((size != 4 && size != 8) || offset % size != 0) return;
  MutexLock lock(mutex_);
  for (unsigned i = 0; i < size; i += 4, value >>= 32) {
    const uint64_t at = offset + i - layout_.table_offset;
    if (at < table_bytes(layout_.vectors)) write_table_dword(at, static_cast<uint32_t>(value));
  }
}

void Msix::write_table_dword(uint64_t at, uint32_t value) {
  Entry& entry = entries_[at / kEntryBytes];
  switch (at % kEntryBytes) {
    case kAddressLow: entry.address = (entry.address >> 32 << 32) | (value & ~3u); break;
    case kAddressHigh: entry.address = static_cast<uint64_t>(value) << 32 | static_cast<uint32_t>(entry.address); break;
    case kData: entry.data = value; break;
    default: entry.masked = (value & kMaskBit) != 0; break;
  }
  send_if_ready(entry);
}

void Msix::signal(unsigned vector) {
  MutexLock lock(mutex_);
  if (!enabled_ || vector >= entries_.size()) return;
  entries_[vector].pending = true;
  send_if_ready(entries_[vector]);
}

void Msix::send_if_ready(Entry& entry) {
  if (!entry.pending || entry.masked || silent()) return;
  entry.pending = false;
  send_(entry.address, entry.data);
}

void Msix::send_all_ready() {
  if (silent()) return;
  for (Entry& entry : entries_) send_if_ready(entry);
}

}  // namespace lodge::devices::pci
