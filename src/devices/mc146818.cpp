#include "devices/mc146818.hpp"

#include <algorithm>
#include <ctime>
#include <utility>

namespace lodge::devices {

namespace {

enum Register : unsigned {
  kSeconds = 0,
  kSecondsAlarm,
  kMinutes,
  kMinutesAlarm,
  kHours,
  kHoursAlarm,
  kDayOfWeek,
  kDayOfMonth,
  kMonth,
  kYear,
  kRegisterA,
  kRegisterB,
  kRegisterC,
  kRegisterD,
  kCentury = 0x32,
};

constexpr uint8_t kAUpdateInProgress = 0x80;
constexpr uint8_t kBSet = 0x80, kBPeriodic = 0x40, kBAlarm = 0x20, kBUpdate = 0x10, kBBinary = 0x04, kB24Hours = 0x02;
constexpr uint8_t kCInterrupt = 0x80, kCPeriodic = 0x40, kCAlarm = 0x20, kCUpdate = 0x10;
constexpr uint8_t kDValid = 0x80;

constexpr auto kSecond = static_cast<int64_t>(kSecondNs);
// UIP rises 244 us before an update begins; the update takes 1984 us at 32.768 kHz (table 5).
constexpr int64_t kUipAheadNs = 244'000;

int64_t floor_seconds(int64_t ns) { return ns >= 0 ? ns / kSecond : -((-ns + kSecond - 1) / kSecond); }

}  // namespace

Mc146818::Mc146818(IrqPin irq, const Clock& clock, std::function<void()> changed)
    : irq_(std::move(irq)), clock_(clock), changed_(std::move(changed)) {
  MutexLock lock(mutex_);
  memory_[kRegisterA] = 0x26;  // 32.768 kHz, 1024 Hz: as PC firmware leaves it
  memory_[kRegisterB] = kB24Hours;
  memory_[kRegisterD] = kDValid;
  periodic_from_ns_ = clock_.monotonic_ns();
  updated_s_ = floor_seconds(chip_ns());
  store_time(updated_s_);
}

void Mc146818::set_memory_size(uint64_t below_4g, uint64_t above_4g) {
  MutexLock lock(mutex_);
  const auto word = [&](unsigned at, uint64_t value) LODGE_REQUIRES(mutex_) {
    memory_[at] = static_cast<uint8_t>(value);
    memory_[at + 1] = static_cast<uint8_t>(value >> 8);
  };
  const uint64_t extended_kib = below_4g > (1 << 20) ? (below_4g - (1 << 20)) >> 10 : 0;
  const uint64_t above_16m = below_4g > (16 << 20) ? (below_4g - (16 << 20)) >> 16 : 0;
  word(0x15, 640);
  word(0x17, std::min<uint64_t>(extended_kib, 0xffff));
  word(0x30, std::min<uint64_t>(extended_kib, 0xffff));
  word(0x34, std::min<uint64_t>(above_16m, 0xffff));
  word(0x5b, above_4g >> 16);
  memory_[0x5d] = static_cast<uint8_t>(above_4g >> 32);
}

void Mc146818::set_floppy_types(uint8_t types) {
  constexpr unsigned kFloppyTypes = 0x10, kEquipment = 0x14;
  constexpr uint8_t kHasFloppies = 0x01, kSecondFloppy = 0x40;
  MutexLock lock(mutex_);
  memory_[kFloppyTypes] = types;
  if (types) memory_[kEquipment] |= kHasFloppies;
  if ((types & 0x0f) && (types & 0xf0)) memory_[kEquipment] |= kSecondFloppy;
}

bool Mc146818::updates_run() const { return !(memory_[kRegisterB] & kBSet) && (memory_[kRegisterA] & 0x60) != 0x60; }

// Table 1: rate selection with the 32.768 kHz time base.
uint64_t Mc146818::period_ns() const {
  unsigned rate = memory_[kRegisterA] & 0x0f;
  if (rate == 0) return 0;
  if (rate <= 2) rate += 7;
  return (kSecondNs << (rate - 1)) / 32768;
}

int64_t Mc146818::chip_ns() const { return clock_.realtime_ns() + offset_ns_; }

bool Mc146818::update_in_progress() const {
  const int64_t now = chip_ns();
  return updates_run() && (floor_seconds(now) + 1) * kSecond - now <= kUipAheadNs;
}

uint8_t Mc146818::encode(unsigned value) const {
  return static_cast<uint8_t>(memory_[kRegisterB] & kBBinary ? value : (value / 10) << 4 | value % 10);
}

unsigned Mc146818::decode(uint8_t value) const { return memory_[kRegisterB] & kBBinary ? value : (value >> 4) * 10u + (value & 0xf); }

void Mc146818::store_time(int64_t seconds) {
  const time_t time = seconds;
  std::tm t{};
  gmtime_r(&time, &t);
  memory_[kSeconds] = encode(static_cast<unsigned>(t.tm_sec));
  memory_[kMinutes] = encode(static_cast<unsigned>(t.tm_min));
  const auto hour = static_cast<unsigned>(t.tm_hour);
  memory_[kHours] = memory_[kRegisterB] & kB24Hours
                        ? encode(hour)
                        : static_cast<uint8_t>(encode(hour % 12 == 0 ? 12 : hour % 12) | (hour >= 12 ? 0x80 : 0));
  memory_[kDayOfWeek] = encode(static_cast<unsigned>(t.tm_wday) + 1);
  memory_[kDayOfMonth] = encode(static_cast<unsigned>(t.tm_mday));
  memory_[kMonth] = encode(static_cast<unsigned>(t.tm_mon) + 1);
  memory_[kYear] = encode(static_cast<unsigned>(t.tm_year) % 100);
  memory_[kCentury] = static_cast<uint8_t>((t.tm_year + 1900) / 1000 << 4 | (t.tm_year + 1900) / 100 % 10);
}

// What the registers say becomes the chip's time, from the start of that second.
void Mc146818::load_time() {
  std::tm t{};
  t.tm_sec = static_cast<int>(decode(memory_[kSeconds]));
  t.tm_min = static_cast<int>(decode(memory_[kMinutes]));
  unsigned hour = decode(memory_[kHours] & 0x7f);
  if (!(memory_[kRegisterB] & kB24Hours)) hour = hour % 12 + (memory_[kHours] & 0x80 ? 12 : 0);
  t.tm_hour = static_cast<int>(hour);
  t.tm_mday = static_cast<int>(decode(memory_[kDayOfMonth]));
  t.tm_mon = static_cast<int>(decode(memory_[kMonth])) - 1;
  const unsigned century = (memory_[kCentury] >> 4) * 10u + (memory_[kCentury] & 0xf);
  t.tm_year = static_cast<int>(century * 100 + decode(memory_[kYear])) - 1900;
  updated_s_ = timegm(&t);
  offset_ns_ = updated_s_ * kSecond - clock_.realtime_ns();
}

// An alarm byte of 11xxxxxx does not care.
bool Mc146818::alarm_matches() const {
  const auto match = [&](Register time, Register alarm)
                         LODGE_REQUIRES(mutex_) { return (memory_[alarm] & 0xc0) == 0xc0 || memory_[alarm] == memory_[time]; };
  return match(kSeconds, kSecondsAlarm) && match(kMinutes, kMinutesAlarm) && match(kHours, kHoursAlarm);
}

void Mc146818::catch_up() {
  if (const uint64_t period = period_ns(); period != 0) {
    const uint64_t now = clock_.monotonic_ns();
    if (const uint64_t passed = (now - periodic_from_ns_) / period; passed > 0) {
      periodic_from_ns_ += passed * period;
      memory_[kRegisterC] |= kCPeriodic;
    }
  }
  if (!updates_run()) return;
  const int64_t second = floor_seconds(chip_ns());
  if (second == updated_s_) return;
  memory_[kRegisterC] |= kCUpdate;
  // Every second passed is compared with the alarm; the same times of day return after a day.
  if (second > updated_s_) {
    for (int64_t s = std::max(updated_s_ + 1, second - 86400); s <= second; ++s) {
      store_time(s);
      if (alarm_matches()) memory_[kRegisterC] |= kCAlarm;
      if (memory_[kRegisterC] & kCAlarm) break;
    }
  }
  updated_s_ = second;
  store_time(second);
}

void Mc146818::update_pin() {
  const bool level = memory_[kRegisterB] & memory_[kRegisterC] & (kCPeriodic | kCAlarm | kCUpdate);
  if (level) memory_[kRegisterC] |= kCInterrupt;
  if (level == level_) return;
  level_ = level;
  irq_.set(level);
}

uint64_t Mc146818::deadline() {
  MutexLock lock(mutex_);
  uint64_t next = kNever;
  if (const uint64_t period = period_ns(); (memory_[kRegisterB] & kBPeriodic) && !(memory_[kRegisterC] & kCPeriodic) && period != 0)
    next = periodic_from_ns_ + period;
  const uint8_t armed = memory_[kRegisterB] & ~memory_[kRegisterC] & (kBAlarm | kBUpdate);
  if (armed && updates_run()) {
    const int64_t now = chip_ns();
    const auto left = static_cast<uint64_t>((floor_seconds(now) + 1) * kSecond - now);
    const bool overdue = floor_seconds(now) != updated_s_;
    next = std::min(next, clock_.monotonic_ns() + (overdue ? 0 : left));
  }
  return next;
}

void Mc146818::on_deadline() {
  MutexLock lock(mutex_);
  catch_up();
  update_pin();
}

uint8_t Mc146818::read_register(unsigned index) {
  switch (index) {
    case kRegisterA: return static_cast<uint8_t>((memory_[kRegisterA] & 0x7f) | (update_in_progress() ? kAUpdateInProgress : 0));
    case kRegisterC: return std::exchange(memory_[kRegisterC], 0);
    case kRegisterD: return kDValid;
    default: return memory_[index];
  }
}

void Mc146818::write_register(unsigned index, uint8_t value) {
  switch (index) {
    case kRegisterA: {
      const bool ran = updates_run();
      if ((memory_[kRegisterA] ^ value) & 0x0f) periodic_from_ns_ = clock_.monotonic_ns();
      memory_[kRegisterA] = value & 0x7f;
      if (!ran && updates_run()) load_time();
      break;
    }
    case kRegisterB: {
      const bool ran = updates_run();
      // Setting SET clears UIE.
      const uint8_t stored = value & kBSet ? static_cast<uint8_t>(value & ~kBUpdate) : value;
      const bool format_changed = (memory_[kRegisterB] ^ stored) & (kBBinary | kB24Hours);
      memory_[kRegisterB] = stored;
      if (!ran && updates_run())
        load_time();
      else if (format_changed && updates_run())
        store_time(updated_s_);
      break;
    }
    case kRegisterC:
    case kRegisterD: break;  // read-only
    default:
      memory_[index] = value;
      const bool is_time =
          index == kCentury || index == kSeconds || index == kMinutes || index == kHours || (index >= kDayOfWeek && index <= kYear);
      if (is_time && updates_run()) load_time();
  }
}

uint8_t Mc146818::read_byte(uint64_t offset) {
  uint8_t value = 0xff;  // the index is write-only
  bool armed = false;
  {
    MutexLock lock(mutex_);
    if (offset == 0) return value;
    catch_up();
    update_pin();
    value = read_register(index_);
    update_pin();
    // Taking note of an interrupt makes way for the next one.
    armed = index_ == kRegisterC && (memory_[kRegisterB] & (kBPeriodic | kBAlarm | kBUpdate)) != 0;
  }
  if (armed && changed_) changed_();
  return value;
}

void Mc146818::write_byte(uint64_t offset, uint8_t value) {
  {
    MutexLock lock(mutex_);
    if (offset == 0) {
      index_ = value & 0x7f;  // bit 7 masks NMI on a PC; there is no NMI source here
      return;
    }
    catch_up();
    write_register(index_, value);
    update_pin();
  }
  if (changed_) changed_();
}

}  // namespace lodge::devices
