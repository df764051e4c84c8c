#include "devices/ata/optical_drive.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.hpp"
#include "devices/ata/identify.hpp"

namespace lodge::devices::ata {

namespace {

// ATA commands of a packet device.
constexpr uint8_t kDeviceReset = 0x08, kPacket = 0xa0, kIdentifyPacket = 0xa1, kIdentify = 0xec, kReadSectors = 0x20, kSetFeatures = 0xef,
                  kIdleImmediate = 0xe1, kStandbyImmediate = 0xe0, kCheckPower = 0xe5, kSleep = 0xe6, kFlushCache = 0xe7;
constexpr unsigned kPowerActive = 0xff;
constexpr uint16_t kFeatureDma = 1;

// Packet commands.
enum PacketCommand : uint8_t {
  kTestUnitReady = 0x00,
  kRequestSense = 0x03,
  kInquiry = 0x12,
  kStartStop = 0x1b,
  kPreventRemoval = 0x1e,
  kReadCapacity = 0x25,
  kRead10 = 0x28,
  kSeek = 0x2b,
  kReadSubchannel = 0x42,
  kReadToc = 0x43,
  kGetConfiguration = 0x46,
  kEventStatus = 0x4a,
  kDiscInformation = 0x51,
  kTrackInformation = 0x52,
  kModeSelect = 0x55,
  kModeSense = 0x5a,
  kRead12 = 0xa8,
  kDvdStructure = 0xad,
  kSetSpeed = 0xbb,
  kMechanismStatus = 0xbd,
  kReadCd = 0xbe,
};

constexpr uint8_t kNotReady = 0x02, kMediumError = 0x03, kIllegalRequest = 0x05, kUnitAttention = 0x06;
constexpr uint8_t kEventEjectRequest = 1, kEventNewMedia = 2, kEventMediaRemoval = 3;
constexpr uint64_t kMostCdSectors = 80 * 60 * 75;  // of a disc that is a CD: more is a DVD
constexpr uint64_t kBufferSectors = 32;            // between disc and data register
constexpr uint32_t kPregap = 150;                  // sectors before the address 0, in minutes, seconds and frames
constexpr uint16_t kProfileCd = 0x0008, kProfileDvd = 0x0010;

uint32_t load_big(const uint8_t* at, unsigned bytes) {
  uint32_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value = value << 8 | at[i];
  return value;
}

void store_big(uint8_t* at, uint32_t value, unsigned bytes) {
  for (unsigned i = bytes; i-- != 0; value >>= 8) at[i] = static_cast<uint8_t>(value);
}

void append_big(std::vector<uint8_t>& out, uint32_t value, unsigned bytes) {
  out.resize(out.size() + bytes);
  store_big(out.data() + out.size() - bytes, value, bytes);
}

// An address as four bytes: of the sector, or as minute, second and frame (MMC-5, 4.2.4).
void append_address(std::vector<uint8_t>& out, uint64_t sector, bool msf) {
  if (!msf) return append_big(out, static_cast<uint32_t>(sector), 4);
  const auto frames = static_cast<uint32_t>(sector + kPregap);
  out.insert(out.end(),
             {0, static_cast<uint8_t>(frames / 75 / 60), static_cast<uint8_t>(frames / 75 % 60), static_cast<uint8_t>(frames % 75)});
}

}  // namespace

OpticalDrive::OpticalDrive(Link& link, storage::Disk* medium, unsigned number) : Device(link), medium_(medium), number_(number) { reset(); }

void OpticalDrive::reset_device() {
  phase_ = Phase::None;
  sense_ = {};
  locked_ = false;
}

// --- From outside

OpticalDrive::Tray OpticalDrive::tray() {
  MutexLock lock(link().mutex());
  return {open_, locked_};
}

void OpticalDrive::press_button() {
  MutexLock lock(link().mutex());
  event_ = kEventEjectRequest;
}

bool OpticalDrive::has_medium() {
  MutexLock lock(link().mutex());
  return medium_ != nullptr;
}

void OpticalDrive::set_medium(storage::Disk* medium) {
  {
    MutexLock lock(link().mutex());
    medium_ = nullptr;
  }
  // A read that is under way ends, well or at the disc that is no more.
  wait_for_requests();
  MutexLock lock(link().mutex());
  medium_ = medium;
  open_ = false;
  changed_ = medium != nullptr;
  event_ = medium ? kEventNewMedia : kEventMediaRemoval;
}

// --- ATA's side

std::array<uint16_t, 256> OpticalDrive::identify() const {
  std::array<uint16_t, 256> words{};
  words[0] = 0x85c0;  // packets of 12 bytes, a CD drive, removable, quick to take a packet
  put_text(std::span(words).subspan(10, 10), default_serial(number_));
  put_text(std::span(words).subspan(23, 4), "1");
  put_text(std::span(words).subspan(27, 20), "LODGE DVD-ROM");
  words[53] = 0x0006;  // words 64 to 70 and 88 are valid
  words[80] = 0x00f0;
  words[82] = words[85] = 0x4210;  // NOP, DEVICE RESET, PACKET
  words[83] = words[84] = words[87] = 0x4000;
  put_transfer_modes(words, transfer_mode_, connection());
  set_checksum(words);
  return words;
}

void OpticalDrive::execute(uint8_t command) {
  phase_ = Phase::None;
  switch (command) {
    case kPacket: {
      dma_ = (registers.features & kFeatureDma) != 0;
      byte_limit_ = (registers.mid & 0xff) | (registers.high & 0xffu) << 8;
      // An odd limit only suits an answer that is not longer; the largest stands for one of none (volume 2, 9.21).
      byte_limit_ = byte_limit_ == 0 ? 0xfffe : std::max(byte_limit_ & ~1u, 2u);
      buffer().assign(sizeof(Packet), 0);
      phase_ = Phase::Packet;
      Registers::set(registers.count, kReasonCommand);
      registers.status = kReady | kDataRequest;
      return link().move_block(*this, Direction::ToDevice, buffer(), false);
    }
    case kIdentifyPacket: {
      const auto words = identify();
      buffer().resize(sizeof words);
      std::memcpy(buffer().data(), words.data(), sizeof words);
      phase_ = Phase::Identify;
      registers.status = kReady | kServiceOrSeekComplete | kDataRequest;
      return link().move_block(*this, Direction::ToHost, buffer(), true);
    }
    // Who takes this for a disk learns by the signature that it is none (volume 1, 6.17.5).
    case kIdentify:
    case kReadSectors: set_signature(); return fail(kAborted);
    case kDeviceReset: return reset();  // without an interrupt
    case kSetFeatures: return set_features();
    case kCheckPower: Registers::set(registers.count, kPowerActive); return finish();
    case kIdleImmediate:
    case kStandbyImmediate:
    case kFlushCache:
    case kSleep: return finish();
    default: return fail(kAborted);
  }
}

void OpticalDrive::set_features() {
  constexpr uint8_t kTransferMode = 0x03;
  const auto mode = static_cast<uint8_t>(registers.count);
  if ((registers.features & 0xff) == kTransferMode) transfer_mode_ = mode;
  finish();
}

void OpticalDrive::block_moved() {
  switch (phase_) {
    case Phase::Identify:
      phase_ = Phase::None;
      registers.status = kReady | kServiceOrSeekComplete;
      return;
    case Phase::Packet: {
      Packet bytes{};
      std::copy_n(buffer().begin(), bytes.size(), bytes.begin());
      phase_ = Phase::None;
      registers.status = kBusy;
      return packet(bytes);
    }
    case Phase::Data:
      sent_ += chunk_;
      if (sent_ < buffer().size()) return send_chunk();
      if (left_ != 0) return read_chunk();
      return succeed();
    case Phase::None: return;
  }
}

void OpticalDrive::dma_memory(block::Buffers memory, Announcement announcement) {
  if (phase_ != Phase::Data) return;
  if (left_ == 0) {
    const uint64_t bytes = std::min<uint64_t>(memory.size(), buffer().size());
    memory.copy_from(0, buffer().data(), bytes);
    announcement.reset();
    link().dma_moved(*this, bytes);
    if (bytes == buffer().size()) succeed();
    return;
  }
  const uint64_t bytes = std::min(memory.size() / kSectorBytes, left_) * kSectorBytes;
  if (bytes == 0) return;
  if (!can_be_read()) {
    announcement.reset();
    link().dma_moved(*this, 0);
    return refuse({kNotReady, 0x3a, 0});
  }
  block::Request request(block::Operation::Read, next_sector_ * kSectorBytes, memory.slice(0, bytes));
  submit(*medium_, std::move(request), [this, bytes, announcement = std::move(announcement)](bool ok) mutable {
    announcement.reset();
    link().dma_moved(*this, ok ? bytes : 0);
    if (!ok) return refuse({kMediumError, 0x11, 0});  // unrecovered read error
    left_ -= bytes / kSectorBytes;
    if (left_ == 0) succeed();
  });
}

// --- The end of a packet

void OpticalDrive::succeed() {
  phase_ = Phase::None;
  sense_ = {};
  Registers::set(registers.count, kReasonCommand | kReasonToHost);
  finish();
}

void OpticalDrive::refuse(Sense sense) {
  phase_ = Phase::None;
  sense_ = sense;
  Registers::set(registers.count, kReasonCommand | kReasonToHost);
  fail(static_cast<uint8_t>(sense.key << 4 | kAborted));
}

void OpticalDrive::answer(std::vector<uint8_t> data, uint64_t allocated) {
  buffer() = std::move(data);
  if (buffer().size() > allocated) buffer().resize(allocated);
  if (buffer().empty()) return succeed();
  phase_ = Phase::Data;
  sent_ = 0;
  left_ = 0;
  if (!dma_) return send_chunk();
  registers.status = kReady | kDataRequest;
  link().want_dma(*this, Direction::ToHost, buffer().size());
}

void OpticalDrive::send_chunk() {
  chunk_ = std::min<size_t>(byte_limit_, buffer().size() - sent_);
  Registers::set(registers.mid, chunk_ & 0xff);
  Registers::set(registers.high, static_cast<unsigned>(chunk_ >> 8));
  Registers::set(registers.count, kReasonToHost);
  registers.status = kReady | kServiceOrSeekComplete | kDataRequest;
  link().move_block(*this, Direction::ToHost, std::span(buffer()).subspan(sent_, chunk_), true);
}

void OpticalDrive::read(uint64_t sector, uint64_t count) {
  if (!medium_is_there()) return;
  if (sector > sectors() || count > sectors() - sector) return refuse({kIllegalRequest, 0x21, 0});  // address out of range
  if (count == 0) return succeed();
  next_sector_ = sector;
  left_ = count;
  phase_ = Phase::Data;
  if (!dma_) return read_chunk();
  registers.status = kReady | kDataRequest;
  link().want_dma(*this, Direction::ToHost, count * kSectorBytes);
}

void OpticalDrive::read_chunk() {
  if (!can_be_read()) return refuse({kNotReady, 0x3a, 0});
  registers.status = kBusy;
  const uint64_t count = std::min(left_, kBufferSectors);
  buffer().resize(count * kSectorBytes);
  block::Request request(block::Operation::Read, next_sector_ * kSectorBytes, block::Buffers(buffer().data(), buffer().size()));
  submit(*medium_, std::move(request), [this, count](bool ok) {
    if (!ok) return refuse({kMediumError, 0x11, 0});
    next_sector_ += count;
    left_ -= count;
    sent_ = 0;
    send_chunk();
  });
}

bool OpticalDrive::medium_is_there() {
  if (can_be_read()) return true;
  refuse({kNotReady, 0x3a, static_cast<uint8_t>(open_ ? 2 : 1)});  // medium not present: the tray is open, closed
  return false;
}

// SPC-3, 5.5.4 and 6.4.1: all but a few commands tell first that the medium may be another one.
bool OpticalDrive::tells_of_change(uint8_t command) {
  if (!changed_ || command == kInquiry || command == kRequestSense || command == kGetConfiguration || command == kEventStatus) return false;
  changed_ = false;
  refuse({kUnitAttention, 0x28, 0});  // not ready to ready: the medium may have changed
  return true;
}

// --- Packets

void OpticalDrive::packet(const Packet& packet) {
  if (tells_of_change(packet[0])) return;
  switch (packet[0]) {
    case kTestUnitReady:
      if (medium_is_there()) succeed();
      return;
    case kRequestSense: return request_sense(packet);
    case kInquiry: return inquiry(packet);
    case kStartStop: return start_stop(packet);
    case kPreventRemoval: locked_ = (packet[4] & 1) != 0; return succeed();
    case kReadCapacity: {
      if (!medium_is_there()) return;
      std::vector<uint8_t> data;
      append_big(data, static_cast<uint32_t>(sectors() - 1), 4);
      append_big(data, kSectorBytes, 4);
      return answer(std::move(data), 8);
    }
    case kRead10: return read(load_big(&packet[2], 4), load_big(&packet[7], 2));
    case kRead12: return read(load_big(&packet[2], 4), load_big(&packet[6], 4));
    case kReadCd: return read_cd(packet);
    case kSeek:
      if (!medium_is_there()) return;
      return load_big(&packet[2], 4) < sectors() ? succeed() : refuse({kIllegalRequest, 0x21, 0});
    case kReadSubchannel: return answer({0, 0x15, 0, 0}, load_big(&packet[7], 2));  // nothing is being played
    case kReadToc: return read_toc(packet);
    case kGetConfiguration: return get_configuration(packet);
    case kEventStatus: return event_status(packet);
    case kDiscInformation: return disc_information(packet);
    case kTrackInformation: return track_information(packet);
    case kModeSense: return mode_sense(packet);
    case kDvdStructure: return dvd_structure(packet);
    case kMechanismStatus: return mechanism_status(packet);
    case kSetSpeed: return succeed();
    default: return refuse({kIllegalRequest, 0x20, 0});  // no such command
  }
}

// SPC-3, 4.5.3: fixed format.
void OpticalDrive::request_sense(const Packet& packet) {
  std::vector<uint8_t> data(18);
  data[0] = 0x70;
  data[2] = sense_.key;
  data[7] = 10;
  data[12] = sense_.code;
  data[13] = sense_.qualifier;
  answer(std::move(data), packet[4]);
}

void OpticalDrive::inquiry(const Packet& packet) {
  if (packet[1] & 1) return refuse({kIllegalRequest, 0x24, 0});  // no vital product data
  std::vector<uint8_t> data(36, ' ');
  constexpr std::array<uint8_t, 8> kHeader{0x05, 0x80, 0x05, 0x32, 31, 0, 0, 0};  // a CD device, removable, SPC-3, ATAPI
  std::ranges::copy(kHeader, data.begin());
  const auto put = [&](size_t at, std::string_view text) { std::ranges::copy(text, data.begin() + static_cast<std::ptrdiff_t>(at)); };
  put(8, "LODGE");
  put(16, "DVD-ROM");
  put(32, "1");
  answer(std::move(data), load_big(&packet[3], 2));
}

// MMC-5, 6.30. One track, which is the whole disc.
void OpticalDrive::read_toc(const Packet& packet) {
  if (!medium_is_there()) return;
  const bool msf = (packet[1] & 2) != 0;
  const unsigned format = (packet[2] & 0xf) != 0 ? packet[2] & 0xf : packet[9] >> 6, first = packet[6];
  constexpr uint8_t kLeadOut = 0xaa, kDataTrack = 0x14;
  std::vector<uint8_t> data{0, 0, 1, 1};
  if (format == 0) {
    if (first > 1 && first != kLeadOut) return refuse({kIllegalRequest, 0x24, 0});
    if (first <= 1) {
      data.insert(data.end(), {0, kDataTrack, 1, 0});
      append_address(data, 0, msf);
    }
    data.insert(data.end(), {0, kDataTrack, kLeadOut, 0});
    append_address(data, sectors(), msf);
  } else if (format == 1) {  // sessions
    data.insert(data.end(), {0, kDataTrack, 1, 0});
    append_address(data, 0, msf);
  } else if (format == 2) {  // what the lead-in says: the points A0, A1, A2 and the track
    const auto point = [&](uint8_t number, auto&& put_value) {
      data.insert(data.end(), {1, kDataTrack, 0, number, 0, 0, 0});
      put_value();
    };
    point(0xa0, [&] { data.insert(data.end(), {0, 1, 0, 0}); });
    point(0xa1, [&] { data.insert(data.end(), {0, 1, 0, 0}); });
    point(0xa2, [&] { append_address(data, sectors(), true); });
    point(1, [&] { append_address(data, 0, true); });
  } else {
    return refuse({kIllegalRequest, 0x24, 0});
  }
  store_big(data.data(), static_cast<uint32_t>(data.size() - 2), 2);
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-5, 6.5: the features that a reading drive must have.
void OpticalDrive::get_configuration(const Packet& packet) {
  const uint16_t profile = !can_be_read() ? 0 : sectors() > kMostCdSectors ? kProfileDvd : kProfileCd;
  const unsigned from = load_big(&packet[2], 2), type = packet[1] & 3;
  std::vector<uint8_t> data(8);
  store_big(&data[6], profile, 2);
  const auto feature = [&](unsigned code, bool current, uint8_t version, std::vector<uint8_t> body) {
    if (code < from || (type == 1 && !current) || (type == 2 && code != from)) return;
    append_big(data, code, 2);
    data.push_back(static_cast<uint8_t>(version << 2 | 2 | (current ? 1 : 0)));  // it is always there
    data.push_back(static_cast<uint8_t>(body.size()));
    data.insert(data.end(), body.begin(), body.end());
  };
  const auto in_use = [&](uint16_t which) { return static_cast<uint8_t>(profile == which); };
  feature(0x0000, true, 0, {0, 0x10, in_use(kProfileDvd), 0, 0, 0x08, in_use(kProfileCd), 0});
  feature(0x0001, true, 2, {0, 0, 0, 2, 1, 0, 0, 0});           // core: ATAPI
  feature(0x0003, true, 0, {0x29, 0, 0, 0});                    // removable: a tray that can be locked and ejected
  feature(0x0010, can_be_read(), 0, {0, 0, 8, 0, 0, 1, 1, 0});  // can be read at random: 2048 bytes
  feature(0x001e, profile == kProfileCd, 2, {0, 0, 0, 0});
  feature(0x001f, profile == kProfileDvd, 0, {0, 0, 0, 0});
  store_big(data.data(), static_cast<uint32_t>(data.size() - 4), 4);
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-5, 6.6: media events.
void OpticalDrive::event_status(const Packet& packet) {
  constexpr uint8_t kMediaClass = 4;
  if (!(packet[1] & 1)) return refuse({kIllegalRequest, 0x24, 0});  // only when asked
  std::vector<uint8_t> data{0, 2, 0x80, 1 << kMediaClass};
  // An event is told once.
  if (packet[4] & 1 << kMediaClass)
    data = {
        0, 6, kMediaClass, 1 << kMediaClass, std::exchange(event_, uint8_t{0}), static_cast<uint8_t>((medium_ ? 2 : 0) | (open_ ? 1 : 0)),
        0, 0};
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-5, 6.26.
void OpticalDrive::disc_information(const Packet& packet) {
  if (!medium_is_there()) return;
  std::vector<uint8_t> data(34);
  data[1] = 32;
  data[2] = 0x0e;  // complete, as is its last session
  data[3] = data[4] = data[5] = data[6] = 1;
  data[7] = 0x20;  // no restriction on use
  std::fill_n(data.begin() + 16, 8, 0xff);
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-5, 6.31.
void OpticalDrive::track_information(const Packet& packet) {
  if (!medium_is_there()) return;
  std::vector<uint8_t> data(36);
  data[1] = 34;
  data[2] = data[3] = 1;
  data[5] = 4;  // a data track
  data[6] = 1;
  store_big(&data[24], static_cast<uint32_t>(sectors()), 4);
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-3, 6.3: error recovery, and what the drive can do.
void OpticalDrive::mode_sense(const Packet& packet) {
  constexpr uint8_t kErrorRecovery = 0x01, kCapabilities = 0x2a, kAll = 0x3f;
  const uint8_t page = packet[2] & 0x3f, control = packet[2] >> 6;
  if (control == 3) return refuse({kIllegalRequest, 0x39, 0});  // nothing is saved
  std::vector<uint8_t> data{0, 0, static_cast<uint8_t>(can_be_read() ? 0x01 : open_ ? 0x71 : 0x70), 0, 0, 0, 0, 0};
  // "Which values can be changed?" None.
  const auto add = [&](std::vector<uint8_t> body) {
    if (control == 1) std::fill(body.begin() + 2, body.end(), 0);
    data.insert(data.end(), body.begin(), body.end());
  };
  if (page == kErrorRecovery || page == kAll) add({kErrorRecovery, 6, 0, 5, 0, 0, 0, 0});
  if (page == kCapabilities || page == kAll) {
    constexpr unsigned kSpeed = 706, kCache = 512;  // KB/s, KiB
    std::vector<uint8_t> body{kCapabilities, 20, 0x3b, 0, 0x70, 0x20, static_cast<uint8_t>(0x29 | (locked_ ? 2 : 0)), 0};
    append_big(body, kSpeed, 2);
    append_big(body, 2, 2);
    append_big(body, kCache, 2);
    append_big(body, kSpeed, 2);
    body.resize(22);
    add(std::move(body));
  }
  if (data.size() == 8) return refuse({kIllegalRequest, 0x24, 0});
  store_big(data.data(), static_cast<uint32_t>(data.size() - 2), 2);
  answer(std::move(data), load_big(&packet[7], 2));
}

// MMC-5, 6.27.
void OpticalDrive::dvd_structure(const Packet& packet) {
  if (!medium_is_there()) return;
  const uint8_t format = packet[7];
  if (sectors() <= kMostCdSectors) return refuse({kIllegalRequest, 0x30, 0x02});  // not such a disc
  std::vector<uint8_t> data(4);
  if (format == 0) {  // how it is made: a DVD-ROM of one layer
    constexpr uint32_t kFirst = 0x30000;
    data.resize(4 + 2048);
    data[4] = 0x01;
    data[5] = 0x0f;
    data[6] = 0x01;
    store_big(&data[8], kFirst, 4);
    store_big(&data[12], kFirst + static_cast<uint32_t>(sectors()) - 1, 4);
  } else if (format == 1) {  // no copy protection
    data.resize(4 + 4);
  } else {
    return refuse({kIllegalRequest, 0x24, 0});
  }
  store_big(data.data(), static_cast<uint32_t>(data.size() - 2), 2);
  answer(std::move(data), load_big(&packet[8], 2));
}

void OpticalDrive::mechanism_status(const Packet& packet) { answer({0, 0, 0, 0, 0, 1, 0, 0}, load_big(&packet[8], 2)); }

void OpticalDrive::start_stop(const Packet& packet) {
  const bool eject = (packet[4] & 2) != 0, start = (packet[4] & 1) != 0;
  if (eject && !start && locked_) return refuse({medium_ ? kIllegalRequest : kNotReady, 0x53, 0x02});  // removal prevented
  if (eject) {
    if (open_ && start && medium_) {
      changed_ = true;
      event_ = kEventNewMedia;
    }
    open_ = !start;
  }
  succeed();
}

// MMC-5, 6.19: the user data of each sector, or the whole of it as it stands on a CD, without its error correction.
void OpticalDrive::read_cd(const Packet& packet) {
  constexpr uint8_t kUserData = 0x10, kWhole = 0xf8;
  const uint64_t sector = load_big(&packet[2], 4), count = load_big(&packet[6], 3);
  const uint8_t parts = packet[9] & kWhole;
  if (parts == 0) {
    if (medium_is_there()) succeed();
    return;
  }
  if (parts == kUserData) return read(sector, count);
  refuse({kIllegalRequest, 0x24, 0});
}

}  // namespace lodge::devices::ata
