#include "devices/vga/vga.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace lodge::devices::vga {

namespace {

constexpr uint32_t kNowhere = ~0u;
constexpr uint64_t kFrameNs = kSecondNs / 70;
constexpr unsigned kLines = 449, kShownLines = 400;
constexpr uint8_t kDisplayDisabled = 0x01, kVerticalRetrace = 0x08;  // input status 1
constexpr uint16_t kDacBytes = 256 * 3;

// Which bits of a register are there.
constexpr std::array<uint8_t, kSequencerRegisters> kSequencerBits{0x03, 0x3d, 0x0f, 0x3f, 0x0e};
constexpr std::array<uint8_t, kGraphicsRegisters> kGraphicsBits{0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};
constexpr uint8_t attribute_bits(unsigned index) {
  if (index < kAttributeMode) return 0x3f;
  switch (index) {
    case kAttributeMode: return 0xef;
    case kOverscan: return 0xff;
    case kPlaneEnable: return 0x3f;
    default: return 0x0f;
  }
}

uint8_t rotate_right(uint8_t value, unsigned by) { return static_cast<uint8_t>(value >> by | value << (8 - by)); }

}  // namespace

Vga::Vga(std::span<uint8_t> memory, const Clock& clock, CellWindow* cells) : memory_(memory), clock_(clock), cells_(cells) {
  assert(memory.size() >= size_t{4} * kPlaneBytes && (memory.size() & (memory.size() - 1)) == 0);
  MutexLock lock(mutex_);
  state_.misc = kColorAddresses | kRamEnable;
  state_.dispi[kDispiId] = kDispiVersion;
  state_.dispi[kDispiMemory64K] = static_cast<uint16_t>(memory.size() >> 16);
}

Vga::Snapshot Vga::take_snapshot() {
  MutexLock lock(mutex_);
  if (cells_shown_ && cells_->take_cells_written()) {
    store_cells();
    changed_ = true;
  }
  return {state_, std::exchange(changed_, false)};
}

// --- Cells

bool Vga::has_plain_cells() const {
  constexpr uint8_t kMapMaskBoth = 0x03, kUpperWindow = 0x0c, kWindowBits = 0x0c, kSecondPair = 0x02;
  const auto& g = state_.graphics;
  return (state_.misc & kRamEnable) && !state_.extended() && !(state_.sequencer[kMemoryMode] & (kSequential | kChain4)) &&
         state_.sequencer[kMapMask] == kMapMaskBoth && (g[kMiscellaneous] & kWindowBits) == kUpperWindow && g[kMode] == kHostOddEven &&
         g[kBitMask] == 0xff && g[kEnableSetReset] == 0 && g[kDataRotate] == 0 && !(g[kReadMap] & kSecondPair);
}

void Vga::store_cells() {
  const std::span<const uint8_t> cells = cells_->cells();
  for (uint32_t i = 0; i < CellWindow::kBytes; ++i) memory_[4 * (i & ~1u) + (i & 1)] = cells[i];
}

void Vga::update_cells() {
  if (!cells_) return;
  const bool wanted = has_plain_cells();
  if (wanted == cells_shown_) return;
  if (wanted) {
    const std::span<uint8_t> cells = cells_->cells();
    for (uint32_t i = 0; i < CellWindow::kBytes; ++i) cells[i] = memory_[4 * (i & ~1u) + (i & 1)];
    cells_->show_cells(true);
  } else {
    cells_->show_cells(false);
    store_cells();
    changed_ = true;
  }
  cells_shown_ = wanted;
}

// --- Ports

// The CRTC and status register 1 are at 0x3Dx or at 0x3Bx ("Miscellaneous Output register", bit 0); at the other place there is nothing.
uint8_t Vga::read_port(uint16_t port) {
  MutexLock lock(mutex_);
  if (const uint16_t other = state_.misc & kColorAddresses ? 0x3b0 : 0x3d0; (port & 0xfff0) == other) return 0xff;
  switch (port) {
    case kAttributeIndex: return state_.attribute_index;
    case kAttributeData: {
      const unsigned index = state_.attribute_index & 0x1f;
      return index < kAttributeRegisters ? state_.attribute[index] : 0;
    }
    case kMiscWrite: return 0x10;  // input status 0: a colour monitor is sensed
    case kEnable: return 0x01;
    case kSequencerIndex: return state_.sequencer_index;
    case kSequencerData: return state_.sequencer_index < kSequencerRegisters ? state_.sequencer[state_.sequencer_index] : 0xff;
    case kPixelMask: return state_.pixel_mask;
    case kDacReadIndex: return dac_reads_ ? 0x03 : 0x00;
    case kDacWriteIndex: return static_cast<uint8_t>(dac_index_ / 3);
    case kDacData: {
      const uint8_t value = state_.colors[dac_index_];
      dac_index_ = static_cast<uint16_t>((dac_index_ + 1) % kDacBytes);
      return value;
    }
    case kFeatureRead: return state_.feature;
    case kMiscRead: return state_.misc;
    case kGraphicsIndex: return state_.graphics_index;
    case kGraphicsData: return state_.graphics_index < kGraphicsRegisters ? state_.graphics[state_.graphics_index] : 0xff;
    case kMonoCrtcIndex:
    case kColorCrtcIndex: return state_.crtc_index;
    case kMonoCrtcData:
    case kColorCrtcData: return state_.crtc_index < kCrtcRegisters ? state_.crtc[state_.crtc_index] : 0xff;
    case kMonoStatus1:
    case kColorStatus1: return read_status1();
    default: return 0xff;
  }
}

uint8_t Vga::read_status1() {
  state_.attribute_wants_data = false;
  const uint64_t in_frame = clock_.monotonic_ns() % kFrameNs * kLines, line = in_frame / kFrameNs;
  if (line >= kShownLines) return kDisplayDisabled | (line < kShownLines + (kLines - kShownLines) / 2 ? kVerticalRetrace : 0);
  // The last fifth of a line is not shown.
  return in_frame % kFrameNs > kFrameNs / 5 * 4 ? kDisplayDisabled : 0;
}

void Vga::write_port(uint16_t port, uint8_t value) {
  MutexLock lock(mutex_);
  if (const uint16_t other = state_.misc & kColorAddresses ? 0x3b0 : 0x3d0; (port & 0xfff0) == other) return;
  switch (port) {
    case kAttributeIndex: return write_attribute(value);
    case kMiscWrite: state_.misc = value & 0xef; break;
    case kSequencerIndex: state_.sequencer_index = value & 0x07; return;
    case kSequencerData:
      if (state_.sequencer_index >= kSequencerRegisters) return;
      state_.sequencer[state_.sequencer_index] = value & kSequencerBits[state_.sequencer_index];
      break;
    case kPixelMask: state_.pixel_mask = value; break;
    case kDacReadIndex:
      dac_index_ = static_cast<uint16_t>(value * 3);
      dac_reads_ = true;
      return;
    case kDacWriteIndex:
      dac_index_ = static_cast<uint16_t>(value * 3);
      dac_reads_ = false;
      return;
    case kDacData: {
      // A colour changes with its third byte.
      const unsigned part = dac_index_ % 3u;
      dac_entry_[part] = value;
      if (part == 2) std::ranges::copy(dac_entry_, &state_.colors[dac_index_ - 2u]);
      dac_index_ = static_cast<uint16_t>((dac_index_ + 1) % kDacBytes);
      if (part != 2) return;
      break;
    }
    case kGraphicsIndex: state_.graphics_index = value & 0x0f; return;
    case kGraphicsData:
      if (state_.graphics_index >= kGraphicsRegisters) return;
      state_.graphics[state_.graphics_index] = value & kGraphicsBits[state_.graphics_index];
      break;
    case kMonoCrtcIndex:
    case kColorCrtcIndex: state_.crtc_index = value; return;
    case kMonoCrtcData:
    case kColorCrtcData: write_crtc(value); break;
    case kMonoStatus1:
    case kColorStatus1: state_.feature = value & 0x10; return;
    default: return;
  }
  changed_ = true;
  update_cells();
}

// One port for index and data by turns ("Attribute Controller Registers").
void Vga::write_attribute(uint8_t value) {
  changed_ = true;
  if (!std::exchange(state_.attribute_wants_data, !state_.attribute_wants_data)) {
    state_.attribute_index = value & 0x3f;
    return;
  }
  const unsigned index = state_.attribute_index & 0x1f;
  if (index < kAttributeRegisters) state_.attribute[index] = value & attribute_bits(index);
}

void Vga::write_crtc(uint8_t value) {
  const unsigned index = state_.crtc_index;
  if (index >= kCrtcRegisters) return;
  if ((state_.crtc[kVerticalRetraceEnd] & kProtect) && index <= kOverflow) {
    // All that stays writable under protection is line compare's bit.
    if (index == kOverflow)
      state_.crtc[index] = static_cast<uint8_t>((state_.crtc[index] & ~kOverflowLineCompare) | (value & kOverflowLineCompare));
    return;
  }
  state_.crtc[index] = value;
}

// --- Memory through the window

uint32_t Vga::decode(uint32_t offset) const {
  if (!(state_.misc & kRamEnable)) return kNowhere;
  struct Range {
    uint32_t base, size;
  };
  constexpr std::array<Range, 4> kMaps{{{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}}};
  const Range range = kMaps[state_.graphics[kMiscellaneous] >> 2 & 3];
  if (offset - range.base >= range.size) return kNowhere;
  uint32_t address = offset - range.base;
  if (state_.extended()) address = (address & 0xffff) + (uint32_t{state_.dispi[kDispiBank]} << 16);
  return address;
}

uint8_t* Vga::dword_at(uint32_t address) {
  const uint32_t offset = state_.planar_extended() ? address : address & (kPlaneBytes - 1);
  return &memory_[size_t{4} * offset & (memory_.size() - 1)];
}

uint8_t Vga::read_memory(uint32_t address) {
  if (state_.linear()) {
    const size_t place = address & (memory_.size() - 1);
    std::copy_n(&memory_[place & ~size_t{3}], 4, latch_.begin());
    return memory_[place];
  }
  unsigned plane = state_.graphics[kReadMap];
  if (state_.graphics[kMode] & kHostOddEven) {
    plane = (plane & 2) | (address & 1);
    address &= ~1u;
  }
  std::copy_n(dword_at(address), 4, latch_.begin());
  if (!(state_.graphics[kMode] & kReadMode1)) return latch_[plane];
  uint8_t differs = 0;
  for (unsigned i = 0; i < 4; ++i) {
    if (!(state_.graphics[kColorDontCare] >> i & 1)) continue;
    differs |= static_cast<uint8_t>(latch_[i] ^ (state_.graphics[kColorCompare] >> i & 1 ? 0xff : 0));
  }
  return static_cast<uint8_t>(~differs);
}

// The four write modes ("Graphics Mode register").
void Vga::write_memory(uint32_t address, uint8_t value) {
  uint8_t mask = state_.sequencer[kMapMask];
  if (state_.linear()) {
    if (state_.extended() || (mask >> (address & 3) & 1)) memory_[address & (memory_.size() - 1)] = value;
    return;
  }
  if (!(state_.sequencer[kMemoryMode] & kSequential)) {
    mask &= address & 1 ? 0b1010 : 0b0101;
    address &= ~1u;
  }
  const auto& g = state_.graphics;
  const unsigned mode = g[kMode] & 3;
  uint8_t bits = g[kBitMask];
  const uint8_t rotated = rotate_right(value, g[kDataRotate] & 7);
  if (mode == 3) bits &= rotated;
  uint8_t* bytes = dword_at(address);
  for (unsigned plane = 0; plane < 4; ++plane) {
    if (!(mask >> plane & 1)) continue;
    const auto all = [plane](uint8_t of) -> uint8_t { return of >> plane & 1 ? 0xff : 0x00; };
    uint8_t data = rotated;
    switch (mode) {
      case 0:
        if (g[kEnableSetReset] >> plane & 1) data = all(g[kSetReset]);
        break;
      case 1: bytes[plane] = latch_[plane]; continue;
      case 2: data = all(value); break;
      default: data = all(g[kSetReset]); break;
    }
    const uint8_t latched = latch_[plane];
    switch (g[kDataRotate] >> 3 & 3) {
      case 1: data &= latched; break;
      case 2: data |= latched; break;
      case 3: data ^= latched; break;
      default: break;
    }
    bytes[plane] = static_cast<uint8_t>((data & bits) | (latched & ~bits));
  }
}

uint64_t Vga::read_window(uint32_t offset, unsigned size) {
  MutexLock lock(mutex_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const uint32_t address = decode(offset + i);
    uint8_t byte = 0xff;
    // An access that was on its way here when the cells were shown.
    if (address != kNowhere) byte = cells_shown_ ? cells_->cells()[address] : read_memory(address);
    value |= uint64_t{byte} << (8 * i);
  }
  return value;
}

void Vga::write_window(uint32_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  changed_ = true;
  for (unsigned i = 0; i < size; ++i) {
    const uint32_t address = decode(offset + i);
    if (address == kNowhere) continue;
    const auto byte = static_cast<uint8_t>(value >> (8 * i));
    write_memory(address, byte);
    if (cells_shown_) cells_->cells()[address] = byte;
  }
}

// --- The Bochs extensions

// Words at 0x1CE (index) and 0x1CF (data).
uint32_t Vga::DispiPorts::read(uint64_t offset, unsigned) {
  if (offset == 1) {
    uint16_t index = 0;
    {
      MutexLock lock(vga.mutex_);
      index = vga.dispi_index_;
    }
    return vga.read_dispi(index);
  }
  MutexLock lock(vga.mutex_);
  return offset == 0 ? vga.dispi_index_ : 0xffff;
}

void Vga::DispiPorts::write(uint64_t offset, unsigned, uint32_t value) {
  uint16_t index = 0;
  {
    MutexLock lock(vga.mutex_);
    if (offset == 0) vga.dispi_index_ = static_cast<uint16_t>(value);
    index = vga.dispi_index_;
  }
  if (offset == 1) vga.write_dispi(index, static_cast<uint16_t>(value));
}

uint16_t Vga::read_dispi(unsigned index) {
  MutexLock lock(mutex_);
  if (index >= kDispiRegisters) return 0;
  if (state_.dispi[kDispiEnable] & kDispiGetCapabilities) {
    switch (index) {
      case kDispiWidth: return kMaximumWidth;
      case kDispiHeight: return kMaximumHeight;
      case kDispiBpp: return 32;
      default: break;
    }
  }
  return state_.dispi[index];
}

void Vga::write_dispi(unsigned index, uint16_t value) {
  MutexLock lock(mutex_);
  auto& dispi = state_.dispi;
  changed_ = true;
  switch (index) {
    case kDispiId:
      if (value >= kDispiFirstVersion && value <= kDispiVersion) dispi[index] = value;
      return;
    // The mode is set while the extension is off.
    case kDispiWidth:
      if (!state_.extended() && value > 0 && value <= kMaximumWidth) dispi[index] = value;
      return;
    case kDispiHeight:
      if (!state_.extended() && value > 0 && value <= kMaximumHeight) dispi[index] = value;
      return;
    case kDispiBpp:
      if (value == 0) value = 8;
      if (!state_.extended() && (value == 4 || value == 8 || value == 15 || value == 16 || value == 24 || value == 32))
        dispi[index] = value;
      return;
    case kDispiEnable: return enable_dispi(value);
    case kDispiBank: dispi[index] = static_cast<uint16_t>(value & ((memory_.size() >> 16) - 1)); return;
    case kDispiVirtualWidth: return set_virtual_width(value);
    case kDispiXOffset:
    case kDispiYOffset: dispi[index] = value; return;  // memory wraps around
    default: return;
  }
}

void Vga::set_virtual_width(uint16_t value) {
  auto& dispi = state_.dispi;
  if (value < dispi[kDispiWidth]) return;
  dispi[kDispiVirtualWidth] = value;
  const uint64_t row = uint64_t{state_.stride()} * (dispi[kDispiBpp] == 4 ? 4 : 1);
  dispi[kDispiVirtualHeight] = static_cast<uint16_t>(std::min<uint64_t>(row == 0 ? 0 : memory_.size() / row, 0xffff));
}

void Vga::enable_dispi(uint16_t value) {
  auto& dispi = state_.dispi;
  const bool was = state_.extended();
  const bool possible = dispi[kDispiWidth] > 0 && dispi[kDispiHeight] > 0 && dispi[kDispiBpp] > 0;
  if (!possible) value &= static_cast<uint16_t>(~kDispiEnabled);
  dispi[kDispiEnable] = value & (kDispiEnabled | kDispiGetCapabilities | kDispi8BitDac | kDispiLinear | kDispiNoClear);
  update_cells();
  if (!state_.extended() || was) return;
  dispi[kDispiBank] = 0;
  dispi[kDispiXOffset] = dispi[kDispiYOffset] = 0;
  set_virtual_width(dispi[kDispiWidth]);
  const uint64_t bytes = uint64_t{state_.stride()} * dispi[kDispiHeight] * (dispi[kDispiBpp] == 4 ? 4 : 1);
  if (!(value & kDispiNoClear)) std::fill_n(memory_.begin(), std::min<uint64_t>(bytes, memory_.size()), uint8_t{0});
}

}  // namespace lodge::devices::vga
