#include "base/settings.hpp"

#include <gtest/gtest.h>

namespace lodge {
namespace {

std::string shown(std::string_view text) {
  std::string all;
  for (const Setting& setting : split_settings(text)) all += "[" + setting.name + "|" + setting.value + "]";
  return all;
}

TEST(Settings, AreSeparatedByCommas) {
  EXPECT_EQ(shown(""), "");
  EXPECT_EQ(shown("file=a.img"), "[file|a.img]");
  EXPECT_EQ(shown("file=a.img,readonly=on"), "[file|a.img][readonly|on]");
  EXPECT_EQ(shown("user,restrict=on"), "[|user][restrict|on]");
  EXPECT_EQ(shown("a=b=c"), "[a|b=c]");
  EXPECT_EQ(shown("a=,=b,"), "[a|][|b][|]") << "what is empty stays visible to whoever refuses it";
}

TEST(Settings, TwoCommasAreOneInAValue) {
  EXPECT_EQ(shown("file=a,,b.img,x=y"), "[file|a,b.img][x|y]");
  EXPECT_EQ(shown("file=a,,,,b"), "[file|a,,b]");
  EXPECT_EQ(shown("file=a,,,x=y"), "[file|a,][x|y]");
}

TEST(Settings, Switches) {
  EXPECT_TRUE(*parse_switch("on"));
  EXPECT_TRUE(*parse_switch("yes"));
  EXPECT_FALSE(*parse_switch("off"));
  EXPECT_FALSE(*parse_switch("no"));
  EXPECT_FALSE(parse_switch("1"));
  EXPECT_FALSE(parse_switch(""));
}

}  // namespace
}  // namespace lodge
