#include "devices/floppy/controller.hpp"

#include <algorithm>
#include <utility>

namespace lodge::devices::floppy {

namespace {

// Registers (2.1).
enum Register : uint8_t { kStatusA = 0, kStatusB = 1, kOutput = 2, kTape = 3, kMainStatus = 4, kFifo = 5 };
constexpr uint8_t kNotReset = 0x04, kDmaGate = 0x08, kSelected = 0x03;            // DOR
constexpr uint8_t kRequest = 0x80, kToHost = 0x40, kNonDma = 0x20, kBusy = 0x10;  // MSR
constexpr uint8_t kSoftReset = 0x80, kRateBits = 0x03;                            // DSR, CCR
constexpr uint8_t kDiskChange = 0x80;                                             // DIR

// Commands (5.1), without their modifiers.
enum Command : uint8_t {
  kReadTrack = 0x02,
  kSpecify = 0x03,
  kSenseDrive = 0x04,
  kWriteData = 0x05,
  kReadData = 0x06,
  kRecalibrate = 0x07,
  kSenseInterrupt = 0x08,
  kWriteDeleted = 0x09,
  kReadId = 0x0a,
  kReadDeleted = 0x0c,
  kFormatTrack = 0x0d,
  kDumpRegisters = 0x0e,
  kSeek = 0x0f,
  kVersion = 0x10,
  kPerpendicular = 0x12,
  kConfigure = 0x13,
  kLock = 0x14,
  kVerify = 0x16,
  kPartId = 0x18,
};
constexpr uint8_t kMultiTrack = 0x80, kModifiers = 0xe0;
constexpr uint8_t kRelativeSeek = 0x8f, kRelativeUp = 0xcf;
constexpr uint8_t kHeadBit = 0x04;

// Status registers (6).
constexpr uint8_t kAbnormal = 0x40, kInvalid = 0x80, kSeekEnd = 0x20, kEquipmentCheck = 0x10, kPolled = 0xc0;
constexpr uint8_t kEndOfCylinder = 0x80, kDataError = 0x20, kNoData = 0x04, kNotWritable = 0x02, kMissingMark = 0x01;
constexpr uint8_t kWrongCylinder = 0x10;
constexpr uint8_t kWriteProtected = 0x40, kReadyBit = 0x20, kTrack0 = 0x10, kTwoSides = 0x08;

constexpr uint8_t kConfigureImpliedSeek = 0x40, kConfigureKept = 0x20;
constexpr uint8_t kNoDma = 0x01;  // SPECIFY's second byte
constexpr uint8_t kSizeCode512 = 2;
constexpr size_t kSectorBytes = 512;
constexpr unsigned kPolledDrives = 4;
constexpr uint8_t kMostCylinder = 84;  // where the heads' way ends

// Bytes of a command, with the first one; 0: there is no such command.
size_t length_of(uint8_t command) {
  if (command == kRelativeSeek || command == kRelativeUp) return 3;
  switch (command & ~kModifiers) {
    case kReadTrack:
    case kWriteData:
    case kReadData:
    case kWriteDeleted:
    case kReadDeleted:
    case kVerify: return 9;
    case kFormatTrack: return 6;
    case kConfigure: return 4;
    case kSpecify:
    case kSeek: return 3;
    case kSenseDrive:
    case kRecalibrate:
    case kReadId:
    case kPerpendicular: return 2;
    case kSenseInterrupt:
    case kDumpRegisters:
    case kVersion:
    case kLock:
    case kPartId: return 1;
    default: return 0;
  }
}

}  // namespace

Result<> Controller::attach(PortBus& ports) {
  TRY(ports.attach(kPorts, kLength, ports_, "floppy controller"));
  return ports.attach(kDirPort, 1, dir_port_, "floppy controller's input");
}

// --- Drives and media

void Controller::add_drive(unsigned number, storage::Disk* medium) {
  MutexLock lock(mutex_);
  Drive& drive = drives_[number];
  drive.there = true;
  put_medium(drive, medium);
  drive.type = drive.format ? drive.format->drive : kDrive1440;
}

void Controller::put_medium(Drive& drive, storage::Disk* medium) {
  drive.medium = medium;
  drive.format = medium ? format_of(medium->sectors()) : std::nullopt;
  drive.changed = true;
}

void Controller::set_medium(unsigned number, storage::Disk* medium) {
  {
    MutexLock lock(mutex_);
    put_medium(drives_[number], nullptr);
  }
  requests_.wait_until_idle(mutex_);
  MutexLock lock(mutex_);
  put_medium(drives_[number], medium);
}

uint8_t Controller::drive_types() {
  MutexLock lock(mutex_);
  return static_cast<uint8_t>(drives_[0].type << 4 | drives_[1].type);
}

void Controller::shut_down() {
  {
    MutexLock lock(mutex_);
    requests_.abandon();
  }
  requests_.wait_until_idle(mutex_);
}

// --- Registers

uint8_t Controller::read(unsigned offset) {
  MutexLock lock(mutex_);
  switch (offset) {
    case kOutput: return output_;
    case kTape: return tape_;
    case kMainStatus: return main_status();
    case kFifo: return read_fifo();
    default: return 0xff;  // A and B are not there in the AT's mode
  }
}

void Controller::write(unsigned offset, uint8_t value) {
  MutexLock lock(mutex_);
  switch (offset) {
    case kOutput: write_output(value); break;
    case kTape: tape_ = value & 3; break;
    case kMainStatus:  // the data rate select register
      rate_ = value & kRateBits;
      if (value & kSoftReset) reset();
      break;
    case kFifo: write_fifo(value); break;
    default: break;
  }
  update_pin();
}

// Only bit 7 is this chip's; the rest is the hard disk's.
uint8_t Controller::read_input() {
  MutexLock lock(mutex_);
  const unsigned number = output_ & kSelected;
  const bool turns = (output_ >> (4 + number) & 1) != 0;
  return number < kDrives && drives_[number].there && turns && drives_[number].changed ? kDiskChange : 0;
}

void Controller::write_rate(uint8_t value) {
  MutexLock lock(mutex_);
  rate_ = value & kRateBits;
}

void Controller::write_output(uint8_t value) {
  const uint8_t before = std::exchange(output_, value);
  if (!(value & kNotReset)) {
    reset();
    polls_ = 0;
    interrupt_ = false;
  } else if (!(before & kNotReset)) {
    reset();
  }
}

// 4: what is in flight counts no more; the four drives' states are told by interrupts (5.2.5, polling).
void Controller::reset() {
  requests_.abandon();
  phase_ = Phase::Command;
  command_.clear();
  result_.clear();
  fifo_at_.reset();
  sought_.reset();
  seeking_ = 0;
  if (!locked_) configuration_ = kConfigureKept;
  perpendicular_ &= 0x3c;
  for (Drive& drive : drives_) drive.present = 0;
  polls_ = output_ & kNotReset ? kPolledDrives : 0;
  interrupt_ = polls_ != 0;
}

uint8_t Controller::main_status() {
  if (!(output_ & kNotReset)) return 0;
  switch (phase_) {
    case Phase::Command: return static_cast<uint8_t>(kRequest | seeking_ | (command_.empty() ? 0 : kBusy));
    case Phase::Result: return kRequest | kToHost | kBusy;
    case Phase::Execution:
      if (!fifo_at_) return kBusy;
      return static_cast<uint8_t>(kRequest | kNonDma | kBusy | (transfer_.work == Work::Read ? kToHost : 0));
  }
  return 0;
}

// The pin is open unless the DMA gate is set (2.1.3).
void Controller::update_pin() {
  const bool level = interrupt_ && (output_ & kDmaGate) != 0;
  if (level == level_) return;
  level_ = level;
  irq_.set(level);
}

uint8_t Controller::read_fifo() {
  if (phase_ == Phase::Execution && fifo_at_ && transfer_.work == Work::Read) {
    const uint8_t value = requests_.buffer()[*fifo_at_];
    if (++*fifo_at_ == requests_.buffer().size()) fifo_done();
    update_pin();
    return value;
  }
  if (phase_ != Phase::Result) return 0;
  interrupt_ = false;
  const uint8_t value = result_[result_read_++];
  if (result_read_ == result_.size()) {
    phase_ = Phase::Command;
    command_.clear();
  }
  update_pin();
  return value;
}

void Controller::write_fifo(uint8_t value) {
  if (!(output_ & kNotReset)) return;
  if (phase_ == Phase::Execution && fifo_at_ && transfer_.work != Work::Read) {
    requests_.buffer()[(*fifo_at_)++] = value;
    if (*fifo_at_ == requests_.buffer().size()) fifo_done();
    return;
  }
  if (phase_ != Phase::Command) return;
  command_.push_back(value);
  const size_t length = length_of(command_[0]);
  if (length == 0) return answer({kInvalid}, false);
  if (command_.size() == length) execute();
}

// --- Commands

void Controller::answer(std::vector<uint8_t> bytes, bool interrupt) {
  result_ = std::move(bytes);
  result_read_ = 0;
  phase_ = Phase::Result;
  interrupt_ = interrupt_ || interrupt;
}

void Controller::execute() {
  const std::vector<uint8_t>& c = command_;
  const auto over = [&]() LODGE_REQUIRES(mutex_) {
    command_.clear();
    phase_ = Phase::Command;
  };
  if (c[0] == kRelativeSeek || c[0] == kRelativeUp) {
    const unsigned number = c[1] & kSelected;
    const unsigned from = number < kDrives ? drives_[number].cylinder : 0;
    const unsigned to = c[0] == kRelativeUp ? from + c[2] : from - std::min<unsigned>(from, c[2]);
    seek(static_cast<uint8_t>(number), static_cast<uint8_t>(std::min<unsigned>(to, kMostCylinder)), kSeekEnd);
    return over();
  }
  switch (c[0] & ~kModifiers) {
    case kSpecify: specified_ = {c[1], c[2]}; return over();
    case kSenseDrive: return sense_drive();
    case kRecalibrate: {
      const uint8_t number = c[1] & kSelected;
      const bool there = number < kDrives && drives_[number].there;
      // Without a drive there is no track 0 to be found (5.2.4).
      seek(number, 0, there ? kSeekEnd : kSeekEnd | kEquipmentCheck | kAbnormal);
      return over();
    }
    case kSeek: seek(c[1] & kSelected, c[2], static_cast<uint8_t>(kSeekEnd | (c[1] & kHeadBit))); return over();
    case kSenseInterrupt: return sense_interrupt();
    case kReadId: return read_id();
    case kReadTrack:
    case kReadData:
    case kReadDeleted: return begin_transfer(Work::Read);
    case kWriteData:
    case kWriteDeleted: return begin_transfer(Work::Write);
    case kVerify: return begin_transfer(Work::Verify);
    case kFormatTrack: return begin_format();
    case kVersion: return answer({0x90}, false);
    case kPartId: return answer({0x41}, false);
    case kPerpendicular: perpendicular_ = c[1]; return over();
    case kConfigure:
      configuration_ = c[2];
      precompensation_ = c[3];
      return over();
    case kLock: locked_ = (c[0] & 0x80) != 0; return answer({static_cast<uint8_t>(locked_ ? 0x10 : 0)}, false);
    default:  // DUMPREG (5.2.13)
      return answer({drives_[0].present, drives_[1].present, 0, 0, specified_[0], specified_[1], transfer_.last,
                     static_cast<uint8_t>((locked_ ? 0x80 : 0) | (perpendicular_ & 0x7f)), configuration_, precompensation_},
                    false);
  }
}

void Controller::seek(uint8_t number, uint8_t cylinder, uint8_t status) {
  if (number < kDrives) {
    Drive& drive = drives_[number];
    drive.cylinder = std::min(cylinder, kMostCylinder);
    drive.present = cylinder;
    // A step with a disk in the drive tells that it is known.
    if (drive.medium) drive.changed = false;
  }
  sought_ = static_cast<uint8_t>(status | number);
  seeking_ |= static_cast<uint8_t>(1u << number);
  interrupt_ = true;
}

void Controller::sense_interrupt() {
  const auto present = [&](unsigned number) LODGE_REQUIRES(mutex_) { return number < kDrives ? drives_[number].present : uint8_t{0}; };
  if (polls_ != 0) {
    const unsigned number = kPolledDrives - polls_--;
    interrupt_ = false;
    return answer({static_cast<uint8_t>(kPolled | number), present(number)}, false);
  }
  if (!sought_) return answer({kInvalid}, false);
  const uint8_t status = *std::exchange(sought_, {});
  interrupt_ = false;
  seeking_ = 0;
  answer({status, present(status & kSelected)}, false);
}

void Controller::sense_drive() {
  const uint8_t number = command_[1] & kSelected;
  uint8_t status = static_cast<uint8_t>(kReadyBit | kTwoSides | (command_[1] & (kHeadBit | kSelected)));
  if (number < kDrives) {
    const Drive& drive = drives_[number];
    if (drive.there && drive.cylinder == 0) status |= kTrack0;
    if (drive.medium && drive.medium->options().read_only) status |= kWriteProtected;
  }
  answer({status}, false);
}

// The head finds marks: there is a disk of a format that was written at this rate.
bool Controller::readable(const Drive& drive) { return drive.medium && drive.format && drive.format->rate == rate_; }

void Controller::read_id() {
  const uint8_t number = command_[1] & kSelected, head = (command_[1] & kHeadBit) ? 1 : 0;
  transfer_ = {.drive = number, .head = head};
  if (number >= kDrives || !readable(drives_[number]) || head >= drives_[number].format->heads ||
      drives_[number].cylinder >= drives_[number].format->cylinders)
    return finish(kAbnormal, kMissingMark);
  Drive& drive = drives_[number];
  transfer_.cylinder = drive.cylinder;
  transfer_.sector = drive.next_sector = static_cast<uint8_t>(drive.next_sector % drive.format->sectors + 1);
  transfer_.size_code = kSizeCode512;
  finish(0);
}

// --- Sectors

void Controller::begin_transfer(Work work) {
  const std::vector<uint8_t>& c = command_;
  const bool whole_track = (c[0] & ~kModifiers) == kReadTrack;
  transfer_ = {.work = work,
               .multi_track = (c[0] & kMultiTrack) != 0 && !whole_track,
               .whole_track = whole_track,
               .drive = static_cast<uint8_t>(c[1] & kSelected),
               .cylinder = c[2],
               .head = c[3],
               .sector = whole_track ? uint8_t{1} : c[4],
               .size_code = c[5],
               .last = c[6]};
  phase_ = Phase::Execution;
  if (transfer_.drive >= kDrives) return finish(kAbnormal, kMissingMark);
  Drive& drive = drives_[transfer_.drive];
  if ((configuration_ & kConfigureImpliedSeek) && drive.medium) {
    drive.cylinder = drive.present = std::min(transfer_.cylinder, kMostCylinder);
    drive.changed = false;
  }
  if (!readable(drive)) return finish(kAbnormal, kMissingMark);
  if (work == Work::Write && drive.medium->options().read_only) return finish(kAbnormal, kNotWritable);
  if (transfer_.cylinder != drive.cylinder) return finish(kAbnormal, kNoData, kWrongCylinder);
  next_sector();
}

// Of the transfer's sector, if the disk has it.
std::optional<uint64_t> Controller::sector_address() {
  const Drive& drive = drives_[transfer_.drive];
  const Format& format = *drive.format;
  const bool there = drive.cylinder < format.cylinders && transfer_.head < format.heads && transfer_.sector >= 1 &&
                     transfer_.sector <= format.sectors && transfer_.size_code == kSizeCode512;
  if (!there) return std::nullopt;
  const uint64_t sector = (uint64_t{drive.cylinder} * format.heads + transfer_.head) * format.sectors + transfer_.sector - 1;
  return drive.medium->in_range(sector, kSectorBytes) ? std::optional(sector) : std::nullopt;
}

void Controller::next_sector() {
  const auto address = drives_[transfer_.drive].medium ? sector_address() : std::nullopt;
  if (!address) return finish(kAbnormal, kNoData);
  requests_.buffer().assign(kSectorBytes, 0);
  if (transfer_.work != Work::Write) {
    return submit(block::Operation::Read, *address, [this](bool ok) LODGE_REQUIRES(mutex_) {
      if (!ok) return finish(kAbnormal, kDataError, kDataError);
      sector_read();
    });
  }
  if (specified_[1] & kNoDma) {
    fifo_at_ = 0;
    interrupt_ = true;
    return;
  }
  // A transfer that ends within a sector fills the rest of it with zeros (5.1.2).
  const I8237::Moved moved = dma_.move(kDmaChannel, I8237::Direction::FromMemory, requests_.buffer());
  if (moved.bytes == 0) return finish(kAbnormal, kEquipmentCheck);  // overrun: nobody gave data
  transfer_.terminal_count = moved.terminal_count;
  store_sector();
}

void Controller::store_sector() {
  const auto address = drives_[transfer_.drive].medium ? sector_address() : std::nullopt;
  if (!address) return finish(kAbnormal, kNoData);
  submit(block::Operation::Write, *address, [this](bool ok) LODGE_REQUIRES(mutex_) {
    if (!ok) return finish(kAbnormal, kDataError);
    transfer_.work == Work::Format ? format_sector() : move_on();
  });
}

void Controller::sector_read() {
  if (transfer_.work == Work::Verify) return move_on();
  if (specified_[1] & kNoDma) {
    fifo_at_ = 0;
    interrupt_ = true;
    return;
  }
  const I8237::Moved moved = dma_.move(kDmaChannel, I8237::Direction::ToMemory, requests_.buffer());
  if (moved.bytes == 0) return finish(kAbnormal, kEquipmentCheck);
  transfer_.terminal_count = moved.terminal_count;
  move_on();
}

// The last byte of a sector has gone through the FIFO.
void Controller::fifo_done() {
  fifo_at_.reset();
  interrupt_ = false;
  if (transfer_.work == Work::Read) return move_on();
  if (transfer_.work == Work::Format) return format_sector();
  store_sector();
}

// What the registers say after a sector (table 6-2), and whether there is another one to do.
void Controller::move_on() {
  bool ends = transfer_.terminal_count;
  const bool last = transfer_.sector == transfer_.last;
  if (!last) {
    ++transfer_.sector;
  } else {
    transfer_.sector = 1;
    if (transfer_.multi_track && transfer_.head == 0) {
      transfer_.head = 1;
    } else {
      ++transfer_.cylinder;
      if (transfer_.multi_track) transfer_.head = 0;
      // Without a terminal count the end of the cylinder is an error, but not of VERIFY, which has none.
      if (!ends && transfer_.work != Work::Verify) return finish(kAbnormal, kEndOfCylinder);
      ends = true;
    }
  }
  if (ends) return finish(0);
  next_sector();
}

// --- FORMAT TRACK: four bytes of ID a sector come from the host, of which the sector's number counts here

void Controller::begin_format() {
  const std::vector<uint8_t>& c = command_;
  const uint8_t number = c[1] & kSelected;
  transfer_ = {.work = Work::Format,
               .drive = number,
               .head = static_cast<uint8_t>(c[1] & kHeadBit ? 1 : 0),
               .size_code = c[2],
               .last = c[3],
               .fill = c[5],
               .left = c[3]};
  phase_ = Phase::Execution;
  if (number >= kDrives || !readable(drives_[number])) return finish(kAbnormal, kMissingMark);
  transfer_.cylinder = drives_[number].cylinder;
  if (drives_[number].medium->options().read_only) return finish(kAbnormal, kNotWritable);
  requests_.buffer().clear();
  format_sector();
}

void Controller::format_sector() {
  constexpr size_t kIdBytes = 4, kIdSector = 2;
  // Whole IDs that the host has given are written; then the next one is asked for.
  if (requests_.buffer().size() == kIdBytes) {
    transfer_.sector = requests_.buffer()[kIdSector];
    requests_.buffer().assign(kSectorBytes, transfer_.fill);
    --transfer_.left;
    return store_sector();
  }
  if (transfer_.left == 0) return finish(0);
  requests_.buffer().assign(kIdBytes, 0);
  if (specified_[1] & kNoDma) {
    fifo_at_ = 0;
    interrupt_ = true;
    return;
  }
  const I8237::Moved moved = dma_.move(kDmaChannel, I8237::Direction::FromMemory, requests_.buffer());
  if (moved.bytes < kIdBytes) return finish(kAbnormal, kEquipmentCheck);
  format_sector();
}

// --- Ends

void Controller::finish(uint8_t status0, uint8_t status1, uint8_t status2) {
  fifo_at_.reset();
  const auto status = static_cast<uint8_t>(status0 | (transfer_.head & 1 ? kHeadBit : 0) | transfer_.drive);
  answer({status, status1, status2, transfer_.cylinder, transfer_.head, transfer_.sector, transfer_.size_code}, true);
}

void Controller::submit(block::Operation operation, uint64_t sector, std::function<void(bool ok)> then) {
  std::vector<uint8_t>& buffer = requests_.buffer();
  block::Request request(operation, sector * kSectorBytes, block::Buffers(buffer.data(), buffer.size()));
  requests_.submit(mutex_, *drives_[transfer_.drive].medium, std::move(request),
                   [this, then = std::move(then)](bool ok) LODGE_REQUIRES(mutex_) {
                     then(ok);
                     update_pin();
                   });
}

}  // namespace lodge::devices::floppy
