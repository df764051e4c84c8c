#include "display/vnc/keysyms.hpp"

#include <gtest/gtest.h>
#include <linux/input-event-codes.h>

namespace lodge::display::vnc {
namespace {

TEST(Keysyms, NamedKeysAreTheSameInAllLayouts) {
  for (const char* name : {"us", "de", "fr"}) {
    const Layout& layout = **Layout::named(name);
    EXPECT_EQ(key_of_keysym(0xff0d, layout), KEY_ENTER);
    EXPECT_EQ(key_of_keysym(0xffbe, layout), KEY_F1);
    EXPECT_EQ(key_of_keysym(0xffc7, layout), KEY_F10);
    EXPECT_EQ(key_of_keysym(0xffc9, layout), KEY_F12);
    EXPECT_EQ(key_of_keysym(0xfe03, layout), KEY_RIGHTALT);
    EXPECT_EQ(key_of_keysym(0xffe3, layout), KEY_LEFTCTRL);
  }
}

TEST(Keysyms, CharactersFollowTheLayout) {
  const Layout& us = **Layout::named("us");
  const Layout& de = **Layout::named("de");
  const Layout& fr = **Layout::named("fr");
  EXPECT_EQ(key_of_keysym('z', us), KEY_Z);
  EXPECT_EQ(key_of_keysym('z', de), KEY_Y);
  EXPECT_EQ(key_of_keysym('A', fr), KEY_Q);
  EXPECT_EQ(key_of_keysym('@', de), KEY_Q) << "the viewer holds AltGr itself";
  EXPECT_EQ(key_of_keysym(0xf6, de), KEY_SEMICOLON) << "o with two dots, of Latin 1";
  EXPECT_EQ(key_of_keysym(0x010000e9, fr), KEY_2) << "e with an acute, by its number in Unicode";
  EXPECT_EQ(key_of_keysym(0x20ac, de), KEY_E);
  EXPECT_FALSE(key_of_keysym(0xf6, us));
}

TEST(Keysyms, NonsenseIsNoKey) {
  const Layout& us = **Layout::named("us");
  for (const uint32_t keysym : {0U, 0xffffffffU, 0x01000000U, 0x01200000U, 0xfeeeU}) EXPECT_FALSE(key_of_keysym(keysym, us)) << keysym;
}

}  // namespace
}  // namespace lodge::display::vnc
