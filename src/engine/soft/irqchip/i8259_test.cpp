#include "engine/soft/irqchip/i8259.hpp"

#include <gtest/gtest.h>

namespace lodge::engine::soft {
namespace {

constexpr uint8_t kEoi = 0x20;

// The pair as a PC's firmware or kernel sets it up: vectors 0x20 and 0x28, nothing masked.
I8259Pair initialised(uint8_t icw4 = 0x01) {
  I8259Pair pic;
  pic.write(0x20, 0x11);
  pic.write(0x21, 0x20);
  pic.write(0x21, 0x04);
  pic.write(0x21, icw4);
  pic.write(0xa0, 0x11);
  pic.write(0xa1, 0x28);
  pic.write(0xa1, 0x02);
  pic.write(0xa1, icw4);
  return pic;
}

void pulse(I8259Pair& pic, uint8_t irq) {
  pic.set_irq(irq, true);
  pic.set_irq(irq, false);
}

uint8_t isr(I8259Pair& pic, uint16_t command = 0x20) {
  pic.write(command, 0x0b);
  return pic.read(command);
}

uint8_t irr(I8259Pair& pic, uint16_t command = 0x20) {
  pic.write(command, 0x0a);
  return pic.read(command);
}

TEST(I8259, InitialisationSequenceSetsVectorBaseAndClearsMask) {
  I8259Pair pic = initialised();
  EXPECT_EQ(pic.read(0x21), 0);
  pic.set_irq(3, true);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x23);
}

TEST(I8259, Icw4IsNotExpectedWithoutIc4) {
  I8259Pair pic;
  pic.write(0x20, 0x10);
  pic.write(0x21, 0x40);
  pic.write(0x21, 0x04);
  pic.write(0x21, 0xfe);  // OCW1 already
  EXPECT_EQ(pic.read(0x21), 0xfe);
}

TEST(I8259, EdgeIsLatchedOnceUntilTheLineFalls) {
  I8259Pair pic = initialised();
  pic.set_irq(4, true);
  EXPECT_EQ(pic.acknowledge(), 0x24);
  pic.write(0x20, kEoi);
  EXPECT_FALSE(pic.output());
  pic.set_irq(4, true);  // still high: no new edge
  EXPECT_FALSE(pic.output());
  pic.set_irq(4, false);
  pic.set_irq(4, true);
  EXPECT_TRUE(pic.output());
}

TEST(I8259, LevelTriggeredLineRequestsAgainAfterEoi) {
  I8259Pair pic = initialised();
  pic.write(0x4d0, 0xff);
  EXPECT_EQ(pic.read(0x4d0), 0xf8);
  pic.set_irq(5, true);
  EXPECT_EQ(pic.acknowledge(), 0x25);
  EXPECT_FALSE(pic.output());
  pic.write(0x20, kEoi);
  EXPECT_TRUE(pic.output());
  pic.set_irq(5, false);
  EXPECT_FALSE(pic.output());
}

TEST(I8259, ElcrOfTheSlaveKeepsIrq8And13Edge) {
  I8259Pair pic = initialised();
  pic.write(0x4d1, 0xff);
  EXPECT_EQ(pic.read(0x4d1), 0xde);
}

TEST(I8259, HigherPriorityNestsAndLowerWaits) {
  I8259Pair pic = initialised();
  pulse(pic, 3);
  EXPECT_EQ(pic.acknowledge(), 0x23);
  pulse(pic, 5);
  EXPECT_FALSE(pic.output());
  pulse(pic, 1);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x21);
  EXPECT_EQ(isr(pic), 0x0a);
  pic.write(0x20, kEoi);  // non-specific: the highest in service
  EXPECT_EQ(isr(pic), 0x08);
  pic.write(0x20, kEoi);
  EXPECT_EQ(pic.acknowledge(), 0x25);
}

TEST(I8259, SpecificEoiEndsTheNamedLevel) {
  I8259Pair pic = initialised();
  pulse(pic, 3);
  EXPECT_EQ(pic.acknowledge(), 0x23);
  pulse(pic, 1);
  EXPECT_EQ(pic.acknowledge(), 0x21);
  pic.write(0x20, 0x63);
  EXPECT_EQ(isr(pic), 0x02);
  EXPECT_EQ(pic.take_completed(), 1u << 3);
  EXPECT_EQ(pic.take_completed(), 0);
}

TEST(I8259, SlaveGoesThroughTheCascade) {
  I8259Pair pic = initialised();
  pulse(pic, 12);
  EXPECT_EQ(irr(pic), 0x04);
  EXPECT_EQ(pic.acknowledge(), 0x2c);
  EXPECT_EQ(isr(pic), 0x04);
  EXPECT_EQ(isr(pic, 0xa0), 0x10);
  pic.write(0xa0, kEoi);
  pic.write(0x20, 0x62);
  EXPECT_EQ(isr(pic), 0);
  EXPECT_EQ(isr(pic, 0xa0), 0);
  EXPECT_EQ(pic.take_completed(), (1u << 12) | (1u << 2));
}

TEST(I8259, SlaveNestsOnlyInSpecialFullyNestedMode) {
  I8259Pair plain = initialised(0x01);
  pulse(plain, 12);
  EXPECT_EQ(plain.acknowledge(), 0x2c);
  pulse(plain, 8);
  EXPECT_FALSE(plain.output());

  I8259Pair nested = initialised(0x11);
  pulse(nested, 12);
  EXPECT_EQ(nested.acknowledge(), 0x2c);
  pulse(nested, 8);
  EXPECT_TRUE(nested.output());
  EXPECT_EQ(nested.acknowledge(), 0x28);
}

TEST(I8259, MaskHoldsTheRequestBack) {
  I8259Pair pic = initialised();
  pic.write(0x21, 0x10);
  EXPECT_TRUE(pic.masked(4));
  pulse(pic, 4);
  EXPECT_FALSE(pic.output());
  pic.write(0x21, 0x00);
  EXPECT_TRUE(pic.output());
}

TEST(I8259, WithdrawnRequestGivesSpuriousIrq7WithoutInServiceBit) {
  I8259Pair pic = initialised();
  pic.write(0x4d0, 0x20);
  pic.set_irq(5, true);
  pic.set_irq(5, false);
  EXPECT_FALSE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x27);
  EXPECT_EQ(isr(pic), 0);
}

TEST(I8259, WithdrawnSlaveRequestGivesSpuriousIrq15WithOnlyTheMasterInService) {
  I8259Pair pic = initialised();
  pic.write(0x4d1, 0x04);
  pic.set_irq(10, true);
  EXPECT_TRUE(pic.output());
  pic.set_irq(10, false);
  EXPECT_EQ(pic.acknowledge(), 0x2f);
  EXPECT_EQ(isr(pic), 0x04);
  EXPECT_EQ(isr(pic, 0xa0), 0);
}

TEST(I8259, PollOfTheSlaveTakesItsRequestFromTheMaster) {
  I8259Pair pic = initialised();
  pulse(pic, 9);
  pic.write(0xa0, 0x0c);
  EXPECT_EQ(pic.read(0xa0), 0x81);
  EXPECT_FALSE(pic.output());
}

TEST(I8259, AutoEoiLeavesNothingInService) {
  I8259Pair pic = initialised(0x03);
  pulse(pic, 0);
  EXPECT_EQ(pic.acknowledge(), 0x20);
  EXPECT_EQ(isr(pic), 0);
  EXPECT_EQ(pic.take_completed(), 1);
}

TEST(I8259, RotateInAutoEoiModeMakesTheServedOneTheLowest) {
  I8259Pair pic = initialised(0x03);
  pic.write(0x20, 0x80);
  pulse(pic, 3);
  EXPECT_EQ(pic.acknowledge(), 0x23);
  pulse(pic, 3);
  pulse(pic, 6);
  EXPECT_EQ(pic.acknowledge(), 0x26);
  pic.write(0x20, 0x00);  // stop rotating: 7 is now the highest
  EXPECT_EQ(pic.acknowledge(), 0x23);
}

TEST(I8259, RotateOnNonSpecificEoi) {
  I8259Pair pic = initialised();
  pulse(pic, 4);
  EXPECT_EQ(pic.acknowledge(), 0x24);
  pic.write(0x20, 0xa0);
  pulse(pic, 4);
  pulse(pic, 6);
  EXPECT_EQ(pic.acknowledge(), 0x26);
}

TEST(I8259, SetPriorityNamesTheLowest) {
  I8259Pair pic = initialised();
  pic.write(0x20, 0xc0 | 5);
  pulse(pic, 0);
  pulse(pic, 6);
  EXPECT_EQ(pic.acknowledge(), 0x26);
}

TEST(I8259, SpecialMaskModeLetsLowerPrioritiesThrough) {
  I8259Pair pic = initialised();
  pulse(pic, 1);
  EXPECT_EQ(pic.acknowledge(), 0x21);
  pulse(pic, 6);
  EXPECT_FALSE(pic.output());
  pic.write(0x21, 0x02);
  pic.write(0x20, 0x68);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(pic.acknowledge(), 0x26);
  pic.write(0x20, kEoi);  // does not touch the masked level 1
  EXPECT_EQ(isr(pic), 0x02);
  pic.write(0x20, 0x48);
  pulse(pic, 6);
  EXPECT_FALSE(pic.output());
}

TEST(I8259, PollAcknowledges) {
  I8259Pair pic = initialised();
  pulse(pic, 6);
  pic.write(0x20, 0x0c);
  EXPECT_EQ(pic.read(0x20), 0x86);
  EXPECT_EQ(isr(pic), 0x40);
  pic.write(0x20, 0x0c);
  EXPECT_EQ(pic.read(0x20) & 0x80, 0);
}

TEST(I8259, StateMovesToAnotherPair) {
  I8259Pair pic = initialised();
  pulse(pic, 3);
  EXPECT_EQ(pic.acknowledge(), 0x23);
  pulse(pic, 1);
  pulse(pic, 14);
  I8259Pair other;
  other.set_state(false, pic.get_state(false));
  other.set_state(true, pic.get_state(true));
  EXPECT_EQ(other.acknowledge(), 0x21);
  other.write(0x20, kEoi);
  EXPECT_EQ(other.acknowledge(), 0x2e);
}

TEST(I8259, HostileStateIsBroughtIntoRange) {
  I8259Pair pic;
  kvm_pic_state state{};
  state.priority_add = 0xff;
  state.init_state = 0xff;
  state.irq_base = 0xff;
  state.elcr = 0xff;
  pic.set_state(false, state);
  EXPECT_EQ(pic.get_state(false).priority_add, 7);
  EXPECT_EQ(pic.get_state(false).irq_base, 0xf8);
  EXPECT_EQ(pic.get_state(false).elcr, 0xf8);
}

}  // namespace
}  // namespace lodge::engine::soft
