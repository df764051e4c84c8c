#include "control/remote/typing.hpp"

#include <gtest/gtest.h>

namespace lodge::control {
namespace {

using Chord = std::vector<std::string>;

TEST(Typing, ChordsAreKeysJoinedByDashes) {
  EXPECT_EQ(parse_chord("ctrl-alt-delete"), (Chord{"ctrl", "alt", "delete"}));
  EXPECT_EQ(parse_chord("a"), Chord{"a"});
  for (const char* bad : {"", "-", "ctrl-", "ctrl-alt-dlete", "A B"}) {
    const auto result = parse_chord(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().kind, ErrorKind::Usage);
  }
}

TEST(Typing, TextBecomesStrokes) {
  const display::Layout& de = **display::Layout::named("de");
  EXPECT_EQ(parse_text("aZ@\n", de), (std::vector<Chord>{{"a"}, {"shift", "y"}, {"alt_r", "q"}, {"ret"}}));
  EXPECT_EQ(parse_text("ß€", de), (std::vector<Chord>{{"minus"}, {"alt_r", "e"}}));
  EXPECT_EQ(parse_text("", de), std::vector<Chord>{});
}

TEST(Typing, WhatCannotBeTypedIsNamed) {
  const display::Layout& us = **display::Layout::named("us");
  const auto foreign = parse_text("é", us);
  ASSERT_FALSE(foreign);
  EXPECT_NE(foreign.error().message.find("U+00E9"), std::string::npos);
  for (const char* broken : {"\xff", "a\xc3", "\xe2\x82", "\x80"}) EXPECT_FALSE(parse_text(broken, us));
}

}  // namespace
}  // namespace lodge::control
