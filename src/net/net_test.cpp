#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "net/checksum.hpp"
#include "net/loopback_guard.hpp"
#include "net/mac_address.hpp"

namespace lodge::net {
namespace {

using Frame = std::vector<std::byte>;

void put16(Frame& frame, size_t at, uint16_t value) {
  frame[at] = static_cast<std::byte>(value >> 8);
  frame[at + 1] = static_cast<std::byte>(value);
}

constexpr size_t kEthernet = 14;

enum : uint8_t { kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58 };
constexpr uint8_t kSyn = 2, kAck = 16;

struct Spec {
  const char* from = "10.0.2.15";
  const char* to = "10.0.2.2";
  uint8_t protocol = kTcp;
  uint16_t source_port = 40000, destination_port = 80;
  uint8_t tcp_flags = kSyn;
  uint16_t fragment = 0;
};

Frame frame_of(const Spec& spec) {
  const bool v6 = std::strchr(spec.to, ':') != nullptr;
  const size_t ip = v6 ? 40 : 20;
  Frame frame(kEthernet + ip + 20);
  put16(frame, 12, v6 ? 0x86dd : 0x0800);
  if (v6) {
    frame[kEthernet] = std::byte{0x60};
    frame[kEthernet + 6] = std::byte{spec.protocol};
    inet_pton(AF_INET6, spec.from, &frame[kEthernet + 8]);
    inet_pton(AF_INET6, spec.to, &frame[kEthernet + 24]);
  } else {
    frame[kEthernet] = std::byte{0x45};
    put16(frame, kEthernet + 6, spec.fragment);
    frame[kEthernet + 9] = std::byte{spec.protocol};
    inet_pton(AF_INET, spec.from, &frame[kEthernet + 12]);
    inet_pton(AF_INET, spec.to, &frame[kEthernet + 16]);
  }
  put16(frame, kEthernet + ip, spec.source_port);
  put16(frame, kEthernet + ip + 2, spec.destination_port);
  frame[kEthernet + ip + 13] = std::byte{spec.tcp_flags};
  return frame;
}

LoopbackGuard guard() {
  UserAddresses addresses{};
  inet_pton(AF_INET, "10.0.2.0", &addresses.network);
  inet_pton(AF_INET, "255.255.255.0", &addresses.mask);
  inet_pton(AF_INET, "10.0.2.2", &addresses.gateway);
  inet_pton(AF_INET, "10.0.2.3", &addresses.dns);
  inet_pton(AF_INET6, "fec0::", &addresses.prefix6);
  addresses.prefix6_bits = 64;
  inet_pton(AF_INET6, "fec0::3", &addresses.dns6);
  return LoopbackGuard(addresses);
}

TEST(LoopbackGuard, NewConnectionsToTheHostDoNotPass) {
  for (const char* to : {"10.0.2.2", "10.0.2.3", "10.0.2.99", "127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.1", "255.255.255.255"})
    for (const uint8_t protocol : {kTcp, kUdp})
      EXPECT_FALSE(guard().allows(frame_of({.to = to, .protocol = protocol}))) << to << ' ' << int{protocol};
  for (const char* to : {"fec0::2", "fec0::3", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "fe80::2", "ff02::1"})
    for (const uint8_t protocol : {kTcp, kUdp})
      EXPECT_FALSE(guard().allows(frame_of({.from = "fec0::15", .to = to, .protocol = protocol}))) << to << ' ' << int{protocol};
}

TEST(LoopbackGuard, OtherHostsAreReached) {
  EXPECT_TRUE(guard().allows(frame_of({.to = "192.0.2.1"})));
  EXPECT_TRUE(guard().allows(frame_of({.to = "10.0.3.2", .protocol = kUdp})));
  EXPECT_TRUE(guard().allows(frame_of({.from = "fec0::15", .to = "2001:db8::1"})));
  EXPECT_TRUE(guard().allows(frame_of({.to = "192.0.2.1", .protocol = kUdp, .fragment = 0x2000})));
}

TEST(LoopbackGuard, WhatTheNetworkServesIsReached) {
  EXPECT_TRUE(guard().allows(frame_of({.to = "10.0.2.3", .protocol = kUdp, .destination_port = 53})));
  EXPECT_TRUE(guard().allows(frame_of({.to = "10.0.2.3", .protocol = kTcp, .destination_port = 53})));
  EXPECT_TRUE(guard().allows(frame_of({.from = "0.0.0.0", .to = "255.255.255.255", .protocol = kUdp, .destination_port = 67})));
  EXPECT_TRUE(guard().allows(frame_of({.protocol = kIcmp})));
  EXPECT_TRUE(guard().allows(frame_of({.from = "fec0::15", .to = "ff02::2", .protocol = kIcmp6})));
  EXPECT_TRUE(guard().allows(frame_of({.from = "fec0::15", .to = "fec0::3", .protocol = kUdp, .destination_port = 53})));
  // But not a name server on the host's loopback.
  EXPECT_FALSE(guard().allows(frame_of({.to = "10.0.2.2", .protocol = kUdp, .destination_port = 53})));
  EXPECT_FALSE(guard().allows(frame_of({.to = "127.0.0.1", .protocol = kTcp, .destination_port = 53})));
}

TEST(LoopbackGuard, FragmentsDoNotHideAnything) {
  EXPECT_FALSE(guard().allows(frame_of({.protocol = kUdp, .fragment = 0x2000})));
  EXPECT_FALSE(guard().allows(frame_of({.protocol = kTcp, .tcp_flags = kAck, .fragment = 1})));
}

TEST(LoopbackGuard, AnswersToConnectionsThatCameInPass) {
  EXPECT_TRUE(guard().allows(frame_of({.source_port = 22, .destination_port = 50000, .tcp_flags = kSyn | kAck})));
  EXPECT_TRUE(guard().allows(frame_of({.tcp_flags = kAck})));
  LoopbackGuard one = guard();
  const Frame reply = frame_of({.protocol = kUdp, .source_port = 5353, .destination_port = 50001});
  EXPECT_FALSE(one.allows(reply));
  one.note_incoming(frame_of({.from = "10.0.2.2", .to = "10.0.2.15", .protocol = kUdp, .source_port = 50001, .destination_port = 5353}));
  EXPECT_TRUE(one.allows(reply));
  EXPECT_FALSE(one.allows(frame_of({.protocol = kUdp, .source_port = 5353, .destination_port = 50002})));
  // A datagram of another host's opens nothing.
  one.note_incoming(frame_of({.from = "192.0.2.1", .to = "10.0.2.15", .protocol = kUdp, .source_port = 50002, .destination_port = 5353}));
  EXPECT_FALSE(one.allows(frame_of({.protocol = kUdp, .source_port = 5353, .destination_port = 50002})));
}

TEST(LoopbackGuard, TruncatedFramesAreSafe) {
  for (const char* to : {"10.0.2.2", "fec0::2"}) {
    const Frame whole = frame_of({.from = std::strchr(to, ':') ? "fec0::15" : "10.0.2.15", .to = to});
    for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
      Frame cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes));
      LoopbackGuard one = guard();
      one.note_incoming(cut);
      if (bytes >= kEthernet + 40) {
        EXPECT_FALSE(one.allows(cut)) << bytes;
      } else {
        [[maybe_unused]] const bool any = one.allows(cut);
      }
    }
  }
}

TEST(LoopbackGuard, ARefusedConnectionIsReset) {
  for (const bool v6 : {false, true}) {
    Frame syn = frame_of(v6 ? Spec{.from = "fec0::15", .to = "fec0::2"} : Spec{});
    const size_t ip = v6 ? 40 : 20, tcp = kEthernet + ip, addresses = kEthernet + (v6 ? 8 : 12), bytes = v6 ? 16 : 4;
    for (size_t i = 0; i < 12; ++i) syn[i] = static_cast<std::byte>(i);
    put16(syn, tcp + 4, 0x1234);
    put16(syn, tcp + 6, 0xffff);
    const auto reset = LoopbackGuard::refusal(syn);
    ASSERT_EQ(reset.size(), tcp + 20);
    EXPECT_EQ(std::memcmp(&reset[0], &syn[6], 6), 0);
    EXPECT_EQ(std::memcmp(&reset[6], &syn[0], 6), 0);
    EXPECT_EQ(std::memcmp(&reset[addresses], &syn[addresses + bytes], bytes), 0);
    EXPECT_EQ(std::memcmp(&reset[addresses + bytes], &syn[addresses], bytes), 0);
    EXPECT_EQ(std::memcmp(&reset[tcp], &syn[tcp + 2], 2), 0);
    EXPECT_EQ(std::memcmp(&reset[tcp + 2], &syn[tcp], 2), 0);
    const std::array<uint8_t, 4> next{0x12, 0x35, 0x00, 0x00};
    EXPECT_EQ(std::memcmp(&reset[tcp + 8], next.data(), 4), 0);
    EXPECT_EQ(reset[tcp + 13], std::byte{0x14});  // RST, ACK
    // Checksums that are in place sum up to all ones.
    if (!v6) {
      EXPECT_EQ(internet_sum(std::span(reset).subspan(kEthernet, ip)), 0xffff);
    }
    uint32_t sum = internet_sum(std::span(reset).subspan(addresses, 2 * bytes)) + kTcp + 20u + internet_sum(std::span(reset).subspan(tcp));
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    EXPECT_EQ(sum, 0xffffu);
  }
  EXPECT_TRUE(LoopbackGuard::refusal(frame_of({.tcp_flags = kAck})).empty());
  EXPECT_TRUE(LoopbackGuard::refusal(frame_of({.protocol = kUdp})).empty());
}

TEST(Checksum, SumOfRfc1071) {
  // Its example, section 3.
  const std::array<uint8_t, 8> bytes{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(internet_sum(std::as_bytes(std::span(bytes))), 0xddf2);
  EXPECT_EQ(internet_sum(std::as_bytes(std::span(bytes)).first(7)), static_cast<uint16_t>(0xddf2 - 0xf7));
  EXPECT_EQ(internet_sum({}), 0);
}

TEST(Checksum, IsCompletedWhereTheHeaderSays) {
  Frame frame(40, std::byte{0});
  for (size_t i = 0; i < frame.size(); ++i) frame[i] = static_cast<std::byte>(i * 7);
  Header header{};
  header.flags = kNeedsChecksum;
  header.checksum_start = 11;
  header.checksum_offset = 6;
  ASSERT_TRUE(complete_checksum(header, frame));
  // With its checksum in place the whole sums up to all ones, if the place held nothing else before.
  Frame again(frame);
  uint32_t sum = 0;
  for (size_t at = 11; at < again.size(); at += 2)
    sum += static_cast<uint32_t>(std::to_integer<unsigned>(again[at]) << 8 |
                                 (at + 1 < again.size() ? std::to_integer<unsigned>(again[at + 1]) : 0));
  for (size_t i = 17; i < 19; ++i) again[i] = static_cast<std::byte>(i * 7);
  sum += static_cast<uint32_t>(17 * 7 << 8 | (18 * 7 & 0xff));
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_EQ(sum, 0xffffu);
}

TEST(Checksum, OffsetsOutsideTheFrameAreRefused) {
  Frame frame(40);
  Header header{};
  header.flags = kNeedsChecksum;
  header.checksum_start = 41;
  EXPECT_FALSE(complete_checksum(header, frame));
  header.checksum_start = 30;
  header.checksum_offset = 9;
  EXPECT_FALSE(complete_checksum(header, frame));
  header.checksum_offset = 8;
  EXPECT_TRUE(complete_checksum(header, frame));
  header.checksum_start = header.checksum_offset = 0xffff;
  EXPECT_FALSE(complete_checksum(header, frame));
  header.flags = 0;
  EXPECT_TRUE(complete_checksum(header, frame));
}

TEST(MacAddress, DerivedOnesAreStableAndDiffer) {
  const MacAddress one = derived_mac_address("web", 0);
  EXPECT_EQ(one, derived_mac_address("web", 0));
  EXPECT_NE(one, derived_mac_address("web", 1));
  EXPECT_NE(one, derived_mac_address("db", 0));
  EXPECT_EQ(parse_mac_address(to_string(one)).value(), one);
}

}  // namespace
}  // namespace lodge::net
