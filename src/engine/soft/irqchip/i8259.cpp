#include "engine/soft/irqchip/i8259.hpp"

namespace lodge::engine::soft {
namespace {

constexpr int kNone = -1;
constexpr uint8_t kLowest = 8;  // "no request" in a comparison of priorities
constexpr uint8_t kSpurious = 7;

// ICW1 and the OCW2/OCW3 select bits of a command write.
constexpr uint8_t kIcw1 = 0x10;
constexpr uint8_t kIcw1NeedsIcw4 = 0x01;
constexpr uint8_t kOcw3 = 0x08;

enum class InitState : uint8_t { Ready = 0, Icw2 = 1, Icw3 = 2, Icw4 = 3 };

// OCW2, bits 7:5 (R, SL, EOI).
enum class Ocw2 : uint8_t {
  RotateInAutoEoiClear = 0,
  NonSpecificEoi = 1,
  NoOperation = 2,
  SpecificEoi = 3,
  RotateInAutoEoiSet = 4,
  RotateOnNonSpecificEoi = 5,
  SetPriority = 6,
  RotateOnSpecificEoi = 7,
};

uint8_t bit(uint8_t irq) { return static_cast<uint8_t>(1u << irq); }

// The rank (0 is the highest) of the best of the requests in `mask`, under the chip's rotation.
uint8_t best_rank(const kvm_pic_state& chip, uint8_t mask) {
  for (uint8_t rank = 0; rank < 8; ++rank) {
    if (mask & bit((rank + chip.priority_add) & 7)) return rank;
  }
  return kLowest;
}

void set_line(kvm_pic_state& chip, uint8_t irq, bool level) {
  const uint8_t mask = bit(irq);
  if (chip.elcr & mask) {
    chip.irr = level ? chip.irr | mask : chip.irr & ~mask;
  } else if (level && !(chip.last_irr & mask)) {
    chip.irr |= mask;
  }
  chip.last_irr = level ? chip.last_irr | mask : chip.last_irr & ~mask;
}

}  // namespace

void I8259Pair::reset() {
  completed_ = 0;
  for (auto& chip : chips_) chip = kvm_pic_state{};
  chips_[kMaster].elcr_mask = 0xf8;  // IRQ 0, 1, 2 of the PIIX are always edge triggered,
  chips_[kSlave].elcr_mask = 0xde;   // and so are 8 and 13
}

bool I8259Pair::owns(uint16_t port) {
  switch (port) {
    case kMasterCommand:
    case kMasterData:
    case kSlaveCommand:
    case kSlaveData:
    case kMasterElcr:
    case kSlaveElcr: return true;
    default: return false;
  }
}

uint8_t I8259Pair::read(uint16_t port) {
  switch (port) {
    case kMasterCommand: return read_command(kMaster);
    case kSlaveCommand: return read_command(kSlave);
    case kMasterData: return chips_[kMaster].poll ? poll(kMaster) : chips_[kMaster].imr;
    case kSlaveData: return chips_[kSlave].poll ? poll(kSlave) : chips_[kSlave].imr;
    case kMasterElcr: return chips_[kMaster].elcr;
    case kSlaveElcr: return chips_[kSlave].elcr;
    default: return 0xff;
  }
}

void I8259Pair::write(uint16_t port, uint8_t value) {
  switch (port) {
    case kMasterCommand: write_command(kMaster, value); break;
    case kSlaveCommand: write_command(kSlave, value); break;
    case kMasterData: write_data(kMaster, value); break;
    case kSlaveData: write_data(kSlave, value); break;
    case kMasterElcr: chips_[kMaster].elcr = value & chips_[kMaster].elcr_mask; break;
    case kSlaveElcr: chips_[kSlave].elcr = value & chips_[kSlave].elcr_mask; break;
    default: break;
  }
  update_cascade();
}

void I8259Pair::set_irq(uint8_t irq, bool level) {
  if (irq == kCascade || irq > 15) return;
  set_line(chips_[irq >> 3], irq & 7, level);
  update_cascade();
}

bool I8259Pair::output() const { return pending(kMaster) != kNone; }

bool I8259Pair::masked(uint8_t irq) const { return chips_[irq >> 3].imr & bit(irq & 7); }

uint16_t I8259Pair::take_completed() {
  const uint16_t completed = completed_;
  completed_ = 0;
  return completed;
}

uint8_t I8259Pair::acknowledge() {
  const int irq = pending(kMaster);
  if (irq == kNone) return chips_[kMaster].irq_base + kSpurious;
  acknowledge_chip(kMaster, static_cast<uint8_t>(irq));
  if (irq != kCascade) {
    update_cascade();
    return chips_[kMaster].irq_base + static_cast<uint8_t>(irq);
  }
  int slave_irq = pending(kSlave);
  if (slave_irq == kNone) {
    slave_irq = kSpurious;
  } else {
    acknowledge_chip(kSlave, static_cast<uint8_t>(slave_irq));
  }
  update_cascade();
  return chips_[kSlave].irq_base + static_cast<uint8_t>(slave_irq);
}

// The request that the chip signals on INT: better than all in service ("Fully Nested Mode" and its variations).
int I8259Pair::pending(Index index) const {
  const kvm_pic_state& chip = chips_[index];
  const uint8_t request = best_rank(chip, chip.irr & ~chip.imr);
  if (request == kLowest) return kNone;
  uint8_t in_service = chip.isr;
  if (chip.special_mask) in_service &= ~chip.imr;
  // Special fully nested mode: a slave in service may still request at a higher priority within the slave.
  if (chip.special_fully_nested_mode && index == kMaster) in_service &= ~bit(kCascade);
  return request < best_rank(chip, in_service) ? (request + chip.priority_add) & 7 : kNone;
}

void I8259Pair::acknowledge_chip(Index index, uint8_t irq) {
  kvm_pic_state& chip = chips_[index];
  if (!(chip.elcr & bit(irq))) chip.irr &= ~bit(irq);
  chip.isr |= bit(irq);
  if (!chip.auto_eoi) return;
  end_of_interrupt(index, irq);
  if (chip.rotate_on_auto_eoi) chip.priority_add = (irq + 1) & 7;
}

void I8259Pair::end_of_interrupt(Index index, uint8_t irq) {
  kvm_pic_state& chip = chips_[index];
  if (!(chip.isr & bit(irq))) return;
  chip.isr &= ~bit(irq);
  completed_ |= static_cast<uint16_t>(bit(irq)) << (index == kSlave ? 8 : 0);
}

// The slave's INT pin is an edge on the master's IR2, latched like any other: a request that the slave withdraws
// afterwards ends as a spurious IR7 of the slave.
void I8259Pair::update_cascade() {
  if (pending(kSlave) != kNone) chips_[kMaster].irr |= bit(kCascade);
}

uint8_t I8259Pair::read_command(Index index) {
  const kvm_pic_state& chip = chips_[index];
  if (chip.poll) return poll(index);
  return chip.read_reg_select ? chip.isr : chip.irr;
}

// "Poll Command": the read stands for the INTA cycles of this chip.
uint8_t I8259Pair::poll(Index index) {
  chips_[index].poll = 0;
  const int irq = pending(index);
  if (irq == kNone) return kSpurious;
  acknowledge_chip(index, static_cast<uint8_t>(irq));
  if (index == kSlave) chips_[kMaster].irr &= ~bit(kCascade);
  update_cascade();
  return static_cast<uint8_t>(0x80 | irq);
}

void I8259Pair::write_command(Index index, uint8_t value) {
  if (value & kIcw1) {
    icw1(index, value);
  } else if (value & kOcw3) {
    ocw3(index, value);
  } else {
    ocw2(index, value);
  }
}

void I8259Pair::icw1(Index index, uint8_t value) {
  kvm_pic_state& chip = chips_[index];
  chip.init4 = (value & kIcw1NeedsIcw4) != 0;
  chip.last_irr = 0;
  chip.irr &= chip.elcr;
  chip.imr = 0;
  for (uint8_t irq = 0; irq < 8; ++irq) end_of_interrupt(index, irq);
  chip.priority_add = 0;
  chip.special_mask = 0;
  chip.read_reg_select = 0;
  chip.poll = 0;
  if (!chip.init4) {  // all functions selected in ICW4 are set to zero
    chip.special_fully_nested_mode = 0;
    chip.auto_eoi = 0;
  }
  chip.init_state = static_cast<uint8_t>(InitState::Icw2);
}

void I8259Pair::write_data(Index index, uint8_t value) {
  kvm_pic_state& chip = chips_[index];
  InitState next = InitState::Ready;
  switch (static_cast<InitState>(chip.init_state)) {
    case InitState::Ready: chip.imr = value; break;  // OCW1
    case InitState::Icw2:
      chip.irq_base = value & 0xf8;
      next = InitState::Icw3;
      break;
    case InitState::Icw3:  // the cascade is wired
      if (chip.init4) next = InitState::Icw4;
      break;
    case InitState::Icw4:
      chip.special_fully_nested_mode = (value >> 4) & 1;
      chip.auto_eoi = (value >> 1) & 1;
      break;
  }
  chip.init_state = static_cast<uint8_t>(next);
}

void I8259Pair::ocw2(Index index, uint8_t value) {
  kvm_pic_state& chip = chips_[index];
  const uint8_t level = value & 7;
  const auto command = static_cast<Ocw2>(value >> 5);
  switch (command) {
    case Ocw2::RotateInAutoEoiClear: chip.rotate_on_auto_eoi = 0; break;
    case Ocw2::RotateInAutoEoiSet: chip.rotate_on_auto_eoi = 1; break;
    case Ocw2::NoOperation: break;
    case Ocw2::SetPriority: chip.priority_add = (level + 1) & 7; break;
    case Ocw2::NonSpecificEoi:
    case Ocw2::RotateOnNonSpecificEoi: {
      // In special mask mode a masked in-service bit is not cleared by a non-specific EOI.
      const uint8_t rank = best_rank(chip, chip.special_mask ? chip.isr & ~chip.imr : chip.isr);
      if (rank == kLowest) break;
      const uint8_t irq = (rank + chip.priority_add) & 7;
      end_of_interrupt(index, irq);
      if (command == Ocw2::RotateOnNonSpecificEoi) chip.priority_add = (irq + 1) & 7;
      break;
    }
    case Ocw2::SpecificEoi: end_of_interrupt(index, level); break;
    case Ocw2::RotateOnSpecificEoi:
      end_of_interrupt(index, level);
      chip.priority_add = (level + 1) & 7;
      break;
  }
}

void I8259Pair::ocw3(Index index, uint8_t value) {
  kvm_pic_state& chip = chips_[index];
  if (value & 0x04) chip.poll = 1;
  if (value & 0x02) chip.read_reg_select = value & 1;
  if (value & 0x40) chip.special_mask = (value >> 5) & 1;
}

kvm_pic_state I8259Pair::get_state(bool slave) const { return chips_[slave ? kSlave : kMaster]; }

void I8259Pair::set_state(bool slave, const kvm_pic_state& state) {
  kvm_pic_state& chip = chips_[slave ? kSlave : kMaster];
  const uint8_t elcr_mask = chip.elcr_mask;
  chip = state;
  // Incoming state is hostile: keep what the code indexes and compares with in its range.
  chip.elcr_mask = elcr_mask;
  chip.elcr &= elcr_mask;
  chip.priority_add &= 7;
  chip.irq_base &= 0xf8;
  chip.init_state &= 3;
  update_cascade();
}

}  // namespace lodge::engine::soft
