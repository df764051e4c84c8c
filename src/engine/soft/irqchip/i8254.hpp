// The 8254 programmable interval timer, with port 0x61 (gate and output of counter 2, speaker data, refresh toggle).
//
// After: Intel 8254 datasheet (order number 231164-005). As in KVM, a new count of a running mode 2 or 3 takes effect
// at once instead of at the end of the period, the counter is loaded in the instant of the write, and OUT0 reaches
// the interrupt controller as a pulse for each rising edge. Modes 1 and 5 wait for a new trigger after a count is written.
//
// Time comes from outside, in nanoseconds of the VM's monotonic clock; `now` never runs backwards.
//
// Reinjection (KVM's default policy): each period of counter 0 is owed to the guest as one IRQ0. While the guest has not
// finished the last one (EOI), further ticks are counted and follow one by one, each at the EOI of the one before. The
// debt is forgiven when the guest loads counter 0 or unmasks IRQ0. Without reinjection late ticks merge into one.
//
// Threads: none of its own. The owner serialises all calls (IrqChip's PIT lock).
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace lodge::engine::soft {

class I8254 {
 public:
  static constexpr uint64_t kFrequencyHz = 1193182;
  static constexpr uint16_t kCounter0 = 0x40;
  static constexpr uint16_t kControlWord = 0x43;
  static constexpr uint16_t kPortB = 0x61;

  I8254() { reset(0); }
  void reset(uint64_t now_ns);

  [[nodiscard]] static bool owns(uint16_t port);
  [[nodiscard]] uint8_t read(uint16_t port, uint64_t now_ns);  // a port that owns() accepts
  void write(uint16_t port, uint8_t value, uint64_t now_ns);

  // When the next rising edge of OUT0 is due; UINT64_MAX if none is.
  [[nodiscard]] uint64_t next_deadline_ns() const;
  // Takes account of all edges up to now. True: pulse IRQ0 now.
  [[nodiscard]] bool expire(uint64_t now_ns);
  // The guest ended its service of IRQ0. True: pulse IRQ0 again, a tick was owed.
  [[nodiscard]] bool acknowledge();
  void irq0_unmasked();
  void set_reinject(bool reinject);

  [[nodiscard]] bool output(unsigned counter, uint64_t now_ns) const;

  // The layout of KVM_GET_PIT2. While its flag KVM_PIT_FLAGS_HPET_LEGACY is set, counter 0 raises no interrupts: another timer does.
  // Loading restarts each counter with its full count at now_ns, as KVM does.
  [[nodiscard]] kvm_pit_state2 get_state() const;
  void set_state(const kvm_pit_state2& state, uint64_t now_ns);

 private:
  // RW1:RW0 of the control word, and the second half of a two-byte transfer.
  enum ReadWrite : uint8_t { kLatch = 0, kLsb = 1, kMsb = 2, kLsbThenMsb = 3, kMsbOfBoth = 4 };

  struct Counter {
    kvm_pit_channel_state state;  // count_load_time: ns; count: 1..65536 in binary, whatever the BCD bit
    bool counting;                // a count was written since the control word, and the trigger came, if one is needed
    bool loaded;                  // a count was written since the control word
    uint64_t paused_ticks;        // ticks elapsed when the gate fell; valid while the gate is low
  };

  [[nodiscard]] static bool triggered_by_gate(const Counter& counter);
  [[nodiscard]] static bool periodic(const Counter& counter);
  [[nodiscard]] static uint64_t elapsed(const Counter& counter, uint64_t now_ns);
  [[nodiscard]] static uint16_t current_count(const Counter& counter, uint64_t now_ns);
  [[nodiscard]] static uint8_t status(const Counter& counter, uint64_t now_ns);
  [[nodiscard]] static bool counter_output(const Counter& counter, uint64_t now_ns);
  static void latch_count(Counter& counter, uint64_t now_ns);
  static void latch_status(Counter& counter, uint64_t now_ns);
  [[nodiscard]] static uint8_t read_counter(Counter& counter, uint64_t now_ns);
  void write_counter(unsigned index, uint8_t value, uint64_t now_ns);
  void write_control(uint8_t value, uint64_t now_ns);
  void read_back(uint8_t value, uint64_t now_ns);
  void load(unsigned index, uint16_t written, uint64_t now_ns);
  void start_irq_timer();
  void set_gate2(bool gate, uint64_t now_ns);
  [[nodiscard]] uint8_t read_port_b(uint64_t now_ns) const;
  [[nodiscard]] bool inject_owed();
  void forgive();

  Counter counters_[3];
  bool speaker_data_, replaced_;
  uint64_t irq_edge_;    // the tick (since counter 0's load) of OUT0's next rising edge; UINT64_MAX: none
  uint64_t irq_period_;  // ticks between edges; 0: one edge only
  uint64_t owed_;        // ticks not yet injected
  bool acknowledged_;    // the guest has ended its service of the last tick
  bool reinject_;
};

}  // namespace lodge::engine::soft
