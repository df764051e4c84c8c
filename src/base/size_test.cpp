#include "base/size.hpp"

#include <gtest/gtest.h>

namespace lodge {
namespace {

TEST(Size, IsRead) {
  EXPECT_EQ(*parse_bytes("0"), 0u);
  EXPECT_EQ(*parse_bytes("4096"), 4096u);
  EXPECT_EQ(*parse_bytes("4096b"), 4096u);
  EXPECT_EQ(*parse_bytes("64k"), 65536u);
  EXPECT_EQ(*parse_bytes("64KiB"), 65536u);
  EXPECT_EQ(*parse_bytes("1.5G"), uint64_t{3} << 29);
  EXPECT_EQ(*parse_bytes("0.25T"), uint64_t{1} << 38);
  EXPECT_EQ(*parse_bytes("15E"), uint64_t{15} << 60);
  EXPECT_EQ(*parse_bytes("18446744073709551615"), UINT64_MAX);
}

TEST(Size, IsRefused) {
  for (const char* text : {"", "k", "-1", "+1", "1x", "1kk", "1 k", "0x10", "1.5", "1.5b", "16E", "18446744073709551616", "99999999999P"})
    EXPECT_FALSE(parse_bytes(text)) << text;
}

TEST(Size, IsWritten) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1 KiB");
  EXPECT_EQ(format_bytes(196 * 1024), "196 KiB");
  EXPECT_EQ(format_bytes(uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(format_bytes(1023 * 1024), "0.999 MiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16 EiB");
}

}  // namespace
}  // namespace lodge
