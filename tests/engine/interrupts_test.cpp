// Interrupts: shadows, NMI, the 8259 pair, the IOAPIC, the local APIC in both its modes with its timer, the 8254, MSI.
#include <linux/kvm.h>

#include "guest.hpp"

namespace lodge::engine::suite {
namespace {

constexpr uint32_t kVector = 0x50;
constexpr uint64_t kLvtTimer = 0x320, kLvt0 = 0x350, kSpurious = 0xf0;

PAYLOAD(eoi_code, 64, "mov $0xfee000b0, %ebx\n movl $0, (%rbx)\n sti\n nop\n nop\n nop\n" REPORT)
PAYLOAD(eoi_and_wait, 64, "mov $0xfee000b0, %ebx\n movl $0, (%rbx)\n sti\n 1: hlt\n jmp 1b\n")
PAYLOAD(eoi_and_halt, 64, "mov $0xfee000b0, %ebx\n movl $0, (%rbx)\n sti\n 1: hlt\n jmp 1b\n")

class Interrupts : public testing::Test {
 protected:
  Guest guest{Mode::Long};

  // Software-enabled, and LINT0 masked: after reset the 8259 pair reaches the processor through it (ExtINT), and a GSI below
  // 16 raises both the 8259's pin and the IOAPIC's.
  void enable_apic() {
    write_apic(kSpurious, 0x1ff);
    write_apic(kLvt0, 0x10700);
  }
  void write_apic(uint64_t offset, uint32_t value) {
    kvm_lapic_state lapic = must(guest.vcpu().get_lapic());
    std::memcpy(lapic.regs + offset, &value, sizeof value);
    must(guest.vcpu().set_lapic(lapic));
  }
  uint32_t read_apic(uint64_t offset) {
    const kvm_lapic_state lapic = must(guest.vcpu().get_lapic());
    uint32_t value;
    std::memcpy(&value, lapic.regs + offset, sizeof value);
    return value;
  }
  void send_msi(uint32_t vector) {
    kvm_msi msi = {};
    msi.address_lo = kApic;  // destination 0, physical
    msi.data = vector;       // fixed, edge
    must(guest.vm().signal_msi(msi));
  }
  void expect_interrupt(uint32_t vector, uint64_t rip_offset) {
    const Stop stop = guest.run();
    ASSERT_EQ(stop.vector, static_cast<int>(vector)) << stop;
    EXPECT_EQ(guest.frame(stop.vector).rip, kCode + rip_offset);
    EXPECT_EQ(guest.regs().rflags & kIf, 0u);
  }
};

PAYLOAD(sti_code, 64, "nop\n sti\n inc %rax\n inc %rbx\n inc %rcx\n" REPORT)
TEST_F(Interrupts, StiHoldsThemOffForOneInstruction) {
  enable_apic();
  guest.load(sti_code());
  send_msi(kVector);
  expect_interrupt(kVector, 5);
  EXPECT_EQ(guest.regs().rax, 1u);
  EXPECT_EQ(guest.regs().rbx, 0u);
}

PAYLOAD(count_code, 64, "inc %rax\n inc %rbx\n inc %rcx\n" REPORT)
TEST_F(Interrupts, PendingOneComesBeforeTheFirstInstruction) {
  enable_apic();
  guest.load(count_code());
  guest.change_regs([](kvm_regs& r) { r.rflags |= kIf; });
  send_msi(kVector);
  expect_interrupt(kVector, 0);
}

TEST_F(Interrupts, ShadowIsPartOfTheState) {
  NEEDS_SILICON("VMRUN drops the interrupt shadow");
  enable_apic();
  guest.load(count_code());
  guest.change_regs([](kvm_regs& r) { r.rflags |= kIf; });
  kvm_vcpu_events events = must(guest.vcpu().get_vcpu_events());
  events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
  events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
  must(guest.vcpu().set_vcpu_events(events));
  EXPECT_NE(must(guest.vcpu().get_vcpu_events()).interrupt.shadow, 0);
  send_msi(kVector);
  expect_interrupt(kVector, 3);
}

TEST_F(Interrupts, MaskedOnesStayPending) {
  enable_apic();
  guest.load(count_code());
  send_msi(kVector);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(read_apic(0x200 + 0x10 * (kVector / 32)), 1u << (kVector % 32));  // IRR
}

PAYLOAD(halt_code, 64, "sti\n hlt\n inc %rax\n" REPORT)
TEST_F(Interrupts, WakeAHalt) {
  enable_apic();
  guest.load(halt_code());
  std::jthread sender([&] { send_msi(kVector); });
  expect_interrupt(kVector, 2);
  sender.join();
  EXPECT_EQ(must(guest.vcpu().get_mp_state()).mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
}

PAYLOAD(tpr_code, 64, "mov $15, %eax\n mov %rax, %cr8\n sti\n nop\n nop\n xor %eax, %eax\n mov %rax, %cr8\n nop\n nop\n" REPORT)
TEST_F(Interrupts, TaskPriorityHoldsThemOff) {
  NEEDS_SILICON("an assertion of its own fails when a nested guest lowers CR8");
  enable_apic();
  guest.load(tpr_code());
  send_msi(kVector);
  expect_interrupt(kVector, 18);
  EXPECT_EQ(guest.sregs().cr8, 0u);
}

PAYLOAD(iretq_code, 64, "iretq\n")
TEST_F(Interrupts, NmiIsBlockedUntilIret) {
  guest.load(count_code());
  must(guest.vcpu().nmi());
  ASSERT_EQ(guest.run().vector, NMI);
  EXPECT_EQ(guest.frame(NMI).rip, kCode);
  EXPECT_EQ(must(guest.vcpu().get_vcpu_events()).nmi.masked, 1);
  must(guest.vcpu().nmi());
  // In the handler a second one waits; after IRET it comes at once.
  guest.load(iretq_code(), 0x8800);
  ASSERT_EQ(guest.run().vector, NMI);
  EXPECT_EQ(guest.frame(NMI).rip, kCode);
  guest.load(iretq_code(), 0x8800);
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rax, 1u);
  EXPECT_EQ(must(guest.vcpu().get_vcpu_events()).nmi.masked, 0);
}

PAYLOAD(pic_code, 64,
        "mov $0x11, %al\n out %al, $0x20\n out %al, $0xa0\n"
        "mov $0x20, %al\n out %al, $0x21\n mov $0x28, %al\n out %al, $0xa1\n"
        "mov $4, %al\n out %al, $0x21\n mov $2, %al\n out %al, $0xa1\n"
        "mov $1, %al\n out %al, $0x21\n out %al, $0xa1\n"
        "xor %al, %al\n out %al, $0x21\n out %al, $0xa1\n" REPORT "sti\n nop\n 1: jmp 1b\n")
TEST_F(Interrupts, PicDeliversMasterAndSlave) {
  guest.load(pic_code());
  ASSERT_TRUE(guest.run().reported);
  must(guest.vm().irq_line(4, true));
  ASSERT_EQ(guest.run().vector, 0x24);
  kvm_irqchip chip = must(guest.vm().get_irqchip(KVM_IRQCHIP_PIC_MASTER));
  EXPECT_EQ(chip.chip.pic.isr, 1 << 4);
  EXPECT_EQ(chip.chip.pic.irq_base, 0x20);
  // 10 has a higher priority than 4: it comes through the cascade at once.
  must(guest.vm().irq_line(10, true));
  guest.load(halt_code());
  ASSERT_EQ(guest.run().vector, 0x2a);
  chip = must(guest.vm().get_irqchip(KVM_IRQCHIP_PIC_SLAVE));
  EXPECT_EQ(chip.chip.pic.isr, 1 << 2);
  chip = must(guest.vm().get_irqchip(KVM_IRQCHIP_PIC_MASTER));
  EXPECT_EQ(chip.chip.pic.isr, 1 << 4 | 1 << 2);
}

// IOAPIC: registers by index and window.
PAYLOAD(ioapic_code, 64,
        "mov $0xfec00000, %ebx\n"
        "movl $0x1b, (%rbx)\n movl $0, 0x10(%rbx)\n"  // pin 5, high half: destination 0
        "movl $0x1a, (%rbx)\n mov %eax, 0x10(%rbx)\n"
        "mov 0x10(%rbx), %esi\n"
        "movl $1, (%rbx)\n mov 0x10(%rbx), %edi\n" REPORT "sti\n nop\n 1: jmp 1b\n")
// What the reset leaves: LINT0 of the first processor takes the 8259s' interrupts (virtual wire), all other entries are masked.
TEST_F(Interrupts, ResetStateIsVirtualWire) {
  EXPECT_EQ(read_apic(kLvt0), 0x700u);
  EXPECT_EQ(read_apic(kLvtTimer), 0x10000u);
  EXPECT_EQ(read_apic(0x360), 0x10000u);
  EXPECT_EQ(read_apic(kSpurious), 0xffu);
  EXPECT_EQ(guest.sregs().apic_base, kApic | 0x900);
}

TEST_F(Interrupts, IoApicEdge) {
  enable_apic();
  guest.load(ioapic_code());
  guest.change_regs([](kvm_regs& r) { r.rax = 0x55; });
  ASSERT_TRUE(guest.run().reported);
  EXPECT_EQ(guest.regs().rsi, 0x55u);
  EXPECT_EQ(guest.regs().rdi >> 16 & 0xff, 23u);  // the highest entry
  must(guest.vm().irq_line(5, true));
  must(guest.vm().irq_line(5, false));
  ASSERT_EQ(guest.run().vector, 0x55);
}

TEST_F(Interrupts, IoApicLevelComesAgainAfterEoi) {
  enable_apic();
  guest.load(ioapic_code());
  guest.change_regs([](kvm_regs& r) { r.rax = 0x8055; });
  ASSERT_TRUE(guest.run().reported);
  must(guest.vm().irq_line(5, true));
  ASSERT_EQ(guest.run().vector, 0x55);
  EXPECT_EQ(read_apic(0x180 + 0x10 * 2) >> (0x55 & 31) & 1, 1u);  // TMR: level
  guest.load(eoi_code());
  ASSERT_EQ(guest.run().vector, 0x55);  // the line is still high
  must(guest.vm().irq_line(5, false));
  guest.load(eoi_code());
  ASSERT_TRUE(guest.run().reported);
}

TEST_F(Interrupts, EventRaisesAnEdge) {
  enable_apic();
  const auto event = must(guest.vm().create_interrupt(5));
  guest.load(ioapic_code());
  guest.change_regs([](kvm_regs& r) { r.rax = 0x55; });
  ASSERT_TRUE(guest.run().reported);
  event->signal();
  ASSERT_EQ(guest.run().vector, 0x55);
  // By its descriptor as well.
  const uint64_t one = 1;
  ASSERT_EQ(write(event->fd(), &one, sizeof one), 8);
  guest.load(eoi_and_wait());
  ASSERT_EQ(guest.run().vector, 0x55);
}

// The local APIC from the guest.
PAYLOAD(xapic_self_ipi, 64,
        "mov $0xfee00000, %ebx\n movl $0x1ff, 0xf0(%rbx)\n mov 0x20(%rbx), %esi\n mov 0x30(%rbx), %edi\n"
        "movl $0x40050, 0x300(%rbx)\n sti\n nop\n 1: jmp 1b\n")
TEST_F(Interrupts, SelfIpi) {
  guest.load(xapic_self_ipi());
  ASSERT_EQ(guest.run().vector, 0x50);
  EXPECT_EQ(guest.regs().rsi, 0u);                            // ID
  EXPECT_EQ(guest.regs().rdi & 0xf0, 0x10u);                  // an integrated APIC
  EXPECT_EQ(read_apic(0x100 + 0x10 * 2), 1u << (0x50 & 31));  // in service
}

PAYLOAD(x2apic_self_ipi, 64,
        "mov $0x1b, %ecx\n rdmsr\n or $0xc00, %eax\n wrmsr\n"
        "mov $0x80f, %ecx\n mov $0x1ff, %eax\n xor %edx, %edx\n wrmsr\n"
        "mov $0x802, %ecx\n rdmsr\n mov %eax, %esi\n"
        "mov $0x83f, %ecx\n mov $0x51, %eax\n wrmsr\n sti\n nop\n 1: jmp 1b\n")
TEST_F(Interrupts, X2ApicSelfIpi) {
  guest.load(x2apic_self_ipi());
  ASSERT_EQ(guest.run().vector, 0x51);
  EXPECT_EQ(guest.regs().rsi, 0u);
  EXPECT_EQ(guest.sregs().apic_base & 0xc00, 0xc00u);
}

PAYLOAD(timer_code, 64,
        "mov $0xfee00000, %ebx\n movl $0xb, 0x3e0(%rbx)\n mov %eax, 0x320(%rbx)\n movl $1000, 0x380(%rbx)\n sti\n 1: hlt\n jmp 1b\n")
TEST_F(Interrupts, TimerOneShot) {
  enable_apic();
  guest.load(timer_code());
  guest.change_regs([](kvm_regs& r) { r.rax = 0x60; });
  ASSERT_EQ(guest.run().vector, 0x60);
  EXPECT_EQ(read_apic(0x390), 0u);  // the current count has run down
}
TEST_F(Interrupts, TimerPeriodic) {
  enable_apic();
  guest.load(timer_code());
  guest.change_regs([](kvm_regs& r) { r.rax = 0x20060; });
  for (int round = 0; round < 4; ++round) {
    ASSERT_EQ(guest.run().vector, 0x60) << round;
    guest.load(eoi_and_halt());
  }
}
PAYLOAD(deadline_code, 64,
        "mov $0xfee00000, %ebx\n movl $0x40061, 0x320(%rbx)\n mfence\n rdtsc\n add $10000, %eax\n adc $0, %edx\n mov $0x6e0, %ecx\n wrmsr\n"
        "sti\n 1: hlt\n jmp 1b\n")
TEST_F(Interrupts, TimerTscDeadline) {
  if (system().check_extension(KVM_CAP_TSC_DEADLINE_TIMER) == 0) GTEST_SKIP() << "no TSC deadline timer";
  auto cpuid = must(system().get_supported_cpuid());
  for (kvm_cpuid_entry2& entry : cpuid)
    if (entry.function == 1) entry.ecx |= 1u << 24;
  must(guest.vcpu().set_cpuid2(cpuid));
  enable_apic();
  guest.load(deadline_code());
  ASSERT_EQ(guest.run().vector, 0x61);
  EXPECT_EQ(guest.msr(0x6e0), 0u);  // disarmed
  EXPECT_EQ(read_apic(kLvtTimer), 0x40061u);
}

PAYLOAD(pit_code, 64,
        "mov $0xfec00000, %ebx\n movl $0x11, (%rbx)\n movl $0, 0x10(%rbx)\n movl $0x10, (%rbx)\n movl $0x62, 0x10(%rbx)\n"
        "mov $0x30, %al\n out %al, $0x43\n mov $100, %al\n out %al, $0x40\n xor %al, %al\n out %al, $0x40\n sti\n 1: hlt\n jmp 1b\n")
TEST(InterruptsPit, Channel0OneShot) {
  // The driver's own routing leads GSI n to the IOAPIC's pin n, the 8254's GSI 0 too; a PC has set_gsi_routing() lead it to pin 2.
  Guest guest(Mode::Long);
  must(guest.vm().create_pit2(kvm_pit_config{}));
  kvm_lapic_state lapic = must(guest.vcpu().get_lapic());
  const uint32_t enabled = 0x1ff;
  const uint32_t masked = 0x10700;
  std::memcpy(lapic.regs + kSpurious, &enabled, sizeof enabled);
  std::memcpy(lapic.regs + kLvt0, &masked, sizeof masked);
  must(guest.vcpu().set_lapic(lapic));
  guest.load(pit_code());
  ASSERT_EQ(guest.run().vector, 0x62);
  EXPECT_EQ(must(guest.vm().get_pit2()).channels[0].mode, 0);
}

}  // namespace
}  // namespace lodge::engine::suite
