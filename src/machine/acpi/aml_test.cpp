#include "machine/acpi/aml.hpp"

#include <gtest/gtest.h>

namespace lodge::machine::acpi {
namespace {

TEST(Aml, PackageLengthCountsItsOwnBytes) {
  EXPECT_EQ(package_length(0), (Aml{0x01}));
  EXPECT_EQ(package_length(0x3e), (Aml{0x3f}));
  EXPECT_EQ(package_length(0x3f), (Aml{0x41, 0x04}));         // 0x41 in all
  EXPECT_EQ(package_length(0xffd), (Aml{0x4f, 0xff}));        // 0xfff
  EXPECT_EQ(package_length(0xffe), (Aml{0x81, 0x00, 0x01}));  // 0x1001
}

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_EQ(integer(0), (Aml{0x00}));
  EXPECT_EQ(integer(1), (Aml{0x01}));
  EXPECT_EQ(integer(5), (Aml{0x0a, 5}));
  EXPECT_EQ(integer(0x1234), (Aml{0x0b, 0x34, 0x12}));
  EXPECT_EQ(integer(0x12345678), (Aml{0x0c, 0x78, 0x56, 0x34, 0x12}));
  EXPECT_EQ(integer(0x100000000), (Aml{0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(Aml, NamesArePaddedAndPrefixed) {
  EXPECT_EQ(name_string("RTC"), (Aml{'R', 'T', 'C', '_'}));
  EXPECT_EQ(name_string("\\_SB"), (Aml{'\\', '_', 'S', 'B', '_'}));
  EXPECT_EQ(name_string("\\_SB.COM1"), (Aml{'\\', 0x2e, '_', 'S', 'B', '_', 'C', 'O', 'M', '1'}));
  EXPECT_EQ(name_string("A.B.C").at(0), 0x2f);
  EXPECT_EQ(name_string("A.B.C").at(1), 3);
}

TEST(Aml, EisaIdIsCompressed) {
  EXPECT_EQ(eisa_id("PNP0501"), (Aml{0x0c, 0x41, 0xd0, 0x05, 0x01}));
  EXPECT_EQ(eisa_id("PNP0B00"), (Aml{0x0c, 0x41, 0xd0, 0x0b, 0x00}));
}

TEST(Aml, BuffersStringsAndPackages) {
  EXPECT_EQ(string("ab"), (Aml{0x0d, 'a', 'b', 0}));
  EXPECT_EQ(buffer({7, 8}), (Aml{0x11, 0x05, 0x0a, 2, 7, 8}));
  EXPECT_EQ(package({integer(5), integer(0)}), (Aml{0x12, 0x05, 2, 0x0a, 5, 0x00}));
  EXPECT_EQ(name("_UID", integer(1)), (Aml{0x08, '_', 'U', 'I', 'D', 0x01}));
}

TEST(Aml, ResourceTemplateEndsWithItsTag) {
  EXPECT_EQ(resources(irq(4)), (Aml{0x11, 0x08, 0x0a, 5, 0x22, 0x10, 0x00, 0x79, 0x00}));
  EXPECT_EQ(io_ports(0x3f8, 8), (Aml{0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08}));
}

}  // namespace
}  // namespace lodge::machine::acpi
