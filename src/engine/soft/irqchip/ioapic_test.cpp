#include "engine/soft/irqchip/ioapic.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace lodge::engine::soft {
namespace {

constexpr uint32_t kLevel = 1u << 15;
constexpr uint32_t kMasked = 1u << 16;
constexpr uint32_t kRemoteIrr = 1u << 14;

class IoapicTest : public testing::Test {
 protected:
  void write(uint8_t index, uint32_t value) {
    ioapic_.write(0xfec00000, index, sink_);
    ioapic_.write(0xfec00010, value, sink_);
  }
  uint32_t read(uint8_t index) {
    ioapic_.write(0xfec00000, index, sink_);
    return ioapic_.read(0xfec00010);
  }
  void redirect(unsigned pin, uint32_t low, uint8_t destination = 0) {
    write(static_cast<uint8_t>(0x11 + 2 * pin), uint32_t{destination} << 24);
    write(static_cast<uint8_t>(0x10 + 2 * pin), low);
  }

  bool accepts_ = true;
  std::vector<InterruptMessage> messages_;
  InterruptSink sink_{[](void* self, const InterruptMessage& message) {
                        auto* test = static_cast<IoapicTest*>(self);
                        test->messages_.push_back(message);
                        return test->accepts_;
                      },
                      this};
  Ioapic ioapic_;
};

TEST_F(IoapicTest, VersionAndIdentification) {
  EXPECT_EQ(read(1), 0x00170011u);
  write(0, 0xff000000);
  EXPECT_EQ(read(0), 0x0f000000u);
  EXPECT_EQ(read(2), 0x0f000000u);
  EXPECT_EQ(read(0x10), kMasked);
  EXPECT_EQ(read(0x10 + 48), 0u);  // behind the last pin
}

TEST_F(IoapicTest, ReservedAndReadOnlyBitsAreNotWritten) {
  write(0x10 + 6, 0xffffffff);
  write(0x11 + 6, 0xffffffff);
  EXPECT_EQ(read(0x10 + 6), 0x1ffffu & ~(1u << 12) & ~kRemoteIrr);
  EXPECT_EQ(read(0x11 + 6), 0xff000000u);
}

TEST_F(IoapicTest, EdgeDeliversOncePerRise) {
  redirect(4, 0x0900 | 0x31, 0x03);
  ioapic_.set_pin(4, true, sink_);
  ioapic_.set_pin(4, true, sink_);
  ASSERT_EQ(messages_.size(), 1u);
  EXPECT_EQ(messages_[0].vector, 0x31);
  EXPECT_EQ(messages_[0].destination, 3u);
  EXPECT_TRUE(messages_[0].logical);
  EXPECT_FALSE(messages_[0].level_triggered);
  EXPECT_EQ(messages_[0].mode, DeliveryMode::LowestPriority);
  ioapic_.set_pin(4, false, sink_);
  ioapic_.set_pin(4, true, sink_);
  EXPECT_EQ(messages_.size(), 2u);
}

TEST_F(IoapicTest, MaskedEdgeIsLost) {
  redirect(4, kMasked | 0x31);
  ioapic_.set_pin(4, true, sink_);
  redirect(4, 0x31);
  EXPECT_TRUE(messages_.empty());
}

TEST_F(IoapicTest, LevelIsDeliveredOnceUntilEoiAndAgainWhileAsserted) {
  redirect(9, kLevel | 0x41);
  ioapic_.set_pin(9, true, sink_);
  EXPECT_EQ(read(0x10 + 18) & kRemoteIrr, kRemoteIrr);
  ioapic_.set_pin(9, false, sink_);
  ioapic_.set_pin(9, true, sink_);
  EXPECT_EQ(messages_.size(), 1u);
  ioapic_.end_of_interrupt(0x42, sink_);  // another vector
  EXPECT_EQ(messages_.size(), 1u);
  ioapic_.end_of_interrupt(0x41, sink_);
  EXPECT_EQ(messages_.size(), 2u);
  ioapic_.set_pin(9, false, sink_);
  ioapic_.end_of_interrupt(0x41, sink_);
  EXPECT_EQ(messages_.size(), 2u);
  EXPECT_EQ(read(0x10 + 18) & kRemoteIrr, 0u);
}

TEST_F(IoapicTest, LevelMaskedWhilePendingIsDeliveredOnUnmask) {
  redirect(9, kLevel | kMasked | 0x41);
  ioapic_.set_pin(9, true, sink_);
  EXPECT_TRUE(messages_.empty());
  redirect(9, kLevel | 0x41);
  EXPECT_EQ(messages_.size(), 1u);
}

TEST_F(IoapicTest, EoiOfAMaskedPinDoesNotDeliver) {
  redirect(9, kLevel | 0x41);
  ioapic_.set_pin(9, true, sink_);
  redirect(9, kLevel | kMasked | 0x41);
  ioapic_.end_of_interrupt(0x41, sink_);
  EXPECT_EQ(messages_.size(), 1u);
  redirect(9, kLevel | 0x41);
  EXPECT_EQ(messages_.size(), 2u);
}

TEST_F(IoapicTest, LevelThatFellWhileMaskedIsNotDelivered) {
  redirect(9, kLevel | kMasked | 0x41);
  ioapic_.set_pin(9, true, sink_);
  ioapic_.set_pin(9, false, sink_);
  redirect(9, kLevel | 0x41);
  EXPECT_TRUE(messages_.empty());
}

TEST_F(IoapicTest, RemoteIrrIsSetOnlyIfSomebodyAccepted) {
  accepts_ = false;
  redirect(9, kLevel | 0x41);
  ioapic_.set_pin(9, true, sink_);
  EXPECT_EQ(read(0x10 + 18) & kRemoteIrr, 0u);
}

TEST_F(IoapicTest, SwitchToEdgeFreesAStuckEntry) {
  redirect(9, kLevel | 0x41);
  ioapic_.set_pin(9, true, sink_);
  ioapic_.set_pin(9, false, sink_);
  write(0x10 + 18, kMasked | 0x41);
  write(0x10 + 18, kMasked | kLevel | 0x41);
  EXPECT_EQ(read(0x10 + 18) & kRemoteIrr, 0u);
}

TEST_F(IoapicTest, DirectedEoiRegisterDoesNotExistInVersion11) {
  redirect(9, kLevel | 0x41);
  ioapic_.set_pin(9, true, sink_);
  ioapic_.write(0xfec00040, 0x41, sink_);
  EXPECT_EQ(messages_.size(), 1u);
  EXPECT_EQ(read(0x10 + 18) & kRemoteIrr, kRemoteIrr);
}

TEST_F(IoapicTest, StateCarriesAssertedLevelsAndDropsDeliveredEdges) {
  redirect(4, 0x31);
  redirect(9, kLevel | kMasked | 0x41);
  ioapic_.set_pin(4, true, sink_);
  ioapic_.set_pin(9, true, sink_);
  kvm_ioapic_state state;
  ioapic_.get_state(state);
  EXPECT_EQ(state.irr, 1u << 9);
  EXPECT_EQ(state.base_address, 0xfec00000u);
  messages_.clear();
  Ioapic other;
  other.set_state(state, sink_);
  EXPECT_TRUE(messages_.empty());
  other.write(0xfec00000, 0x10 + 18, sink_);
  other.write(0xfec00010, kLevel | 0x41, sink_);
  EXPECT_EQ(messages_.size(), 1u);
}

}  // namespace
}  // namespace lodge::engine::soft
