#include "engine/soft/irqchip/lapic.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/soft/irqchip/fake_vm.hpp"

namespace lodge::engine::soft {
namespace {

constexpr uint64_t kNever = UINT64_MAX;
constexpr uint32_t kMasked = 1u << 16;
constexpr uint64_t kXapic = 0xfee00800;
constexpr uint64_t kX2apic = 0xfee00c00;

class LapicTest : public testing::Test {
 protected:
  void enter_x2apic(uint32_t vcpu) { ASSERT_TRUE(lapic(vcpu).write_msr(0x1b, kX2apic | (vcpu == 0 ? 0x100 : 0))); }
  Lapic& lapic(uint32_t vcpu = 0) { return vm_.chip->lapic(vcpu); }
  InterruptMessage fixed(uint8_t vector, bool level = false) {
    InterruptMessage message;
    message.vector = vector;
    message.level_triggered = level;
    return message;
  }
  uint64_t rdmsr(uint32_t msr, uint32_t vcpu = 0) {
    uint64_t value = 0;
    EXPECT_TRUE(lapic(vcpu).read_msr(msr, value)) << std::hex << msr;
    return value;
  }

  FakeVm vm_{2};
};

TEST_F(LapicTest, StateAfterResetDiffersForTheBootProcessor) {
  EXPECT_EQ(vm_.read(0, 0x020), 0u);
  EXPECT_EQ(vm_.read(1, 0x020), 1u << 24);
  EXPECT_EQ(vm_.read(0, 0x030), 0x00050014u);
  EXPECT_EQ(vm_.read(0, 0x0e0), 0xffffffffu);
  EXPECT_EQ(vm_.read(0, 0x0f0), 0xffu);
  EXPECT_EQ(vm_.read(0, 0x320), kMasked);
  EXPECT_EQ(vm_.read(0, 0x350), 0x700u);
  EXPECT_EQ(vm_.read(1, 0x350), kMasked);
  EXPECT_EQ(rdmsr(0x1b), 0xfee00900u);
  EXPECT_EQ(rdmsr(0x1b, 1), 0xfee00800u);
  EXPECT_FALSE(lapic(0).wait_for_sipi());
  EXPECT_TRUE(lapic(1).wait_for_sipi());
}

TEST_F(LapicTest, SoftwareDisabledApicRefusesFixedAndMasksTheLvt) {
  EXPECT_FALSE(lapic().accept(fixed(0x40)));
  vm_.enable(0);
  EXPECT_TRUE(lapic().accept(fixed(0x40)));
  vm_.write(0, 0x370, 0x33);
  EXPECT_EQ(vm_.read(0, 0x370), 0x33u);
  vm_.write(0, 0x0f0, 0xff);
  EXPECT_EQ(vm_.read(0, 0x370), kMasked | 0x33);
  vm_.write(0, 0x370, 0x33);  // the mask bit cannot be cleared while disabled
  EXPECT_EQ(vm_.read(0, 0x370), kMasked | 0x33);
  EXPECT_EQ(lapic().pending_interrupt(), 0x40);  // what was accepted stays
}

TEST_F(LapicTest, PriorityOfTprAndInServiceDecides) {
  vm_.enable(0);
  EXPECT_TRUE(lapic().accept(fixed(0x41)));
  vm_.write(0, 0x080, 0x40);
  EXPECT_EQ(lapic().pending_interrupt(), -1);
  EXPECT_EQ(lapic().cr8(), 4);
  const unsigned wakes = vm_.vcpus[0].wakes;
  lapic().set_cr8(3);
  EXPECT_EQ(vm_.vcpus[0].wakes, wakes + 1);
  EXPECT_EQ(lapic().pending_interrupt(), 0x41);
  lapic().acknowledge(0x41);
  EXPECT_EQ(vm_.read(0, 0x0a0), 0x40u);
  EXPECT_EQ(vm_.read(0, 0x120), 1u << 1);  // ISR 64-95
  EXPECT_TRUE(lapic().accept(fixed(0x4f)));
  EXPECT_EQ(lapic().pending_interrupt(), -1);  // the same class
  EXPECT_TRUE(lapic().accept(fixed(0x50)));
  EXPECT_EQ(lapic().pending_interrupt(), 0x50);
  lapic().acknowledge(0x50);
  vm_.write(0, 0x0b0, 0);
  EXPECT_EQ(vm_.read(0, 0x0a0), 0x40u);
  vm_.write(0, 0x0b0, 0);
  EXPECT_EQ(vm_.read(0, 0x0a0), 0x30u);  // the TPR again
  EXPECT_EQ(lapic().pending_interrupt(), 0x4f);
}

TEST_F(LapicTest, TmrFollowsTheTriggerMode) {
  vm_.enable(0);
  EXPECT_TRUE(lapic().accept(fixed(0x61, true)));
  EXPECT_EQ(vm_.read(0, 0x1b0), 1u << 1);
  EXPECT_TRUE(lapic().accept(fixed(0x61, false)));
  EXPECT_EQ(vm_.read(0, 0x1b0), 0u);
}

TEST_F(LapicTest, IllegalVectorsAreReportedInTheEsr) {
  vm_.enable(0);
  vm_.write(0, 0x370, 0xfe);
  EXPECT_FALSE(lapic().accept(fixed(0x0f)));
  EXPECT_EQ(lapic().pending_interrupt(), 0xfe);
  EXPECT_EQ(vm_.read(0, 0x280), 0u);
  vm_.write(0, 0x280, 0);
  EXPECT_EQ(vm_.read(0, 0x280), 0x40u);
  vm_.write(0, 0x300, 0x0005);
  vm_.write(0, 0x040, 0);  // a reserved register
  vm_.write(0, 0x280, 0);
  EXPECT_EQ(vm_.read(0, 0x280), 0xa0u);
  vm_.write(0, 0x280, 0);
  EXPECT_EQ(vm_.read(0, 0x280), 0u);
}

TEST_F(LapicTest, PageAcceptsAlignedDoublewordsOnly) {
  vm_.write(0, 0x080, 0x20);
  EXPECT_TRUE(vm_.chip->mmio_write(0, 0xfee00084, 4, 0x50));
  EXPECT_TRUE(vm_.chip->mmio_write(0, 0xfee00080, 1, 0x50));
  EXPECT_EQ(vm_.read(0, 0x080), 0x20u);
  uint64_t value = 0;
  EXPECT_TRUE(vm_.chip->mmio_read(0, 0xfee00032, 1, value));
  EXPECT_EQ(value & 0xff, 0x05u);
}

// --- Modes ---

TEST_F(LapicTest, BaseMsrTransitions) {
  EXPECT_FALSE(lapic().write_msr(0x1b, 0xfee00400));           // x2APIC without enable
  EXPECT_FALSE(lapic().write_msr(0x1b, kXapic | 0x01));        // reserved
  EXPECT_FALSE(lapic().write_msr(0x1b, kXapic | 1ull << 50));  // beyond the physical address
  EXPECT_TRUE(lapic().write_msr(0x1b, kX2apic));
  EXPECT_FALSE(lapic().owns(0xfee00000));
  EXPECT_FALSE(lapic().write_msr(0x1b, kXapic));     // x2APIC to xAPIC
  EXPECT_TRUE(lapic().write_msr(0x1b, 0xfee00000));  // to disabled
  EXPECT_FALSE(lapic().write_msr(0x1b, kX2apic));    // disabled to x2APIC
  EXPECT_TRUE(lapic().write_msr(0x1b, kXapic));
  EXPECT_TRUE(lapic().owns(0xfee00300));
}

TEST_F(LapicTest, X2apicNeedsTheFeature) {
  lapic().set_features({.x2apic = false});
  EXPECT_FALSE(lapic().write_msr(0x1b, kX2apic));
}

TEST_F(LapicTest, PageFollowsTheBase) {
  EXPECT_TRUE(lapic().write_msr(0x1b, 0xfed00900));
  EXPECT_TRUE(lapic().owns(0xfed00020));
  EXPECT_FALSE(lapic().owns(0xfee00020));
}

TEST_F(LapicTest, DisabledApicRefusesEverything) {
  EXPECT_TRUE(lapic().write_msr(0x1b, 0xfee00100));
  InterruptMessage nmi;
  nmi.mode = DeliveryMode::Nmi;
  EXPECT_FALSE(lapic().accept(nmi));
  EXPECT_TRUE(lapic().accepts_extint());  // LINT0 is INTR
}

TEST_F(LapicTest, X2apicMsrsAreNotThereInXapicMode) {
  uint64_t value = 0;
  EXPECT_FALSE(lapic().read_msr(0x802, value));
  EXPECT_FALSE(lapic().write_msr(0x80b, 0));
}

TEST_F(LapicTest, X2apicIdentity) {
  enter_x2apic(1);
  EXPECT_EQ(rdmsr(0x802, 1), 1u);
  EXPECT_EQ(rdmsr(0x80d, 1), 2u);
  FakeVcpu other;
  vm_.chip->attach_vcpu(0x25, false, other.events());
  enter_x2apic(0x25);
  EXPECT_EQ(rdmsr(0x80d, 0x25), 0x00020020u);
}

TEST_F(LapicTest, X2apicGeneralProtection) {
  enter_x2apic(0);
  uint64_t value = 0;
  for (const uint32_t msr : {0x800u, 0x809u, 0x80bu, 0x80cu, 0x80eu, 0x829u, 0x82fu, 0x831u, 0x83au, 0x83fu, 0x8ffu}) {
    EXPECT_FALSE(lapic().read_msr(msr, value)) << std::hex << msr;
  }
  for (const uint32_t msr : {0x800u, 0x802u, 0x803u, 0x80au, 0x80du, 0x80eu, 0x810u, 0x820u, 0x82fu, 0x831u, 0x839u, 0x840u}) {
    EXPECT_FALSE(lapic().write_msr(msr, 0)) << std::hex << msr;
  }
  EXPECT_FALSE(lapic().write_msr(0x80b, 1));           // EOI: 0 only
  EXPECT_FALSE(lapic().write_msr(0x828, 1));           // ESR: 0 only
  EXPECT_FALSE(lapic().write_msr(0x808, 0x100));       // TPR
  EXPECT_FALSE(lapic().write_msr(0x80f, 0x11ff));      // SVR: the EOI broadcast cannot be suppressed
  EXPECT_FALSE(lapic().write_msr(0x838, 1ull << 32));  // high half
  EXPECT_FALSE(lapic().write_msr(0x83e, 0x4));         // divide configuration
  EXPECT_FALSE(lapic().write_msr(0x832, 1u << 8));     // the timer's LVT has no delivery mode
  EXPECT_FALSE(lapic().write_msr(0x830, 1u << 20));    // ICR
  EXPECT_FALSE(lapic().write_msr(0x83f, 0x140));       // SELF IPI
  EXPECT_TRUE(lapic().write_msr(0x80b, 0));
  EXPECT_TRUE(lapic().write_msr(0x80f, 0x1ff));
  EXPECT_TRUE(lapic().write_msr(0x808, 0x30));
  EXPECT_EQ(rdmsr(0x808), 0x30u);
}

TEST_F(LapicTest, X2apicIcrIsOneRegister) {
  enter_x2apic(0);
  EXPECT_TRUE(lapic().write_msr(0x830, 0x0000012300000040));
  EXPECT_EQ(rdmsr(0x830), 0x0000012300000040u);
}

TEST_F(LapicTest, SelfIpi) {
  enter_x2apic(0);
  EXPECT_TRUE(lapic().write_msr(0x80f, 0x1ff));
  EXPECT_TRUE(lapic().write_msr(0x83f, 0x77));
  EXPECT_EQ(lapic().pending_interrupt(), 0x77);
}

// --- Events ---

TEST_F(LapicTest, SipiIsTakenOnlyWhileWaiting) {
  InterruptMessage sipi;
  sipi.mode = DeliveryMode::StartUp;
  sipi.vector = 0x9a;
  uint8_t vector = 0;
  EXPECT_TRUE(lapic(0).accept(sipi));  // the boot processor runs
  EXPECT_FALSE(lapic(0).event_pending());
  EXPECT_FALSE(lapic(0).take_sipi(vector));
  EXPECT_TRUE(lapic(1).accept(sipi));
  EXPECT_TRUE(lapic(1).event_pending());
  EXPECT_TRUE(lapic(1).take_sipi(vector));
  EXPECT_EQ(vector, 0x9a);
  EXPECT_TRUE(lapic(1).accept(sipi));  // Linux sends a second one
  EXPECT_FALSE(lapic(1).take_sipi(vector));
}

TEST_F(LapicTest, InitThenSipiAreQueuedInOrder) {
  lapic(1).set_wait_for_sipi(false);
  InterruptMessage init;
  init.mode = DeliveryMode::Init;
  InterruptMessage sipi;
  sipi.mode = DeliveryMode::StartUp;
  sipi.vector = 0x08;
  uint8_t vector = 0;
  EXPECT_TRUE(lapic(1).accept(init));
  EXPECT_TRUE(lapic(1).accept(sipi));
  EXPECT_FALSE(lapic(1).take_sipi(vector));  // the INIT comes first
  EXPECT_TRUE(lapic(1).take_init());
  EXPECT_FALSE(lapic(1).take_init());
  EXPECT_TRUE(lapic(1).take_sipi(vector));
  EXPECT_EQ(vector, 0x08);
}

// The sender does not wait for the receiver, who may look at any moment between the two.
TEST_F(LapicTest, NoSipiIsLostWhileItsInitIsTaken) {
  InterruptMessage init, sipi;
  init.mode = DeliveryMode::Init;
  sipi.mode = DeliveryMode::StartUp;
  sipi.vector = 0x08;
  constexpr int kRounds = 20'000;
  std::atomic<int> sent = 0, started = 0;
  const std::jthread sender([&] {
    for (int round = 0; round < kRounds; ++round) {
      (void)lapic(1).accept(init);
      (void)lapic(1).accept(sipi);
      sent = round + 1;
      while (started <= round && started >= 0) std::this_thread::yield();
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    bool initialised = false;
    for (uint8_t vector = 0;;) {
      const bool all_sent = sent > round;
      if (lapic(1).take_init()) initialised = true;
      if (lapic(1).take_sipi(vector)) {
        EXPECT_TRUE(initialised);
        EXPECT_EQ(vector, 0x08);
        break;
      }
      if (all_sent && !lapic(1).event_pending()) {
        started = -1;
        FAIL() << "nothing came in round " << round;
      }
    }
    if (!initialised) started = -1;
    ASSERT_TRUE(initialised) << "in round " << round;
    started = round + 1;
  }
}

TEST_F(LapicTest, InitVoidsAnEarlierSipi) {
  InterruptMessage message;
  message.mode = DeliveryMode::StartUp;
  EXPECT_TRUE(lapic(1).accept(message));
  message.mode = DeliveryMode::Init;
  EXPECT_TRUE(lapic(1).accept(message));
  EXPECT_TRUE(lapic(1).take_init());
  uint8_t vector = 0;
  EXPECT_FALSE(lapic(1).take_sipi(vector));
}

TEST_F(LapicTest, InitLevelDeassertDoesNothing) {
  InterruptMessage init;
  init.mode = DeliveryMode::Init;
  init.level_triggered = true;
  init.assert = false;
  EXPECT_FALSE(lapic(1).accept(init));
  EXPECT_FALSE(lapic(1).take_init());
}

TEST_F(LapicTest, InitResetsAllButIdAndBase) {
  vm_.enable(1);
  vm_.write(1, 0x020, 0x07000000);
  vm_.write(1, 0x080, 0x50);
  vm_.write(1, 0x0d0, 0x02000000);
  EXPECT_TRUE(lapic(1).accept(fixed(0x88)));
  InterruptMessage init;
  init.mode = DeliveryMode::Init;
  EXPECT_TRUE(lapic(1).accept(init));
  EXPECT_TRUE(lapic(1).take_init());
  EXPECT_EQ(vm_.read(1, 0x020), 0x07000000u);
  EXPECT_EQ(vm_.read(1, 0x080), 0u);
  EXPECT_EQ(vm_.read(1, 0x0a0), 0u);
  EXPECT_EQ(vm_.read(1, 0x0d0), 0u);
  EXPECT_EQ(vm_.read(1, 0x0f0), 0xffu);
  EXPECT_EQ(lapic(1).pending_interrupt(), -1);
  EXPECT_EQ(rdmsr(0x1b, 1), kXapic);
}

TEST_F(LapicTest, NmiAndSmiAreTakenOnce) {
  InterruptMessage message;
  message.mode = DeliveryMode::Nmi;
  EXPECT_TRUE(lapic().accept(message));
  message.mode = DeliveryMode::Smi;
  EXPECT_TRUE(lapic().accept(message));
  EXPECT_TRUE(lapic().event_pending());
  EXPECT_TRUE(lapic().take_nmi());
  EXPECT_FALSE(lapic().take_nmi());
  EXPECT_TRUE(lapic().take_smi());
  EXPECT_FALSE(lapic().event_pending());
}

TEST_F(LapicTest, PerformanceInterruptMasksItsEntry) {
  vm_.enable(0);
  vm_.write(0, 0x340, 0x400);
  EXPECT_TRUE(lapic().deliver_local(Lapic::Lvt::Performance));
  EXPECT_TRUE(lapic().take_nmi());
  EXPECT_FALSE(lapic().deliver_local(Lapic::Lvt::Performance));
}

// --- Timer ---

TEST_F(LapicTest, OneShotTimerFiresOnceAtItsInstant) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0xec);
  vm_.write(0, 0x3e0, 0xb);  // divide by 1
  vm_.write(0, 0x380, 5000);
  ASSERT_EQ(lapic().next_deadline_ns(), 6000u);
  vm_.now = 5999;
  EXPECT_EQ(vm_.read(0, 0x390), 1u);
  lapic().expire(5999);
  EXPECT_EQ(lapic().pending_interrupt(), -1);
  lapic().expire(6000);
  EXPECT_EQ(lapic().pending_interrupt(), 0xec);
  EXPECT_EQ(lapic().next_deadline_ns(), kNever);
  vm_.now = 6000;
  EXPECT_EQ(vm_.read(0, 0x390), 0u);
  EXPECT_EQ(vm_.read(0, 0x380), 5000u);
}

TEST_F(LapicTest, DivideConfigurations) {
  const struct {
    uint32_t configuration;
    uint64_t divide;
  } cases[] = {{0x0, 2}, {0x1, 4}, {0x2, 8}, {0x3, 16}, {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}};
  vm_.enable(0);
  for (const auto& [configuration, divide] : cases) {
    vm_.write(0, 0x3e0, configuration);
    vm_.write(0, 0x380, 1000);
    EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1000 * divide) << configuration;
  }
}

TEST_F(LapicTest, DivideChangesWhileCounting) {
  vm_.enable(0);
  vm_.write(0, 0x3e0, 0xb);
  vm_.write(0, 0x380, 1000);
  vm_.now += 400;
  vm_.write(0, 0x3e0, 0x0);
  EXPECT_EQ(vm_.read(0, 0x390), 600u);
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1200);
}

TEST_F(LapicTest, PeriodicTimerKeepsItsPaceWhenServedLate) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0x200ec);
  vm_.write(0, 0x3e0, 0xb);
  vm_.write(0, 0x380, 1000000);
  ASSERT_EQ(lapic().next_deadline_ns(), 1001000u);
  lapic().expire(1001000);
  EXPECT_EQ(lapic().next_deadline_ns(), 2001000u);
  lapic().expire(4501000);
  EXPECT_EQ(lapic().next_deadline_ns(), 5001000u);
  vm_.now = 4501000;
  EXPECT_EQ(vm_.read(0, 0x390), 500000u);
}

TEST_F(LapicTest, PeriodicTimerCannotStorm) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0x200ec);
  vm_.write(0, 0x3e0, 0xb);
  vm_.write(0, 0x380, 1);
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 200000);
}

TEST_F(LapicTest, CountOfZeroStopsAndMaskedTimerIsSilent) {
  vm_.enable(0);
  vm_.write(0, 0x380, 1000);
  vm_.write(0, 0x380, 0);
  EXPECT_EQ(lapic().next_deadline_ns(), kNever);
  vm_.write(0, 0x320, kMasked | 0xec);
  vm_.write(0, 0x380, 1000);
  lapic().expire(lapic().next_deadline_ns());
  EXPECT_EQ(lapic().pending_interrupt(), -1);
}

TEST_F(LapicTest, TscDeadlineArmsFiresAndDisarms) {
  lapic().set_features({.tsc_khz = 3000000});
  vm_.enable(0);
  EXPECT_TRUE(lapic().write_msr(0x6e0, 12345));  // ignored outside of the mode
  EXPECT_EQ(rdmsr(0x6e0), 0u);
  vm_.write(0, 0x320, 0x400ec);
  vm_.vcpus[0].tsc = 1000000;
  EXPECT_TRUE(lapic().write_msr(0x6e0, 1000001));
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1);  // a third of a nanosecond, rounded up
  EXPECT_TRUE(lapic().write_msr(0x6e0, 1003000));
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1000);
  EXPECT_EQ(rdmsr(0x6e0), 1003000u);
  vm_.write(0, 0x380, 777);  // the initial count is not used in this mode
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1000);
  EXPECT_EQ(vm_.read(0, 0x390), 0u);
  lapic().expire(vm_.now + 1000);
  EXPECT_EQ(lapic().pending_interrupt(), 0xec);
  EXPECT_EQ(rdmsr(0x6e0), 0u);
  EXPECT_TRUE(lapic().write_msr(0x6e0, 2000000));
  EXPECT_TRUE(lapic().write_msr(0x6e0, 0));
  EXPECT_EQ(lapic().next_deadline_ns(), kNever);
}

TEST_F(LapicTest, TscDeadlineInThePastFiresAtOnce) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0x400ec);
  vm_.vcpus[0].tsc = 5000;
  EXPECT_TRUE(lapic().write_msr(0x6e0, 5000));
  EXPECT_EQ(lapic().pending_interrupt(), 0xec);
  EXPECT_EQ(rdmsr(0x6e0), 0u);
}

TEST_F(LapicTest, TscDeadlineMovesWithTheTsc) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0x400ec);
  EXPECT_TRUE(lapic().write_msr(0x6e0, 1000));
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 1000);
  vm_.vcpus[0].tsc = 400;
  lapic().tsc_changed();
  EXPECT_EQ(lapic().next_deadline_ns(), vm_.now + 600);
}

TEST_F(LapicTest, LeavingTscDeadlineModeDisarms) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0x400ec);
  EXPECT_TRUE(lapic().write_msr(0x6e0, 1000));
  vm_.write(0, 0x320, 0x000ec);
  EXPECT_EQ(lapic().next_deadline_ns(), kNever);
  EXPECT_EQ(rdmsr(0x6e0), 0u);
}

TEST_F(LapicTest, TscDeadlineNeedsTheFeature) {
  lapic().set_features({.tsc_deadline = false});
  EXPECT_FALSE(lapic().write_msr(0x6e0, 1));
}

// --- State ---

TEST_F(LapicTest, StateMovesWithItsRunningTimer) {
  vm_.enable(0);
  vm_.write(0, 0x320, 0xec);
  vm_.write(0, 0x3e0, 0xb);
  vm_.write(0, 0x380, 5000);
  vm_.write(0, 0x080, 0x20);
  EXPECT_TRUE(lapic().accept(fixed(0x91, true)));
  EXPECT_TRUE(lapic().accept(fixed(0x31)));
  lapic().acknowledge(0x91);
  vm_.now += 2000;
  kvm_lapic_state state;
  lapic().get_state(state);

  FakeVm other(1);
  other.now = 900000;
  other.chip->lapic(0).set_state(state);
  EXPECT_EQ(other.chip->lapic(0).next_deadline_ns(), 903000u);
  EXPECT_EQ(other.read(0, 0x0a0), 0x90u);
  EXPECT_EQ(other.read(0, 0x1c0), 1u << 17);
  EXPECT_EQ(other.chip->lapic(0).pending_interrupt(), -1);
  other.write(0, 0x0b0, 0);
  EXPECT_EQ(other.chip->lapic(0).pending_interrupt(), 0x31);
}

TEST_F(LapicTest, X2apicIdStandsInTheTopByteOfSavedState) {
  enter_x2apic(1);
  kvm_lapic_state state;
  lapic(1).get_state(state);
  EXPECT_EQ(state.regs[0x20], 0);
  EXPECT_EQ(state.regs[0x23], 1);
  lapic(1).set_state(state);
  EXPECT_EQ(rdmsr(0x802, 1), 1u);
}

}  // namespace
}  // namespace lodge::engine::soft
