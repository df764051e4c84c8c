#include "display/seat.hpp"

#include <gtest/gtest.h>

namespace lodge::display {
namespace {

// Shows one colour all over; a change of it damages one dot.
class FakeScreen final : public Screen {
 public:
  void refresh(Picture& picture, Damage& damage, uint64_t, bool whole) override {
    if (!picture.has_size(width, height)) picture.resize(width, height);
    if (whole) {
      damage.add({0, 0, width, height});
      std::ranges::fill(picture.pixels, color);
    }
    if (picture.pixels[0] != color) {
      picture.pixels[0] = color;
      damage.add({0, 0, 1, 1});
    }
    ++refreshes;
  }
  unsigned width = 4, height = 2, refreshes = 0;
  uint32_t color = 1;
};

class Keys final : public KeyboardInput {
 public:
  void key(Key key, bool down) override { seen.emplace_back(key, down); }
  std::vector<std::pair<Key, bool>> seen;
};

// Somebody has seen the first picture.
class FollowedSeat : public testing::Test {
 protected:
  FollowedSeat() {
    seat.connect({.screen = &screen});
    seat.follow(copy, damage);
  }
  FakeScreen screen;
  Seat seat;
  Picture copy;
  Damage damage;
};

TEST_F(FollowedSeat, FollowsTheScreen) {
  ASSERT_TRUE(copy.has_size(4, 2));
  EXPECT_EQ(copy.pixels[7], 1U);
  damage.clear();
  seat.follow(copy, damage);
  EXPECT_TRUE(damage.empty());
  screen.color = 2;
  seat.follow(copy, damage);
  EXPECT_EQ(copy.pixels[0], 2U);
  EXPECT_EQ(damage.areas(), (std::vector<Rectangle>{{0, 0, 1, 1}}));
}

TEST_F(FollowedSeat, PicturesDoNotTakeDamageFromTheFollower) {
  damage.clear();
  screen.color = 2;
  EXPECT_EQ(seat.picture().pixels[0], 2U);
  seat.follow(copy, damage);
  EXPECT_EQ(copy.pixels[0], 2U);
  EXPECT_FALSE(damage.empty());
}

TEST_F(FollowedSeat, ResizeIsDamageAllOver) {
  damage.clear();
  screen.width = 8;
  seat.follow(copy, damage);
  EXPECT_EQ(damage.areas(), (std::vector<Rectangle>{{0, 0, 8, 2}}));
  EXPECT_TRUE(copy.has_size(8, 2));
}

TEST(Seat, BetweenMachinesThePictureStaysAndKeysGoNowhere) {
  Seat seat;
  FakeScreen screen;
  Keys keys;
  seat.connect({.screen = &screen, .keyboard = &keys});
  EXPECT_TRUE(seat.has_screen());
  static_cast<void>(seat.picture());
  seat.key(30, true);
  seat.disconnect();
  EXPECT_FALSE(seat.has_screen());
  seat.key(31, true);
  seat.move(1, 1, 0, 0);
  EXPECT_TRUE(seat.picture().has_size(4, 2));
  EXPECT_EQ(keys.seen, (std::vector<std::pair<Key, bool>>{{30, true}}));
  EXPECT_EQ(screen.refreshes, 1U);
}

}  // namespace
}  // namespace lodge::display
