#include "display/vnc/address.hpp"

#include <gtest/gtest.h>

namespace lodge::display::vnc {
namespace {

constexpr uint16_t kPort = 5900;

TEST(ViewerAddress, SaysHostAndPort) {
  const Address usual{.port = kPort, .tries = 100};
  EXPECT_EQ(parse_address("", usual)->text(), "127.0.0.1:5900");
  EXPECT_EQ(parse_address("", usual)->tries, 100);
  EXPECT_EQ(parse_address(":6000", usual)->text(), "127.0.0.1:6000");
  EXPECT_EQ(parse_address(":6000", usual)->tries, 1) << "this port and no other";
  EXPECT_EQ(parse_address("0.0.0.0", usual)->text(), "0.0.0.0:5900");
  EXPECT_EQ(parse_address("host.example:1", usual)->text(), "host.example:1");
  EXPECT_EQ(parse_address("[::1]:7", usual)->text(), "[::1]:7");
  EXPECT_EQ(parse_address("[::1]", usual)->host, "::1");
  for (const char* bad : {"::1", ":", "host:", "host:0", "host:65536", "host:x", "[::1", "[::1]7", "[]:5"}) {
    const auto parsed = parse_address(bad, usual);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().kind, ErrorKind::Usage);
  }
}

// Some port, whatever else runs.
constexpr uint16_t kFirst = 20000, kTries = 40000;

TEST(ViewerAddress, PortsInUseAreNamedOrPassedBy) {
  const auto first = listen({.port = kFirst, .tries = kTries});
  ASSERT_TRUE(first) << first.error().message;
  const uint16_t port = first->address.port;
  EXPECT_TRUE(first->loopback);
  const auto second = listen({.port = port});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::Usage);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos);
  const auto third = listen({.port = port, .tries = 5000});
  ASSERT_TRUE(third);
  EXPECT_GT(third->address.port, port);
}

TEST(ViewerAddress, HostsThatAreNotAreNamed) {
  const auto nowhere = listen({.host = "192.0.2.1", .port = kPort});  // RFC 5737: nobody's
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().kind, ErrorKind::Usage);
  EXPECT_FALSE(listen({.host = "no.such.host.invalid", .port = kPort}));
}

TEST(ViewerAddress, OpenAddressesAreNotLoopback) {
  const auto open = listen({.host = "0.0.0.0", .port = kFirst, .tries = kTries});
  ASSERT_TRUE(open);
  EXPECT_FALSE(open->loopback);
}

}  // namespace
}  // namespace lodge::display::vnc
