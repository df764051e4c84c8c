#include "devices/e1000/e1000.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/pci/dwords.hpp"

namespace lodge::devices::e1000 {

namespace {

// Registers (table 13-2).
enum Register : uint32_t {
  kControl = 0x0000,
  kControlCopy = 0x0004,
  kStatus = 0x0008,
  kEepromControl = 0x0010,
  kEepromRead = 0x0014,
  kMdiControl = 0x0020,
  kVlanType = 0x0038,
  kCauseRead = 0x00c0,
  kCauseSet = 0x00c8,
  kMaskSet = 0x00d0,
  kMaskClear = 0x00d8,
  kReceiveControl = 0x0100,
  kTransmitControl = 0x0400,
  kReceiveBase = 0x2800,
  kReceiveBaseHigh = 0x2804,
  kReceiveLength = 0x2808,
  kReceiveHead = 0x2810,
  kReceiveTail = 0x2818,
  kTransmitBase = 0x3800,
  kTransmitBaseHigh = 0x3804,
  kTransmitLength = 0x3808,
  kTransmitHead = 0x3810,
  kTransmitTail = 0x3818,
  kStatistics = 0x4000,
  kStatisticsEnd = 0x4128,
  kMulticastTable = 0x5200,
  kReceiveAddresses = 0x5400,
  kVlanTable = 0x5600,
};
// Those that only hold what is written, each with what it is after a reset: extended control, flow control (3), transmit IPG, adaptive IFS,
// LEDs, packet buffers, receive delay (2), interrupt throttling, transmit delay (2), descriptor control (2), receive checksums.
struct Held {
  uint32_t offset, initial;
};
constexpr std::array<Held, 15> kHeld{{{0x0018, 0},
                                      {0x0028, 0},
                                      {0x002c, 0},
                                      {0x0030, 0},
                                      {0x0410, 0},
                                      {0x0458, 0},
                                      {0x0e00, 0x07068302},
                                      {0x1000, 0x00100030},
                                      {0x2820, 0},
                                      {0x282c, 0},
                                      {0x00c4, 0},
                                      {0x3820, 0},
                                      {0x382c, 0},
                                      {0x2828, 0},
                                      {0x3828, 0}}};
constexpr unsigned kVlanTypeHeld = 15;
constexpr uint16_t kVlanTypeInitial = 0x8100;

constexpr uint32_t kControlInitial = 0x00000a41, kControlReset = 1u << 26, kControlVlan = 1u << 30, kControlPhyReset = 1u << 31;
constexpr uint32_t kStatusFullDuplex = 1, kStatusLinkUp = 2, kStatus1000 = 0x80;
constexpr uint32_t kEepromClock = 1, kEepromSelect = 2, kEepromIn = 4, kEepromOut = 8, kEepromRequest = 0x40, kEepromGrant = 0x80,
                   kEepromPresent = 0x100, kEepromWritable = 0x77;
constexpr uint32_t kReadStart = 1, kReadDone = 0x10;
constexpr uint32_t kMdiWrite = 1u << 26, kMdiRead = 1u << 27, kMdiReady = 1u << 28, kMdiInterrupt = 1u << 29, kMdiError = 1u << 30;

// Causes (13.4.17).
constexpr uint32_t kTransmitWritten = 1u << 0, kTransmitEmpty = 1u << 1, kReceiveThreshold = 1u << 4, kReceiveOverrun = 1u << 6,
                   kReceiveTimer = 1u << 7, kMdiDone = 1u << 9;

// RCTL (13.4.22), TCTL (13.4.33).
constexpr uint32_t kReceiveEnable = 1u << 1, kUnicastPromiscuous = 1u << 3, kMulticastPromiscuous = 1u << 4, kLongPackets = 1u << 5,
                   kBroadcastAccept = 1u << 15, kVlanFilter = 1u << 18, kSizeExtension = 1u << 25, kStripChecksum = 1u << 26;
constexpr uint32_t kTransmitEnable = 1u << 1;

// Receive descriptors (3.2.3).
constexpr uint8_t kDone = 1, kEndOfPacket = 2, kIgnoreChecksum = 4, kVlanPacket = 8;
// Transmit descriptors (3.3): commands in the upper byte of the length's dword.
constexpr uint64_t kCommandEnd = uint64_t{1} << 24, kCommandChecksum = uint64_t{1} << 26, kCommandSegment = uint64_t{1} << 26,
                   kCommandReport = uint64_t{1} << 27, kCommandExtended = uint64_t{1} << 29, kCommandVlan = uint64_t{1} << 30;
constexpr uint64_t kStatusDone = uint64_t{1} << 32;

constexpr size_t kAddressBytes = 6, kTagAt = 12, kTagBytes = 4, kSequenceBytes = 4, kShortest = 60, kLongest = 1518, kLongestWithTag = 1522,
                 kLongestOfAll = 16384;
constexpr size_t kMostPacketBytes = net::kMostFrameBytes + 256;

constexpr uint16_t kDevice = 0x100e;
constexpr pci::Identity kIdentity{
    .vendor = 0x8086, .device = kDevice, .revision = 3, .class_code = 0x020000, .subsystem_vendor = 0x8086, .subsystem = kDevice};
constexpr uint64_t kMemoryBytes = 128 << 10, kPortBytes = 64;
constexpr uint64_t kIoAddress = 0, kIoData = 4;

// The PHY, an 88E1011S: registers of IEEE 802.3, clause 22 and 40.
constexpr unsigned kPhyAddress = 1, kPhyControl = 0, kPhyStatus = 1, kPhyId1 = 2, kPhyId2 = 3, kPhyAdvertised = 4, kPhyPartner = 5,
                   kPhyExpansion = 6, kPhyGigabit = 9, kPhyGigabitStatus = 10, kPhyExtendedStatus = 15, kPhySpecificStatus = 17;
constexpr uint16_t kPhyReset = 0x8000, kPhyRestart = 0x0200, kPhyLinkUp = 0x0004, kPhyNegotiated = 0x0020, kPhySpecificLink = 0x0400;

uint16_t tag_of(std::span<const std::byte> frame, size_t at) {
  return static_cast<uint16_t>(std::to_integer<unsigned>(frame[at]) << 8 | std::to_integer<unsigned>(frame[at + 1]));
}

}  // namespace

E1000::E1000(memory::GuestMemory& memory, Worker& worker, net::Backend& backend, const net::MacAddress& mac, bool link,
             std::span<const uint8_t> rom)
    : Function(kIdentity, "e1000"), memory_(memory), worker_(worker), backend_(backend), link_(link), eeprom_(mac, kDevice) {
  add_bar(kMemoryBar, {.kind = pci::BarKind::Memory32, .size = kMemoryBytes});
  add_bar(kPortBar, {.kind = pci::BarKind::Io, .size = kPortBytes});
  if (!rom.empty()) add_rom(rom);
  add_interrupt_pin();
  MutexLock lock(mutex_);
  reset();
}

void E1000::reset() {
  control_ = kControlInitial;
  eeprom_control_ = mdi_ = eeprom_read_ = cause_ = mask_ = receive_control_ = transmit_control_ = 0;
  receive_ring_ = transmit_ring_ = {};
  multicast_.fill(0);
  vlans_.fill(0);
  addresses_.fill(0);
  for (size_t i = 0; i < kHeld.size(); ++i) held_[i] = kHeld[i].initial;
  held_[kVlanTypeHeld] = kVlanTypeInitial;
  // The first address is the EEPROM's, and valid (13.5.2).
  addresses_[0] = eeprom_.word(0) | static_cast<uint32_t>(eeprom_.word(1)) << 16;
  addresses_[1] = eeprom_.word(2) | 1u << 31;
  phy_.fill(0);
  phy_[kPhyControl] = 0x1140;
  phy_[kPhyId1] = 0x0141;
  phy_[kPhyId2] = 0x0c20;
  phy_[kPhyAdvertised] = 0x0de1;
  phy_[kPhyGigabit] = 0x0e00;
  phy_[kPhyExtendedStatus] = 0x3000;
  counters_ = {};
  context_ = {};
  packet_ = {};
  starved_ = false;
  update_interrupt();
}

void E1000::bus_master_changed(bool allowed) {
  if (!allowed) return;
  worker_.post([this] { transmit(); });
}

// --- Registers

// By memory, or by the address and data ports; registers are written as dwords (13.1).
uint64_t E1000::bar_read(unsigned index, uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  return pci::read_dwords(offset, size, [&](uint64_t at) LODGE_REQUIRES(mutex_) -> uint32_t {
    if (index == kMemoryBar) return read_register(static_cast<uint32_t>(at));
    return at == kIoAddress ? port_address_ : at == kIoData ? read_register(port_address_) : 0;
  });
}

void E1000::bar_write(unsigned index, uint64_t offset, unsigned size, uint64_t value) {
  MutexLock lock(mutex_);
  pci::write_dwords(offset, size, value, [&](uint64_t at, uint32_t dword) LODGE_REQUIRES(mutex_) {
    if (index == kMemoryBar)
      write_register(static_cast<uint32_t>(at), dword);
    else if (at == kIoAddress)
      port_address_ = dword & (kMemoryBytes - 4);
    else if (at == kIoData)
      write_register(port_address_, dword);
  });
}

uint32_t* E1000::plain_register(uint32_t offset) {
  const auto in = [&](uint32_t base, size_t count) { return offset >= base && offset < base + 4 * count; };
  if (in(kMulticastTable, multicast_.size())) return &multicast_[(offset - kMulticastTable) / 4];
  if (in(kReceiveAddresses, addresses_.size())) return &addresses_[(offset - kReceiveAddresses) / 4];
  if (in(kVlanTable, vlans_.size())) return &vlans_[(offset - kVlanTable) / 4];
  if (offset == kVlanType) return &held_[kVlanTypeHeld];
  const auto* const found = std::ranges::find(kHeld, offset, &Held::offset);
  return found == kHeld.end() ? nullptr : &held_[static_cast<size_t>(found - kHeld.begin())];
}

uint32_t E1000::read_register(uint32_t offset) {
  if (const uint32_t* const plain = plain_register(offset)) return *plain;
  if (offset >= kStatistics && offset < kStatisticsEnd) return read_counter(offset);
  switch (offset) {
    case kControl:
    case kControlCopy: return control_;
    case kStatus: return kStatusFullDuplex | kStatus1000 | (link_ ? kStatusLinkUp : 0);
    case kEepromControl:
      return eeprom_control_ | kEepromPresent | (eeprom_control_ & kEepromRequest ? kEepromGrant : 0) | (eeprom_.out() ? kEepromOut : 0);
    case kEepromRead: return eeprom_read_;
    case kMdiControl: return mdi_;
    case kCauseRead: {
      const uint32_t causes = std::exchange(cause_, 0);
      update_interrupt();
      return causes;
    }
    case kMaskSet: return mask_;
    case kReceiveControl: return receive_control_;
    case kTransmitControl: return transmit_control_;
    case kReceiveBase: return pci::low(receive_ring_.base);
    case kReceiveBaseHigh: return pci::high(receive_ring_.base);
    case kReceiveLength: return receive_ring_.length;
    case kReceiveHead: return receive_ring_.head;
    case kReceiveTail: return receive_ring_.tail;
    case kTransmitBase: return pci::low(transmit_ring_.base);
    case kTransmitBaseHigh: return pci::high(transmit_ring_.base);
    case kTransmitLength: return transmit_ring_.length;
    case kTransmitHead: return transmit_ring_.head;
    case kTransmitTail: return transmit_ring_.tail;
    default: return 0;
  }
}

void E1000::write_register(uint32_t offset, uint32_t value) {
  constexpr uint32_t kLengthBits = 0xfff80, kIndexBits = 0xffff, kBaseBits = ~0xfu;
  if (uint32_t* const plain = plain_register(offset)) {
    *plain = value;
    return;
  }
  switch (offset) {
    case kControl:
    case kControlCopy:
      if (value & kControlReset) return reset();
      control_ = value & ~kControlPhyReset;
      break;
    case kEepromControl:
      eeprom_control_ = value & kEepromWritable;
      eeprom_.set_pins((value & kEepromSelect) != 0, (value & kEepromClock) != 0, (value & kEepromIn) != 0);
      break;
    case kEepromRead:
      if (value & kReadStart) {
        const uint32_t word = value >> 8 & 0xff;
        eeprom_read_ = (value & 0xff00) | kReadDone | static_cast<uint32_t>(eeprom_.word(word)) << 16;
      }
      break;
    case kMdiControl: write_phy(value); break;
    case kCauseRead:
      cause_ &= ~value;
      update_interrupt();
      break;
    case kCauseSet: raise(value); break;
    case kMaskSet:
      mask_ |= value;
      update_interrupt();
      break;
    case kMaskClear:
      mask_ &= ~value;
      update_interrupt();
      break;
    case kReceiveControl:
    case kReceiveTail:
      (offset == kReceiveTail ? receive_ring_.tail : receive_control_) = offset == kReceiveTail ? value & kIndexBits : value;
      if (std::exchange(starved_, false)) worker_.post([this] { backend_.room(0); });
      break;
    case kReceiveBase: receive_ring_.base = pci::with_low(receive_ring_.base, value & kBaseBits); break;
    case kReceiveBaseHigh: receive_ring_.base = pci::with_high(receive_ring_.base, value); break;
    case kReceiveLength: receive_ring_.length = value & kLengthBits; break;
    case kReceiveHead: receive_ring_.head = value & kIndexBits; break;
    case kTransmitBase: transmit_ring_.base = pci::with_low(transmit_ring_.base, value & kBaseBits); break;
    case kTransmitBaseHigh: transmit_ring_.base = pci::with_high(transmit_ring_.base, value); break;
    case kTransmitLength: transmit_ring_.length = value & kLengthBits; break;
    case kTransmitHead: transmit_ring_.head = value & kIndexBits; break;
    case kTransmitControl:
    case kTransmitTail:
      (offset == kTransmitTail ? transmit_ring_.tail : transmit_control_) = offset == kTransmitTail ? value & kIndexBits : value;
      if (!std::exchange(scheduled_, true)) worker_.post([this] { transmit(); });
      break;
    default: break;
  }
}

// 13.7: counters that a read sets back; of those of 64 bits the lower half is read first, and stays for the upper one.
uint32_t E1000::read_counter(uint32_t offset) {
  const auto take = [](uint64_t& counter) { return static_cast<uint32_t>(std::exchange(counter, 0)); };
  const auto low = [](uint64_t& counter) {
    const auto value = static_cast<uint32_t>(counter);
    counter &= ~uint64_t{0xffffffff};
    return value;
  };
  const auto high = [](uint64_t& counter) {
    const auto value = static_cast<uint32_t>(counter >> 32);
    counter &= 0xffffffff;
    return value;
  };
  switch (offset) {
    case 0x4010: return take(counters_.missed);
    case 0x4074: return take(counters_.good_received);
    case 0x4078: return take(counters_.broadcasts);
    case 0x407c: return take(counters_.multicasts);
    case 0x4080: return take(counters_.sent);
    case 0x4088: return low(counters_.good_received_bytes);
    case 0x408c: return high(counters_.good_received_bytes);
    case 0x4090: return low(counters_.sent_bytes);
    case 0x4094: return high(counters_.sent_bytes);
    default: return 0;
  }
}

// --- The PHY, through MDIC (13.4.9)

void E1000::write_phy(uint32_t value) {
  const unsigned reg = value >> 16 & 0x1f, phy = value >> 21 & 0x1f;
  mdi_ = value & ~kMdiError;
  if (phy != kPhyAddress || !(value & (kMdiWrite | kMdiRead))) {
    mdi_ |= kMdiError;
  } else if (value & kMdiRead) {
    mdi_ = (mdi_ & 0xffff0000) | read_phy(reg);
  } else if (reg == kPhyControl) {
    phy_[reg] = static_cast<uint16_t>(value & ~(kPhyReset | kPhyRestart));
  } else if (reg == kPhyAdvertised || reg == kPhyGigabit || reg >= 16) {
    phy_[reg] = static_cast<uint16_t>(value);
  }
  mdi_ |= kMdiReady;
  if (value & kMdiInterrupt) raise(kMdiDone);
}

uint16_t E1000::read_phy(unsigned reg) {
  switch (reg) {
    case kPhyStatus: return static_cast<uint16_t>(0x7949 | (link_ ? kPhyLinkUp | kPhyNegotiated : 0));
    case kPhyPartner: return link_ ? 0x45e1 : 0;
    case kPhyExpansion: return link_ ? 0x0001 : 0;
    case kPhyGigabitStatus: return link_ ? 0x3c00 : 0;
    case kPhySpecificStatus: return static_cast<uint16_t>(link_ ? 0xac08 | kPhySpecificLink : 0);
    default: return phy_[reg];
  }
}

// --- Interrupts

void E1000::raise(uint32_t causes) {
  cause_ |= causes;
  update_interrupt();
}

void E1000::update_interrupt() { set_intx((cause_ & mask_) != 0); }

// --- Sending

void E1000::transmit() {
  // A ring has at most so many packets; what software adds meanwhile comes with its next write.
  uint32_t left = 0;
  {
    MutexLock lock(mutex_);
    scheduled_ = false;
    left = transmit_ring_.entries();
  }
  for (; left != 0; --left) {
    if (!flush()) return;
    MutexLock lock(mutex_);
    if (!take_packet()) return;
  }
  static_cast<void>(flush());
}

// What is on its way goes first. False: the network is full, and says when it is not.
bool E1000::flush() {
  while (!outgoing_.empty()) {
    std::vector<std::byte>& frame = outgoing_.front();
    const iovec piece{frame.data(), frame.size()};
    if (link_ && !backend_.send(0, {}, std::span(&piece, 1))) return false;
    outgoing_.pop_front();
  }
  return true;
}

void E1000::sendable(unsigned) { transmit(); }

// The descriptors of a packet; false: there is none, or only a part of one.
bool E1000::take_packet() {
  if (!(transmit_control_ & kTransmitEnable) || !bus_master()) return false;
  uint32_t causes = 0;
  bool whole = false;
  while (!whole && transmit_ring_.available() != 0) {
    Descriptor descriptor;
    const uint64_t at = transmit_ring_.base + uint64_t{transmit_ring_.head} * sizeof descriptor;
    if (!memory_.read(at, std::as_writable_bytes(std::span(&descriptor, 1)))) break;
    const bool extended = (descriptor.rest & kCommandExtended) != 0, is_context = extended && (descriptor.rest >> 20 & 0xf) == 0;
    if (is_context)
      take_context(descriptor);
    else
      take_descriptor(descriptor);
    if (!is_context && (descriptor.rest & kCommandEnd)) {
      finish_packet();
      whole = true;
    }
    if (descriptor.rest & kCommandReport) {
      descriptor.rest |= kStatusDone;
      static_cast<void>(memory_.write(at + 8, std::as_bytes(std::span(&descriptor.rest, 1))));
      causes |= kTransmitWritten;
    }
    transmit_ring_.advance();
    if (transmit_ring_.available() == 0) causes |= kTransmitEmpty;
  }
  if (causes != 0) raise(causes);
  return whole;
}

// 3.3.6.
void E1000::take_context(const Descriptor& descriptor) {
  const auto byte = [](uint64_t word, unsigned at) { return static_cast<uint8_t>(word >> (8 * at)); };
  constexpr uint64_t kTcp = uint64_t{1} << 24, kIp = uint64_t{1} << 25;
  context_ = {.ip_start = byte(descriptor.address, 0),
              .ip_checksum = byte(descriptor.address, 1),
              .ip_end = static_cast<uint16_t>(descriptor.address >> 16),
              .payload_start = byte(descriptor.address, 4),
              .payload_checksum = byte(descriptor.address, 5),
              .payload_end = static_cast<uint16_t>(descriptor.address >> 48),
              .payload_bytes = static_cast<uint32_t>(descriptor.rest & 0xfffff),
              .header_bytes = byte(descriptor.rest, 5),
              .segment_bytes = static_cast<uint16_t>(descriptor.rest >> 48),
              .tcp = (descriptor.rest & kTcp) != 0,
              .ipv4 = (descriptor.rest & kIp) != 0};
}

// A legacy or a data descriptor (3.3.3, 3.3.7); what it says of the whole packet counts in the first one.
void E1000::take_descriptor(const Descriptor& descriptor) {
  const bool extended = (descriptor.rest & kCommandExtended) != 0;
  if (!packet_.begun) {
    packet_.begun = true;
    if (extended) {
      packet_.segmented = (descriptor.rest & kCommandSegment) != 0;
      packet_.ip_checksum = (descriptor.rest >> 40 & 1) != 0;
      packet_.payload_checksum = (descriptor.rest >> 41 & 1) != 0;
    }
  }
  take_data(descriptor.address, static_cast<uint32_t>(descriptor.rest & (extended ? 0xfffff : 0xffff)));
  if (!(descriptor.rest & kCommandEnd)) return;
  if (descriptor.rest & kCommandVlan) {
    packet_.tagged = true;
    packet_.tag = static_cast<uint16_t>(descriptor.rest >> 48);
  }
  // A legacy descriptor's own checksum: from CSS on, to CSO.
  if (!extended && (descriptor.rest & kCommandChecksum))
    put_checksum(packet_.bytes, static_cast<uint8_t>(descriptor.rest >> 40), static_cast<uint8_t>(descriptor.rest >> 16), 0);
}

void E1000::take_data(uint64_t address, uint32_t bytes) {
  const size_t at = packet_.bytes.size();
  packet_.too_long = packet_.too_long || bytes > kMostPacketBytes - at;
  if (packet_.too_long || bytes == 0) return;
  packet_.bytes.resize(at + bytes);
  static_cast<void>(memory_.read(address, std::span(packet_.bytes).subspan(at)));
}

void E1000::finish_packet() {
  Packet packet = std::exchange(packet_, {});
  const auto send = [&](std::vector<std::byte> frame) LODGE_REQUIRES(mutex_) {
    if (packet.tagged && (control_ & kControlVlan) && frame.size() >= kTagAt) {
      const uint32_t type = held_[kVlanTypeHeld];
      const std::array<uint8_t, kTagBytes> tag{static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type),
                                               static_cast<uint8_t>(packet.tag >> 8), static_cast<uint8_t>(packet.tag)};
      const auto bytes = std::as_bytes(std::span(tag));
      frame.insert(frame.begin() + kTagAt, bytes.begin(), bytes.end());
    }
    ++counters_.sent;
    counters_.sent_bytes += frame.size() + kSequenceBytes;
    outgoing_.push_back(std::move(frame));
  };
  if (packet.too_long || packet.bytes.empty()) return;
  if (packet.segmented) return for_each_segment(context_, packet.bytes, packet.ip_checksum, packet.payload_checksum, send);
  if (packet.payload_checksum) put_checksum(packet.bytes, context_.payload_start, context_.payload_checksum, context_.payload_end);
  if (packet.ip_checksum) put_checksum(packet.bytes, context_.ip_start, context_.ip_checksum, context_.ip_end);
  send(std::move(packet.bytes));
}

// --- Receiving

// 3.2.1, 13.4.22, 13.5.
bool E1000::wanted(std::span<const std::byte> frame) {
  if (frame.size() < kTagAt + 2) return false;
  const bool tagged = tag_of(frame, kTagAt) == (held_[kVlanTypeHeld] & 0xffff);
  const size_t longest = receive_control_ & kLongPackets ? kLongestOfAll : (tagged ? kLongestWithTag : kLongest);
  if (frame.size() + kSequenceBytes > longest) return false;
  if (tagged && (receive_control_ & kVlanFilter)) {
    if (frame.size() < kTagAt + kTagBytes) return false;
    const unsigned vlan = tag_of(frame, kTagAt + 2) & 0xfff;
    if (!(vlans_[vlan / 32] >> vlan % 32 & 1)) return false;
  }
  net::MacAddress to{};
  std::memcpy(to.data(), frame.data(), to.size());
  if (std::ranges::all_of(to, [](uint8_t byte) { return byte == 0xff; }) && (receive_control_ & kBroadcastAccept)) return true;
  if (receive_control_ & (net::is_multicast(to) ? kMulticastPromiscuous : kUnicastPromiscuous)) return true;
  const uint32_t low = static_cast<uint32_t>(to[0] | to[1] << 8 | to[2] << 16) | static_cast<uint32_t>(to[3]) << 24;
  const auto high = static_cast<uint32_t>(to[4] | to[5] << 8);
  for (size_t i = 0; i < addresses_.size(); i += 2)
    if ((addresses_[i + 1] >> 31) && addresses_[i] == low && (addresses_[i + 1] & 0xffff) == high) return true;
  if (!net::is_multicast(to)) return false;
  constexpr std::array<unsigned, 4> kShift{4, 3, 2, 0};  // which of the address's bits are the hash (MO)
  const unsigned hash = (high >> kShift[receive_control_ >> 12 & 3]) & 0xfff;
  return (multicast_[hash / 32] >> hash % 32 & 1) != 0;
}

uint32_t E1000::buffer_bytes() const {
  const unsigned size = receive_control_ >> 16 & 3;
  if (receive_control_ & kSizeExtension) return size == 0 ? 2048 : 32768u >> size;
  return 2048u >> size;
}

bool E1000::receive(unsigned, const net::Header&, std::span<const std::byte> frame) {
  MutexLock lock(mutex_);
  if (!link_ || !(receive_control_ & kReceiveEnable) || !bus_master() || !wanted(frame)) return true;
  // As it was on the wire: filled up, and with its check sequence unless that is stripped.
  std::vector<std::byte> bytes(frame.begin(), frame.end());
  if (bytes.size() < kShortest) bytes.resize(kShortest);
  uint16_t tag = 0;
  const bool stripped =
      (control_ & kControlVlan) && bytes.size() > kTagAt + kTagBytes && tag_of(bytes, kTagAt) == (held_[kVlanTypeHeld] & 0xffff);
  if (stripped) {
    tag = tag_of(bytes, kTagAt + 2);
    bytes.erase(bytes.begin() + kTagAt, bytes.begin() + kTagAt + kTagBytes);
  }
  if (!(receive_control_ & kStripChecksum)) {
    const auto sequence = static_cast<uint32_t>(crc32(0, reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<uInt>(bytes.size())));
    const auto tail = std::as_bytes(std::span(&sequence, 1));
    bytes.insert(bytes.end(), tail.begin(), tail.end());
  }
  const uint32_t needed = static_cast<uint32_t>((bytes.size() + buffer_bytes() - 1) / buffer_bytes());
  if (receive_ring_.available() < needed) {
    starved_ = true;
    ++counters_.missed;
    raise(kReceiveOverrun);
    return false;
  }
  store(bytes, tag, stripped);
  ++counters_.good_received;
  counters_.good_received_bytes += bytes.size();
  if (std::ranges::all_of(frame.first(kAddressBytes), [](std::byte byte) { return byte == std::byte{0xff}; }))
    ++counters_.broadcasts;
  else if (std::to_integer<unsigned>(frame[0]) & 1)
    ++counters_.multicasts;
  stored_ = true;
  return true;
}

void E1000::store(std::span<const std::byte> frame, uint16_t tag, bool tagged) {
  for (size_t at = 0; at < frame.size();) {
    const uint64_t where = receive_ring_.base + uint64_t{receive_ring_.head} * sizeof(Descriptor);
    const std::span<const std::byte> part = frame.subspan(at, std::min<size_t>(buffer_bytes(), frame.size() - at));
    at += part.size();
    uint64_t address = 0;
    if (memory_.read(where, std::as_writable_bytes(std::span(&address, 1)))) static_cast<void>(memory_.write(address, part));
    const bool last = at == frame.size();
    const auto status = static_cast<uint8_t>(kDone | kIgnoreChecksum | (last ? kEndOfPacket : 0) | (last && tagged ? kVlanPacket : 0));
    const uint64_t rest = part.size() | uint64_t{status} << 32 | uint64_t{last ? tag : uint16_t{0}} << 48;
    static_cast<void>(memory_.write(where + 8, std::as_bytes(std::span(&rest, 1))));
    receive_ring_.advance();
  }
}

void E1000::received(unsigned) {
  MutexLock lock(mutex_);
  if (!std::exchange(stored_, false)) return;
  // RDMTS: a half, a quarter or an eighth of the ring is left.
  const unsigned part = receive_control_ >> 8 & 3;
  const bool few = receive_ring_.available() <= receive_ring_.entries() >> (part + 1);
  raise(kReceiveTimer | (few ? kReceiveThreshold : 0));
}

}  // namespace lodge::devices::e1000
