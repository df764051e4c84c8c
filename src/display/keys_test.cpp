#include "display/keys.hpp"

#include <gtest/gtest.h>
#include <linux/input-event-codes.h>

namespace lodge::display {
namespace {

TEST(Keys, HaveNames) {
  EXPECT_EQ(key_named("ret"), KEY_ENTER);
  EXPECT_EQ(key_named("enter"), KEY_ENTER);
  EXPECT_EQ(key_named("f12"), KEY_F12);
  EXPECT_FALSE(key_named("any"));
  EXPECT_FALSE(key_named(""));
  EXPECT_EQ(name_of(KEY_ENTER), "ret") << "QMP's own";
  EXPECT_EQ(name_of(KEY_F24), "");
}

TEST(Keys, HaveScanCodes) {
  EXPECT_EQ(key_of_scan_code(0x1e), KEY_A);
  EXPECT_EQ(key_of_scan_code(0xc8), KEY_UP);
  EXPECT_EQ(key_of_scan_code(0xe048), KEY_UP);
  EXPECT_FALSE(key_of_scan_code(0));
  EXPECT_FALSE(key_of_scan_code(0x1234));
  for (Key key = 1; key < 256; ++key) {
    const auto code = scan_code_of(key);
    if (code) {
      EXPECT_EQ(key_of(*code), key);
    }
  }
}

TEST(Layouts, AreKnownByName) {
  EXPECT_TRUE(Layout::named("fr"));
  const auto none = Layout::named("xx");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::Usage);
}

TEST(Layouts, TypeWhatIsPrintedOnTheKeys) {
  const Layout& us = **Layout::named("us");
  const Layout& de = **Layout::named("de");
  const Layout& fr = **Layout::named("fr");
  EXPECT_EQ(us.stroke_of(U'y'), (Stroke{KEY_Y}));
  EXPECT_EQ(de.stroke_of(U'y'), (Stroke{KEY_Z}));
  EXPECT_EQ(de.stroke_of(U'Z'), (Stroke{KEY_Y, true}));
  EXPECT_EQ(de.stroke_of(U'@'), (Stroke{KEY_Q, false, true}));
  EXPECT_EQ(de.stroke_of(U'ß'), (Stroke{KEY_MINUS}));
  EXPECT_EQ(fr.stroke_of(U'a'), (Stroke{KEY_Q}));
  EXPECT_EQ(fr.stroke_of(U'1'), (Stroke{KEY_1, true}));
  EXPECT_EQ(fr.stroke_of(U'm'), (Stroke{KEY_SEMICOLON}));
  EXPECT_FALSE(us.stroke_of(U'é'));
  EXPECT_FALSE(us.stroke_of(0));
}

TEST(Layouts, EveryPrintableAsciiCharacterHasAKey) {
  for (const char* name : {"us", "de", "fr"}) {
    const Layout& layout = **Layout::named(name);
    for (char32_t c = U' '; c < 127; ++c) {
      // Dead keys, which wait for a letter, are no characters.
      if ((name == std::string_view("de") && (c == U'^' || c == U'`'))) continue;
      EXPECT_TRUE(layout.stroke_of(c)) << name << " " << static_cast<char>(c);
    }
  }
}

}  // namespace
}  // namespace lodge::display
