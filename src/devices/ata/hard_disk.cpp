#include "devices/ata/hard_disk.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/log.hpp"
#include "devices/ata/identify.hpp"

namespace lodge::devices::ata {

namespace {

constexpr uint64_t kSector = block::kSector;
constexpr unsigned kMostMultiple = 16;           // sectors
constexpr uint64_t kBufferSectors = 256;         // between disk and data register
constexpr uint64_t kShortLimit = (1 << 28) - 1;  // sectors that 28-bit addresses reach
constexpr size_t kMostTrimSectors = 64;          // of ranges, in one command

enum Command : uint8_t {
  kDataSetManagement = 0x06,
  kRecalibrate = 0x10,  // to 0x1f
  kReadSectors = 0x20,
  kReadSectorsOnce = 0x21,
  kReadSectorsExt = 0x24,
  kReadDmaExt = 0x25,
  kReadNativeMaxExt = 0x27,
  kReadMultipleExt = 0x29,
  kReadLogExt = 0x2f,
  kWriteSectors = 0x30,
  kWriteSectorsOnce = 0x31,
  kWriteSectorsExt = 0x34,
  kWriteDmaExt = 0x35,
  kWriteMultipleExt = 0x39,
  kWriteDmaFuaExt = 0x3d,
  kVerify = 0x40,
  kVerifyOnce = 0x41,
  kVerifyExt = 0x42,
  kSeek = 0x70,
  kInitializeParameters = 0x91,
  kStandbyImmediate94 = 0x94,
  kIdleImmediate95 = 0x95,
  kStandby96 = 0x96,
  kIdle97 = 0x97,
  kCheckPower98 = 0x98,
  kSleep99 = 0x99,
  kReadMultiple = 0xc4,
  kWriteMultiple = 0xc5,
  kSetMultiple = 0xc6,
  kReadDma = 0xc8,
  kReadDmaOnce = 0xc9,
  kWriteDma = 0xca,
  kWriteDmaOnce = 0xcb,
  kWriteMultipleFuaExt = 0xce,
  kStandbyImmediate = 0xe0,
  kIdleImmediate = 0xe1,
  kStandby = 0xe2,
  kIdle = 0xe3,
  kCheckPower = 0xe5,
  kSleep = 0xe6,
  kFlushCache = 0xe7,
  kFlushCacheExt = 0xea,
  kIdentify = 0xec,
  kSetFeatures = 0xef,
  kReadNativeMax = 0xf8,
};

constexpr uint16_t kTrim = 1;            // DATA SET MANAGEMENT's feature
constexpr unsigned kPowerActive = 0xff;  // CHECK POWER MODE's answer
constexpr unsigned kQueueDepth = 32;

// Logs (SATA 2.6, 13.7): their directory, and what is known of the queued command that failed.
constexpr uint8_t kLogDirectory = 0x00, kQueuedErrorLog = 0x10;
constexpr uint8_t kNoQueuedError = 0x80;  // in the place of the tag: the command was no queued one

}  // namespace

HardDisk::HardDisk(Link& link, storage::Disk& disk, unsigned number) : Device(link), disk_(disk), number_(number) { reset(); }

void HardDisk::reset_device() {
  constexpr uint32_t kMostCylinders = 16383;
  geometry_ = {};
  geometry_.cylinders =
      static_cast<uint32_t>(std::clamp<uint64_t>(disk_.sectors() / (geometry_.heads * geometry_.sectors), 1, kMostCylinders));
  multiple_ = 0;
  write_cache_ = read_ahead_ = true;
  transfer_ = {};
  trimming_ = false;
  block_bytes_ = 0;
  queued_error_ = {};
  queued_error_[0] = kNoQueuedError;
}

// --- Commands

void HardDisk::execute(uint8_t command) {
  trimming_ = false;
  if ((command & 0xf0) == kRecalibrate) return finish();
  switch (command) {
    case kReadSectors:
    case kReadSectorsOnce: return start_pio(false, false, Addressing::Short);
    case kReadSectorsExt: return start_pio(false, false, Addressing::Long);
    case kReadMultiple: return start_pio(false, true, Addressing::Short);
    case kReadMultipleExt: return start_pio(false, true, Addressing::Long);
    case kWriteSectors:
    case kWriteSectorsOnce: return start_pio(true, false, Addressing::Short);
    case kWriteSectorsExt: return start_pio(true, false, Addressing::Long);
    case kWriteMultiple: return start_pio(true, true, Addressing::Short);
    case kWriteMultipleExt: return start_pio(true, true, Addressing::Long);
    case kWriteMultipleFuaExt: return start_pio(true, true, Addressing::Long, true);
    case kReadDma:
    case kReadDmaOnce: return start_dma(false, Addressing::Short);
    case kReadDmaExt: return start_dma(false, Addressing::Long);
    case kWriteDma:
    case kWriteDmaOnce: return start_dma(true, Addressing::Short);
    case kWriteDmaExt: return start_dma(true, Addressing::Long);
    case kWriteDmaFuaExt: return start_dma(true, Addressing::Long, true);
    case kVerify:
    case kVerifyOnce: return verify(Addressing::Short);
    case kVerifyExt: return verify(Addressing::Long);
    case kReadNativeMax: return native_maximum(Addressing::Short);
    case kReadNativeMaxExt: return native_maximum(Addressing::Long);
    case kDataSetManagement: return trim();
    case kFlushCache:
    case kFlushCacheExt: return flush();
    case kReadLogExt: return read_log();
    case kIdentify: return identify_to_host();
    case kSetFeatures: return set_features();
    case kSetMultiple: return set_multiple();
    case kInitializeParameters: return set_geometry();
    case kCheckPower:
    case kCheckPower98: Registers::set(registers.count, kPowerActive); return finish();
    case kSeek:
    case kStandbyImmediate94:
    case kIdleImmediate95:
    case kStandby96:
    case kIdle97:
    case kSleep99:
    case kStandbyImmediate:
    case kIdleImmediate:
    case kStandby:
    case kIdle:
    case kSleep: return finish();
    default: return fail(kAborted);
  }
}

std::array<uint16_t, 256> HardDisk::identify() const {
  std::array<uint16_t, 256> words{};
  const uint64_t sectors = disk_.sectors();
  words[0] = 0x0040;  // a fixed disk
  words[1] = words[54] = static_cast<uint16_t>(geometry_.cylinders);
  words[3] = words[55] = geometry_.heads;
  words[6] = words[56] = geometry_.sectors;
  const std::string serial = disk_.options().serial.empty() ? default_serial(number_) : disk_.options().serial;
  put_text(std::span(words).subspan(10, 10), serial);
  put_text(std::span(words).subspan(23, 4), "1");
  put_text(std::span(words).subspan(27, 20), "LODGE HARDDISK");
  words[47] = 0x8000 | kMostMultiple;
  words[51] = 0x0200;
  words[53] = 0x0007;  // words 54 to 58, 64 to 70 and 88 are valid
  const uint32_t chs_sectors = geometry_.cylinders * geometry_.heads * geometry_.sectors;
  words[57] = static_cast<uint16_t>(chs_sectors);
  words[58] = static_cast<uint16_t>(chs_sectors >> 16);
  words[59] = multiple_ ? 0x0100 | multiple_ : 0;
  const auto short_sectors = static_cast<uint32_t>(std::min(sectors, kShortLimit));
  words[60] = static_cast<uint16_t>(short_sectors);
  words[61] = static_cast<uint16_t>(short_sectors >> 16);
  words[80] = 0x00f0;  // ATA/ATAPI-4 to 7
  words[82] = 0x4060;  // NOP, read look-ahead, write cache
  words[83] = 0x7400;  // FLUSH CACHE and its EXT, 48-bit addresses
  words[84] = 0x4040;  // writes with FUA
  words[85] = static_cast<uint16_t>(0x4000 | (read_ahead_ ? 0x40 : 0) | (write_cache_ ? 0x20 : 0));
  words[86] = 0x3400;
  words[87] = 0x4040;
  put_transfer_modes(words, transfer_mode_, connection());
  if (has_queue()) {
    words[75] = kQueueDepth - 1;
    words[76] |= 0x0100;
    words[84] |= 0x0020;  // logs, for that of failed commands
    words[87] |= 0x0020;
  }
  for (unsigned i = 0; i < 4; ++i) words[100 + i] = static_cast<uint16_t>(sectors >> (16 * i));
  // A physical sector of 4 KiB, in eight logical ones.
  words[106] = 0x6003;
  if (disk_.options().discard && !disk_.options().read_only) {
    words[69] = 0x4020;  // what was trimmed reads as zeros, or as before
    words[105] = kMostTrimSectors;
    words[169] = 1;
  }
  words[217] = 1;  // does not rotate
  set_checksum(words);
  return words;
}

void HardDisk::identify_to_host() {
  const auto words = identify();
  buffer().resize(kSector);
  std::memcpy(buffer().data(), words.data(), kSector);
  buffer_to_host();
}

// One block, which is all.
void HardDisk::buffer_to_host() {
  transfer_ = {};
  block_bytes_ = 0;
  registers.status = kReady | kServiceOrSeekComplete | kDataRequest;
  link().move_block(*this, Direction::ToHost, buffer(), true);
}

void HardDisk::set_features() {
  constexpr uint8_t kWriteCacheOn = 0x02, kTransferMode = 0x03, kReadAheadOff = 0x55, kNoRevert = 0x66, kWriteCacheOff = 0x82,
                    kReadAheadOn = 0xaa, kRevert = 0xcc;
  switch (static_cast<uint8_t>(registers.features)) {
    case kWriteCacheOn: write_cache_ = true; return finish();
    // What the cache holds must last from now on.
    case kWriteCacheOff: write_cache_ = false; return flush();
    case kReadAheadOn: read_ahead_ = true; return finish();
    case kReadAheadOff: read_ahead_ = false; return finish();
    case kTransferMode: {
      const auto mode = static_cast<uint8_t>(registers.count);
      const bool pio = (mode & 0xf0) == 0 && (mode <= 1 || (mode >= 8 && mode <= 12));
      const bool multiword = (mode & kModeClass) == kMultiwordDma && (mode & 7) <= 2;
      const bool ultra = (mode & kModeClass) == kUdma && (mode & 7) <= 5;
      if (!pio && !multiword && !ultra) return fail(kAborted);
      transfer_mode_ = mode;
      return finish();
    }
    case kRevert:
    case kNoRevert: return finish();
    default: return fail(kAborted);
  }
}

void HardDisk::set_multiple() {
  const auto count = static_cast<uint8_t>(registers.count);
  if (count > kMostMultiple || (count & (count - 1)) != 0) return fail(kAborted);
  multiple_ = count;
  finish();
}

// INITIALIZE DEVICE PARAMETERS (ATA/ATAPI-5, 8.16): how cylinder, head and sector are to be read.
void HardDisk::set_geometry() {
  const auto sectors = static_cast<uint8_t>(registers.count);
  const uint8_t heads = (registers.device & kDeviceHead) + 1;
  if (sectors == 0) return fail(kAborted);
  geometry_ = {.cylinders = static_cast<uint32_t>(std::clamp<uint64_t>(disk_.sectors() / (heads * sectors), 1, 65535)),
               .heads = heads,
               .sectors = sectors};
  finish();
}

void HardDisk::flush() {
  submit(disk_, block::Request(block::Operation::Flush, 0, 0), [this](bool ok) { ok ? finish() : fail(kAborted); });
}

void HardDisk::verify(Addressing addressing) {
  if (!take_range(addressing)) return fail(kIdNotFound);
  finish();
}

void HardDisk::native_maximum(Addressing addressing) {
  const uint64_t last = disk_.sectors() - 1;
  if (addressing == Addressing::Short) registers.device |= kDeviceLba;
  show_sector(addressing == Addressing::Short ? std::min(last, kShortLimit) : last);
  finish();
}

// --- Addresses

uint64_t HardDisk::sector_count(Addressing addressing) const {
  if (addressing == Addressing::Long) return registers.count == 0 ? 65536 : registers.count;
  const auto count = static_cast<uint8_t>(registers.count);
  return count == 0 ? 256 : count;
}

bool HardDisk::first_sector(Addressing addressing, uint64_t& sector) const {
  const auto low_byte = [](uint16_t value) { return uint64_t{static_cast<uint8_t>(value)}; };
  const auto high_byte = [](uint16_t value) { return uint64_t{value} >> 8; };
  const uint64_t low24 = low_byte(registers.low) | low_byte(registers.mid) << 8 | low_byte(registers.high) << 16;
  if (addressing == Addressing::Long) {
    // 48-bit commands have no other addresses than by LBA.
    sector = low24 | high_byte(registers.low) << 24 | high_byte(registers.mid) << 32 | high_byte(registers.high) << 40;
    return true;
  }
  const unsigned head = registers.device & kDeviceHead;
  if (registers.device & kDeviceLba) {
    sector = low24 | uint64_t{head} << 24;
    return true;
  }
  const uint64_t number = low_byte(registers.low), cylinder = low_byte(registers.mid) | low_byte(registers.high) << 8;
  if (number == 0 || number > geometry_.sectors || head >= geometry_.heads) return false;
  sector = (cylinder * geometry_.heads + head) * geometry_.sectors + number - 1;
  return true;
}

// Puts the address into the registers, as they are read after an error and by READ NATIVE MAX.
void HardDisk::show_sector(uint64_t sector) {
  const auto both = [&](unsigned shift) { return static_cast<unsigned>((sector >> shift & 0xff) | (sector >> (shift + 24) & 0xff) << 8); };
  const bool lba = (registers.device & kDeviceLba) != 0;
  if (!lba) {
    const uint64_t track = sector / geometry_.sectors, cylinder = track / geometry_.heads;
    Registers::set(registers.low, static_cast<unsigned>(sector % geometry_.sectors + 1));
    Registers::set(registers.mid, cylinder & 0xff);
    Registers::set(registers.high, cylinder >> 8 & 0xff);
    registers.device = static_cast<uint8_t>((registers.device & ~kDeviceHead) | track % geometry_.heads);
    return;
  }
  Registers::set(registers.low, both(0));
  Registers::set(registers.mid, both(8));
  Registers::set(registers.high, both(16));
  if (sector <= kShortLimit) registers.device = static_cast<uint8_t>((registers.device & ~kDeviceHead) | (sector >> 24 & kDeviceHead));
}

bool HardDisk::take_range(Addressing addressing) {
  uint64_t sector = 0;
  const uint64_t count = sector_count(addressing);
  if (!first_sector(addressing, sector) || !disk_.in_range(sector, count * kSector)) return false;
  transfer_ = {};
  transfer_.sector = sector;
  transfer_.left = count;
  return true;
}

// --- Through the data register: the buffer holds up to kBufferSectors, and each block of it is moved at once.

void HardDisk::start_pio(bool write, bool multiple, Addressing addressing, bool fua) {
  if (multiple && multiple_ == 0) return fail(kAborted);
  if (write && disk_.options().read_only) return fail(kAborted);
  if (!take_range(addressing)) return fail(kIdNotFound);
  transfer_.write = write;
  transfer_.fua = fua || (write && !write_cache_);
  transfer_.block_sectors = multiple ? multiple_ : 1;
  if (!write) return fill_buffer();
  fit_buffer();
  // The host is not interrupted for the first block (ATA/ATAPI-7 volume 2, 11.7).
  next_block(false);
}

void HardDisk::fit_buffer() { buffer().resize(std::min(transfer_.left, kBufferSectors) * kSector); }

void HardDisk::fill_buffer() {
  fit_buffer();
  transfer_sectors(block::Buffers(buffer().data(), buffer().size()));
}

void HardDisk::next_block(bool interrupt) {
  block_bytes_ = std::min<size_t>(transfer_.block_sectors * kSector, buffer().size() - transfer_.position);
  registers.status = kReady | kServiceOrSeekComplete | kDataRequest;
  link().move_block(*this, transfer_.write ? Direction::ToDevice : Direction::ToHost,
                    std::span(buffer()).subspan(transfer_.position, block_bytes_), interrupt);
}

void HardDisk::block_moved() {
  transfer_.position += block_bytes_;
  if (transfer_.write && transfer_.position == buffer().size()) return transfer_sectors(block::Buffers(buffer().data(), buffer().size()));
  if (transfer_.write) return next_block(true);
  if (block_bytes_ != 0 && transfer_.position < buffer().size()) return next_block(true);
  if (transfer_.left != 0) return fill_buffer();
  // The last block has been taken: the command is over, without a further interrupt (11.5).
  registers.status = kReady | kServiceOrSeekComplete;
}

// Between the disk and memory, the buffer or the guest's own: as many sectors as that holds.
void HardDisk::transfer_sectors(block::Buffers memory, Announcement announcement) {
  if (!transfer_.dma) registers.status = kBusy;
  const uint64_t bytes = memory.size();
  block::Request request(transfer_.write ? block::Operation::Write : block::Operation::Read, transfer_.sector * kSector, std::move(memory));
  request.fua = transfer_.fua;
  submit(disk_, std::move(request), [this, bytes, announcement = std::move(announcement)](bool ok) mutable {
    announcement.reset();
    if (transfer_.dma) link().dma_moved(*this, ok ? bytes : 0);
    if (!ok) {
      show_sector(transfer_.sector);
      return fail(transfer_.write ? kAborted : kUncorrectable);
    }
    transfer_.sector += bytes / kSector;
    transfer_.left -= bytes / kSector;
    transferred();
  });
}

void HardDisk::transferred() {
  // What was read through the data register is still to be taken.
  if (transfer_.left == 0 && (transfer_.dma || transfer_.write)) return finish();
  // DMA with more to come than the guest had memory for waits for ever, as the hardware would.
  if (transfer_.dma) return;
  if (transfer_.write) fit_buffer();
  transfer_.position = 0;
  next_block(true);
}

// --- DMA: between the disk and the guest's own memory

void HardDisk::start_dma(bool write, Addressing addressing, bool fua) {
  if (write && disk_.options().read_only) return fail(kAborted);
  if (!take_range(addressing)) return fail(kIdNotFound);
  transfer_.write = write;
  transfer_.fua = fua || (write && !write_cache_);
  transfer_.dma = true;
  registers.status = kBusy | kDataRequest;
  link().want_dma(*this, write ? Direction::ToDevice : Direction::ToHost, transfer_.left * kSector);
}

void HardDisk::dma_memory(block::Buffers memory, Announcement announcement) {
  if (trimming_) {
    memory.copy_to(0, buffer().data(), std::min<uint64_t>(memory.size(), buffer().size()));
    link().dma_moved(*this, buffer().size());
    return trim_ranges(0);
  }
  const uint64_t bytes = std::min(memory.size() / kSector, transfer_.left) * kSector;
  if (bytes != 0) transfer_sectors(memory.slice(0, bytes), std::move(announcement));
}

// --- The native queue (SATA 2.6, 13.6 and 13.7)

std::optional<QueuedEnd> HardDisk::refuse_queued(const QueuedCommand& command) {
  if (command.write && disk_.options().read_only) return queued_error(command, kAborted);
  if (!disk_.in_range(command.sector, command.count * kSector)) return queued_error(command, kIdNotFound);
  return std::nullopt;
}

void HardDisk::execute_queued(const QueuedCommand& command, block::Buffers memory, Announcement announcement,
                              std::function<void(QueuedEnd)> then) {
  block::Request request(command.write ? block::Operation::Write : block::Operation::Read, command.sector * kSector, std::move(memory));
  request.fua = command.fua || (command.write && !write_cache_);
  submit(disk_, std::move(request), [this, command, announcement = std::move(announcement), then = std::move(then)](bool ok) mutable {
    announcement.reset();
    then(ok ? QueuedEnd{.status = kReady} : queued_error(command, command.write ? kAborted : kUncorrectable));
  });
}

QueuedEnd HardDisk::queued_error(const QueuedCommand& command, uint8_t error) {
  const QueuedEnd end{.status = kReady | kError, .error = error};
  queued_error_ = {};
  queued_error_[0] = command.tag;
  queued_error_[2] = end.status;
  queued_error_[3] = end.error;
  for (unsigned i = 0; i < 3; ++i) {
    queued_error_[4 + i] = static_cast<uint8_t>(command.sector >> (8 * i));
    queued_error_[8 + i] = static_cast<uint8_t>(command.sector >> (24 + 8 * i));
  }
  queued_error_[7] = kDeviceLba;
  queued_error_[12] = static_cast<uint8_t>(command.count);
  queued_error_[13] = static_cast<uint8_t>(command.count >> 8);
  return end;
}

void HardDisk::read_log() {
  const auto log = static_cast<uint8_t>(registers.low);
  const unsigned page = (registers.mid & 0xff) | (registers.mid >> 8) << 8;
  if (!has_queue() || page != 0 || registers.count != 1) return fail(kAborted);
  buffer().assign(kSector, 0);
  if (log == kLogDirectory) {
    buffer()[0] = 1;                    // the directory's version
    buffer()[2 * kQueuedErrorLog] = 1;  // pages of that log
  } else if (log == kQueuedErrorLog) {
    std::ranges::copy(queued_error_, buffer().begin());
    buffer().back() = static_cast<uint8_t>(-std::accumulate(buffer().begin(), buffer().end() - 1, 0u));
    queued_error_ = {};
    queued_error_[0] = kNoQueuedError;
  } else {
    return fail(kAborted);
  }
  buffer_to_host();
}

// --- DATA SET MANAGEMENT (ACS-3, 7.5): ranges of 48 bits of sector and 16 of length, each 8 bytes

void HardDisk::trim() {
  const bool offered = disk_.options().discard && !disk_.options().read_only;
  const unsigned sectors = registers.count;
  if (!offered || (registers.features & 0xff) != kTrim || sectors == 0 || sectors > kMostTrimSectors) return fail(kAborted);
  buffer().assign(sectors * kSector, 0);
  trimming_ = true;
  registers.status = kBusy | kDataRequest;
  link().want_dma(*this, Direction::ToDevice, buffer().size());
}

void HardDisk::trim_ranges(size_t index) {
  registers.status = kBusy;
  for (; index < buffer().size() / 8; ++index) {
    uint64_t range = 0;
    std::memcpy(&range, &buffer()[index * 8], sizeof range);
    const uint64_t sector = range & ((uint64_t{1} << 48) - 1), count = range >> 48;
    if (count == 0) continue;
    if (!disk_.in_range(sector, count * kSector)) {
      trimming_ = false;
      return fail(kIdNotFound);
    }
    return submit(disk_, block::Request(block::Operation::Discard, sector * kSector, count * kSector), [this, index](bool ok) {
      if (ok) return trim_ranges(index + 1);
      trimming_ = false;
      fail(kAborted);
    });
  }
  trimming_ = false;
  finish();
}

}  // namespace lodge::devices::ata
