#include "engine/soft/irqchip/irqchip.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint32_t kNoSource = UINT32_MAX;
constexpr uint32_t kIrq0 = 0;

// The MSI address and data formats (SDM vol. 3, 11.11).
constexpr uint64_t kMsiAddressMask = 0xfff00000;
constexpr uint64_t kMsiAddress = 0xfee00000;

InterruptMessage msi_message(uint64_t address, uint32_t data) {
  InterruptMessage message;
  message.destination = static_cast<uint32_t>(address >> 12 & 0xff);
  message.logical = address >> 2 & 1;
  message.mode = static_cast<DeliveryMode>(data >> 8 & 7);
  message.vector = static_cast<uint8_t>(data);
  message.level_triggered = data >> 15 & 1;
  message.assert = !message.level_triggered || (data >> 14 & 1);
  const bool redirection_hint = address >> 3 & 1;
  if (redirection_hint && message.mode == DeliveryMode::Fixed) message.mode = DeliveryMode::LowestPriority;
  return message;
}

}  // namespace

IrqChip::IrqChip(const VmHost& host)
    : host_(host),
      bus_{.now_ns = [](void* chip) { return static_cast<IrqChip*>(chip)->now(); },
           .send = [](void* chip, uint32_t source,
                      const InterruptMessage& message) { static_cast<IrqChip*>(chip)->send_ipi(source, message); },
           .end_of_interrupt = [](void* chip, uint8_t vector, bool level) { static_cast<IrqChip*>(chip)->end_of_interrupt(vector, level); },
           .context = this} {
  // Loops instead of initialisers, which the compiler would make a call of memset().
  for (auto& sources : pic_sources_) sources = 0;
  for (auto& sources : ioapic_sources_) sources = 0;
}

Lapic& IrqChip::attach_vcpu(uint32_t id, bool bootstrap, const VcpuEvents& events) {
  lapics_[id].attach(id, bootstrap, events, bus_);
  present_[id / 64].fetch_or(1ull << id % 64);
  return lapics_[id];
}

void IrqChip::detach_vcpu(uint32_t id) { present_[id / 64].fetch_and(~(1ull << id % 64)); }

template <typename Function>
void IrqChip::for_each_vcpu(Function&& function) {
  for (uint32_t word = 0; word < kMostVcpus / 64; ++word) {
    for (uint64_t bits = present_[word].load(); bits != 0; bits &= bits - 1) {
      function(word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits)));
    }
  }
}

void IrqChip::wake(const WakeSet& wakes) {
  for (uint32_t word = 0; word < kMostVcpus / 64; ++word) {
    for (uint64_t bits = wakes.bits[word]; bits != 0; bits &= bits - 1) {
      lapics_[word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits))].wake();
    }
  }
}

// --- Messages ---

bool IrqChip::accept(uint32_t vcpu, const InterruptMessage& message, WakeSet& wakes) {
  wakes.bits[vcpu / 64] |= 1ull << vcpu % 64;
  return lapics_[vcpu].accept(message);
}

bool IrqChip::dispatch(const InterruptMessage& message, uint32_t source_id, WakeSet& wakes) {
  if (message.shorthand == Shorthand::Self) return accept(source_id, message, wakes);
  if (message.shorthand == Shorthand::None && message.mode == DeliveryMode::LowestPriority) return dispatch_lowest_priority(message, wakes);
  bool accepted = false;
  for_each_vcpu([&](uint32_t vcpu) {
    if (message.shorthand == Shorthand::AllExcludingSelf && vcpu == source_id) return;
    if (message.shorthand == Shorthand::None && !lapics_[vcpu].matches(message)) return;
    accepted |= accept(vcpu, message, wakes);
  });
  return accepted;
}

// 11.6.2.4: the lowest processor priority class wins; among equals the turn goes round.
bool IrqChip::dispatch_lowest_priority(const InterruptMessage& message, WakeSet& wakes) {
  const uint32_t start = last_lowest_.load(std::memory_order_relaxed) + 1;
  uint32_t winner = kNoSource;
  uint32_t best = UINT32_MAX;
  for_each_vcpu([&](uint32_t vcpu) {
    const Lapic& candidate = lapics_[vcpu];
    if (!candidate.enabled() || !candidate.matches(message)) return;
    const uint32_t turn = (vcpu - start) % kMostVcpus;
    const uint32_t rank = (candidate.processor_priority() >> 4) * kMostVcpus + turn;
    if (rank >= best) return;
    best = rank;
    winner = vcpu;
  });
  if (winner == kNoSource) return false;
  last_lowest_.store(winner, std::memory_order_relaxed);
  return accept(winner, message, wakes);
}

bool IrqChip::deliver(const InterruptMessage& message) {
  WakeSet wakes;
  const bool accepted = dispatch(message, kNoSource, wakes);
  wake(wakes);
  return accepted;
}

void IrqChip::send_ipi(uint32_t source_id, const InterruptMessage& message) {
  WakeSet wakes;
  (void)dispatch(message, source_id, wakes);
  wake(wakes);
}

bool IrqChip::signal_msi(uint64_t address, uint32_t data) {
  if ((address & kMsiAddressMask) != kMsiAddress) return false;
  return deliver(msi_message(address, data));
}

bool IrqChip::sink_deliver(void* context, const InterruptMessage& message) {
  auto* sink = static_cast<SinkContext*>(context);
  return sink->chip->dispatch(message, kNoSource, sink->wakes);
}

// --- Lines ---

void IrqChip::set_irq(uint32_t source, uint32_t gsi, bool level) {
  GsiRoutes found;
  {
    const SpinGuard guard(routing_lock_);
    found = routing_.find(gsi);
  }
  for (unsigned index = 0; index < found.count; ++index) {
    const Route& route = found.routes[index];
    switch (route.kind) {
      case Route::Kind::Pic: set_pic_irq(source, route.pin, level); break;
      case Route::Kind::Ioapic: set_ioapic_pin(source, route.pin, level); break;
      case Route::Kind::Msi:
        if (level) (void)signal_msi(route.address, route.data);
        break;
    }
  }
}

bool IrqChip::set_routing(const kvm_irq_routing_entry* entries, size_t count) {
  {
    const SpinGuard guard(routing_lock_);
    if (!routing_.set(entries, count)) return false;
    irq0_pins_.store(routing_.ioapic_pins(kIrq0));
  }
  const SpinGuard guard(ioapic_lock_);
  track_irq0_vector();
  return true;
}

void IrqChip::set_pic_irq(uint32_t source, uint8_t irq, bool level) {
  PicChanges changes;
  {
    const SpinGuard guard(pic_lock_);
    uint32_t& sources = pic_sources_[irq];
    sources = level ? sources | 1u << source : sources & ~(1u << source);
    pic_.set_irq(irq, sources != 0);
    changes = collect_pic_changes();
  }
  apply(changes);
}

// Under the PIC lock, after anything that may have changed the 8259s.
IrqChip::PicChanges IrqChip::collect_pic_changes() {
  PicChanges changes;
  const bool output = pic_.output();
  changes.output_rose = output && !pic_output_.exchange(output);
  if (!output) pic_output_.store(false);
  changes.irq0_completed = pic_.take_completed() & 1u << kIrq0;
  return changes;
}

void IrqChip::apply(const PicChanges& changes) {
  if (changes.output_rose) {
    for_each_vcpu([&](uint32_t vcpu) {
      if (lapics_[vcpu].lint0_rise()) lapics_[vcpu].wake();
    });
  }
  if (changes.irq0_unmasked && has_pit()) {
    const SpinGuard guard(pit_lock_);
    pit_.irq0_unmasked();
  }
  if (changes.irq0_completed) acknowledge_irq0();
}

void IrqChip::set_ioapic_pin(uint32_t source, uint8_t pin, bool level) {
  SinkContext context{this, {}};
  {
    const SpinGuard guard(ioapic_lock_);
    uint32_t& sources = ioapic_sources_[pin];
    sources = level ? sources | 1u << source : sources & ~(1u << source);
    ioapic_.set_pin(pin, sources != 0, {sink_deliver, &context});
  }
  wake(context.wakes);
}

void IrqChip::write_ioapic(uint64_t gpa, uint32_t value) {
  SinkContext context{this, {}};
  bool unmasked = false;
  {
    const SpinGuard guard(ioapic_lock_);
    const bool was_masked = irq0_masked_at_ioapic();
    ioapic_.write(gpa, value, {sink_deliver, &context});
    unmasked = was_masked && !irq0_masked_at_ioapic();
    track_irq0_vector();
  }
  wake(context.wakes);
  apply({.irq0_unmasked = unmasked});
}

bool IrqChip::irq0_masked_at_ioapic() const {
  const uint32_t pins = irq0_pins_.load();
  return pins == 0 || ioapic_.masked(static_cast<unsigned>(__builtin_ctz(pins)));
}

void IrqChip::track_irq0_vector() {
  const uint32_t pins = irq0_pins_.load();
  irq0_vector_.store(pins == 0 ? 0 : ioapic_.vector(static_cast<unsigned>(__builtin_ctz(pins))));
}

void IrqChip::end_of_interrupt(uint8_t vector, bool level_triggered) {
  if (level_triggered) {
    SinkContext context{this, {}};
    {
      const SpinGuard guard(ioapic_lock_);
      ioapic_.end_of_interrupt(vector, {sink_deliver, &context});
    }
    wake(context.wakes);
  }
  if (vector == irq0_vector_.load(std::memory_order_relaxed)) acknowledge_irq0();
}

// --- The vCPU loop ---

bool IrqChip::has_interrupt(uint32_t vcpu) const {
  const Lapic& lapic = lapics_[vcpu];
  return (pic_output_.load() && lapic.accepts_extint()) || lapic.pending_interrupt() >= 0;
}

int IrqChip::take_interrupt(uint32_t vcpu) {
  Lapic& lapic = lapics_[vcpu];
  if (pic_output_.load() && lapic.accepts_extint()) {
    int vector = -1;
    PicChanges changes;
    {
      const SpinGuard guard(pic_lock_);
      if (pic_.output()) vector = pic_.acknowledge();
      changes = collect_pic_changes();
    }
    apply(changes);
    if (vector >= 0) return vector;
  }
  const int vector = lapic.pending_interrupt();
  if (vector >= 0) lapic.acknowledge(static_cast<uint8_t>(vector));
  return vector;
}

// --- Ports ---

bool IrqChip::owns_pit_port(uint16_t port) const { return has_pit() && I8254::owns(port) && (pit_port_b_ || port != I8254::kPortB); }

bool IrqChip::owns_port(uint16_t port) const { return I8259Pair::owns(port) || owns_pit_port(port); }

uint8_t IrqChip::read_port(uint16_t port) {
  if (I8259Pair::owns(port)) {
    PicChanges changes;
    uint8_t value = 0;
    {
      const SpinGuard guard(pic_lock_);
      value = pic_.read(port);  // a poll acknowledges
      changes = collect_pic_changes();
    }
    apply(changes);
    return value;
  }
  const SpinGuard guard(pit_lock_);
  return pit_.read(port, now());
}

void IrqChip::write_port(uint16_t port, uint8_t value) {
  if (I8259Pair::owns(port)) {
    PicChanges changes;
    {
      const SpinGuard guard(pic_lock_);
      const bool was_masked = pic_.masked(kIrq0);
      pic_.write(port, value);
      changes = collect_pic_changes();
      changes.irq0_unmasked = was_masked && !pic_.masked(kIrq0);
    }
    apply(changes);
    return;
  }
  {
    const SpinGuard guard(pit_lock_);
    pit_.write(port, value, now());
  }
  if (host_.pit_changed) host_.pit_changed(host_.context);
}

bool IrqChip::port_read(uint16_t port, unsigned size, uint32_t& value) {
  if (!owns_port(port)) return false;
  value = 0;
  for (unsigned byte = 0; byte < size; ++byte) {
    const auto at = static_cast<uint16_t>(port + byte);
    value |= static_cast<uint32_t>(owns_port(at) ? read_port(at) : 0xff) << 8 * byte;
  }
  return true;
}

bool IrqChip::port_write(uint16_t port, unsigned size, uint32_t value) {
  if (!owns_port(port)) return false;
  for (unsigned byte = 0; byte < size; ++byte) {
    const auto at = static_cast<uint16_t>(port + byte);
    if (owns_port(at)) write_port(at, static_cast<uint8_t>(value >> 8 * byte));
  }
  return true;
}

// --- Memory-mapped registers ---

bool IrqChip::mmio_read(uint32_t vcpu, uint64_t gpa, unsigned size, uint64_t& value) {
  if (lapics_[vcpu].owns(gpa)) {
    value = lapics_[vcpu].mmio_read(gpa, size);
    return true;
  }
  const SpinGuard guard(ioapic_lock_);
  if (!ioapic_.owns(gpa)) return false;
  const unsigned part = gpa & 0xf;
  value = part < 4 ? ioapic_.read(gpa - part) >> 8 * part : 0;
  return true;
}

bool IrqChip::mmio_write(uint32_t vcpu, uint64_t gpa, unsigned size, uint64_t value) {
  if (lapics_[vcpu].owns(gpa)) {
    lapics_[vcpu].mmio_write(gpa, size, value);
    return true;
  }
  // The IOAPIC cannot be moved, so that its window needs no lock.
  if (gpa - Ioapic::kDefaultBase >= Ioapic::kWindowSize) return false;
  const uint32_t mask = size >= 4 ? UINT32_MAX : (1u << 8 * size) - 1;
  write_ioapic(gpa, static_cast<uint32_t>(value) & mask);
  return true;
}

// --- The 8254 ---

void IrqChip::create_pit(bool port_b) {
  {
    const SpinGuard guard(pit_lock_);
    pit_.reset(now());
    pit_port_b_ = port_b;
  }
  has_pit_.store(true, std::memory_order_release);
}

void IrqChip::set_pit_reinject(bool reinject) {
  const SpinGuard guard(pit_lock_);
  pit_.set_reinject(reinject);
}

uint64_t IrqChip::next_pit_deadline_ns() {
  if (!has_pit()) return UINT64_MAX;
  const SpinGuard guard(pit_lock_);
  return pit_.next_deadline_ns();
}

void IrqChip::expire_pit(uint64_t now_ns) {
  if (!has_pit()) return;
  bool pulse = false;
  {
    const SpinGuard guard(pit_lock_);
    pulse = pit_.expire(now_ns);
  }
  if (pulse) pulse_irq0();
}

void IrqChip::acknowledge_irq0() {
  if (!has_pit()) return;
  bool pulse = false;
  {
    const SpinGuard guard(pit_lock_);
    pulse = pit_.acknowledge();
  }
  if (pulse) pulse_irq0();
}

void IrqChip::pulse_irq0() {
  set_irq(kPitSource, kIrq0, true);
  set_irq(kPitSource, kIrq0, false);
}

// --- State ---

bool IrqChip::get_irqchip(kvm_irqchip& chip) {
  switch (chip.chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE: {
      const SpinGuard guard(pic_lock_);
      chip.chip.pic = pic_.get_state(chip.chip_id == KVM_IRQCHIP_PIC_SLAVE);
      return true;
    }
    case KVM_IRQCHIP_IOAPIC: {
      const SpinGuard guard(ioapic_lock_);
      ioapic_.get_state(chip.chip.ioapic);
      return true;
    }
    default: return false;
  }
}

bool IrqChip::set_irqchip(const kvm_irqchip& chip) {
  if (chip.chip_id == KVM_IRQCHIP_PIC_MASTER || chip.chip_id == KVM_IRQCHIP_PIC_SLAVE) {
    PicChanges changes;
    {
      const SpinGuard guard(pic_lock_);
      pic_.set_state(chip.chip_id == KVM_IRQCHIP_PIC_SLAVE, chip.chip.pic);
      changes = collect_pic_changes();
    }
    apply(changes);
    return true;
  }
  if (chip.chip_id != KVM_IRQCHIP_IOAPIC) return false;
  SinkContext context{this, {}};
  {
    const SpinGuard guard(ioapic_lock_);
    ioapic_.set_state(chip.chip.ioapic, {sink_deliver, &context});
    track_irq0_vector();
  }
  wake(context.wakes);
  return true;
}

void IrqChip::get_pit(kvm_pit_state2& state) {
  const SpinGuard guard(pit_lock_);
  state = pit_.get_state();
}

void IrqChip::set_pit(const kvm_pit_state2& state) {
  {
    const SpinGuard guard(pit_lock_);
    pit_.set_state(state, now());
  }
  if (host_.pit_changed) host_.pit_changed(host_.context);
}

}  // namespace lodge::engine::soft
