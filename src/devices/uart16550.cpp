#include "devices/uart16550.hpp"

#include <algorithm>
#include <utility>

#include "base/clock.hpp"

namespace lodge::devices {

namespace {

// PC16550D table II, registers.
enum Register : unsigned { kData, kInterruptEnable, kInterruptIdent, kLineControl, kModemControl, kLineStatus, kModemStatus, kScratch };

constexpr uint8_t kIerReceived = 0x01, kIerTransmitter = 0x02, kIerLineStatus = 0x04, kIerModemStatus = 0x08;
constexpr uint8_t kFcrEnable = 0x01, kFcrResetReceiver = 0x02;
constexpr uint8_t kLcrDivisorAccess = 0x80;
constexpr uint8_t kMcrDtr = 0x01, kMcrRts = 0x02, kMcrOut1 = 0x04, kMcrOut2 = 0x08, kMcrLoop = 0x10;
constexpr uint8_t kLsrDataReady = 0x01, kLsrOverrun = 0x02, kLsrThrEmpty = 0x20, kLsrTransmitterEmpty = 0x40;
constexpr uint8_t kMsrCts = 0x10, kMsrDsr = 0x20, kMsrRing = 0x40, kMsrCarrier = 0x80;
constexpr uint8_t kIirFifosEnabled = 0xc0;

constexpr uint64_t kClockHz = 1'843'200;  // the PC's crystal; 16 clocks a bit
constexpr size_t kFifoBytes = 16;
// A driver that prints reads LSR once or twice a byte; one that waits for a key does nothing else.
constexpr unsigned kPollsThatWait = 16;

}  // namespace

bool Uart16550::divisor_access() const { return lcr_ & kLcrDivisorAccess; }
bool Uart16550::loopback() const { return mcr_ & kMcrLoop; }
size_t Uart16550::capacity() const { return fcr_ & kFcrEnable ? kFifoBytes : 1; }

size_t Uart16550::trigger_level() const {
  static constexpr std::array<size_t, 4> kLevels{1, 4, 8, 14};  // FCR7:6
  return fcr_ & kFcrEnable ? kLevels[fcr_ >> 6] : 1;
}

bool Uart16550::wants_input() const {
  const bool held_by_rts = rts_used_ && !(mcr_ & kMcrRts);
  return (ier_ & kIerReceived) && !held_by_rts && !loopback();
}

// Start bit, 5 to 8 data bits, parity, one or two stop bits.
uint64_t Uart16550::character_ns() const {
  const unsigned bits = 1 + 5 + (lcr_ & 3) + ((lcr_ >> 3) & 1) + 1 + ((lcr_ >> 2) & 1);
  const uint64_t divisor = divisor_ == 0 ? 1 : divisor_;
  return bits * divisor * 16 * kSecondNs / kClockHz;
}

uint8_t Uart16550::modem_inputs() const {
  if (!loopback()) return kMsrCts | kMsrDsr | kMsrCarrier;
  // 8.4: in loopback DTR, RTS, OUT1 and OUT2 are connected to DSR, CTS, RI and DCD.
  uint8_t inputs = 0;
  if (mcr_ & kMcrRts) inputs |= kMsrCts;
  if (mcr_ & kMcrDtr) inputs |= kMsrDsr;
  if (mcr_ & kMcrOut1) inputs |= kMsrRing;
  if (mcr_ & kMcrOut2) inputs |= kMsrCarrier;
  return inputs;
}

// Table IV: interrupts by priority.
Uart16550::Identification Uart16550::identify() const {
  if ((ier_ & kIerLineStatus) && line_errors_ != 0) return Identification::LineStatus;
  if ((ier_ & kIerReceived) && fifo_.size() >= trigger_level()) return Identification::ReceivedData;
  if ((ier_ & kIerReceived) && timeout_) return Identification::Timeout;
  if ((ier_ & kIerTransmitter) && transmitter_pending_) return Identification::TransmitterEmpty;
  if ((ier_ & kIerModemStatus) && modem_delta_ != 0) return Identification::ModemStatus;
  return Identification::None;
}

bool Uart16550::interrupt() const {
  // On a PC, OUT2 gates INTR; in loopback the outputs are off (8.4).
  return (mcr_ & kMcrOut2) && !loopback() && identify() != Identification::None;
}

uint64_t Uart16550::deadline() const {
  const bool waiting = (fcr_ & kFcrEnable) && (ier_ & kIerReceived) && !timeout_ && !fifo_.empty() && fifo_.size() < trigger_level();
  return waiting ? activity_ns_ + 4 * character_ns() : kNever;
}

void Uart16550::advance(uint64_t now) {
  if (now >= deadline()) timeout_ = true;
}

void Uart16550::fill(size_t limit, uint64_t now) {
  while (fifo_.size() < limit && !queue_.empty()) {
    fifo_.push_back(queue_.front());
    queue_.pop_front();
    activity_ns_ = now;
  }
}

void Uart16550::return_unread() {
  queue_.insert(queue_.begin(), fifo_.begin(), fifo_.end());
  fifo_.clear();
  timeout_ = false;
}

size_t Uart16550::receive(std::span<const uint8_t> bytes, uint64_t now) {
  const size_t taken = std::min(bytes.size(), receive_space());
  queue_.insert(queue_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
  if (wants_input()) fill(capacity(), now);
  return taken;
}

std::vector<uint8_t> Uart16550::take_transmitted() { return std::exchange(transmitted_, {}); }

uint8_t Uart16550::read_receiver(uint64_t now) {
  uint8_t value = 0;
  if (!fifo_.empty()) {
    value = fifo_.front();
    fifo_.pop_front();
    activity_ns_ = now;
  }
  timeout_ = false;
  if (wants_input()) fill(capacity(), now);
  return value;
}

uint8_t Uart16550::read_line_status(uint64_t now) {
  if (fifo_.empty() && !loopback() && ++idle_polls_ >= kPollsThatWait) fill(1, now);
  const uint8_t value = kLsrThrEmpty | kLsrTransmitterEmpty | line_errors_ | (fifo_.empty() ? 0 : kLsrDataReady);
  line_errors_ = 0;
  return value;
}

uint8_t Uart16550::read(unsigned reg, uint64_t now) {
  if (reg != kLineStatus) idle_polls_ = 0;
  switch (reg) {
    case kData: return divisor_access() ? static_cast<uint8_t>(divisor_) : read_receiver(now);
    case kInterruptEnable: return divisor_access() ? static_cast<uint8_t>(divisor_ >> 8) : ier_;
    case kInterruptIdent: {
      const Identification id = identify();
      // Reading IIR acknowledges the THRE interrupt if that is what it shows (table IV).
      if (id == Identification::TransmitterEmpty) transmitter_pending_ = false;
      return static_cast<uint8_t>(id) | (fcr_ & kFcrEnable ? kIirFifosEnabled : 0);
    }
    case kLineControl: return lcr_;
    case kModemControl: return mcr_;
    case kLineStatus: return read_line_status(now);
    case kModemStatus: return modem_inputs() | std::exchange(modem_delta_, 0);
    default: return scratch_;
  }
}

void Uart16550::transmit(uint8_t byte, uint64_t now) {
  transmitter_pending_ = true;
  if (!loopback()) {
    transmitted_.push_back(byte);
    return;
  }
  if (fifo_.size() >= capacity()) {
    line_errors_ |= kLsrOverrun;
    if (!(fcr_ & kFcrEnable)) fifo_.back() = byte;  // without FIFOs the new byte replaces the old
    return;
  }
  fifo_.push_back(byte);
  activity_ns_ = now;
}

void Uart16550::write_fifo_control(uint8_t value, uint64_t now) {
  const bool mode_changed = (value ^ fcr_) & kFcrEnable;
  if (mode_changed || ((value & kFcrEnable) && (value & kFcrResetReceiver))) {
    if (loopback()) fifo_.clear();
    return_unread();
  }
  // 8.3: the other bits are taken only together with FCR0.
  fcr_ = value & kFcrEnable ? value & 0xc9 : 0;
  if (wants_input()) fill(capacity(), now);
}

void Uart16550::write_modem_control(uint8_t value, uint64_t now) {
  const uint8_t before = modem_inputs();
  const bool was_loop = loopback();
  if (!was_loop && (value & kMcrLoop)) return_unread();  // the receiver is cut off from the line
  if (was_loop && !(value & kMcrLoop)) fifo_.clear();
  mcr_ = value & 0x1f;
  if ((mcr_ & kMcrRts) && !loopback()) rts_used_ = true;
  const uint8_t changed = before ^ modem_inputs();
  modem_delta_ |= (changed & (kMsrCts | kMsrDsr | kMsrCarrier)) >> 4;
  if ((before & kMsrRing) && !(modem_inputs() & kMsrRing)) modem_delta_ |= kMsrRing >> 4;  // TERI: trailing edge
  if (wants_input()) fill(capacity(), now);
}

void Uart16550::write(unsigned reg, uint8_t value, uint64_t now) {
  idle_polls_ = 0;
  switch (reg) {
    case kData:
      if (divisor_access())
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      else
        transmit(value, now);
      break;
    case kInterruptEnable:
      if (divisor_access()) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff) | (value << 8));
        break;
      }
      // Enabling the THRE interrupt while THR is empty raises it.
      if ((value & kIerTransmitter) && !(ier_ & kIerTransmitter)) transmitter_pending_ = true;
      ier_ = value & 0x0f;
      if (wants_input()) fill(capacity(), now);
      break;
    case kInterruptIdent: write_fifo_control(value, now); break;
    case kLineControl: lcr_ = value; break;
    case kModemControl: write_modem_control(value, now); break;
    case kScratch: scratch_ = value; break;
    default: break;  // LSR and MSR are for factory tests only
  }
}

}  // namespace lodge::devices
