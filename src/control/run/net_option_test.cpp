#include "control/run/net_option.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>

namespace lodge::control {
namespace {

using machine::NicConfig;

std::string refusal(std::string_view text) {
  const auto nic = parse_net(text);
  EXPECT_FALSE(nic) << text;
  if (!nic) {
    EXPECT_EQ(nic.error().kind, ErrorKind::Usage);
  }
  return nic ? "" : nic.error().message;
}

std::string text_of(in_addr address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  return inet_ntop(AF_INET, &address, text.data(), text.size());
}

TEST(NetOption, None) {
  EXPECT_FALSE(parse_net("none").value());
  EXPECT_NE(refusal("none,mac=52:54:00:00:00:01"), "");
}

TEST(NetOption, UserDefaults) {
  const NicConfig nic = *parse_net("user").value();
  EXPECT_EQ(nic.kind, NicConfig::Kind::User);
  EXPECT_FALSE(nic.mac);
  EXPECT_TRUE(nic.link);
  EXPECT_TRUE(nic.user.ipv6);
  EXPECT_FALSE(nic.user.loopback);
  EXPECT_FALSE(nic.user.restrict);
  EXPECT_TRUE(nic.user.forwards.empty());
}

TEST(NetOption, UserSettings) {
  const NicConfig nic = *parse_net(
                             "user,hostfwd=tcp::2222-:22,hostfwd=udp:0.0.0.0:53-10.1.0.15:5353,net=10.1.0.0/16,hostname=guest,ipv6=off,"
                             "restrict=on,loopback=on,mac=52-54-00-aa-bb-cc,link=off,packed=on,model=virtio")
                             .value();
  ASSERT_EQ(nic.user.forwards.size(), 2u);
  EXPECT_FALSE(nic.user.forwards[0].udp);
  EXPECT_EQ(text_of(nic.user.forwards[0].host_address), "127.0.0.1");
  EXPECT_EQ(nic.user.forwards[0].host_port, 2222);
  EXPECT_EQ(nic.user.forwards[0].guest_address.s_addr, 0u);
  EXPECT_EQ(nic.user.forwards[0].guest_port, 22);
  EXPECT_TRUE(nic.user.forwards[1].udp);
  EXPECT_EQ(text_of(nic.user.forwards[1].host_address), "0.0.0.0");
  EXPECT_EQ(text_of(nic.user.forwards[1].guest_address), "10.1.0.15");
  EXPECT_EQ(nic.user.forwards[1].guest_port, 5353);
  EXPECT_EQ(text_of(nic.user.network), "10.1.0.0");
  EXPECT_EQ(text_of(nic.user.mask), "255.255.0.0");
  EXPECT_EQ(nic.user.hostname, "guest");
  EXPECT_FALSE(nic.user.ipv6);
  EXPECT_TRUE(nic.user.restrict);
  EXPECT_TRUE(nic.user.loopback);
  EXPECT_EQ(nic.mac, (net::MacAddress{0x52, 0x54, 0, 0xaa, 0xbb, 0xcc}));
  EXPECT_FALSE(nic.link);
  EXPECT_TRUE(nic.packed);
}

TEST(NetOption, Tap) {
  const NicConfig named = *parse_net("tap,ifname=tap0,queues=4").value();
  EXPECT_EQ(named.kind, NicConfig::Kind::Tap);
  EXPECT_EQ(named.tap.interface, "tap0");
  EXPECT_EQ(named.pairs, 4);
  EXPECT_EQ(named.tap.pairs, 4u);
  const NicConfig open = *parse_net("tap,fd=5:6").value();
  EXPECT_EQ(open.tap.fds, (std::vector<int>{5, 6}));
  EXPECT_EQ(open.pairs, 2);
}

TEST(NetOption, RefusalsSayWhatIsWrong) {
  EXPECT_NE(refusal("").find("user, tap or none"), std::string::npos);
  EXPECT_NE(refusal("bridge").find("'bridge'"), std::string::npos);
  EXPECT_NE(refusal("user,ifname=tap0").find("no setting 'ifname'"), std::string::npos);
  EXPECT_NE(refusal("user,hostfwd=tcp:2222-:22").find("tcp::2222-:22"), std::string::npos);
  EXPECT_NE(refusal("user,hostfwd=sctp::1-:1").find("neither tcp nor udp"), std::string::npos);
  EXPECT_NE(refusal("user,hostfwd=tcp::0-:1").find("'0' is not a port"), std::string::npos);
  EXPECT_NE(refusal("user,hostfwd=tcp::65536-:1").find("not a port"), std::string::npos);
  EXPECT_NE(refusal("user,hostfwd=tcp:localhost:1-:1").find("not an IPv4 address"), std::string::npos);
  EXPECT_NE(refusal("user,net=10.0.2.1/24").find("first address"), std::string::npos);
  EXPECT_NE(refusal("user,net=10.0.0.0/30").find("8 to 27 bits"), std::string::npos);
  EXPECT_NE(refusal("user,net=127.0.0.0/8").find("first address"), std::string::npos);
  EXPECT_NE(refusal("user,mac=53:54:00:00:00:01").find("first byte must be even"), std::string::npos);
  EXPECT_NE(refusal("user,mac=52:54:00:00:00").find("not an Ethernet address"), std::string::npos);
  EXPECT_NE(refusal("user,ipv6=on,ipv6=off").find("given twice"), std::string::npos);
  EXPECT_NE(refusal("user,model=ne2k").find("virtio or e1000"), std::string::npos);
  EXPECT_NE(refusal("user,model=e1000,packed=on").find("virtio's"), std::string::npos);
  EXPECT_EQ(parse_net("user,model=e1000").value()->model, NicConfig::Model::E1000);
  EXPECT_NE(refusal("tap").find("ifname=NAME"), std::string::npos);
  EXPECT_NE(refusal("tap,ifname=a,fd=4").find("do not go together"), std::string::npos);
  EXPECT_NE(refusal("tap,ifname=a-name-too-long-for-linux").find("1 to 15"), std::string::npos);
  EXPECT_NE(refusal("tap,fd=1").find("from 3 on"), std::string::npos);
  EXPECT_NE(refusal("tap,fd=3:4,queues=3").find("as many descriptors"), std::string::npos);
  EXPECT_NE(refusal("tap,ifname=a,queues=17").find("1 to 16"), std::string::npos);
}

}  // namespace
}  // namespace lodge::control
