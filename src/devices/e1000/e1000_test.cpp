#include "devices/e1000/e1000.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <numeric>

#include "memory/test_memory.hpp"
#include "net/checksum.hpp"

namespace lodge::devices::e1000 {
namespace {

constexpr net::MacAddress kOwn{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
constexpr uint64_t kReceiveRing = 0x1000, kTransmitRing = 0x2000, kReceiveBuffers = 0x10000, kTransmitBuffers = 0x40000;
constexpr unsigned kEntries = 16;
constexpr uint32_t kCtrl = 0, kStatus = 8, kEecd = 0x10, kEerd = 0x14, kMdic = 0x20, kIcr = 0xc0, kIcs = 0xc8, kIms = 0xd0, kImc = 0xd8,
                   kRctl = 0x100, kTctl = 0x400, kRdbal = 0x2800, kRdlen = 0x2808, kRdh = 0x2810, kRdt = 0x2818, kTdbal = 0x3800,
                   kTdlen = 0x3808, kTdh = 0x3810, kTdt = 0x3818, kMta = 0x5200, kRal = 0x5400, kVfta = 0x5600;
constexpr uint32_t kTxdw = 1, kTxqe = 2, kRxo = 1 << 6, kRxt0 = 1 << 7;
constexpr uint64_t kEop = 1 << 24, kRs = 1 << 27, kDext = 1 << 29, kVle = 1 << 30;

struct Queue final : Worker {
  void post(std::function<void()> work) override { waiting.push_back(std::move(work)); }
  [[nodiscard]] std::unique_ptr<Watch> watch(int, std::function<void()>) override { return nullptr; }
  void run() {
    while (!waiting.empty()) {
      const auto work = std::move(waiting.front());
      waiting.erase(waiting.begin());
      work();
    }
  }
  std::vector<std::function<void()>> waiting;
};

struct Wire final : net::Backend {
  [[nodiscard]] net::Offloads takes() const override { return {}; }
  void connect(net::Receiver* to, const net::Offloads& guest_takes) override {
    card = to;
    EXPECT_EQ(guest_takes, net::Offloads{});
  }
  void change_offloads(const net::Offloads&) override {}
  void room(unsigned) override { ++rooms; }
  [[nodiscard]] bool send(unsigned, const net::Header&, std::span<const iovec> frame) override {
    if (full) return false;
    std::string bytes;
    for (const iovec& piece : frame) bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    sent.push_back(bytes);
    return true;
  }
  net::Receiver* card = nullptr;
  bool full = false;
  int rooms = 0;
  std::vector<std::string> sent;
};

struct Card : testing::Test, pci::FunctionPort {
  explicit Card(bool link = true) : chip(*memory.guest, worker, wire, kOwn, link, {}) {
    chip.connect(*this);
    chip.write_config(4, 2, 7);
    chip.start();
    worker.run();
  }
  void send_message(uint64_t, uint32_t) override {}
  void set_intx(bool level) override { line = level; }

  uint32_t get(uint32_t offset) { return static_cast<uint32_t>(chip.read_bar(0, offset, 4)); }
  void put(uint32_t offset, uint32_t value) {
    chip.write_bar(0, offset, 4, value);
    worker.run();
  }
  void start_receiving(uint32_t flags = 0x8002) {
    for (unsigned i = 0; i < kEntries; ++i) memory.put<uint64_t>(kReceiveRing + 16 * i, kReceiveBuffers + 0x1000 * i);
    put(kRdbal, kReceiveRing);
    put(kRdlen, kEntries * 16);
    put(kRdt, kEntries - 1);
    put(kRctl, flags);
    put(kIms, ~0u);
  }
  void start_sending() {
    put(kTdbal, kTransmitRing);
    put(kTdlen, kEntries * 16);
    put(kTctl, 2);
    put(kIms, ~0u);
  }
  void descriptor(unsigned index, uint64_t address, uint64_t rest) const {
    memory.put<uint64_t>(kTransmitRing + 16 * index, address);
    memory.put<uint64_t>(kTransmitRing + 16 * index + 8, rest);
  }
  bool deliver(const std::string& frame) {
    const bool taken = wire.card->receive(0, {}, std::as_bytes(std::span(frame)));
    wire.card->received(0);
    return taken;
  }
  static std::string frame(const net::MacAddress& to, size_t bytes) {
    std::string text(bytes, '\0');
    std::iota(text.begin(), text.end(), '\0');
    std::ranges::copy(to, text.begin());
    return text;
  }
  // The received frame in a descriptor: its length is told, the check sequence is right.
  std::string stored(unsigned index) {
    EXPECT_EQ(memory.get<uint8_t>(kReceiveRing + 16 * index + 12) & 3, 3);
    const std::string all = memory.text(kReceiveBuffers + 0x1000 * index, memory.get<uint16_t>(kReceiveRing + 16 * index + 8));
    uint32_t sequence = 0;
    std::memcpy(&sequence, all.data() + all.size() - 4, 4);
    EXPECT_EQ(sequence, crc32(0, reinterpret_cast<const uint8_t*>(all.data()), static_cast<uInt>(all.size() - 4)));
    return all.substr(0, all.size() - 4);
  }

  memory::test::Memory memory;
  Queue worker;
  Wire wire;
  bool line = false;
  E1000 chip;
};

struct Unplugged : Card {
  Unplugged() : Card(false) {}
};

TEST_F(Card, SaysWhatItIs) {
  EXPECT_EQ(chip.read_config(0, 4), 0x100e8086u);
  EXPECT_EQ(chip.read_config(8, 4) >> 8, 0x020000u);
  EXPECT_EQ(get(kStatus), 0x83u);
  EXPECT_EQ(get(kRal), 0x12005452u);
  EXPECT_EQ(get(kRal + 4), 0x80005634u);
  chip.write_bar(1, 0, 4, kStatus);
  EXPECT_EQ(chip.read_bar(1, 4, 4), 0x83u) << "by the ports";
}

TEST_F(Card, TheEepromIsReadByItsRegister) {
  uint16_t sum = 0;
  for (unsigned i = 0; i < 64; ++i) {
    put(kEerd, i << 8 | 1);
    EXPECT_EQ(get(kEerd) & 0x10, 0x10u);
    sum = static_cast<uint16_t>(sum + (get(kEerd) >> 16));
  }
  EXPECT_EQ(sum, 0xbaba);
}

TEST_F(Card, TheEepromIsReadByItsPins) {
  const auto clock = [&](bool in) {
    const uint32_t pins = 0x42 | (in ? 4 : 0);
    put(kEecd, pins);
    put(kEecd, pins | 1);
    const bool out = (get(kEecd) & 8) != 0;
    put(kEecd, pins);
    return out;
  };
  put(kEecd, 0x40);
  EXPECT_EQ(get(kEecd) & 0x180, 0x180u) << "granted, and there";
  for (unsigned word = 0; word < 3; ++word) {
    put(kEecd, 0x42);
    for (const bool bit : {true, true, false}) clock(bit);
    for (unsigned i = 6; i-- != 0;) clock(word >> i & 1);
    EXPECT_EQ(get(kEecd) & 8, 0u) << "a zero goes before the data";
    unsigned value = 0;
    for (int i = 0; i < 16; ++i) value = value << 1 | (clock(false) ? 1 : 0);
    EXPECT_EQ(value, static_cast<unsigned>(kOwn[2 * word] | kOwn[2 * word + 1] << 8));
    put(kEecd, 0x40);
  }
}

TEST_F(Card, ThePhyHasALink) {
  const auto read = [&](unsigned reg, unsigned phy = 1) {
    put(kMdic, 1u << 27 | phy << 21 | reg << 16);
    EXPECT_TRUE(get(kMdic) & 1u << 28);
    return get(kMdic);
  };
  EXPECT_EQ(read(2) & 0xffff, 0x0141u);
  EXPECT_EQ(read(1) & 0x24, 0x24u);
  EXPECT_TRUE(read(1, 2) & 1u << 30) << "no other PHY";
  put(kMdic, 1u << 26 | 1 << 21 | 4 << 16 | 0x0101);
  EXPECT_EQ(read(4) & 0xffff, 0x0101u);
  put(kIms, 1 << 9);
  put(kMdic, 1u << 29 | 1u << 27 | 1 << 21);
  EXPECT_TRUE(line);
}

TEST_F(Unplugged, HasNone) {
  EXPECT_EQ(get(kStatus) & 2, 0u);
  start_receiving();
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
  EXPECT_EQ(get(kRdh), 0u);
}

TEST_F(Card, InterruptsAreMaskedAndReadAway) {
  put(kIcs, 4);
  EXPECT_FALSE(line);
  put(kIms, 4);
  EXPECT_TRUE(line);
  put(kImc, 4);
  EXPECT_FALSE(line);
  put(kIms, 4);
  EXPECT_EQ(get(kIcr), 4u);
  EXPECT_FALSE(line);
  EXPECT_EQ(get(kIcr), 0u);
}

TEST_F(Card, ReceivesWhatIsForIt) {
  start_receiving();
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
  EXPECT_TRUE(line);
  EXPECT_EQ(get(kIcr) & kRxt0, kRxt0);
  EXPECT_EQ(stored(0), frame(kOwn, 100));
  EXPECT_TRUE(deliver(frame({0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 42)));
  EXPECT_EQ(stored(1), frame({0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 42) + std::string(18, '\0')) << "filled up";
  EXPECT_TRUE(deliver(frame({0x52, 0x54, 0, 0, 0, 1}, 100)));
  EXPECT_TRUE(deliver(frame({0x33, 0x33, 0, 0, 0, 1}, 100)));
  EXPECT_EQ(get(kRdh), 2u);
  put(kRctl, 0x8002 | 8);
  EXPECT_TRUE(deliver(frame({0x52, 0x54, 0, 0, 0, 1}, 100)));
  EXPECT_EQ(get(kRdh), 3u);
  // The hash of a group: bits 47 to 36 of its address.
  put(kRctl, 0x8002);
  const unsigned hash = 0x0100 >> 4;
  put(kMta + 4 * (hash / 32), 1u << hash % 32);
  EXPECT_TRUE(deliver(frame({0x33, 0x33, 0, 0, 0, 1}, 100)));
  EXPECT_EQ(get(kRdh), 4u);
  EXPECT_EQ(get(0x4074), 4u);
  EXPECT_EQ(get(0x4074), 0u);
  EXPECT_EQ(get(0x4078), 1u);
}

TEST_F(Card, LongFramesTakeSeveralBuffers) {
  start_receiving(0x8002 | 2 << 16 | 1 << 5);  // of 512 bytes
  EXPECT_TRUE(deliver(frame(kOwn, 1600)));
  EXPECT_EQ(get(kRdh), 4u);
  EXPECT_EQ(memory.get<uint16_t>(kReceiveRing + 8), 512);
  EXPECT_EQ(memory.get<uint8_t>(kReceiveRing + 12) & 3, 1);
  EXPECT_EQ(memory.get<uint16_t>(kReceiveRing + 3 * 16 + 8), 1604 - 3 * 512);
  EXPECT_EQ(memory.get<uint8_t>(kReceiveRing + 3 * 16 + 12) & 3, 3);
  put(kRctl, 0x8002);
  EXPECT_TRUE(deliver(frame(kOwn, 1600)));
  EXPECT_EQ(get(kRdh), 4u) << "without long packets it is too long";
}

TEST_F(Card, TheNetworkWaitsForBuffers) {
  start_receiving();
  put(kRdt, 2);
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
  EXPECT_FALSE(deliver(frame(kOwn, 100)));
  EXPECT_EQ(get(kIcr) & kRxo, kRxo);
  EXPECT_EQ(wire.rooms, 0);
  put(kRdt, 5);
  EXPECT_EQ(wire.rooms, 1);
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
}

TEST_F(Card, TagsAreStrippedAndFiltered) {
  start_receiving(0x8002 | 1 << 18);
  put(kCtrl, 1u << 30);
  put(kVfta, 1 << 5);
  std::string tagged = frame(kOwn, 100);
  tagged.replace(12, 4, std::string("\x81\x00\x20\x05", 4));
  EXPECT_TRUE(deliver(tagged));
  EXPECT_EQ(stored(0), tagged.substr(0, 12) + tagged.substr(16));
  EXPECT_EQ(memory.get<uint16_t>(kReceiveRing + 14), 0x2005);
  EXPECT_EQ(memory.get<uint8_t>(kReceiveRing + 12) & 8, 8);
  tagged[15] = 6;
  EXPECT_TRUE(deliver(tagged));
  EXPECT_EQ(get(kRdh), 1u);
}

TEST_F(Card, SendsPiecesAsOneFrame) {
  start_sending();
  memory.put_text(kTransmitBuffers, "hello, ");
  memory.put_text(kTransmitBuffers + 100, "network");
  descriptor(0, kTransmitBuffers, 7);
  descriptor(1, kTransmitBuffers + 100, 7 | kEop | kRs);
  put(kTdt, 2);
  EXPECT_EQ(wire.sent, std::vector<std::string>{"hello, network"});
  EXPECT_EQ(get(kTdh), 2u);
  EXPECT_EQ(memory.get<uint8_t>(kTransmitRing + 12) & 1, 0);
  EXPECT_EQ(memory.get<uint8_t>(kTransmitRing + 16 + 12) & 1, 1);
  EXPECT_EQ(get(kIcr) & (kTxdw | kTxqe), kTxdw | kTxqe);
  EXPECT_EQ(get(0x4080), 1u);
}

TEST_F(Card, WaitsForTheNetwork) {
  start_sending();
  wire.full = true;
  memory.put_text(kTransmitBuffers, "frame");
  descriptor(0, kTransmitBuffers, 5 | kEop);
  descriptor(1, kTransmitBuffers, 4 | kEop);
  put(kTdt, 2);
  EXPECT_TRUE(wire.sent.empty());
  wire.full = false;
  wire.card->sendable(0);
  EXPECT_EQ(wire.sent, (std::vector<std::string>{"frame", "fram"}));
}

TEST_F(Card, PutsTagsIn) {
  start_sending();
  put(kCtrl, 1u << 30);
  memory.put_text(kTransmitBuffers, frame(kOwn, 60));
  descriptor(0, kTransmitBuffers, 60 | kEop | kVle | uint64_t{0x2005} << 48);
  put(kTdt, 1);
  ASSERT_EQ(wire.sent.size(), 1u);
  EXPECT_EQ(wire.sent[0], frame(kOwn, 60).insert(12, std::string("\x81\x00\x20\x05", 4)));
}

TEST_F(Card, PutsChecksumsIn) {
  start_sending();
  const std::string bytes = frame(kOwn, 80);
  memory.put_text(kTransmitBuffers, bytes);
  descriptor(0, 14 | 24 << 8 | uint64_t{33} << 16 | uint64_t{34} << 32 | uint64_t{50} << 40, kDext);
  descriptor(1, kTransmitBuffers, 80 | kEop | kDext | 1 << 20 | uint64_t{3} << 40);
  put(kTdt, 2);
  ASSERT_EQ(wire.sent.size(), 1u);
  const auto sum = [&](size_t from, size_t count) {
    return net::internet_sum(std::as_bytes(std::span(wire.sent[0]).subspan(from, count)));
  };
  // What a checksum has been put into sums to ones, less what had been there.
  EXPECT_EQ(static_cast<uint8_t>(wire.sent[0][12]), 12);
  EXPECT_NE(wire.sent[0].substr(24, 2), bytes.substr(24, 2));
  EXPECT_NE(wire.sent[0].substr(50, 2), bytes.substr(50, 2));
  std::string again = wire.sent[0];
  again[24] = bytes[24];
  again[25] = bytes[25];
  const auto expected = static_cast<uint16_t>(~net::internet_sum(std::as_bytes(std::span(again).subspan(14, 20))));
  EXPECT_EQ(static_cast<uint8_t>(wire.sent[0][24]) << 8 | static_cast<uint8_t>(wire.sent[0][25]), expected);
  EXPECT_NE(sum(34, 46), 0);
}

// A TCP segment over IPv4, as a driver leaves it for segmentation.
std::string tcp_packet(size_t payload) {
  std::string bytes(14 + 20 + 20 + payload, '\0');
  bytes[12] = 8;
  bytes[14] = 0x45;
  bytes[14 + 4] = 0x12;  // identification
  bytes[14 + 5] = 0x34;
  bytes[14 + 8] = 64;
  bytes[14 + 9] = 6;
  bytes[14 + 12] = 10;
  bytes[14 + 15] = 1;
  bytes[14 + 16] = 10;
  bytes[14 + 19] = 2;
  bytes[34 + 4] = 1;  // sequence 0x01000000
  bytes[34 + 12] = 0x50;
  bytes[34 + 13] = 0x19;  // FIN, PSH, ACK
  // The pseudo header's sum without the length: addresses and protocol.
  const uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6;
  bytes[34 + 16] = static_cast<char>(sum >> 8);
  bytes[34 + 17] = static_cast<char>(sum);
  for (size_t i = 0; i < payload; ++i) bytes[54 + i] = static_cast<char>(i * 3);
  return bytes;
}

TEST_F(Card, CutsSegments) {
  start_sending();
  const std::string packet = tcp_packet(2500);
  memory.put_text(kTransmitBuffers, packet);
  descriptor(0, 14 | 24 << 8 | uint64_t{33} << 16 | uint64_t{34} << 32 | uint64_t{50} << 40,
             2500 | kDext | 1 << 24 | 1 << 25 | 1 << 26 | uint64_t{54} << 40 | uint64_t{1000} << 48);
  descriptor(1, kTransmitBuffers, 54 | kDext | 1 << 20 | 1 << 26 | uint64_t{3} << 40);
  descriptor(2, kTransmitBuffers + 54, 2500 | kEop | kRs | kDext | 1 << 20 | 1 << 26);
  put(kTdt, 3);
  ASSERT_EQ(wire.sent.size(), 3u);
  std::string payload;
  for (size_t i = 0; i < 3; ++i) {
    const std::string& segment = wire.sent[i];
    const auto bytes = std::as_bytes(std::span(segment));
    const auto big = [&](size_t at) { return static_cast<uint8_t>(segment[at]) << 8 | static_cast<uint8_t>(segment[at + 1]); };
    EXPECT_EQ(big(16), static_cast<int>(segment.size() - 14));
    EXPECT_EQ(big(18), 0x1234 + static_cast<int>(i));
    EXPECT_EQ(net::internet_sum(bytes.subspan(14, 20)), 0xffff);
    EXPECT_EQ(big(40), static_cast<int>(i * 1000));
    EXPECT_EQ(segment[47], i == 2 ? 0x19 : 0x10);
    // With its pseudo header the segment sums to ones.
    uint32_t sum = net::internet_sum(bytes.subspan(34)) + 0x0a00u + 1 + 0x0a00 + 2 + 6 + static_cast<uint32_t>(segment.size() - 34);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    EXPECT_EQ(sum, 0xffffu);
    payload += segment.substr(54);
  }
  EXPECT_EQ(payload, packet.substr(54));
}

TEST_F(Card, NonsenseSendsNothing) {
  start_sending();
  descriptor(0, ~uint64_t{0}, kDext | uint64_t{255} << 40 | uint64_t{1} << 48 | 1 << 24);
  descriptor(1, 0xf0000000, 1000 | kEop | kDext | 1 << 20 | 1 << 26 | uint64_t{3} << 40);
  put(kTdt, 2);
  EXPECT_EQ(get(kTdh), 2u);
  for (const std::string& sent : wire.sent) EXPECT_GE(sent.size(), 255u);
  put(kTdlen, 0);
  put(kTdt, 9);
  put(kTdlen, kEntries * 16);
  put(kTdt, 0xffff);
  EXPECT_EQ(get(kTdh), 2u) << "a tail beyond the ring";
}

TEST_F(Card, AResetIsOne) {
  start_receiving();
  put(kIcs, 4);
  put(kCtrl, 1 << 26);
  EXPECT_FALSE(line);
  EXPECT_EQ(get(kRctl), 0u);
  EXPECT_EQ(get(kRdlen), 0u);
  EXPECT_EQ(get(kRal), 0x12005452u);
  EXPECT_TRUE(deliver(frame(kOwn, 100)));
}

}  // namespace
}  // namespace lodge::devices::e1000
