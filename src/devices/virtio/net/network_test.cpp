#include "devices/virtio/net/network.hpp"

#include <gtest/gtest.h>

#include <numeric>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

using test::Piece;
using test::Shape;

constexpr unsigned kChecksum = 0, kGuestChecksum = 1, kGuestOffloads = 2, kMtu = 3, kMac = 5, kGuestTso4 = 7, kHostTso4 = 11,
                   kHostTso6 = 12, kMergeable = 15, kStatus = 16, kControl = 17, kControlReceive = 18, kControlExtra = 20, kMultiQueue = 22,
                   kControlMac = 23;
constexpr net::MacAddress kOwn{0x52, 0x54, 0, 1, 2, 3};

struct Wire final : net::Backend {
  struct Frame {
    unsigned pair;
    net::Header header;
    std::string bytes;
  };
  [[nodiscard]] net::Offloads takes() const override { return offers; }
  [[nodiscard]] unsigned most_pairs() const override { return 2; }
  void connect(net::Receiver* to, const net::Offloads& guest_takes) override {
    card = to;
    guest = guest_takes;
  }
  void change_offloads(const net::Offloads& guest_takes) override { guest = guest_takes; }
  void use_pairs(unsigned pairs) override { used_pairs = pairs; }
  void room(unsigned pair) override { rooms.push_back(pair); }
  [[nodiscard]] bool send(unsigned pair, const net::Header& header, std::span<const iovec> frame) override {
    if (full) return false;
    std::string bytes;
    for (const iovec& piece : frame) bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    sent.push_back({pair, header, bytes});
    return true;
  }
  bool deliver(const std::string& frame, unsigned pair = 0, const net::Header& header = {}) const {
    const bool taken = card->receive(pair, header, std::as_bytes(std::span(frame)));
    card->received(pair);
    return taken;
  }
  net::Offloads offers;
  net::Offloads guest;
  net::Receiver* card = nullptr;
  bool full = false;
  unsigned used_pairs = 1;
  std::vector<unsigned> rooms;
  std::vector<Frame> sent;
};

std::string frame_to(const net::MacAddress& to, size_t bytes) {
  std::string frame(bytes, '\0');
  std::iota(frame.begin(), frame.end(), '\0');
  std::copy(to.begin(), to.end(), frame.begin());
  return frame;
}
const std::string kFrame = frame_to(kOwn, 100);

class NetworkCard : public testing::TestWithParam<Shape> {
 protected:
  static constexpr uint64_t kVersion1 = feature(32);
  static constexpr uint64_t kUsual = kVersion1 | feature(kMac) | feature(kStatus) | feature(kControl) | feature(kControlReceive) |
                                     feature(kControlExtra) | feature(kControlMac);
  void make(const NetworkOptions& options = {.mac = kOwn}) { card = std::make_unique<Network>("card", driven.worker, wire, options); }
  void start(uint64_t features = kUsual, const std::vector<unsigned>& queues = {0, 1, 2}, uint16_t size = 16) {
    driven.start(*card, features, queues, size, GetParam());
  }
  ~NetworkCard() override {
    if (card) test::Driven::stop(*card);
  }
  [[nodiscard]] test::Ring& ring(unsigned queue) { return driven.ring(queue); }
  [[nodiscard]] test::Memory& memory() { return driven.memory; }

  // A command on the control queue; the device's answer.
  uint8_t command(uint8_t group, uint8_t number, const std::string& data, unsigned queue = 2) {
    memory().put<uint8_t>(kHeaderAt, group);
    memory().put<uint8_t>(kHeaderAt + 1, number);
    memory().put<uint8_t>(kAnswerAt, 0xee);
    std::vector<Piece> pieces{{kHeaderAt, 2}};
    if (!data.empty()) {
      memory().put_text(kHeaderAt + 0x100, data);
      pieces.push_back({kHeaderAt + 0x100, static_cast<uint32_t>(data.size())});
    }
    pieces.push_back({kAnswerAt, 1, true});
    ring(queue).add(pieces);
    card->notified();
    const auto used = ring(queue).used();
    EXPECT_EQ(used.size(), 1u);
    return memory().get<uint8_t>(kAnswerAt);
  }
  [[nodiscard]] bool takes(const net::MacAddress& to) {
    ring(0).add({{kData, 2048, true}});
    EXPECT_TRUE(wire.deliver(frame_to(to, 60)));
    const auto used = ring(0).used();
    if (!used.empty()) return true;
    // Still there: used up, so that the next question finds a ring of its own.
    EXPECT_TRUE(wire.deliver(frame_to(kOwn, 60)));
    EXPECT_EQ(ring(0).used().size(), 1u);
    return false;
  }
  void send(const net::Header& header, const std::string& frame) {
    memory().put(kData, header);
    memory().put_text(kData + 12, frame);
    ring(1).add({{kData, static_cast<uint32_t>(12 + frame.size())}});
    card->notified();
    EXPECT_EQ(ring(1).used().size(), 1u);
  }

  static constexpr uint64_t kData = 0x800000, kHeaderAt = 0x900000, kAnswerAt = 0x901000;
  test::Driven driven;
  Wire wire;
  std::unique_ptr<Network> card;
};

INSTANTIATE_TEST_SUITE_P(Rings, NetworkCard, testing::ValuesIn(test::kAllShapes),
                         [](const auto& tested) { return test::name_of(tested.param); });

TEST_P(NetworkCard, OffersWhatItsNetworkTakes) {
  make();
  EXPECT_FALSE(card->features() & (feature(kChecksum) | feature(kHostTso4) | feature(kHostTso6) | feature(kMultiQueue) | feature(kMtu)));
  wire.offers = {.checksum = true, .tso4 = true};
  make({.mac = kOwn, .pairs = 2, .mtu = 9000, .link = false});
  EXPECT_TRUE(card->features() & feature(kChecksum) && card->features() & feature(kHostTso4));
  EXPECT_FALSE(card->features() & feature(kHostTso6));
  EXPECT_EQ(card->queue_count(), 5u);
  EXPECT_EQ(test::config_of<net::MacAddress>(*card, 0), kOwn);
  EXPECT_EQ(test::config_of<uint16_t>(*card, 6), 0u) << "no link";
  EXPECT_EQ(test::config_of<uint16_t>(*card, 8), 2u) << "pairs";
  EXPECT_EQ(test::config_of<uint16_t>(*card, 10), 9000u);
  EXPECT_EQ(test::config_of<uint32_t>(*card, 12), 0u);
}

// 5.1.6: without merged buffers drivers older than virtio 1.0 have ten bytes in front of a frame.
TEST_P(NetworkCard, OlderDriversHaveAShorterHeader) {
  make();
  start(kUsual & ~kVersion1);
  memory().put(kData, net::Header{});
  memory().put_text(kData + 10, kFrame);
  ring(1).add({{kData, static_cast<uint32_t>(10 + kFrame.size())}});
  card->notified();
  EXPECT_EQ(ring(1).used().size(), 1u);
  ASSERT_EQ(wire.sent.size(), 1u);
  EXPECT_EQ(wire.sent[0].bytes, kFrame);
  ring(0).add({{kData, 2048, true}});
  EXPECT_TRUE(wire.deliver(kFrame));
  const auto used = ring(0).used();
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].length, 10 + kFrame.size());
  EXPECT_EQ(memory().text(kData + 10, kFrame.size()), kFrame);
}

TEST_P(NetworkCard, FramesGoOutWithTheirHeaders) {
  wire.offers = {.checksum = true, .tso4 = true};
  make();
  start(kUsual | feature(kChecksum) | feature(kHostTso4));
  const net::Header header{.flags = net::kNeedsChecksum,
                           .gso_type = net::kGsoTcp4,
                           .header_bytes = 54,
                           .segment_bytes = 1448,
                           .checksum_start = 34,
                           .checksum_offset = 16,
                           .buffers = 7};
  memory().put(kData, header);
  memory().put_text(kData + 12, "abc");
  memory().put_text(kData + 0x1000, "defg");
  ring(1).add({{kData, 5}, {kData + 5, 10}, {kData + 0x1000, 4}});
  card->notified();
  ASSERT_EQ(wire.sent.size(), 1u);
  EXPECT_EQ(wire.sent[0].bytes, "abcdefg");
  EXPECT_EQ(wire.sent[0].header.segment_bytes, 1448u);
  EXPECT_EQ(wire.sent[0].header.checksum_start, 34u);
  EXPECT_EQ(wire.sent[0].header.buffers, 0u);
  EXPECT_EQ(ring(1).used().size(), 1u);
  EXPECT_EQ(driven.port.interrupts[1], 1u);
}

TEST_P(NetworkCard, OffloadsThatWereNotAgreedOnAreDropped) {
  wire.offers = {.checksum = true, .tso4 = true};
  make();
  start();
  send({.flags = net::kNeedsChecksum}, "x");
  send({.flags = net::kNeedsChecksum, .gso_type = net::kGsoTcp4}, "x");
  send({.gso_type = 3}, "x");
  EXPECT_TRUE(wire.sent.empty());
  send({.flags = net::kDataValid}, "x");
  ASSERT_EQ(wire.sent.size(), 1u);
  EXPECT_EQ(wire.sent[0].header.flags, 0u);
  test::Driven::stop(*card);
  start(kUsual | feature(kChecksum) | feature(kHostTso4));
  send({.gso_type = net::kGsoTcp4}, "x");
  send({.flags = net::kNeedsChecksum, .gso_type = net::kGsoTcp6}, "x");
  EXPECT_EQ(wire.sent.size(), 1u) << "segmentation needs the checksum, and what was agreed on";
}

TEST_P(NetworkCard, ABusyNetworkKeepsFramesInOrder) {
  make();
  start();
  wire.full = true;
  for (unsigned i = 0; i < 3; ++i) {
    memory().put(kData + 0x100 * i, net::Header{});
    memory().put_text(kData + 0x100 * i + 12, std::string(1, static_cast<char>('a' + i)));
    ring(1).add({{kData + 0x100 * i, 13}});
  }
  card->notified();
  EXPECT_TRUE(ring(1).used().empty());
  wire.full = false;
  wire.card->sendable(0);
  ASSERT_EQ(wire.sent.size(), 3u);
  EXPECT_EQ(wire.sent[0].bytes + wire.sent[1].bytes + wire.sent[2].bytes, "abc");
  EXPECT_EQ(ring(1).used().size(), 3u);
  // And it is told of the next ones.
  ring(1).must_notify();
  ring(1).add({{kData, 13}});
  EXPECT_TRUE(ring(1).must_notify());
}

TEST_P(NetworkCard, AFrameComesInWithItsHeader) {
  make();
  start(kUsual | feature(kMergeable));
  ring(0).add({{kData, 7, true}, {kData + 0x1000, 2000, true}});
  EXPECT_TRUE(wire.deliver(kFrame, 0, {.flags = net::kDataValid, .buffers = 9}));
  const auto used = ring(0).used();
  ASSERT_EQ(used.size(), 1u);
  EXPECT_EQ(used[0].length, 112u);
  EXPECT_EQ(memory().get<uint8_t>(kData), net::kDataValid);
  EXPECT_EQ(memory().get<uint16_t>(kData + 0x1000 + 3), 1u) << "5.1.6.3: in one buffer";
  EXPECT_EQ(memory().text(kData + 0x1000 + 5, 100), kFrame);
  EXPECT_EQ(driven.port.interrupts[0], 1u);
}

TEST_P(NetworkCard, AFrameIsMergedFromManyBuffers) {
  make();
  start(kUsual | feature(kMergeable), {0, 1, 2}, 128);
  for (unsigned i = 0; i < 100; ++i) ring(0).add({{kData + 0x100 * i, 50, true}});
  const std::string frame = frame_to(kOwn, 4200);
  EXPECT_TRUE(wire.deliver(frame));
  const auto used = ring(0).used();
  ASSERT_EQ(used.size(), 85u);
  EXPECT_EQ(memory().get<uint16_t>(kData + 10), 85u);
  std::string whole;
  for (size_t i = 0; i < used.size(); ++i) {
    EXPECT_EQ(used[i].length, i + 1 == used.size() ? 12u : 50u);
    whole += memory().text(kData + 0x100 * i, used[i].length);
  }
  EXPECT_EQ(whole.substr(12), frame);
}

TEST_P(NetworkCard, WithoutMergingOneBufferHasToDo) {
  make();
  start();
  ring(0).add({{kData, 64, true}});
  EXPECT_TRUE(wire.deliver(kFrame)) << "lost, as on a cable";
  EXPECT_TRUE(ring(0).used().empty());
  EXPECT_TRUE(wire.deliver(frame_to(kOwn, 52)));
  EXPECT_EQ(ring(0).used().size(), 1u);
}

// Found with a download that stood still: the driver must be told to notify behind the last buffer that there is, not the first.
TEST_P(NetworkCard, StarvedItAsksForTheNextBuffer) {
  make();
  start(kUsual | feature(kMergeable), {0, 1, 2}, 64);
  const std::string frame = frame_to(kOwn, 3000);
  for (unsigned round = 0; round < 70; ++round) {
    for (unsigned i = 0; i < 2; ++i) ring(0).add({{kData + 0x1000 * i, 1000, true}});
    ring(0).must_notify();
    EXPECT_FALSE(wire.deliver(frame)) << "3012 bytes do not fit 2000";
    EXPECT_TRUE(ring(0).used().empty());
    EXPECT_EQ(memory().open, 0);
    wire.rooms.clear();
    ring(0).add({{kData + 0x3000, 500, true}});
    ASSERT_TRUE(ring(0).must_notify()) << round;
    card->notified();
    EXPECT_EQ(wire.rooms, std::vector<unsigned>{0});
    EXPECT_FALSE(wire.deliver(frame));
    ring(0).add({{kData + 0x4000, 1000, true}});
    ASSERT_TRUE(ring(0).must_notify()) << round;
    card->notified();
    EXPECT_TRUE(wire.deliver(frame));
    EXPECT_EQ(ring(0).used().size(), 4u);
    card->notified();
  }
}

TEST_P(NetworkCard, TheDriverChoosesWhatItReceives) {
  make();
  start();
  constexpr net::MacAddress kOther{0x52, 0x54, 0, 9, 9, 9}, kGroup{1, 0, 0x5e, 0, 0, 1}, kAll{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  EXPECT_TRUE(takes(kOther)) << "5.1.6.5.1.1: everything until told otherwise";
  EXPECT_EQ(command(0, 0, std::string(1, '\0')), 0u);
  EXPECT_TRUE(takes(kOwn));
  EXPECT_TRUE(takes(kAll));
  EXPECT_FALSE(takes(kOther));
  EXPECT_FALSE(takes(kGroup));
  EXPECT_EQ(command(0, 1, "\1"), 0u);
  EXPECT_TRUE(takes(kGroup));
  EXPECT_EQ(command(0, 3, "\1"), 0u);
  EXPECT_FALSE(takes(kGroup));
  EXPECT_EQ(command(0, 3, std::string(1, '\0')), 0u);
  EXPECT_EQ(command(0, 1, std::string(1, '\0')), 0u);
  // Lists: one unicast, one multicast address.
  const auto listed = [](const net::MacAddress& mac) { return std::string("\1\0\0\0", 4) + std::string(mac.begin(), mac.end()); };
  EXPECT_EQ(command(1, 0, listed(kOther) + listed(kGroup)), 0u);
  EXPECT_TRUE(takes(kOther));
  EXPECT_TRUE(takes(kGroup));
  EXPECT_EQ(command(1, 0, listed(kOther)), 1u) << "half a table";
  EXPECT_EQ(command(1, 0, std::string("\xff\xff\xff\xff", 4)), 1u) << "a list longer than the command";
  EXPECT_TRUE(takes(kOther)) << "a table that is refused changes nothing";
  EXPECT_EQ(command(1, 0, std::string(8, '\0')), 0u);
  EXPECT_FALSE(takes(kOther));
  // Another address of its own.
  EXPECT_EQ(command(1, 1, std::string(kOther.begin(), kOther.end())), 0u);
  EXPECT_TRUE(takes(kOther));
  EXPECT_EQ(test::config_of<net::MacAddress>(*card, 0), kOther);
  EXPECT_EQ(command(1, 1, "short"), 1u);
  EXPECT_EQ(command(1, 1, std::string(kOwn.begin(), kOwn.end())), 0u);
  EXPECT_EQ(command(0, 5, "\1"), 0u);
  EXPECT_FALSE(takes(kAll));
  for (const auto& [group, number] : {std::pair<uint8_t, uint8_t>{0, 6}, {1, 2}, {2, 0}, {4, 0}, {5, 0}, {77, 0}})
    EXPECT_EQ(command(group, number, std::string(8, '\1')), 1u) << unsigned{group} << "." << unsigned{number};
  EXPECT_EQ(command(0, 0, ""), 1u);
}

TEST_P(NetworkCard, MoreAddressesThanAreKeptMeanAll) {
  make();
  start();
  EXPECT_EQ(command(0, 0, std::string(1, '\0')), 0u);
  constexpr uint32_t kMany = 300;
  std::string table(reinterpret_cast<const char*>(&kMany), 4);
  table.append(size_t{kMany} * 6, '\2').append(4, '\0');
  EXPECT_EQ(command(1, 0, table), 0u);
  EXPECT_TRUE(takes({0x52, 0x54, 7, 7, 7, 7}));
  EXPECT_FALSE(takes({1, 0, 0x5e, 0, 0, 1})) << "the other kind is not meant";
}

TEST_P(NetworkCard, OffloadsChangeWhileItRuns) {
  make();
  start(kUsual | feature(kGuestChecksum) | feature(kGuestTso4) | feature(kGuestOffloads));
  EXPECT_EQ(wire.guest, (net::Offloads{.checksum = true, .tso4 = true}));
  const auto offloads = [this](uint64_t bits) { return command(5, 0, std::string(reinterpret_cast<const char*>(&bits), 8)); };
  EXPECT_EQ(offloads(feature(kGuestChecksum)), 0u);
  EXPECT_EQ(wire.guest, (net::Offloads{.checksum = true}));
  EXPECT_EQ(offloads(feature(8)), 1u) << "not agreed on";
  EXPECT_EQ(wire.guest, (net::Offloads{.checksum = true}));
}

TEST_P(NetworkCard, PairsOfQueues) {
  make({.mac = kOwn, .pairs = 2});
  start(kUsual | feature(kMultiQueue), {0, 1, 2, 3, 4});
  const auto pairs = [this](uint16_t count) { return command(4, 0, std::string(reinterpret_cast<const char*>(&count), 2), 4); };
  EXPECT_EQ(pairs(2), 0u);
  EXPECT_EQ(wire.used_pairs, 2u);
  EXPECT_EQ(pairs(0), 1u);
  EXPECT_EQ(pairs(3), 1u);
  ring(2).add({{kData, 2048, true}});
  EXPECT_TRUE(wire.deliver(kFrame, 1));
  EXPECT_EQ(ring(2).used().size(), 1u);
  memory().put(kData, net::Header{});
  ring(3).add({{kData, 20}});
  card->notified();
  ASSERT_EQ(wire.sent.size(), 1u);
  EXPECT_EQ(wire.sent[0].pair, 1u);
}

TEST_P(NetworkCard, WithoutTheFeatureTheControlQueueIsTheThird) {
  make({.mac = kOwn, .pairs = 2});
  start(kUsual, {0, 1, 2});
  EXPECT_EQ(command(0, 0, "\1", 2), 0u);
}

TEST_P(NetworkCard, ACableThatIsPulled) {
  make();
  start();
  EXPECT_EQ(test::config_of<uint16_t>(*card, 6), 1u);
  card->set_link(false);
  EXPECT_EQ(driven.port.config_changes, 1u);
  EXPECT_EQ(test::config_of<uint16_t>(*card, 6), 0u);
  ring(0).add({{kData, 2048, true}});
  EXPECT_TRUE(wire.deliver(kFrame));
  EXPECT_TRUE(ring(0).used().empty());
  send({}, "x");
  EXPECT_TRUE(wire.sent.empty());
  card->set_link(true);
  card->set_link(true);
  EXPECT_EQ(driven.port.config_changes, 2u);
  EXPECT_TRUE(wire.deliver(kFrame));
  EXPECT_EQ(ring(0).used().size(), 1u);
}

TEST_P(NetworkCard, ADriverThatBreaksTheRulesIsToldToReset) {
  make();
  start();
  ring(1).add({{kData, 11}});
  card->notified();
  EXPECT_EQ(driven.port.resets_wanted, 1u) << "no room for a header";
  ring(1).add({{kData, 100}});
  card->notified();
  EXPECT_TRUE(wire.sent.empty()) << "nothing before the reset";
  test::Driven::stop(*card);
  EXPECT_EQ(wire.card, nullptr);
  start(kUsual | feature(kMergeable));
  ring(0).add({{kData, 4, true}});
  ring(0).add({{kData, 2048, true}});
  EXPECT_TRUE(wire.deliver(kFrame));
  EXPECT_EQ(driven.port.resets_wanted, 2u);
  test::Driven::stop(*card);
  start();
  ring(2).add({{kData, 2}});
  card->notified();
  EXPECT_EQ(driven.port.resets_wanted, 3u) << "no room for the answer";
  test::Driven::stop(*card);
  start();
  send({}, "x");
  EXPECT_EQ(wire.sent.size(), 1u) << "as good as new";
}

}  // namespace
}  // namespace lodge::devices::virtio
