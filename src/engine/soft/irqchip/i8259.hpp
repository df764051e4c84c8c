// The PC's pair of 8259A interrupt controllers with the ELCR of the PIIX (ports 0x4d0 and 0x4d1).
//
// After: Intel 8259A datasheet (order number 231468-003). Known deviations, all as in KVM: ICW1's LTIM and SNGL are
// ignored (the ELCR chooses the trigger mode, the pair is always cascaded); an edge stays latched when its line falls
// before the acknowledge, so that a short pulse is never lost; ICW1 clears the in-service bits.
//
// Threads: none of its own. The owner serialises all calls (IrqChip's PIC lock).
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace lodge::engine::soft {

class I8259Pair {
 public:
  static constexpr uint16_t kMasterCommand = 0x20;
  static constexpr uint16_t kMasterData = 0x21;
  static constexpr uint16_t kSlaveCommand = 0xa0;
  static constexpr uint16_t kSlaveData = 0xa1;
  static constexpr uint16_t kMasterElcr = 0x4d0;
  static constexpr uint16_t kSlaveElcr = 0x4d1;

  I8259Pair() { reset(); }
  void reset();

  [[nodiscard]] static bool owns(uint16_t port);
  [[nodiscard]] uint8_t read(uint16_t port);  // a port that owns() accepts
  void write(uint16_t port, uint8_t value);

  void set_irq(uint8_t irq, bool level);  // irq 0-15; 2 is the cascade and is ignored
  [[nodiscard]] bool output() const;      // the INTR pin of the master
  [[nodiscard]] uint8_t acknowledge();    // the INTA cycles: the vector; IR7 or IR15 if spurious
  [[nodiscard]] bool masked(uint8_t irq) const;

  // The IRQs whose service ended (EOI, or acknowledge with AEOI) since the last call.
  [[nodiscard]] uint16_t take_completed();

  [[nodiscard]] kvm_pic_state get_state(bool slave) const;
  void set_state(bool slave, const kvm_pic_state& state);

 private:
  enum Index : uint8_t { kMaster = 0, kSlave = 1 };
  static constexpr uint8_t kCascade = 2;

  [[nodiscard]] int pending(Index chip) const;
  void acknowledge_chip(Index chip, uint8_t irq);
  void end_of_interrupt(Index chip, uint8_t irq);
  void update_cascade();
  [[nodiscard]] uint8_t read_command(Index chip);
  [[nodiscard]] uint8_t poll(Index chip);
  void write_command(Index chip, uint8_t value);
  void write_data(Index chip, uint8_t value);
  void icw1(Index chip, uint8_t value);
  void ocw2(Index chip, uint8_t value);
  void ocw3(Index chip, uint8_t value);

  kvm_pic_state chips_[2];
  uint16_t completed_;
};

}  // namespace lodge::engine::soft
