#include "devices/acpi_pm.hpp"

#include <utility>

namespace lodge::devices {

namespace {

// Tables 4.12 to 4.14.
constexpr uint16_t kTimerStatus = 1 << 0, kGlobalStatus = 1 << 5, kPowerButton = 1 << 8, kSleepButton = 1 << 9, kRtc = 1 << 10,
                   kWake = 1 << 15;
constexpr uint16_t kStatusBits = kTimerStatus | kGlobalStatus | kPowerButton | kSleepButton | kRtc | kWake;
constexpr uint16_t kEnableBits = kTimerStatus | kGlobalStatus | kPowerButton | kSleepButton | kRtc;
constexpr uint16_t kSciEnable = 1 << 0, kSleepTypeMask = 7 << 10, kSleepEnable = 1 << 13;
constexpr uint16_t kControlBits = 0x0003 | kSleepTypeMask;
constexpr uint64_t kTimerHz = 3'579'545;
constexpr unsigned kCarryBit = 31;  // FADT TMR_VAL_EXT: a 32-bit counter

uint8_t byte_of(uint32_t value, uint64_t index) { return static_cast<uint8_t>(value >> (8 * index)); }
uint16_t with_byte(uint16_t old, uint64_t index, uint8_t value) {
  return static_cast<uint16_t>((old & ~(0xff << (8 * index))) | (value << (8 * index)));
}

}  // namespace

AcpiPm::AcpiPm(IrqPin sci, const Clock& clock, const Layout& layout, Host host)
    : sci_(std::move(sci)), clock_(clock), layout_(layout), host_(std::move(host)), start_ns_(clock.monotonic_ns()) {}

uint64_t AcpiPm::ticks() const {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(clock_.monotonic_ns() - start_ns_) * kTimerHz / kSecondNs);
}

// TMR_STS is set when the counter's most significant bit changes (4.8.1.1).
void AcpiPm::catch_up() {
  const uint64_t carries = ticks() >> kCarryBit;
  if (carries == carries_) return;
  carries_ = carries;
  status_ |= kTimerStatus;
}

void AcpiPm::update_pin() {
  const bool level = (status_ & enable_ & kEnableBits) || (gpe_status_ & gpe_enable_);
  if (level == level_) return;
  level_ = level;
  sci_.set(level);
}

void AcpiPm::press_power_button() {
  MutexLock lock(mutex_);
  status_ |= kPowerButton;
  update_pin();
}

void AcpiPm::rtc_interrupt() {
  MutexLock lock(mutex_);
  status_ |= kRtc;
  update_pin();
}

void AcpiPm::raise_gpe(unsigned event) {
  MutexLock lock(mutex_);
  if (event < 16) gpe_status_ |= static_cast<uint16_t>(1u << event);
  update_pin();
}

uint64_t AcpiPm::deadline() {
  MutexLock lock(mutex_);
  if (!(enable_ & kTimerStatus) || (status_ & kTimerStatus)) return kNever;
  const uint64_t at_ticks = (carries_ + 1) << kCarryBit;
  return start_ns_ + static_cast<uint64_t>(static_cast<unsigned __int128>(at_ticks) * kSecondNs / kTimerHz) + 1;
}

void AcpiPm::on_deadline() {
  MutexLock lock(mutex_);
  catch_up();
  update_pin();
}

uint8_t AcpiPm::read_byte(uint64_t offset) {
  MutexLock lock(mutex_);
  catch_up();
  update_pin();
  if (offset < 2) return byte_of(status_, offset);
  if (offset < 4) return byte_of(enable_, offset - 2);
  if (offset >= kControlBlock && offset < kControlBlock + kControlBytes) return byte_of(control_ | kSciEnable, offset - kControlBlock);
  if (offset >= kTimerBlock && offset < kTimerBlock + kTimerBytes) {
    if (offset == kTimerBlock) latched_ticks_ = static_cast<uint32_t>(ticks());
    return byte_of(latched_ticks_, offset - kTimerBlock);
  }
  const uint64_t gpe0 = layout_.gpe0_block;
  if (offset >= gpe0 && offset < gpe0 + 2) return byte_of(gpe_status_, offset - gpe0);
  if (offset >= gpe0 + 2 && offset < gpe0 + kGpe0Bytes) return byte_of(gpe_enable_, offset - gpe0 - 2);
  return 0;
}

// SLP_TYP and SLP_EN stand in the high byte. SLP_EN is write-only; other types than S5 are not offered.
bool AcpiPm::write_control_high(uint8_t value) {
  control_ = with_byte(control_, 1, value) & kControlBits;
  const uint8_t type = (control_ & kSleepTypeMask) >> 10;
  return (value & (kSleepEnable >> 8)) && type == layout_.soft_off_sleep;
}

void AcpiPm::write_byte(uint64_t offset, uint8_t value) {
  const uint64_t gpe0 = layout_.gpe0_block;
  bool off = false;
  {
    MutexLock lock(mutex_);
    catch_up();
    if (offset < 2)
      status_ &= static_cast<uint16_t>(~((value << (8 * offset)) & kStatusBits));  // write one to clear
    else if (offset < 4)
      enable_ = with_byte(enable_, offset - 2, value) & kEnableBits;
    else if (offset == kControlBlock)
      control_ = with_byte(control_, 0, value) & kControlBits;
    else if (offset == kControlBlock + 1)
      off = write_control_high(value);
    else if (offset >= gpe0 && offset < gpe0 + 2)
      gpe_status_ &= static_cast<uint16_t>(~(value << (8 * (offset - gpe0))));
    else if (offset >= gpe0 + 2 && offset < gpe0 + kGpe0Bytes)
      gpe_enable_ = with_byte(gpe_enable_, offset - gpe0 - 2, value);
    update_pin();
  }
  if (off && host_.power_off) host_.power_off();
  if (host_.changed) host_.changed();
}

}  // namespace lodge::devices
