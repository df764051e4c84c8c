#include "devices/virtio/pci_transport.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

using test::Memory;
using test::Ring;
using test::Shape;

// Gives buffers back as they come, or holds them until it is told.
class Echo final : public Device {
 public:
  static constexpr uint64_t kFeatures = feature(3) | feature(35 + 6);
  explicit Echo(Worker& worker) : Device(Type::Entropy, "echo", worker, {8, 16}) {}

  [[nodiscard]] uint64_t features() const override { return kFeatures; }
  void read_config(uint64_t offset, std::span<uint8_t> into) const override {
    for (size_t i = 0; i < into.size(); ++i) into[i] = offset + i < config.size() ? config[offset + i] : 0;
  }
  void write_config(uint64_t offset, std::span<const uint8_t> from) override {
    for (size_t i = 0; i < from.size() && offset + i < config.size(); ++i) config[offset + i] = from[i];
  }
  void let_go() {
    hold = false;
    while (!held.empty()) {
      const auto [queue, chain] = std::move(held.back());
      held.pop_back();
      give_back(queue, chain, 0);
      interrupt(queue);
    }
  }
  using Device::broken;
  using Device::config_changed;

  std::array<uint8_t, 12> config{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  bool hold = false;
  std::vector<std::pair<unsigned, Chain>> held;
  unsigned starts = 0, stops = 0, served = 0;

 protected:
  void started() override { ++starts; }
  void stopped() override { ++stops; }
  void serve(unsigned queue) override {
    Chain chain;
    for_each_buffer(queue, chain, [&](const Chain& taken) {
      ++served;
      if (hold)
        held.emplace_back(queue, taken);
      else
        give_back(queue, taken, taken.writable_bytes());
      return true;
    });
    interrupt(queue);
  }
};

// A driver after 3.1.1 and 4.1.5.
class Transport : public testing::Test, private pci::FunctionPort {
 protected:
  enum : uint64_t {
    kDeviceFeatureSelect = 0,
    kDeviceFeature = 4,
    kDriverFeatureSelect = 8,
    kDriverFeature = 0xc,
    kConfigVector = 0x10,
    kQueueCount = 0x12,
    kStatus = 0x14,
    kGeneration = 0x15,
    kSelect = 0x16,
    kSize = 0x18,
    kVector = 0x1a,
    kEnable = 0x1c,
    kNotifyOffset = 0x1e,
    kDescriptors = 0x20,
    kDriver = 0x28,
    kDevice = 0x30,
    kReset = 0x3a,
    kIsr = 0x1000,
    kConfig = 0x2000,
    kNotify = 0x3000,
    kTable = 0x4000,
  };
  static constexpr uint8_t kAcknowledge = 1, kDriverIsThere = 2, kDriverOk = 4, kFeaturesOk = 8, kNeedsReset = 64;
  static constexpr uint64_t kVersion1 = feature(32), kPacked = feature(34), kRingReset = feature(40);

  Transport() { make({}); }
  ~Transport() override {
    echo->let_go();
    worker.at_once = true;
    transport.reset();
  }
  void make(const PciTransport::Options& options) {
    worker.at_once = true;
    transport.reset();
    worker.at_once = false;
    auto device = std::make_unique<Echo>(worker);
    echo = device.get();
    const auto attach = [this](uint64_t address, int) -> std::shared_ptr<void> {
      doorbells.insert(address);
      return {&doorbells, [this, address](void*) { doorbells.erase(address); }};
    };
    transport = std::move(*PciTransport::create(std::move(device), *memory.guest, attach, options));
    transport->connect(*this);
    worker.run();
    transport->write_config(0x04, 2, 0x0006);  // memory, bus master
  }

  [[nodiscard]] uint64_t read(uint64_t at, unsigned size) { return transport->read_bar(0, at, size); }
  void write(uint64_t at, unsigned size, uint64_t value) {
    transport->write_bar(0, at, size, value);
    worker.run();
  }
  [[nodiscard]] uint8_t status() { return static_cast<uint8_t>(read(kStatus, 1)); }
  void add_status(uint8_t bits) { write(kStatus, 1, status() | bits); }
  [[nodiscard]] uint64_t offered() {
    write(kDeviceFeatureSelect, 4, 0);
    const uint64_t low = read(kDeviceFeature, 4);
    write(kDeviceFeatureSelect, 4, 1);
    return low | read(kDeviceFeature, 4) << 32;
  }
  // True: the device agrees.
  [[nodiscard]] bool negotiate(uint64_t features) {
    add_status(kAcknowledge);
    add_status(kDriverIsThere);
    for (const unsigned half : {0u, 1u}) {
      write(kDriverFeatureSelect, 4, half);
      write(kDriverFeature, 4, features >> (32 * half) & 0xffffffff);
    }
    add_status(kFeaturesOk);
    return (status() & kFeaturesOk) != 0;
  }
  void use_queue(uint16_t queue, const Ring& ring, uint16_t vector = 0xffff) {
    const QueueSetup setup = ring.setup();
    write(kSelect, 2, queue);
    write(kSize, 2, setup.size);
    write(kVector, 2, vector);
    for (const auto& [at, value] :
         {std::pair{kDescriptors, setup.descriptors}, std::pair{kDriver, setup.driver_area}, std::pair{kDevice, setup.device_area}}) {
      write(at, 4, value & 0xffffffff);
      write(at + 4, 4, value >> 32);
    }
    write(kEnable, 2, 1);
  }
  void bring_up(Ring& ring, uint64_t more = 0) {
    ASSERT_TRUE(negotiate(kVersion1 | more));
    use_queue(0, ring);
    add_status(kDriverOk);
  }
  [[nodiscard]] pci::Function& function() { return *transport; }
  void ring_doorbell(unsigned queue = 0) { write(kNotify + 4 * queue, 2, queue); }
  void use_msix() {
    for (unsigned i = 0; i < 3; ++i) {
      write(kTable + 16 * i, 4, 0xfee00000);
      write(kTable + 16 * i + 8, 4, 0x40 + i);
      write(kTable + 16 * i + 12, 4, 0);
    }
    unsigned at = transport->read_config(0x34, 1);
    while (transport->read_config(at, 1) != 0x11) at = transport->read_config(at + 1, 1);
    transport->write_config(at + 2, 2, 0x8000);
  }

  Memory memory;
  test::TestWorker worker;
  Echo* echo = nullptr;
  std::set<uint64_t> doorbells;
  std::vector<uint32_t> messages;
  bool line = false;
  std::unique_ptr<PciTransport> transport;

 private:
  void send_message(uint64_t, uint32_t data) override { messages.push_back(data); }
  void set_intx(bool level) override { line = level; }
};

TEST_F(Transport, CapabilitiesTellWhereThingsAre) {
  EXPECT_EQ(transport->read_config(0, 4), 0x10441af4u) << "virtio's vendor, 0x1040 + 4";
  EXPECT_EQ(transport->read_config(8, 1), 1u) << "no legacy device";
  std::map<uint8_t, std::array<uint32_t, 4>> structures;
  std::vector<uint32_t> ids;
  for (unsigned at = transport->read_config(0x34, 1); at != 0; at = transport->read_config(at + 1, 1)) {
    ids.push_back(transport->read_config(at, 1));
    if (ids.back() != 9) continue;
    const unsigned type = transport->read_config(at + 3, 1);
    EXPECT_GE(transport->read_config(at + 2, 1), type == 2 || type == 5 ? 20u : 16u);
    structures[static_cast<uint8_t>(type)] = {transport->read_config(at + 4, 1), transport->read_config(at + 8, 4),
                                              transport->read_config(at + 12, 4), type == 2 ? transport->read_config(at + 16, 4) : 0};
  }
  EXPECT_EQ(structures.size(), 5u);
  EXPECT_EQ(structures[1], (std::array<uint32_t, 4>{0, 0, 0x3c, 0}));
  EXPECT_EQ(structures[2], (std::array<uint32_t, 4>{0, kNotify, 8, 4}));
  EXPECT_EQ(structures[3], (std::array<uint32_t, 4>{0, kIsr, 1, 0}));
  EXPECT_EQ(structures[4][1], kConfig);
  EXPECT_EQ(std::ranges::count(ids, 0x11), 1) << "MSI-X";
}

TEST_F(Transport, FeaturesAreAgreedOn) {
  EXPECT_EQ(offered(), Echo::kFeatures | kVersion1 | kRingReset | feature(28) | feature(29));
  write(kDeviceFeatureSelect, 4, 2);
  EXPECT_EQ(read(kDeviceFeature, 4), 0u) << "no further ones";
  EXPECT_FALSE(negotiate(feature(3))) << "a driver of legacy devices";
  write(kStatus, 1, 0);
  EXPECT_FALSE(negotiate(kVersion1 | kPacked)) << "not offered";
  add_status(kDriverOk);
  EXPECT_FALSE(status() & kDriverOk) << "without agreement";
  EXPECT_EQ(echo->starts, 0u);
  write(kStatus, 1, 0);
  EXPECT_EQ(status(), 0u);
  EXPECT_TRUE(negotiate(kVersion1 | feature(3)));
  write(kDriverFeatureSelect, 4, 0);
  write(kDriverFeature, 4, 0);
  EXPECT_EQ(read(kDriverFeature, 4), 8u) << "what was agreed on stays";
  make({.packed = true});
  EXPECT_TRUE(offered() & kPacked);
  EXPECT_TRUE(negotiate(kVersion1 | kPacked));
}

TEST_F(Transport, StatusBitsOnlyCome) {
  add_status(kAcknowledge | kDriverIsThere);
  write(kStatus, 1, kAcknowledge);
  EXPECT_EQ(status(), kAcknowledge | kDriverIsThere);
  write(kStatus, 1, kNeedsReset | kAcknowledge);
  EXPECT_FALSE(status() & kNeedsReset) << "the device's own";
}

TEST_F(Transport, QueuesAreSetUpFieldByField) {
  EXPECT_EQ(read(kQueueCount, 2), 2u);
  ASSERT_TRUE(negotiate(kVersion1));
  write(kSelect, 2, 1);
  EXPECT_EQ(read(kSize, 2), 16u) << "the most";
  EXPECT_EQ(read(kNotifyOffset, 2), 1u);
  EXPECT_EQ(read(kEnable, 2), 0u);
  for (const uint64_t bad : {0, 3, 32, 0xffff}) {
    write(kSize, 2, bad);
    EXPECT_EQ(read(kSize, 2), 16u) << bad;
  }
  write(kSize, 2, 4);
  EXPECT_EQ(read(kSize, 2), 4u);
  write(kDescriptors, 8, 0x123456789abcdef0);
  EXPECT_EQ(read(kDescriptors, 8), 0x123456789abcdef0u);
  EXPECT_EQ(read(kDescriptors + 4, 4), 0x12345678u);
  EXPECT_EQ(read(kDescriptors + 5, 1), 0x56u);
  write(kDriver + 4, 4, 7);
  EXPECT_EQ(read(kDriver, 8), 0x700000000u);
  write(kVector, 2, 2);
  EXPECT_EQ(read(kVector, 2), 2u);
  write(kVector, 2, 3);
  EXPECT_EQ(read(kVector, 2), 0xffffu) << "three vectors, 0 to 2";
  write(kEnable, 2, 1);
  EXPECT_EQ(read(kEnable, 2), 1u);
  write(kSize, 2, 8);
  write(kDescriptors, 4, 0);
  write(kEnable, 2, 0);
  EXPECT_EQ(read(kSize, 2), 4u) << "not while it is in use";
  EXPECT_EQ(read(kDescriptors, 8), 0x123456789abcdef0u);
  EXPECT_EQ(read(kEnable, 2), 1u);
  write(kSelect, 2, 0);
  EXPECT_EQ(read(kSize, 2), 8u) << "each queue has its own";
  EXPECT_EQ(read(kDescriptors, 8), 0u);
  write(kSelect, 2, 2);
  EXPECT_EQ(read(kSize, 2), 0u) << "4.1.4.3.1: there is no such queue";
  write(kSize, 2, 8);
  write(kEnable, 2, 1);
  EXPECT_EQ(read(kEnable, 2), 0u);
  write(kSelect, 2, 1);
  EXPECT_EQ(read(kEnable, 2), 1u);
}

TEST_F(Transport, PackedQueuesHaveAnySize) {
  make({.packed = true});
  ASSERT_TRUE(negotiate(kVersion1 | kPacked));
  write(kSelect, 2, 0);
  write(kSize, 2, 5);
  EXPECT_EQ(read(kSize, 2), 5u);
}

TEST_F(Transport, BuffersGoThroughByAnyInterrupt) {
  Ring ring(memory, 0x100000, 8, {});
  bring_up(ring);
  EXPECT_EQ(echo->starts, 1u);
  ring.add({{0x1000, 4, true}});
  EXPECT_TRUE(ring.used().empty()) << "not before it is told";
  ring_doorbell();
  EXPECT_EQ(ring.used().size(), 1u);
  EXPECT_TRUE(line);
  EXPECT_EQ(read(kIsr, 1), 1u);
  EXPECT_FALSE(line) << "reading takes the line back";
  EXPECT_EQ(read(kIsr, 1), 0u);
  echo->config_changed();
  EXPECT_EQ(read(kIsr, 1), 2u);
  write(kStatus, 1, 0);
  EXPECT_EQ(echo->stops, 1u);
  // By messages.
  use_msix();
  Ring again(memory, 0x100000, 8, {});
  ASSERT_TRUE(negotiate(kVersion1));
  write(kConfigVector, 2, 0);
  use_queue(0, again, 2);
  add_status(kDriverOk);
  again.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(messages, (std::vector<uint32_t>{0x42}));
  echo->config_changed();
  EXPECT_EQ(messages, (std::vector<uint32_t>{0x42, 0x40}));
  EXPECT_FALSE(line);
  again.no_interrupts();
  again.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(messages.size(), 2u);
}

TEST_F(Transport, TheConfigurationIsTheDevices) {
  EXPECT_EQ(read(kConfig, 1), 1u);
  EXPECT_EQ(read(kConfig + 2, 2), 0x0403u);
  EXPECT_EQ(read(kConfig + 4, 8), 0x0c0b0a0908070605u);
  EXPECT_EQ(read(kConfig + 10, 4), 0x0c0bu) << "nothing beyond its end";
  EXPECT_EQ(read(kConfig + 0xffc, 4), 0u);
  write(kConfig + 1, 2, 0xaabb);
  EXPECT_EQ(read(kConfig, 4), 0x04aabb01u);
  const uint64_t before = read(kGeneration, 1);
  echo->config_changed();
  EXPECT_NE(read(kGeneration, 1), before) << "2.5.1: a reader in between sees it";
}

TEST_F(Transport, AResetLastsUntilTheDeviceHasLetGo) {
  Ring ring(memory, 0x100000, 8, {});
  bring_up(ring);
  echo->hold = true;
  ring.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(echo->held.size(), 1u);
  write(kStatus, 1, 0);
  EXPECT_NE(status(), 0u);
  EXPECT_EQ(memory.open, 1) << "the buffer may still be written";
  ring.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(echo->held.size(), 1u) << "no new ones meanwhile";
  write(kStatus, 1, kAcknowledge);
  EXPECT_EQ(echo->stops, 0u);
  echo->let_go();
  EXPECT_EQ(echo->stops, 1u);
  EXPECT_EQ(status(), 0u);
  EXPECT_EQ(memory.open, 0);
  write(kSelect, 2, 0);
  EXPECT_EQ(read(kEnable, 2), 0u);
  EXPECT_EQ(read(kDescriptors, 8), 0u);
  // And from the beginning.
  Ring again(memory, 0x100000, 8, {});
  bring_up(again);
  again.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(again.used().size(), 1u);
}

TEST_F(Transport, AQueueIsResetByItself) {
  Ring ring(memory, 0x100000, 8, {}), other(memory, 0x200000, 16, {});
  ASSERT_TRUE(negotiate(kVersion1 | kRingReset));
  use_queue(0, ring);
  use_queue(1, other);
  add_status(kDriverOk);
  echo->hold = true;
  ring.add({{0x1000, 4, true}});
  ring_doorbell();
  write(kSelect, 2, 0);
  write(kReset, 2, 1);
  EXPECT_EQ(read(kReset, 2), 1u) << "it lasts";
  EXPECT_EQ(read(kEnable, 2), 1u);
  write(kEnable, 2, 1);
  echo->let_go();
  EXPECT_EQ(read(kReset, 2), 0u);
  EXPECT_EQ(read(kEnable, 2), 0u);
  EXPECT_EQ(read(kSize, 2), 8u);
  other.add({{0x1000, 4, true}});
  ring_doorbell(1);
  EXPECT_EQ(other.used().size(), 1u) << "the other queue goes on";
  Ring again(memory, 0x100000, 4, {});
  again.add({{0x1000, 4, true}});
  use_queue(0, again);
  EXPECT_EQ(again.used().size(), 1u) << "back while the device runs";
}

TEST_F(Transport, AQueuesResetEndsInADevicesReset) {
  Ring ring(memory, 0x100000, 8, {});
  bring_up(ring, kRingReset);
  echo->hold = true;
  ring.add({{0x1000, 4, true}});
  ring_doorbell();
  write(kSelect, 2, 0);
  write(kReset, 2, 1);
  write(kStatus, 1, 0);
  echo->let_go();
  worker.run();
  EXPECT_EQ(status(), 0u);
  Ring again(memory, 0x100000, 8, {});
  bring_up(again);
  again.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(again.used().size(), 1u);
}

TEST_F(Transport, OnlyABusMasterTouchesMemory) {
  Ring ring(memory, 0x100000, 8, {});
  transport->write_config(0x04, 2, 0x0002);
  bring_up(ring);
  ring.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_TRUE(ring.used().empty());
  transport->write_config(0x04, 2, 0x0006);
  worker.run();
  EXPECT_EQ(ring.used().size(), 1u);
}

TEST_F(Transport, ADriverThatBreaksTheRulesIsToldToReset) {
  Ring ring(memory, 0x100000, 8, {});
  bring_up(ring);
  static_cast<void>(read(kIsr, 1));
  ring.offer(100);
  ring_doorbell();
  EXPECT_TRUE(status() & kNeedsReset);
  EXPECT_EQ(read(kIsr, 1) & 2, 2u) << "by a change of the configuration";
  write(kStatus, 1, 0);
  EXPECT_EQ(status(), 0u);
  Ring again(memory, 0x100000, 8, {});
  bring_up(again);
  again.add({{0x1000, 4, true}});
  ring_doorbell();
  EXPECT_EQ(again.used().size(), 1u);
}

TEST_F(Transport, DoorbellsStandWhereTheBarIs) {
  function().bar_moved(0, 0xd0000000);
  EXPECT_EQ(doorbells, (std::set<uint64_t>{0xd0003000, 0xd0003004}));
  function().bar_moved(0, 0xe0000000);
  EXPECT_EQ(doorbells, (std::set<uint64_t>{0xe0003000, 0xe0003004}));
  function().bar_moved(0, std::nullopt);
  EXPECT_TRUE(doorbells.empty());
}

// 4.1.4.9: a way to the BAR for those who can only reach configuration space.
TEST_F(Transport, AWindowInConfigurationSpace) {
  unsigned at = transport->read_config(0x34, 1);
  while (transport->read_config(at, 1) != 9 || transport->read_config(at + 3, 1) != 5) at = transport->read_config(at + 1, 1);
  const auto aim = [&](unsigned bar, uint32_t offset, uint32_t length) {
    transport->write_config(at + 4, 1, bar);
    transport->write_config(at + 8, 4, offset);
    transport->write_config(at + 12, 4, length);
  };
  aim(0, kConfig + 4, 4);
  EXPECT_EQ(transport->read_config(at + 16, 4), 0x08070605u);
  aim(0, kQueueCount, 2);
  EXPECT_EQ(transport->read_config(at + 16, 2), 2u);
  aim(0, kConfig, 1);
  transport->write_config(at + 16, 4, 0x1122);
  EXPECT_EQ(read(kConfig, 2), 0x0222u) << "one byte, as aimed";
  for (const auto& [bar, offset, length] :
       {std::tuple{1u, uint32_t{0}, 4u}, std::tuple{0u, uint32_t{1}, 4u}, std::tuple{0u, uint32_t{0x8000}, 4u},
        std::tuple{0u, ~uint32_t{3}, 4u}, std::tuple{0u, uint32_t{0}, 8u}, std::tuple{0u, uint32_t{0}, 0u}}) {
    aim(bar, offset, length);
    static_cast<void>(transport->read_config(at + 16, 4));
    transport->write_config(at + 16, 4, 0xffffffff);
  }
  EXPECT_EQ(read(kConfig, 2), 0x0222u);
  EXPECT_EQ(status(), 0u);
}

TEST_F(Transport, OddAccessesChangeNothing) {
  for (const uint64_t at : {0x3cu, 0x3eu, 0xffcu, 0x1004u, 0x2800u, 0x5ff0u, 0x6000u, 0x7800u}) {
    write(at, 4, 0xffffffff);
    static_cast<void>(read(at, 8 - at % 8));
  }
  write(kQueueCount, 2, 7);
  write(kGeneration, 1, 7);
  EXPECT_EQ(read(kQueueCount, 2), 2u);
  EXPECT_EQ(status(), 0u);
  EXPECT_EQ(read(kStatus, 4) >> 16, 0u) << "queue_select";
  write(kStatus, 4, 0x00010001);
  EXPECT_EQ(status(), 1u) << "an access over several fields";
  EXPECT_EQ(read(kSelect, 2), 1u);
}

// Found by a machine that crashed when it was switched off: who waits for the last queue may take the device away.
TEST_F(Transport, ADeviceMayEndWithItsLastQueue) {
  Ring ring(memory, 0x100000, 8, {});
  test::Port port;
  auto device = std::make_unique<Echo>(worker);
  device->connect(port);
  device->start(*memory.guest, 0);
  device->start_queue(0, ring.setup());
  device->stop([&device] { device.reset(); });
  EXPECT_FALSE(device);
}

TEST_F(Transport, TheEndLetsGo) {
  Ring ring(memory, 0x100000, 8, {});
  bring_up(ring);
  ring.add({{0x1000, 4, true}});
  worker.at_once = true;
  transport->shut_down();
  EXPECT_EQ(echo->stops, 1u);
  EXPECT_TRUE(ring.used().empty());
  transport->shut_down();
  EXPECT_EQ(echo->stops, 1u) << "once is enough";
}

// --- Drivers older than virtio 1.0 (4.1.4.10)

class OldDriver : public Transport {
 protected:
  enum : uint64_t {
    kFeatures = 0,
    kGuestFeatures = 4,
    kAddress = 8,
    kOldSize = 12,
    kOldSelect = 14,
    kOldNotify = 16,
    kOldStatus = 18,
    kOldIsr = 19,
    kOldConfig = 20
  };
  static constexpr uint64_t kRing = 0x100000, kAvailable = kRing + 8 * 16, kUsedRing = kRing + 0x1000;

  OldDriver() {
    make({.transitional = true});
    function().write_config(0x04, 2, 0x0001);  // ports, and no bus master: such drivers did not know
  }
  [[nodiscard]] uint64_t in(uint64_t at, unsigned size) { return function().read_bar(0, at, size); }
  void out(uint64_t at, unsigned size, uint64_t value) {
    function().write_bar(0, at, size, value);
    worker.run();
  }
  void place_queue() {
    out(kOldSelect, 2, 0);
    out(kAddress, 4, kRing >> 12);
  }
  // A buffer of four bytes that the device writes.
  void add_buffer() {
    memory.put<uint64_t>(kRing, 0x1000);
    memory.put<uint32_t>(kRing + 8, 4);
    memory.put<uint32_t>(kRing + 12, 2);
    memory.put<uint16_t>(kAvailable + 4 + 2 * (buffers % 8), 0);
    memory.put<uint16_t>(kAvailable + 2, ++buffers);
  }
  uint16_t buffers = 0;
};

TEST_F(OldDriver, FindsTheDeviceByItsSubsystem) {
  EXPECT_EQ(function().read_config(0x00, 4), 0x10051af4u);
  EXPECT_EQ(function().read_config(0x08, 1), 0u);
  EXPECT_EQ(function().read_config(0x2e, 2), 4u) << "entropy";
  EXPECT_EQ(function().read_config(0x10, 4) & 1, 1u) << "ports";
  EXPECT_EQ(in(kFeatures, 4), 0x38000008u) << "any layout, indirect descriptors, events, and the device's own: what fits 32 bits";
  EXPECT_EQ(in(kOldSize, 2), 8u);
  out(kOldSelect, 2, 1);
  EXPECT_EQ(in(kOldSize, 2), 16u);
  out(kOldSelect, 2, 2);
  EXPECT_EQ(in(kOldSize, 2), 0u) << "no such queue";
  EXPECT_EQ(in(kOldConfig, 4), 0x04030201u);
  out(kOldConfig + 1, 1, 0x77);
  EXPECT_EQ(in(kOldConfig, 4), 0x04037701u);
}

TEST_F(OldDriver, UsesTheDevice) {
  out(kOldStatus, 1, 1);
  out(kOldStatus, 1, 3);
  out(kGuestFeatures, 4, 0xffffffff);
  EXPECT_EQ(in(kGuestFeatures, 4), 0x38000008u) << "no more than was offered";
  out(kGuestFeatures, 4, 8);
  place_queue();
  EXPECT_EQ(in(kAddress, 4), kRing >> 12);
  out(kOldStatus, 1, 7);
  EXPECT_EQ(echo->starts, 1u);
  add_buffer();
  out(kOldNotify, 2, 0);
  EXPECT_EQ(memory.get<uint16_t>(kUsedRing + 2), 1u);
  EXPECT_TRUE(line);
  EXPECT_EQ(in(kOldIsr, 1), 1u);
  EXPECT_FALSE(line);
  // The queue goes by itself, and comes back.
  out(kAddress, 4, 0);
  EXPECT_EQ(in(kAddress, 4), 0u);
  memory.put<uint32_t>(kAvailable, 0);
  memory.put<uint32_t>(kUsedRing, 0);
  buffers = 0;
  place_queue();
  add_buffer();
  out(kOldNotify, 2, 0);
  EXPECT_EQ(memory.get<uint16_t>(kUsedRing + 2), 1u);
  out(kOldStatus, 1, 0);
  EXPECT_EQ(echo->stops, 1u);
  EXPECT_EQ(in(kOldStatus, 1), 0u);
}

// Linux 2.6's block driver read the partition table before it said that it was ready.
TEST_F(OldDriver, DoesNotWaitForItsOwnWord) {
  out(kOldStatus, 1, 3);
  place_queue();
  add_buffer();
  out(kOldNotify, 2, 0);
  EXPECT_EQ(echo->starts, 1u);
  EXPECT_EQ(memory.get<uint16_t>(kUsedRing + 2), 1u);
  out(kOldStatus, 1, 7);
  EXPECT_EQ(echo->starts, 1u) << "once";
}

TEST_F(OldDriver, VectorsStandInFrontOfTheConfiguration) {
  for (unsigned i = 0; i < 3; ++i) {
    function().write_bar(4, 0x4000 + 16 * i, 4, 0xfee00000);
    function().write_bar(4, 0x4000 + 16 * i + 8, 4, 0x40 + i);
    function().write_bar(4, 0x4000 + 16 * i + 12, 4, 0);
  }
  unsigned at = function().read_config(0x34, 1);
  while (function().read_config(at, 1) != 0x11) at = function().read_config(at + 1, 1);
  function().write_config(at + 2, 2, 0x8000);
  function().write_config(0x04, 2, 0x0005);
  EXPECT_EQ(in(20, 2), 0xffffu);
  out(20, 2, 0);
  out(22, 2, 9);
  EXPECT_EQ(in(22, 2), 0xffffu) << "there is no such vector";
  out(22, 2, 2);
  EXPECT_EQ(in(22, 2), 2u);
  EXPECT_EQ(in(24, 4), 0x04030201u);
  place_queue();
  out(kOldStatus, 1, 7);
  add_buffer();
  out(kOldNotify, 2, 0);
  EXPECT_EQ(messages, (std::vector<uint32_t>{0x42}));
}

TEST_F(OldDriver, AndTodaysDriversUseItAsAnyOther) {
  function().write_config(0x04, 2, 0x0006);
  const auto put = [&](uint64_t offset, unsigned size, uint64_t value) {
    function().write_bar(4, offset, size, value);
    worker.run();
  };
  put(kStatus, 1, 3);
  put(kDriverFeatureSelect, 4, 1);
  put(kDriverFeature, 4, 1);
  put(kStatus, 1, 0x0b);
  EXPECT_EQ(function().read_bar(4, kStatus, 1), 0x0bu);
  Ring ring(memory, kRing, 8, {});
  const QueueSetup setup = ring.setup();
  put(kDescriptors, 4, setup.descriptors);
  put(kDriver, 4, setup.driver_area);
  put(kDevice, 4, setup.device_area);
  put(kEnable, 2, 1);
  put(kStatus, 1, 0x0f);
  ring.add({{0x1000, 4, true}});
  put(kNotify, 2, 0);
  EXPECT_EQ(ring.used().size(), 1u);
}

TEST_F(OldDriver, OddAccessesDoNoHarm) {
  for (const unsigned size : {1u, 2u, 4u})
    for (uint64_t at = 0; at + size <= 256; ++at) {
      static_cast<void>(in(at, size));
      if (at != kOldNotify) out(at, size, 0xffffffff);
    }
  out(kOldStatus, 1, 0);
  EXPECT_EQ(in(kOldStatus, 1), 0u);
}

}  // namespace
}  // namespace lodge::devices::virtio
