// Small registers of a PC's chipset, one class each: reset control (0xCF9), system control port A (0x92), POST
// code (0x80), power management (0xB2), the debug consoles of Bochs (0xE9) and OVMF (0x402), and what virtual machines have beside: the
// panic event (0x505) and the exit for test programs (0x501).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/a20_gate.hpp"
#include "devices/bus.hpp"

namespace lodge::devices {

// Reset control register (Intel ICH, 13.7.5; the FADT's RESET_REG): a rising RST_CPU resets; SYS_RST only
// says how hard, and every reset of this machine is a full one.
class ResetControl final : public BytePortDevice {
 public:
  static constexpr uint8_t kResetValue = 0x06;  // the FADT's RESET_VALUE: SYS_RST | RST_CPU
  explicit ResetControl(std::function<void()> reset) : reset_(std::move(reset)) {}

 protected:
  uint8_t read_byte(uint64_t) override { return value_; }
  void write_byte(uint64_t, uint8_t value) override {
    constexpr uint8_t kResetCpu = 0x04, kStored = 0x0a;
    const bool rises = (value & kResetCpu) && !(value_ & kResetCpu);
    value_ = value & kStored;
    if (rises && reset_) reset_();
  }

 private:
  std::function<void()> reset_;
  std::atomic<uint8_t> value_ = 0;
};

// System control port A (PS/2): bit 0 rising resets the processors, bit 1 is the A20 gate.
class SystemControlA final : public BytePortDevice {
 public:
  // `reset`: of the processors alone.
  SystemControlA(std::function<void()> reset, A20Gate& a20) : reset_(std::move(reset)), a20_(a20) {}

 protected:
  uint8_t read_byte(uint64_t) override { return static_cast<uint8_t>((a20_.open() ? kA20 : 0) | (fast_reset_ ? kFastReset : 0)); }
  void write_byte(uint64_t, uint8_t value) override {
    a20_.set((value & kA20) != 0);
    const bool reset = (value & kFastReset) != 0;
    if (!fast_reset_.exchange(reset) && reset && reset_) reset_();
  }

 private:
  static constexpr uint8_t kFastReset = 0x01, kA20 = 0x02;
  std::function<void()> reset_;
  A20Gate& a20_;
  std::atomic<bool> fast_reset_ = false;
};

// POST code display; Linux also writes it for a short delay.
class PostCode final : public BytePortDevice {
 public:
  [[nodiscard]] uint8_t last() const { return value_; }

 protected:
  uint8_t read_byte(uint64_t) override { return value_; }
  void write_byte(uint64_t, uint8_t value) override { value_ = value; }

 private:
  std::atomic<uint8_t> value_ = 0;
};

// Advanced power management's control and status (Intel PIIX4, 7.3; ICH9, 13.9): two bytes by which firmware's system management code and
// its callers talk. There is no such mode: they only hold what is written.
class ApmPorts final : public BytePortDevice {
 public:
  static constexpr uint16_t kBytes = 2;

 protected:
  uint8_t read_byte(uint64_t offset) override { return values_[offset]; }
  void write_byte(uint64_t offset, uint8_t value) override { values_[offset] = value; }

 private:
  std::array<std::atomic<uint8_t>, kBytes> values_{};
};

// A console for firmware developers: bytes written go to the sink; reading gives the port's signature
// (0xE9 at Bochs' port), by which software finds it.
class DebugConsole final : public BytePortDevice {
 public:
  DebugConsole(uint8_t signature, std::function<void(uint8_t)> sink) : signature_(signature), sink_(std::move(sink)) {}

 protected:
  uint8_t read_byte(uint64_t) override { return signature_; }
  void write_byte(uint64_t, uint8_t value) override {
    if (sink_) sink_(value);
  }

 private:
  uint8_t signature_;
  std::function<void(uint8_t)> sink_;
};

// pvpanic (QEMU's docs/specs/pvpanic): a guest's kernel says that it has panicked.
class PanicEvent final : public BytePortDevice {
 public:
  static constexpr uint8_t kPanicked = 0x01;  // what it reads as: the events that it takes
  explicit PanicEvent(std::function<void()> panicked) : panicked_(std::move(panicked)) {}

 protected:
  uint8_t read_byte(uint64_t) override { return kPanicked; }
  void write_byte(uint64_t, uint8_t value) override {
    if ((value & kPanicked) && panicked_) panicked_();
  }

 private:
  std::function<void()> panicked_;
};

// isa-debug-exit (QEMU's): what a test program writes becomes the process's exit code.
class DebugExit final : public PortDevice {
 public:
  explicit DebugExit(std::function<void(uint32_t)> exit) : exit_(std::move(exit)) {}
  uint32_t read(uint64_t, unsigned) override { return 0; }
  void write(uint64_t, unsigned, uint32_t value) override { exit_(value); }

 private:
  std::function<void(uint32_t)> exit_;
};

}  // namespace lodge::devices
