#include "engine/soft/irqchip/ioapic.hpp"

namespace lodge::engine::soft {
namespace {

// Memory-mapped registers (82093AA, 3.1) and those behind them (3.2).
constexpr uint64_t kIoregsel = 0x00;
constexpr uint64_t kIowin = 0x10;
constexpr uint8_t kId = 0x00;
constexpr uint8_t kVersion = 0x01;
constexpr uint8_t kArbitration = 0x02;
constexpr uint8_t kRedirectionTable = 0x10;

constexpr uint32_t kVersionValue = 0x11 | (Ioapic::kPins - 1) << 16;

// Redirection entry, low half.
constexpr uint32_t kDeliveryStatus = 1u << 12;
constexpr uint32_t kRemoteIrr = 1u << 14;
constexpr uint64_t kMask = 1u << 16;
constexpr uint32_t kReadOnly = kDeliveryStatus | kRemoteIrr;
constexpr uint32_t kLowImplemented = 0x1ffff;
constexpr uint64_t kHighImplemented = 0xff000000;

}  // namespace

void Ioapic::reset() {
  state_.base_address = kDefaultBase;
  state_.ioregsel = 0;
  state_.id = 0;
  state_.irr = 0;
  state_.pad = 0;
  for (auto& entry : state_.redirtbl) entry.bits = kMask;
  edges_delivered_ = 0;
}

uint32_t Ioapic::read(uint64_t gpa) const {
  switch (gpa - state_.base_address) {
    case kIoregsel: return state_.ioregsel;
    case kIowin: return read_register(static_cast<uint8_t>(state_.ioregsel));
    default: return 0;
  }
}

void Ioapic::write(uint64_t gpa, uint32_t value, const InterruptSink& sink) {
  switch (gpa - state_.base_address) {
    case kIoregsel: state_.ioregsel = value & 0xff; break;
    case kIowin: write_register(static_cast<uint8_t>(state_.ioregsel), value, sink); break;
    default: break;  // 0x40, the EOI register, came with version 0x20
  }
}

uint32_t Ioapic::read_register(uint8_t index) const {
  switch (index) {
    case kId:
    case kArbitration: return (state_.id & 0xf) << 24;
    case kVersion: return kVersionValue;
    default: break;
  }
  const unsigned pin = (index - kRedirectionTable) / 2u;
  if (index < kRedirectionTable || pin >= kPins) return 0;
  const uint64_t bits = state_.redirtbl[pin].bits;
  return static_cast<uint32_t>(index & 1 ? bits >> 32 : bits);
}

void Ioapic::write_register(uint8_t index, uint32_t value, const InterruptSink& sink) {
  if (index == kId) {
    state_.id = value >> 24 & 0xf;
    return;
  }
  const unsigned pin = (index - kRedirectionTable) / 2u;
  if (index < kRedirectionTable || pin >= kPins) return;
  write_redirection(pin, index & 1, value, sink);
}

void Ioapic::write_redirection(unsigned pin, bool high, uint32_t value, const InterruptSink& sink) {
  auto& entry = state_.redirtbl[pin];
  const auto low = static_cast<uint32_t>(entry.bits);
  if (high) {
    entry.bits = low | (value & kHighImplemented) << 32;
  } else {
    entry.bits = (entry.bits >> 32 << 32) | (value & kLowImplemented & ~kReadOnly) | (low & kReadOnly);
  }
  // Linux and others free a stuck entry of a version 0x11 IOAPIC by making it edge-triggered for a moment.
  if (!entry.fields.trig_mode) entry.fields.remote_irr = 0;
  // A level that came while the entry was masked is still there; an edge is lost (82093AA, 3.2.4, interrupt mask).
  if (entry.fields.trig_mode && (state_.irr & 1u << pin)) service(pin, sink);
}

void Ioapic::set_pin(unsigned pin, bool level, const InterruptSink& sink) {
  if (pin >= kPins) return;
  const uint32_t mask = 1u << pin;
  const bool was_asserted = state_.irr & mask;
  if (!level) {
    state_.irr &= ~mask;
    return;
  }
  state_.irr |= mask;
  if (!state_.redirtbl[pin].fields.trig_mode) {
    if (was_asserted) return;
    edges_delivered_ &= ~mask;
  }
  service(pin, sink);
}

void Ioapic::service(unsigned pin, const InterruptSink& sink) {
  auto& entry = state_.redirtbl[pin];
  const bool level_triggered = entry.fields.trig_mode;
  if (entry.fields.mask || (level_triggered && entry.fields.remote_irr)) return;
  InterruptMessage message;
  message.destination = entry.fields.dest_id;
  message.logical = entry.fields.dest_mode;
  message.level_triggered = level_triggered;
  message.mode = static_cast<DeliveryMode>(entry.fields.delivery_mode);
  message.vector = entry.fields.vector;
  if (!level_triggered) edges_delivered_ |= 1u << pin;
  const bool accepted = sink.deliver(sink.context, message);
  if (level_triggered && accepted) entry.fields.remote_irr = 1;
}

void Ioapic::end_of_interrupt(uint8_t vector, const InterruptSink& sink) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    auto& entry = state_.redirtbl[pin];
    if (entry.fields.vector != vector || !entry.fields.trig_mode) continue;
    entry.fields.remote_irr = 0;
    if (state_.irr & 1u << pin) service(pin, sink);
  }
}

void Ioapic::get_state(kvm_ioapic_state& state) const {
  state.base_address = state_.base_address;
  state.ioregsel = state_.ioregsel;
  state.id = state_.id;
  state.irr = state_.irr;
  state.pad = 0;
  for (unsigned pin = 0; pin < kPins; ++pin) {
    state.redirtbl[pin].bits = state_.redirtbl[pin].bits;
    if (!state_.redirtbl[pin].fields.trig_mode) state.irr &= ~(edges_delivered_ & 1u << pin);
  }
}

void Ioapic::set_state(const kvm_ioapic_state& state, const InterruptSink& sink) {
  state_.base_address = kDefaultBase;  // cannot be moved
  state_.ioregsel = state.ioregsel & 0xff;
  state_.id = state.id & 0xf;
  state_.irr = 0;
  edges_delivered_ = 0;
  for (unsigned pin = 0; pin < kPins; ++pin)
    state_.redirtbl[pin].bits = state.redirtbl[pin].bits & (kHighImplemented << 32 | kLowImplemented);
  for (unsigned pin = 0; pin < kPins; ++pin) {
    if (state.irr & 1u << pin) set_pin(pin, true, sink);
  }
}

}  // namespace lodge::engine::soft
