#include "devices/hpet.hpp"

#include <algorithm>

namespace lodge::devices {

namespace {

// Registers (2.3.1), of 64 bits each; a timer's three at 0x100 and every 0x20 on.
enum Register : unsigned {
  kCapabilities = 0x000,
  kConfiguration = 0x010,
  kStatus = 0x020,
  kCounter = 0x0f0,
  kTimer0 = 0x100,
  kTimerBytes = 0x20,
  kTimerConfiguration = 0x00,
  kTimerComparator = 0x08,
};
constexpr uint64_t kFemtosecondsPerTick = Hpet::kTickNs * 1'000'000;
constexpr uint64_t kEnable = 1 << 0, kLegacy = 1 << 1;  // general configuration (2.3.5)

// A timer's configuration and capabilities (2.3.8).
constexpr uint64_t kLevel = 1 << 1, kInterrupts = 1 << 2, kPeriodic = 1 << 3, kCanBePeriodic = 1 << 4, kHas64Bits = 1 << 5,
                   kSetValue = 1 << 6, kAs32Bits = 1 << 8;
constexpr unsigned kRouteShift = 9, kRouteBits = 0x1f, kPossibleShift = 32;
constexpr uint64_t kTimerWritable = kLevel | kInterrupts | kPeriodic | kSetValue | kAs32Bits | uint64_t{kRouteBits} << kRouteShift;
constexpr uint64_t kWrap32 = uint64_t{1} << 32;

// The part of a register that an access is for; what it has beyond the register's end is for nothing (2.2: accesses are aligned).
struct Place {
  Place(uint64_t at, unsigned size) : offset(static_cast<unsigned>(at & ~uint64_t{7})), shift(8 * static_cast<unsigned>(at % 8)) {
    mask = (size >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * size)) - 1) << shift;
  }
  unsigned offset, shift;
  uint64_t mask;
};

}  // namespace

Hpet::Hpet(Board board, const Clock& clock) : board_(std::move(board)), clock_(clock) {
  MutexLock lock(mutex_);
  for (Timer& timer : timers_) timer.configuration = kCanBePeriodic | kHas64Bits | uint64_t{board_.possible} << kPossibleShift;
}

uint64_t Hpet::ticks() const { return configuration_ & kEnable ? (clock_.monotonic_ns() - since_ns_) / kTickNs : 0; }
uint64_t Hpet::counter() const { return counter_ + ticks(); }

// --- Interrupts

const IrqPin& Hpet::pin_of(unsigned number) const {
  if ((configuration_ & kLegacy) && number == 0) return board_.irq0;
  if ((configuration_ & kLegacy) && number == 1) return board_.irq8;
  static const IrqPin nowhere;
  const auto route = static_cast<unsigned>(timers_[number].configuration >> kRouteShift & kRouteBits);
  return board_.possible >> route & 1 ? board_.inputs[route] : nowhere;
}

// What a level-triggered timer shows: its status, while it and all of them are enabled.
void Hpet::update_pin(unsigned number) {
  Timer& timer = timers_[number];
  const bool shown = (timer.configuration & kLevel) && (timer.configuration & kInterrupts) && (configuration_ & kEnable);
  const bool level = shown && (status_ >> number & 1);
  if (level == timer.level) return;
  timer.level = level;
  pin_of(number).set(level);
}

void Hpet::fire(unsigned number) {
  const Timer& timer = timers_[number];
  if (timer.configuration & kLevel) {
    status_ |= uint64_t{1} << number;
    update_pin(number);
  } else if (timer.configuration & kInterrupts) {
    pin_of(number).pulse();
  }
}

// When the counter will be what the comparator is.
void Hpet::arm(Timer& timer) {
  timer.due = kNever;
  // All ones, which it begins with, are as far away as can be.
  const uint64_t farthest = timer.configuration & kAs32Bits ? kWrap32 - 1 : ~uint64_t{0};
  if (!(configuration_ & kEnable) || timer.comparator == farthest) return;
  const uint64_t gone = ticks(), distance = timer.comparator - (counter_ + gone);
  const uint64_t ahead = timer.configuration & kAs32Bits ? static_cast<uint64_t>(std::max<int64_t>(static_cast<int32_t>(distance), 0))
                                                         : static_cast<uint64_t>(std::max<int64_t>(static_cast<int64_t>(distance), 0));
  timer.due = gone + ahead;
}

void Hpet::catch_up() {
  const uint64_t gone = ticks();
  for (unsigned i = 0; i < kTimers; ++i) {
    Timer& timer = timers_[i];
    if (timer.due > gone || !(configuration_ & kEnable)) continue;
    const bool as_32_bits = (timer.configuration & kAs32Bits) != 0;
    if ((timer.configuration & kPeriodic) && timer.period != 0) {
      const uint64_t periods = (gone - timer.due) / timer.period + 1;
      timer.comparator += periods * timer.period;
      if (as_32_bits) timer.comparator &= kWrap32 - 1;
      timer.due += periods * timer.period;
    } else {
      timer.due = as_32_bits ? timer.due + kWrap32 : kNever;
    }
    fire(i);
  }
}

uint64_t Hpet::deadline() {
  MutexLock lock(mutex_);
  if (!(configuration_ & kEnable)) return kNever;
  uint64_t due = kNever;
  for (const Timer& timer : timers_)
    if (timer.configuration & (kInterrupts | kLevel)) due = std::min(due, timer.due);
  constexpr uint64_t kFarthest = uint64_t{1} << 58;  // ticks, of nearly a century: those are nanoseconds that a number holds
  if (due > kFarthest) return kNever;
  constexpr uint64_t kLeastNs = 50'000;
  return std::max(since_ns_ + due * kTickNs, worked_ns_ == 0 ? 0 : worked_ns_ + kLeastNs);
}

void Hpet::on_deadline() {
  MutexLock lock(mutex_);
  catch_up();
  worked_ns_ = clock_.monotonic_ns();
}

// --- Registers

uint64_t Hpet::read_register(unsigned offset) {
  switch (offset) {
    case kCapabilities: return kFemtosecondsPerTick << 32 | kBlockId;
    case kConfiguration: return configuration_;
    case kStatus: return status_;
    case kCounter: return counter();
    default: break;
  }
  const unsigned number = (offset - kTimer0) / kTimerBytes;
  if (offset < kTimer0 || number >= kTimers) return 0;
  switch (offset % kTimerBytes) {
    case kTimerConfiguration: return timers_[number].configuration;
    case kTimerComparator: return timers_[number].comparator;
    default: return 0;
  }
}

void Hpet::write_configuration(uint64_t value) {
  const bool legacy = (value & kLegacy) != 0;
  if (legacy != ((configuration_ & kLegacy) != 0)) {
    // Pins go down where they are before they are others.
    for (unsigned i = 0; i < kTimers; ++i)
      if (std::exchange(timers_[i].level, false)) pin_of(i).lower();
    configuration_ = (configuration_ & ~kLegacy) | (legacy ? kLegacy : 0);
    board_.legacy(legacy);
  }
  const bool was_enabled = (configuration_ & kEnable) != 0;
  if (was_enabled && !(value & kEnable)) counter_ = counter();
  configuration_ = value & (kEnable | kLegacy);
  if (!was_enabled && (value & kEnable)) since_ns_ = clock_.monotonic_ns();
  for (unsigned i = 0; i < kTimers; ++i) {
    if (was_enabled != ((value & kEnable) != 0)) arm(timers_[i]);
    update_pin(i);
  }
}

void Hpet::write_timer(unsigned number, uint64_t value) {
  Timer& timer = timers_[number];
  const uint64_t before = timer.configuration;
  if (std::exchange(timer.level, false)) pin_of(number).lower();
  timer.configuration = (before & ~kTimerWritable) | (value & kTimerWritable);
  if (timer.configuration & kAs32Bits) {
    timer.comparator &= kWrap32 - 1;
    timer.period &= kWrap32 - 1;
  }
  constexpr uint64_t kMeaning = kInterrupts | kPeriodic | kAs32Bits;
  if ((before ^ timer.configuration) & kMeaning) arm(timer);
  update_pin(number);
}

// 2.3.9.2: a periodic timer's period is what was written last; its comparator is written with it only on demand.
void Hpet::write_comparator(Timer& timer, uint64_t value) {
  if (timer.configuration & kAs32Bits) value &= kWrap32 - 1;
  const bool periodic = (timer.configuration & kPeriodic) != 0;
  if (!periodic || (timer.configuration & kSetValue)) timer.comparator = value;
  if (periodic) timer.period = value;
  timer.configuration &= ~kSetValue;
  arm(timer);
}

void Hpet::write_register(unsigned offset, uint64_t value, uint64_t mask) {
  const auto merged = [&](uint64_t old) { return (old & ~mask) | (value & mask); };
  switch (offset) {
    case kConfiguration: return write_configuration(merged(configuration_));
    case kStatus:
      status_ &= ~(value & mask);  // ones clear
      for (unsigned i = 0; i < kTimers; ++i) update_pin(i);
      return;
    case kCounter:
      counter_ = merged(counter());
      since_ns_ = clock_.monotonic_ns();
      for (Timer& timer : timers_) arm(timer);
      return;
    default: break;
  }
  const unsigned number = (offset - kTimer0) / kTimerBytes;
  if (offset < kTimer0 || number >= kTimers) return;
  Timer& timer = timers_[number];
  if (offset % kTimerBytes == kTimerConfiguration) write_timer(number, merged(timer.configuration));
  if (offset % kTimerBytes == kTimerComparator)
    write_comparator(timer, merged(timer.configuration & kPeriodic ? timer.period : timer.comparator));
}

uint64_t Hpet::read(uint64_t offset, unsigned size) {
  MutexLock lock(mutex_);
  catch_up();
  const Place place(offset, size);
  return (read_register(place.offset) & place.mask) >> place.shift;
}

void Hpet::write(uint64_t offset, unsigned size, uint64_t value) {
  {
    MutexLock lock(mutex_);
    catch_up();
    const Place place(offset, size);
    write_register(place.offset, value << place.shift, place.mask);
  }
  if (board_.changed) board_.changed();
}

}  // namespace lodge::devices
