#include "devices/virtio/block/block.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "block/memory_node.hpp"
#include "devices/virtio/test_driver.hpp"

namespace lodge::devices::virtio {
namespace {

using test::Piece;

constexpr unsigned kReadOnly = 5, kFlush = 9, kConfigWce = 11, kDiscard = 13, kWriteZeroes = 14;
constexpr uint32_t kIn = 0, kOut = 1, kFlushType = 4, kGetId = 8, kDiscardType = 11, kZeroesType = 13;
constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kNothing = 0xee;
constexpr uint64_t kHeaderAt = 0x800000, kStatusAt = 0x801000, kData = 0x900000;
constexpr uint64_t kUsual = feature(kFlush) | feature(kConfigWce) | feature(kDiscard) | feature(kWriteZeroes);

// Tells when there was an interrupt or another event.
struct Signal final : DriverPort {
  void queue_interrupt(unsigned) override { count(interrupts); }
  void config_interrupt() override {}
  void needs_reset() override { count(resets_wanted); }
  void count(unsigned& what) {
    std::lock_guard lock(mutex);
    ++what;
    changed.notify_all();
  }
  // The limit only ends a test that is stuck.
  void wait(unsigned& what, unsigned wanted) {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return what >= wanted; }));
  }
  unsigned interrupts = 0, resets_wanted = 0, pauses = 0, resumes = 0;
  std::mutex mutex;
  std::condition_variable changed;
};

class Disk : public testing::TestWithParam<test::Shape> {
 protected:
  static constexpr uint64_t kSectors = 2048;

  Disk() {
    image->bytes.resize(kSectors * 512);
    for (size_t i = 0; i < image->bytes.size(); ++i) image->bytes[i] = static_cast<std::byte>(i / 512 * 7 + i);
  }
  ~Disk() override {
    stop();
    // The node's last breath is drawn where it lived.
    thread->call([this]() -> block::Task<int> {
      block.reset();
      if (disk) co_await disk->settle();
      disk.reset();
      node.reset();
      co_return 0;
    });
  }
  void make(const storage::DiskOptions& disk_options = {}, const BlockOptions& options = {}) {
    node = std::make_unique<block::MemoryNode>(image);
    disk = std::make_unique<storage::Disk>("disk", *thread, *node, disk_options);
    disk->set_machine(
        {.pause = [this](const std::string&) { signal.count(signal.pauses); }, .resume = [this] { signal.count(signal.resumes); }});
    block = std::make_unique<Block>(*disk, options);
    block->connect(signal);
    block->allow_access(true);
  }
  void start(uint64_t features = kUsual) {
    ring.emplace(memory, 0x100000, 64, GetParam());
    on_thread([&] {
      block->start(*memory.guest, features);
      block->start_queue(0, ring->setup());
    });
    started = true;
  }
  void stop() {
    if (!std::exchange(started, false)) return;
    std::promise<void> done;
    thread->post([&] { block->stop([&] { done.set_value(); }); });
    done.get_future().wait();
  }
  template <typename Function>
  void on_thread(Function function) {
    std::promise<void> done;
    thread->post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }
  // Adds a request without notifying.
  void add(uint32_t type, uint64_t sector, const std::vector<Piece>& data, uint64_t slot = 0) {
    memory.put(kHeaderAt + 16 * slot, type);
    memory.put<uint32_t>(kHeaderAt + 16 * slot + 4, 0);
    memory.put(kHeaderAt + 16 * slot + 8, sector);
    memory.put(kStatusAt + slot, kNothing);
    std::vector<Piece> pieces{{kHeaderAt + 16 * slot, 16}};
    pieces.insert(pieces.end(), data.begin(), data.end());
    pieces.push_back({kStatusAt + slot, 1, true});
    ring->add(pieces);
  }
  // Carries out what was added; the lengths that the device says it wrote, by when it was done.
  std::vector<uint32_t> serve(size_t requests = 1) {
    std::vector<uint32_t> lengths;
    on_thread([&] { block->notified(); });
    while (lengths.size() < requests && !testing::Test::HasFailure()) {
      unsigned seen = 0;
      {
        std::lock_guard lock(signal.mutex);
        seen = signal.interrupts;
      }
      const auto used = ring->used();
      ring->interrupt_after(0);
      for (const auto& one : used) lengths.push_back(one.length);
      if (used.empty() && !ring->any_used()) signal.wait(signal.interrupts, seen + 1);
    }
    return lengths;
  }
  uint8_t request(uint32_t type, uint64_t sector, const std::vector<Piece>& data) {
    add(type, sector, data);
    serve();
    return memory.get<uint8_t>(kStatusAt);
  }
  uint8_t change(uint32_t type, const std::vector<std::array<uint32_t, 4>>& segments) {
    for (size_t i = 0; i < segments.size(); ++i) memory.put(kData + 16 * i, segments[i]);
    return request(type, 0, {{kData, static_cast<uint32_t>(16 * segments.size())}});
  }
  [[nodiscard]] std::string sectors(uint64_t sector, uint64_t count) const {
    return {reinterpret_cast<const char*>(&image->bytes[sector * 512]), count * 512};
  }

  test::Memory memory;
  Signal signal;
  std::shared_ptr<block::MemoryDisk> image = std::make_shared<block::MemoryDisk>();
  std::unique_ptr<IoThread> thread = std::move(*IoThread::start("disk"));
  std::unique_ptr<block::Node> node;
  std::unique_ptr<storage::Disk> disk;
  std::unique_ptr<Block> block;
  std::optional<test::Ring> ring;
  bool started = false;
};

INSTANTIATE_TEST_SUITE_P(Rings, Disk, testing::ValuesIn(test::kAllShapes), [](const auto& tested) { return test::name_of(tested.param); });

TEST_P(Disk, SaysWhatItIs) {
  make({.serial = "number-1"}, {.queues = 3});
  EXPECT_EQ(block->features() & (kUsual | feature(kReadOnly)), kUsual);
  EXPECT_EQ(block->queue_count(), 3u);
  EXPECT_EQ(test::config_of<uint64_t>(*block, 0), kSectors);
  EXPECT_EQ(test::config_of<uint32_t>(*block, 12), 254u) << "seg_max";
  EXPECT_EQ(test::config_of<uint32_t>(*block, 20), 512u) << "blk_size";
  EXPECT_EQ(test::config_of<uint16_t>(*block, 34), 3u);
  EXPECT_EQ(test::config_of<uint64_t>(*block, 60), 0u);
  make({.read_only = true});
  EXPECT_TRUE(block->features() & feature(kReadOnly));
  EXPECT_FALSE(block->features() & (feature(kDiscard) | feature(kWriteZeroes)));
  make({.discard = false});
  EXPECT_EQ(block->features() & (feature(kDiscard) | feature(kWriteZeroes)), feature(kWriteZeroes));
}

TEST_P(Disk, ReadsAndWritesWhatIsThere) {
  make();
  start();
  add(kIn, 5, {{kData, 512, true}, {kData + 0x1000, 1024, true}});
  EXPECT_EQ(serve(), std::vector<uint32_t>{1537});
  EXPECT_EQ(memory.get<uint8_t>(kStatusAt), kOk);
  EXPECT_EQ(memory.text(kData, 512) + memory.text(kData + 0x1000, 1024), sectors(5, 3));
  const std::string before = sectors(0, 7), text(1024, 'x');
  memory.put_text(kData, text);
  add(kOut, 7, {{kData, 1000}, {kData + 1000, 24}});
  EXPECT_EQ(serve(), std::vector<uint32_t>{1});
  EXPECT_EQ(sectors(7, 2), text);
  EXPECT_EQ(sectors(0, 7), before);
  EXPECT_EQ(request(kFlushType, 0, {}), kOk);
}

TEST_P(Disk, ManyAtOnceComeBackEachWithItsOwn) {
  make();
  start();
  const unsigned many = GetParam().indirect ? 60 : 20;
  for (unsigned i = 0; i < many; ++i) add(kIn, i * 30, {{kData + 0x1000 * i, 512, true}}, i);
  EXPECT_EQ(serve(many), std::vector<uint32_t>(many, 513));
  for (unsigned i = 0; i < many; ++i) {
    EXPECT_EQ(memory.get<uint8_t>(kStatusAt + i), kOk);
    EXPECT_EQ(memory.text(kData + 0x1000 * i, 512), sectors(i * 30, 1));
  }
}

TEST_P(Disk, NothingBeyondItsEnd) {
  make();
  start();
  EXPECT_EQ(request(kIn, kSectors - 1, {{kData, 512, true}}), kOk);
  const std::string before = sectors(0, kSectors);
  for (const uint64_t sector : {kSectors, kSectors + 1, ~uint64_t{0}, ~uint64_t{0} >> 9, (~uint64_t{0} >> 9) + 1}) {
    EXPECT_EQ(request(kIn, sector, {{kData, 512, true}}), kIoError) << sector;
    EXPECT_EQ(request(kOut, sector, {{kData, 512}}), kIoError) << sector;
  }
  EXPECT_EQ(request(kIn, kSectors - 1, {{kData, 1024, true}}), kIoError);
  EXPECT_EQ(request(kOut, kSectors - 1, {{kData, 1024}}), kIoError);
  EXPECT_EQ(request(kIn, 0, {{kData, 511, true}}), kIoError) << "no whole sectors";
  EXPECT_EQ(request(kOut, 0, {{kData, 513}}), kIoError);
  EXPECT_EQ(request(kIn, 0, {}), kOk);
  EXPECT_EQ(sectors(0, kSectors), before);
  EXPECT_EQ(request(77, 0, {{kData, 512, true}}), kUnsupported);
}

TEST_P(Disk, ToldNotToWriteItDoesNot) {
  make({.read_only = true});
  start(feature(kReadOnly));
  const std::string before = sectors(0, kSectors);
  EXPECT_EQ(request(kOut, 0, {{kData, 512}}), kIoError);
  EXPECT_EQ(change(kDiscardType, {{0, 0, 8, 0}}), kUnsupported);
  EXPECT_EQ(change(kZeroesType, {{0, 0, 8, 0}}), kUnsupported);
  EXPECT_EQ(request(kIn, 0, {{kData, 512, true}}), kOk);
  EXPECT_EQ(sectors(0, kSectors), before);
}

TEST_P(Disk, Ranges) {
  make();
  start();
  const std::string before = sectors(0, 100);
  EXPECT_EQ(change(kZeroesType, {{3, 0, 2, 0}, {10, 0, 5, 1}, {20, 0, 0, 0}}), kOk);
  EXPECT_EQ(sectors(3, 2), std::string(1024, '\0'));
  EXPECT_EQ(sectors(10, 5), std::string(5 * 512, '\0'));
  EXPECT_EQ(sectors(15, 85), before.substr(15 * 512));
  EXPECT_EQ(change(kDiscardType, {{50, 0, 8, 0}}), kOk);
  EXPECT_NE(sectors(50, 8), before.substr(50 * 512, 8 * 512));
  const std::string after = sectors(0, kSectors);
  EXPECT_EQ(change(kDiscardType, {{0, 0, 8, 1}}), kUnsupported) << "5.2.6.2: unmap is for zeroes";
  EXPECT_EQ(change(kZeroesType, {{0, 0, 8, 2}}), kUnsupported) << "reserved flags";
  EXPECT_EQ(change(kZeroesType, {{0, 0, 8, 0}, {kSectors - 1, 0, 2, 0}}), kIoError) << "all of them or none";
  EXPECT_EQ(change(kZeroesType, {{0xffffffff, 0xffffffff, 1, 0}}), kIoError);
  EXPECT_EQ(change(kZeroesType, {{0, 0, 0xffffffff, 0}}), kIoError);
  EXPECT_EQ(change(kZeroesType, std::vector<std::array<uint32_t, 4>>(65, {0, 0, 1, 0})), kIoError) << "more than it said";
  EXPECT_EQ(request(kZeroesType, 0, {{kData, 15}}), kIoError);
  EXPECT_EQ(request(kZeroesType, 0, {}), kIoError);
  EXPECT_EQ(sectors(0, kSectors), after);
}

TEST_P(Disk, ItsSerialNumber) {
  make({.serial = "a number of more than twenty"});
  start();
  add(kGetId, 0, {{kData, 20, true}});
  EXPECT_EQ(serve(), std::vector<uint32_t>{21});
  EXPECT_EQ(memory.text(kData, 20), "a number of more tha");
  EXPECT_EQ(request(kGetId, 0, {{kData + 0x100, 5, true}}), kOk);
  EXPECT_EQ(memory.text(kData + 0x100, 6), std::string("a num\0", 6));
}

TEST_P(Disk, WritesLastAsTheDriverAsked) {
  make();
  image->keeps_diary = true;
  std::vector<bool> fua;
  image->fault = [&](const block::Request& asked) {
    if (asked.operation == block::Operation::Write) fua.push_back(asked.fua);
    return 0;
  };
  start();
  request(kOut, 0, {{kData, 512}});
  EXPECT_EQ(test::config_of<uint8_t>(*block, 32), 1u) << "writeback";
  const std::array<uint8_t, 1> writethrough{0};
  block->write_config(32, writethrough);
  request(kOut, 0, {{kData, 512}});
  stop();
  start(0);
  request(kOut, 0, {{kData, 512}});
  EXPECT_EQ(fua, (std::vector<bool>{false, true, true})) << "5.2.5.2: a driver without flushes has its writes last";
}

TEST_P(Disk, ErrorsAreTheGuestsToSee) {
  make();
  start();
  image->fault = [](const block::Request&) { return EIO; };
  EXPECT_EQ(request(kIn, 0, {{kData, 512, true}}), kIoError);
  EXPECT_EQ(request(kOut, 0, {{kData, 512}}), kIoError);
  EXPECT_EQ(request(kFlushType, 0, {}), kIoError);
  image->fault = nullptr;
  EXPECT_EQ(request(kIn, 0, {{kData, 512, true}}), kOk);
  EXPECT_EQ(signal.pauses, 0u);
}

TEST_P(Disk, WithoutSpaceTheMachineWaits) {
  make();
  start();
  std::atomic<bool> full = true;
  image->fault = [&](const block::Request& asked) { return full && asked.operation == block::Operation::Write ? ENOSPC : 0; };
  memory.put_text(kData, std::string(512, 'y'));
  add(kOut, 9, {{kData, 512}});
  on_thread([&] { block->notified(); });
  signal.wait(signal.pauses, 1);
  EXPECT_EQ(memory.get<uint8_t>(kStatusAt), kNothing);
  full = false;
  signal.wait(signal.resumes, 1);
  signal.wait(signal.interrupts, 1);
  EXPECT_EQ(memory.get<uint8_t>(kStatusAt), kOk);
  EXPECT_EQ(sectors(9, 1), std::string(512, 'y'));
  EXPECT_EQ(ring->used().size(), 1u);
  // The end of the machine does not wait for space.
  full = true;
  add(kOut, 9, {{kData, 512}});
  on_thread([&] { block->notified(); });
  signal.wait(signal.pauses, 2);
  stop();
  EXPECT_EQ(signal.resumes, 2u);
}

TEST_P(Disk, ErrorsAsToldToTakeThem) {
  make({.on_read_error = storage::OnError::Ignore, .on_write_error = storage::OnError::Report});
  start();
  image->fault = [](const block::Request&) { return ENOSPC; };
  EXPECT_EQ(request(kOut, 0, {{kData, 512}}), kIoError);
  EXPECT_EQ(request(kIn, 0, {{kData, 512, true}}), kOk);
  EXPECT_EQ(signal.pauses, 0u);
}

TEST_P(Disk, MayEndWithItsLastRequest) {
  make();
  start();
  std::promise<void> done;
  add(kIn, 0, {{kData, 512, true}}, 0);
  add(kIn, 8, {{kData + 0x1000, 512, true}}, 1);
  thread->post([&] {
    block->notified();
    block->stop([&] {
      block.reset();
      done.set_value();
    });
  });
  done.get_future().wait();
  EXPECT_EQ(ring->used().size(), 2u);
  started = false;
}

TEST_P(Disk, MayEndWhileItWaitsForSpace) {
  make();
  start();
  image->fault = [](const block::Request&) { return ENOSPC; };
  add(kOut, 0, {{kData, 512}});
  on_thread([&] { block->notified(); });
  signal.wait(signal.pauses, 1);
  std::promise<void> done;
  thread->post([&] {
    block->stop([&] {
      block.reset();
      done.set_value();
    });
  });
  done.get_future().wait();
  EXPECT_EQ(signal.resumes, 1u);
  started = false;
}

TEST_P(Disk, ADriverThatBreaksTheRulesIsToldToReset) {
  make();
  for (const std::vector<Piece>& bad : {std::vector<Piece>{{kHeaderAt, 15}, {kStatusAt, 1, true}}, std::vector<Piece>{{kHeaderAt, 16}},
                                        std::vector<Piece>{{kStatusAt, 1, true}}, std::vector<Piece>{{kHeaderAt, 0}}}) {
    start();
    ring->add(bad);
    const unsigned before = signal.resets_wanted;
    on_thread([&] { block->notified(); });
    signal.wait(signal.resets_wanted, before + 1);
    stop();
  }
  start();
  EXPECT_EQ(request(kIn, 0, {{kData, 512, true}}), kOk) << "as good as new";
}

}  // namespace
}  // namespace lodge::devices::virtio
