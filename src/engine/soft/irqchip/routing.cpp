#include "engine/soft/irqchip/routing.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint8_t kPicPins = 8;

bool parse(const kvm_irq_routing_entry& entry, Route& route) {
  route = Route{};
  if (entry.gsi >= RoutingTable::kGsis) return false;
  if (entry.type == KVM_IRQ_ROUTING_MSI) {
    route.kind = Route::Kind::Msi;
    route.address = entry.u.msi.address_lo | static_cast<uint64_t>(entry.u.msi.address_hi) << 32;
    route.data = entry.u.msi.data;
    return true;
  }
  if (entry.type != KVM_IRQ_ROUTING_IRQCHIP) return false;
  const uint32_t pin = entry.u.irqchip.pin;
  switch (entry.u.irqchip.irqchip) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE:
      if (pin >= kPicPins) return false;
      route.kind = Route::Kind::Pic;
      route.pin = static_cast<uint8_t>(pin + (entry.u.irqchip.irqchip == KVM_IRQCHIP_PIC_SLAVE ? kPicPins : 0));
      return true;
    case KVM_IRQCHIP_IOAPIC:
      if (pin >= KVM_IOAPIC_NUM_PINS) return false;
      route.kind = Route::Kind::Ioapic;
      route.pin = static_cast<uint8_t>(pin);
      return true;
    default: return false;
  }
}

// Which of the chips of struct kvm_irqchip a route leads to; an MSI shares a GSI with nothing.
uint8_t chips_of(const Route& route) {
  switch (route.kind) {
    case Route::Kind::Pic: return route.pin < kPicPins ? 1 << KVM_IRQCHIP_PIC_MASTER : 1 << KVM_IRQCHIP_PIC_SLAVE;
    case Route::Kind::Ioapic: return 1 << KVM_IRQCHIP_IOAPIC;
    case Route::Kind::Msi: break;
  }
  return 0xff;
}

}  // namespace

void RoutingTable::clear() {
  for (auto& first : first_) first = kEnd;
  used_ = 0;
}

void RoutingTable::add(uint32_t gsi, const Route& route) {
  entries_[used_].route = route;
  entries_[used_].next = first_[gsi];
  first_[gsi] = static_cast<uint16_t>(used_++);
}

void RoutingTable::set_default() {
  clear();
  for (uint8_t gsi = 0; gsi < KVM_IOAPIC_NUM_PINS; ++gsi) {
    Route route;
    route.pin = gsi;
    if (gsi < 2 * kPicPins) add(gsi, route);
    route.kind = Route::Kind::Ioapic;
    add(gsi, route);
  }
}

bool RoutingTable::set(const kvm_irq_routing_entry* entries, size_t count) {
  if (count > kEntries) return false;
  Route route;
  // Check everything before anything changes.
  uint8_t chips[kGsis];
  for (auto& mask : chips) mask = 0;
  for (size_t index = 0; index < count; ++index) {
    if (!parse(entries[index], route)) return false;
    uint8_t& mask = chips[entries[index].gsi];
    if (mask & chips_of(route)) return false;
    mask |= chips_of(route);
  }
  clear();
  for (size_t index = count; index-- > 0;) {
    (void)parse(entries[index], route);
    add(entries[index].gsi, route);
  }
  return true;
}

GsiRoutes RoutingTable::find(uint32_t gsi) const {
  GsiRoutes found;
  if (gsi >= kGsis) return found;
  for (uint16_t index = first_[gsi]; index != kEnd && found.count < GsiRoutes::kMost; index = entries_[index].next) {
    found.routes[found.count++] = entries_[index].route;
  }
  return found;
}

uint32_t RoutingTable::ioapic_pins(uint32_t gsi) const {
  uint32_t pins = 0;
  const GsiRoutes found = find(gsi);
  for (unsigned index = 0; index < found.count; ++index) {
    if (found.routes[index].kind == Route::Kind::Ioapic) pins |= 1u << found.routes[index].pin;
  }
  return pins;
}

}  // namespace lodge::engine::soft
