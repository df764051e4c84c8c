#include "engine/soft/irqchip/irqchip.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "engine/soft/irqchip/fake_vm.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint32_t kLevel = 1u << 15;
constexpr uint32_t kMasked = 1u << 16;

kvm_irq_routing_entry pin_route(uint32_t gsi, uint32_t chip, uint32_t pin) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_IRQCHIP;
  entry.u.irqchip = {.irqchip = chip, .pin = pin};
  return entry;
}

kvm_irq_routing_entry msi_route(uint32_t gsi, uint32_t address, uint32_t data) {
  kvm_irq_routing_entry entry{};
  entry.gsi = gsi;
  entry.type = KVM_IRQ_ROUTING_MSI;
  entry.u.msi.address_lo = address;
  entry.u.msi.data = data;
  return entry;
}

void send(FakeVm& vm, uint32_t source, uint32_t icr, uint8_t destination = 0) {
  vm.write(source, 0x310, uint32_t{destination} << 24);
  vm.write(source, 0x300, icr);
}

bool pending(FakeVm& vm, uint32_t vcpu) { return vm.chip->lapic(vcpu).pending_interrupt() >= 0; }

// --- Lines and routing ---

TEST(IrqChip, DefaultRoutingFeedsPicAndIoapicAlike) {
  FakeVm vm(1);
  vm.init_pics();
  vm.enable(0);
  vm.redirect(4, 0x34);
  vm.chip->set_irq(0, 4, true);
  EXPECT_TRUE(vm.chip->has_interrupt(0));
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x24);  // ExtINT first
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x34);
  EXPECT_EQ(vm.chip->take_interrupt(0), -1);
  vm.redirect(17, 0x51);
  vm.chip->set_irq(0, 17, true);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x51);
}

TEST(IrqChip, SourcesOfALineAreOred) {
  FakeVm vm(1);
  vm.enable(0);
  vm.redirect(20, kLevel | 0x60);
  vm.chip->set_irq(1, 20, true);
  vm.chip->set_irq(2, 20, true);
  vm.chip->set_irq(1, 20, false);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x60);
  vm.write(0, 0x0b0, 0);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x60);  // source 2 still holds it
  vm.chip->set_irq(2, 20, false);
  vm.write(0, 0x0b0, 0);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
}

TEST(IrqChip, EoiBroadcastCannotBeSuppressed) {
  FakeVm vm(1);
  vm.enable(0);
  vm.write(0, 0x0f0, 0x11ff);
  EXPECT_EQ(vm.read(0, 0x0f0), 0x1ffu);
  vm.redirect(20, kLevel | 0x60);
  vm.chip->set_irq(0, 20, true);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x60);
  EXPECT_TRUE(vm.chip->mmio_write(0, 0xfec00040, 4, 0x60));  // directed EOI: not in version 0x11
  EXPECT_FALSE(vm.chip->has_interrupt(0));
  vm.write(0, 0x0b0, 0);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x60);
}

TEST(IrqChip, RoutingIsReplacedAsAWhole) {
  FakeVm vm(1);
  vm.enable(0);
  vm.redirect(2, 0x30);
  const kvm_irq_routing_entry entries[] = {pin_route(0, KVM_IRQCHIP_IOAPIC, 2), pin_route(0, KVM_IRQCHIP_PIC_MASTER, 0),
                                           msi_route(4095, 0xfee00000, 0x71)};
  ASSERT_TRUE(vm.chip->set_routing(entries, 3));
  vm.chip->set_irq(0, 0, true);
  EXPECT_EQ(vm.chip->lapic(0).pending_interrupt(), 0x30);
  vm.chip->lapic(0).acknowledge(0x30);
  vm.chip->set_irq(0, 4095, true);
  vm.chip->set_irq(0, 4095, false);
  EXPECT_EQ(vm.chip->lapic(0).pending_interrupt(), 0x71);
}

TEST(IrqChip, InvalidRoutingLeavesTheTableAlone) {
  FakeVm vm(1);
  vm.enable(0);
  vm.redirect(17, 0x51);
  const std::vector<std::vector<kvm_irq_routing_entry>> bad = {
      {pin_route(0, KVM_IRQCHIP_IOAPIC, 24)},
      {pin_route(0, KVM_IRQCHIP_PIC_SLAVE, 8)},
      {pin_route(0, 3, 0)},
      {pin_route(4096, KVM_IRQCHIP_IOAPIC, 1)},
      {pin_route(1, KVM_IRQCHIP_IOAPIC, 1), pin_route(1, KVM_IRQCHIP_IOAPIC, 2)},
      {msi_route(1, 0xfee00000, 0x40), pin_route(1, KVM_IRQCHIP_IOAPIC, 2)},
      {pin_route(1, KVM_IRQCHIP_IOAPIC, 2), msi_route(1, 0xfee00000, 0x40)},
      std::vector<kvm_irq_routing_entry>(4097, pin_route(1, KVM_IRQCHIP_IOAPIC, 1)),
  };
  for (const auto& entries : bad) EXPECT_FALSE(vm.chip->set_routing(entries.data(), entries.size()));
  vm.chip->set_irq(0, 17, true);
  EXPECT_TRUE(pending(vm, 0));
}

// --- MSI ---

TEST(IrqChip, MsiReachesItsDestination) {
  FakeVm vm(2);
  vm.enable(0);
  vm.enable(1);
  EXPECT_TRUE(vm.chip->signal_msi(0xfee01000, 0x45));
  EXPECT_FALSE(pending(vm, 0));
  EXPECT_EQ(vm.chip->take_interrupt(1), 0x45);
  EXPECT_EQ(vm.vcpus[0].wakes, 0u);
  EXPECT_EQ(vm.vcpus[1].wakes, 1u);
  EXPECT_FALSE(vm.chip->signal_msi(0xfee05000, 0x45));  // nobody
  EXPECT_FALSE(vm.chip->signal_msi(0xfed00000, 0x45));  // no MSI address
  EXPECT_TRUE(vm.chip->signal_msi(0xfee00000, 0x400));  // NMI
  EXPECT_TRUE(vm.chip->lapic(0).take_nmi());
}

TEST(IrqChip, EightBitBroadcastReachesX2apics) {
  FakeVm vm(2);
  vm.enable(0);
  ASSERT_TRUE(vm.chip->lapic(1).write_msr(0x1b, 0xfee00c00));
  ASSERT_TRUE(vm.chip->lapic(1).write_msr(0x80f, 0x1ff));
  EXPECT_TRUE(vm.chip->signal_msi(0xfeeff000, 0x45));
  EXPECT_TRUE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
}

// --- IPIs ---

TEST(IrqChip, Shorthands) {
  const struct {
    uint32_t shorthand;
    bool expected[3];
  } cases[] = {{1, {false, true, false}}, {2, {true, true, true}}, {3, {true, false, true}}};
  for (const auto& [shorthand, expected] : cases) {
    FakeVm vm(3);
    for (uint32_t id = 0; id < 3; ++id) vm.enable(id);
    send(vm, 1, shorthand << 18 | 0x40, 0);
    for (uint32_t id = 0; id < 3; ++id) EXPECT_EQ(pending(vm, id), expected[id]) << shorthand << " " << id;
  }
}

TEST(IrqChip, PhysicalDestination) {
  FakeVm vm(3);
  for (uint32_t id = 0; id < 3; ++id) vm.enable(id);
  send(vm, 0, 0x40, 2);
  EXPECT_FALSE(pending(vm, 1));
  EXPECT_TRUE(pending(vm, 2));
  send(vm, 0, 0x41, 0xff);
  EXPECT_TRUE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
}

TEST(IrqChip, LogicalFlatDestination) {
  FakeVm vm(3);
  for (uint32_t id = 0; id < 3; ++id) {
    vm.enable(id);
    vm.write(id, 0x0d0, 1u << (24 + id));
  }
  send(vm, 0, 0x840, 0x06);
  EXPECT_FALSE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
  EXPECT_TRUE(pending(vm, 2));
}

TEST(IrqChip, LogicalClusterDestination) {
  FakeVm vm(3);
  const uint32_t logical_ids[] = {0x11, 0x12, 0x21};
  for (uint32_t id = 0; id < 3; ++id) {
    vm.enable(id);
    vm.write(id, 0x0e0, 0x0fffffff);
    vm.write(id, 0x0d0, logical_ids[id] << 24);
  }
  send(vm, 0, 0x840, 0x13);
  EXPECT_TRUE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
  EXPECT_FALSE(pending(vm, 2));
}

TEST(IrqChip, X2apicLogicalAndBroadcastDestinations) {
  FakeVm vm(3);
  for (uint32_t id = 0; id < 3; ++id) {
    ASSERT_TRUE(vm.chip->lapic(id).write_msr(0x1b, 0xfee00c00));
    ASSERT_TRUE(vm.chip->lapic(id).write_msr(0x80f, 0x1ff));
  }
  ASSERT_TRUE(vm.chip->lapic(0).write_msr(0x830, 0x0000000600000840));
  EXPECT_FALSE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
  EXPECT_TRUE(pending(vm, 2));
  ASSERT_TRUE(vm.chip->lapic(0).write_msr(0x830, 0x000000ff00000041));  // no broadcast with 32 bits
  EXPECT_FALSE(pending(vm, 0));
  ASSERT_TRUE(vm.chip->lapic(0).write_msr(0x830, 0xffffffff00000041));
  EXPECT_TRUE(pending(vm, 0));
}

TEST(IrqChip, LowestPriorityGoesToTheLeastBusyAndThenInTurn) {
  FakeVm vm(3);
  for (uint32_t id = 0; id < 3; ++id) vm.enable(id);
  vm.write(0, 0x080, 0x50);
  vm.write(1, 0x080, 0x20);
  vm.write(2, 0x080, 0x50);
  send(vm, 0, 0x160, 0xff);
  EXPECT_FALSE(pending(vm, 0));
  EXPECT_TRUE(pending(vm, 1));
  EXPECT_FALSE(pending(vm, 2));
  vm.write(1, 0x080, 0x50);
  send(vm, 0, 0x161, 0xff);
  EXPECT_TRUE(pending(vm, 2));  // equals: the turn is after vCPU 1
  send(vm, 0, 0x162, 0xff);
  EXPECT_TRUE(pending(vm, 0));
}

TEST(IrqChip, LowestPriorityPassesOverDisabledApics) {
  FakeVm vm(2);
  vm.enable(1);
  vm.redirect(20, 0x100 | 0x60, 0xff);
  vm.chip->set_irq(0, 20, true);
  EXPECT_TRUE(pending(vm, 1));
}

TEST(IrqChip, SecondaryProcessorIsStartedAsLinuxDoes) {
  FakeVm vm(2);
  vm.enable(0);
  Lapic& secondary = vm.chip->lapic(1);
  send(vm, 0, 0xc500, 1);  // INIT, assert
  EXPECT_TRUE(secondary.take_init());
  send(vm, 0, 0x8500, 1);  // INIT, de-assert
  EXPECT_FALSE(secondary.take_init());
  send(vm, 0, 0x0699, 1);
  uint8_t vector = 0;
  EXPECT_TRUE(secondary.take_sipi(vector));
  EXPECT_EQ(vector, 0x99);
  EXPECT_GE(vm.vcpus[1].wakes, 2u);
}

TEST(IrqChip, DetachedVcpuIsNoTarget) {
  FakeVm vm(2);
  vm.enable(0);
  vm.enable(1);
  vm.chip->detach_vcpu(1);
  EXPECT_FALSE(vm.chip->signal_msi(0xfee01000, 0x45));
}

// --- LINT0 ---

TEST(IrqChip, VirtualWireReachesOnlyProcessorsWithAnOpenLint0) {
  FakeVm vm(2);
  vm.init_pics();
  vm.chip->set_irq(0, 3, true);
  EXPECT_TRUE(vm.chip->has_interrupt(0));
  EXPECT_FALSE(vm.chip->has_interrupt(1));
  EXPECT_EQ(vm.vcpus[0].wakes, 1u);
  EXPECT_EQ(vm.vcpus[1].wakes, 0u);
  vm.enable(0);
  vm.write(0, 0x350, kMasked | 0x700);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
  EXPECT_EQ(vm.chip->take_interrupt(0), -1);
  vm.write(0, 0x350, 0x700);
  EXPECT_EQ(vm.vcpus[0].wakes, 2u);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x23);
}

TEST(IrqChip, Lint0InFixedAndNmiModeFollowsTheRise) {
  FakeVm vm(1);
  vm.init_pics();
  vm.enable(0);
  vm.write(0, 0x350, 0x35);
  vm.chip->set_irq(0, 3, true);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x35);
  vm.out(0x21, 0xff);
  vm.write(0, 0x350, 0x400);
  vm.out(0x21, 0x00);
  EXPECT_TRUE(vm.chip->lapic(0).take_nmi());
}

// --- The 8254 ---

TEST(IrqChip, PitTicksThroughThePicAndReinjectsAtEoi) {
  FakeVm vm(1);
  vm.chip->create_pit(true);
  vm.init_pics();
  vm.out(0x43, 0x34);
  vm.out(0x40, 0x9c);
  vm.out(0x40, 0x2e);  // 11932: about 100 Hz
  EXPECT_EQ(vm.pit_changes, 3u);
  const uint64_t first = vm.chip->next_pit_deadline_ns();
  vm.chip->expire_pit(first - 1);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
  vm.chip->expire_pit(first);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x20);
  vm.chip->expire_pit(vm.chip->next_pit_deadline_ns());
  vm.chip->expire_pit(vm.chip->next_pit_deadline_ns());
  EXPECT_FALSE(vm.chip->has_interrupt(0));
  vm.out(0x20, 0x20);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x20);
  vm.out(0x20, 0x20);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x20);
  vm.out(0x20, 0x20);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
}

TEST(IrqChip, PitTicksThroughTheIoapicAndReinjectsAtEoi) {
  FakeVm vm(1);
  vm.chip->create_pit(true);
  vm.init_pics();
  vm.out(0x21, 0xff);
  vm.enable(0);
  const kvm_irq_routing_entry entries[] = {pin_route(0, KVM_IRQCHIP_IOAPIC, 2), pin_route(0, KVM_IRQCHIP_PIC_MASTER, 0)};
  ASSERT_TRUE(vm.chip->set_routing(entries, 2));
  vm.redirect(2, 0x30);
  vm.out(0x43, 0x34);
  vm.out(0x40, 0x00);
  vm.out(0x40, 0x10);
  vm.chip->expire_pit(vm.chip->next_pit_deadline_ns());
  vm.chip->expire_pit(vm.chip->next_pit_deadline_ns());
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x30);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
  vm.write(0, 0x0b0, 0);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x30);
  vm.write(0, 0x0b0, 0);
  EXPECT_FALSE(vm.chip->has_interrupt(0));
}

TEST(IrqChip, UnmaskingIrq0StartsAfresh) {
  FakeVm vm(1);
  vm.chip->create_pit(true);
  vm.init_pics();
  vm.out(0x21, 0x01);
  vm.out(0x43, 0x34);
  vm.out(0x40, 0x00);
  vm.out(0x40, 0x10);
  for (int tick = 0; tick < 5; ++tick) vm.chip->expire_pit(vm.chip->next_pit_deadline_ns());
  vm.out(0x21, 0x00);
  EXPECT_EQ(vm.chip->take_interrupt(0), 0x20);  // the edge that the 8259 latched
  vm.out(0x20, 0x20);
  EXPECT_FALSE(vm.chip->has_interrupt(0));  // but none of those that were owed
}

// --- Ports and state ---

TEST(IrqChip, OwnsItsPortsOnly) {
  FakeVm vm(1);
  uint32_t value = 0;
  EXPECT_FALSE(vm.chip->port_read(0x40, 1, value));  // no PIT yet
  vm.chip->create_pit(false);
  EXPECT_TRUE(vm.chip->port_read(0x40, 1, value));
  EXPECT_FALSE(vm.chip->port_read(0x61, 1, value));
  EXPECT_FALSE(vm.chip->port_write(0x80, 1, 0));
  vm.out(0x4d0, 0x20);
  vm.out(0x4d1, 0x04);
  EXPECT_TRUE(vm.chip->port_read(0x4d0, 2, value));
  EXPECT_EQ(value, 0x0420u);
  uint64_t wide = 0;
  EXPECT_FALSE(vm.chip->mmio_read(0, 0xfec00100, 4, wide));
  EXPECT_FALSE(vm.chip->mmio_write(0, 0xfebfffff, 4, 0));
}

TEST(IrqChip, StateMovesToAnotherVm) {
  FakeVm vm(1);
  vm.init_pics();
  vm.enable(0);
  vm.redirect(20, kLevel | kMasked | 0x60);
  vm.chip->set_irq(0, 20, true);
  vm.chip->set_irq(0, 3, true);
  FakeVm other(1);
  other.enable(0);
  for (uint32_t id = 0; id < KVM_NR_IRQCHIPS; ++id) {
    kvm_irqchip chip{};
    chip.chip_id = id;
    ASSERT_TRUE(vm.chip->get_irqchip(chip));
    ASSERT_TRUE(other.chip->set_irqchip(chip));
  }
  EXPECT_EQ(other.chip->take_interrupt(0), 0x23);
  other.redirect(20, kLevel | 0x60);
  EXPECT_EQ(other.chip->take_interrupt(0), 0x60);
  kvm_irqchip none{};
  none.chip_id = 3;
  EXPECT_FALSE(other.chip->get_irqchip(none));
  EXPECT_FALSE(other.chip->set_irqchip(none));
}

// Every interrupt sent by several threads is counted once: a level line re-delivers until its source lets go.
TEST(IrqChip, ConcurrentSendersLoseNothing) {
  FakeVm vm(1);
  vm.enable(0);
  constexpr int kThreads = 4;
  constexpr int kRounds = 2000;
  std::atomic<int> sent[kThreads] = {};
  std::atomic<int> taken[kThreads] = {};
  std::vector<std::thread> senders;
  for (int index = 0; index < kThreads; ++index) {
    senders.emplace_back([&, index] {
      InterruptMessage message;
      message.vector = static_cast<uint8_t>(0x40 + 0x10 * index);
      for (int round = 0; round < kRounds; ++round) {
        while (taken[index].load() != round) std::this_thread::yield();
        sent[index].fetch_add(1);
        EXPECT_TRUE(vm.chip->lapic(0).accept(message));
        vm.chip->set_irq(static_cast<uint32_t>(index), 20, round % 2 == 0);  // contends for the IOAPIC's lock
      }
    });
  }
  for (int total = 0; total < kThreads * kRounds;) {
    const int vector = vm.chip->take_interrupt(0);
    if (vector < 0) {
      std::this_thread::yield();
      continue;
    }
    const int index = (vector - 0x40) / 0x10;
    EXPECT_EQ(sent[index].load(), taken[index].load() + 1);
    vm.write(0, 0x0b0, 0);
    taken[index].fetch_add(1);
    ++total;
  }
  for (auto& sender : senders) sender.join();
  EXPECT_FALSE(vm.chip->has_interrupt(0));
}

}  // namespace
}  // namespace lodge::engine::soft
