// 16550A universal asynchronous receiver/transmitter.
//
// After National Semiconductor PC16550D, June 1995. The chip alone: no thread, bus or lock. Time comes in as an
// argument (monotonic ns).
//
// Known deviations:
// - The transmitter takes no time: a byte written to THR leaves at once, so THRE and TEMT always read 1.
// - The line waits for the guest. Received bytes wait in a bounded queue in front of the chip and enter its
//   FIFO only when the guest can take them: the receive interrupt is enabled (and RTS is set, if the guest uses
//   it), or the guest polls LSR. Unread bytes that a FIFO reset would drop go back to that queue. So input
//   that is piped in is not lost to a guest that resets the chip while it starts; overruns do not occur.
// - Modem inputs: CTS, DSR and DCD are always on.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

namespace lodge::devices {

class Uart16550 {
 public:
  static constexpr size_t kQueueBytes = 4096;  // waiting in front of the chip

  [[nodiscard]] uint8_t read(unsigned reg, uint64_t now);  // reg 0..7
  void write(unsigned reg, uint8_t value, uint64_t now);

  // From the line. Takes the first bytes and returns how many; the rest must be offered again later.
  size_t receive(std::span<const uint8_t> bytes, uint64_t now);
  [[nodiscard]] size_t receive_space() const { return kQueueBytes - std::min(queue_.size(), kQueueBytes); }

  // Bytes that were transmitted since the last call.
  [[nodiscard]] std::vector<uint8_t> take_transmitted();

  [[nodiscard]] bool interrupt() const;     // INTR, gated by MCR.OUT2 as on a PC
  [[nodiscard]] uint64_t deadline() const;  // when the character timeout comes (kNever: none)
  void advance(uint64_t now);               // lets the character timeout happen

 private:
  enum class Identification : uint8_t { None = 1, ModemStatus = 0, TransmitterEmpty = 2, ReceivedData = 4, LineStatus = 6, Timeout = 0xc };
  [[nodiscard]] Identification identify() const;
  [[nodiscard]] bool divisor_access() const;
  [[nodiscard]] bool loopback() const;
  [[nodiscard]] bool wants_input() const;
  [[nodiscard]] size_t capacity() const;
  [[nodiscard]] size_t trigger_level() const;
  [[nodiscard]] uint64_t character_ns() const;
  [[nodiscard]] uint8_t modem_inputs() const;
  [[nodiscard]] uint8_t read_line_status(uint64_t now);
  [[nodiscard]] uint8_t read_receiver(uint64_t now);
  void transmit(uint8_t byte, uint64_t now);
  void write_fifo_control(uint8_t value, uint64_t now);
  void write_modem_control(uint8_t value, uint64_t now);
  void return_unread();
  void fill(size_t limit, uint64_t now);

  uint8_t ier_ = 0, fcr_ = 0, lcr_ = 0, mcr_ = 0, scratch_ = 0;
  uint16_t divisor_ = 12;             // 9600 baud; the datasheet leaves it undefined
  uint8_t line_errors_ = 0;           // OE, until LSR is read
  uint8_t modem_delta_ = 0;           // DCTS..DDCD
  bool transmitter_pending_ = false;  // THRE interrupt not yet acknowledged
  bool timeout_ = false;
  bool rts_used_ = false;
  unsigned idle_polls_ = 0;    // LSR reads since the last access that was not one
  uint64_t activity_ns_ = 0;   // last byte in or out of the receive FIFO
  std::deque<uint8_t> fifo_;   // the chip's: 16 bytes, or 1 without FIFOs
  std::deque<uint8_t> queue_;  // the line's
  std::vector<uint8_t> transmitted_;
};

}  // namespace lodge::devices
