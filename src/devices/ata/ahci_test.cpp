#include "devices/ata/ahci.hpp"

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <thread>

#include "devices/ata/test_channel.hpp"

namespace lodge::devices::ata {
namespace {

using test::Image;

constexpr uint64_t kList = 0x10000, kReceived = 0x11000, kTables = 0x12000, kTableBytes = 0x400, kData = 0x20000;
constexpr uint64_t kSectors = 4096;
constexpr uint32_t kNowhere = 0xf0000000;

// The registers of port 0.
constexpr unsigned kClb = 0x100, kFb = 0x108, kIs = 0x110, kIe = 0x114, kCmd = 0x118, kTfd = 0x120, kSig = 0x124, kSsts = 0x128,
                   kSctl = 0x12c, kSerr = 0x130, kSact = 0x134, kCi = 0x138;
constexpr unsigned kCap = 0, kGhc = 4, kHbaIs = 8, kPi = 12;
constexpr uint32_t kDhrs = 1, kPss = 2, kSdbs = 8, kPcs = 1 << 6, kOfs = 1 << 24, kIfs = 1 << 27, kHbfs = 1 << 29, kTfes = 1 << 30;
constexpr uint16_t kIsWrite = 1 << 6, kPacket = 1 << 5;
constexpr uint32_t kGood = kReady | kServiceOrSeekComplete;

struct Ahci0 : testing::Test, pci::FunctionPort {
  Ahci0() { ahci.connect(*this); }
  ~Ahci0() override { ahci.shut_down(); }

  // --- What the controller asks of its bus
  void send_message(uint64_t, uint32_t) override {
    note([this] { ++messages; });
  }
  void set_intx(bool level) override {
    note([this, level] { line = level; });
  }
  template <typename Change>
  void note(Change change) {
    std::lock_guard lock(mutex);
    change();
    changed.notify_all();
  }
  void wait_for_line() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return line; });
  }

  uint32_t get(unsigned offset) { return static_cast<uint32_t>(ahci.read_bar(Ahci::kMemoryBar, offset, 4)); }
  void put(unsigned offset, uint32_t value) { ahci.write_bar(Ahci::kMemoryBar, offset, 4, value); }

  void make_disk(const storage::DiskOptions& options = {}) {
    image.emplace(kSectors, options);
    ahci.attach(0, std::make_unique<HardDisk>(ahci.link(0), *image->disk, 0));
  }
  // As a driver starts a port.
  void start() {
    ahci.write_config(4, 2, 6);
    put(kGhc, 0x80000002);
    put(kClb, kList);
    put(kFb, kReceived);
    put(kSerr, ~0u);
    put(kIs, ~0u);
    put(kIe, ~0u);
    put(kCmd, 0x10);
    put(kCmd, 0x11);
  }

  struct Fis {
    uint8_t command = 0, device = 0x40, control = 0;
    uint64_t sector = 0;
    uint16_t count = 0, features = 0;
    bool is_command = true;
  };
  // Command and table of a slot, whose data is to be at kData and on.
  void prepare(unsigned slot, const Fis& fis, uint32_t bytes, uint16_t flags = 0, std::vector<std::pair<uint64_t, uint32_t>> regions = {}) {
    const uint64_t table = kTables + slot * kTableBytes;
    if (regions.empty() && bytes) regions.emplace_back(kData, bytes);
    memory.put<uint16_t>(kList + 32 * slot, 5 | flags);
    memory.put<uint16_t>(kList + 32 * slot + 2, static_cast<uint16_t>(regions.size()));
    memory.put<uint32_t>(kList + 32 * slot + 4, 0);
    memory.put<uint64_t>(kList + 32 * slot + 8, table);
    const auto byte = [](uint64_t value, unsigned index) { return static_cast<uint8_t>(value >> (8 * index)); };
    const std::array<uint8_t, 20> bytes_of{0x27,
                                           static_cast<uint8_t>(fis.is_command ? 0x80 : 0),
                                           fis.command,
                                           byte(fis.features, 0),
                                           byte(fis.sector, 0),
                                           byte(fis.sector, 1),
                                           byte(fis.sector, 2),
                                           fis.device,
                                           byte(fis.sector, 3),
                                           byte(fis.sector, 4),
                                           byte(fis.sector, 5),
                                           byte(fis.features, 1),
                                           byte(fis.count, 0),
                                           byte(fis.count, 1),
                                           0,
                                           fis.control};
    memory.put(table, bytes_of);
    for (size_t i = 0; i < regions.size(); ++i) {
      memory.put<uint64_t>(table + 0x80 + 16 * i, regions[i].first);
      memory.put<uint32_t>(table + 0x80 + 16 * i + 12, regions[i].second - 1);
    }
  }
  // Until the controller interrupts; then the causes, which are taken away.
  uint32_t wait() {
    wait_for_line();
    const uint32_t causes = get(kIs);
    put(kIs, ~0u);
    put(kHbaIs, ~0u);
    return causes;
  }
  uint32_t issue(unsigned slot) {
    put(kCi, 1u << slot);
    return wait();
  }
  uint32_t run(const Fis& fis, uint32_t bytes, uint16_t flags = 0, std::vector<std::pair<uint64_t, uint32_t>> regions = {}) {
    prepare(0, fis, bytes, flags, std::move(regions));
    return issue(0);
  }
  [[nodiscard]] std::string sectors(uint64_t first, uint64_t count) const { return image->text(first * 512, count * 512); }
  static Fis queued(bool write, uint64_t sector, uint16_t count, unsigned tag) {
    return {.command = static_cast<uint8_t>(write ? 0x61 : 0x60),
            .sector = sector,
            .count = static_cast<uint16_t>(tag << 3),
            .features = count};
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool line = false;
  unsigned messages = 0;
  memory::test::Memory memory;
  std::optional<Image> image;
  Ahci ahci{*memory.guest};
};

TEST_F(Ahci0, SaysWhatItIs) {
  EXPECT_EQ(ahci.read_config(0, 4), 0x29228086u);
  EXPECT_EQ(ahci.read_config(8, 4) >> 8, 0x010601u);
  EXPECT_EQ(get(kCap) & 0x1f, 5u);
  EXPECT_EQ(get(kCap) >> 8 & 0x1f, 31u);
  EXPECT_EQ(get(kCap) >> 30, 3u) << "queue, 64-bit addresses";
  EXPECT_EQ(get(kPi), 0x3fu);
  EXPECT_EQ(get(kGhc), 0x80000000u);
  EXPECT_EQ(get(0x10), 0x00010200u);
  EXPECT_EQ(get(0x100 + 6 * 0x80), 0u) << "no seventh port";
}

TEST_F(Ahci0, APortWithoutADeviceIsSilent) {
  start();
  EXPECT_EQ(get(kSsts), 0u);
  EXPECT_EQ(get(kTfd), 0x7fu);
  EXPECT_EQ(get(kSig), ~0u);
  put(kSctl, 1);
  put(kSctl, 0);
  EXPECT_EQ(get(kSsts), 0u);
  put(kCi, 1);
  EXPECT_EQ(get(kCi), 1u) << "nobody takes it";
}

TEST_F(Ahci0, TheSignatureComesWhenFramesAreReceived) {
  make_disk();
  EXPECT_EQ(get(kSsts), 0x123u);
  EXPECT_EQ(get(kTfd), 0x7fu);
  EXPECT_EQ(get(kIs) & kPcs, kPcs);
  put(kFb, kReceived);
  put(kCmd, 0x10);
  EXPECT_EQ(get(kCmd) & 0x4010u, 0x4010u);
  EXPECT_EQ(get(kSig), 0x00000101u);
  EXPECT_EQ(get(kTfd), kGood | 0x100u);
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x40), 0x34);
  put(kSerr, ~0u);
  EXPECT_EQ(get(kIs), 0u);
}

TEST_F(Ahci0, IdentifiesTheDisk) {
  make_disk();
  start();
  EXPECT_EQ(run({.command = 0xec}, 512), kPss);
  EXPECT_EQ(get(kCi), 0u);
  EXPECT_EQ(get(kTfd), kGood);
  EXPECT_EQ(memory.get<uint32_t>(kList + 4), 512u);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 60), kSectors);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 75), 31);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 76), 0x0106);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 93), 0);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 222) >> 12, 1);
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x20), 0x5f);
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x21), 0x60) << "to the host, with an interrupt";
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x22), kGood | kDataRequest);
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x2f), kGood) << "the status after the data";
}

TEST_F(Ahci0, ReadsAndWritesByDmaInPieces) {
  make_disk();
  start();
  const std::vector<std::pair<uint64_t, uint32_t>> regions{{kData, 100}, {kData + 0x1000, 412}, {kData + 0x2000, 8192}};
  EXPECT_EQ(run({.command = 0x25, .sector = 7, .count = 3}, 0, 0, regions), kDhrs);
  EXPECT_EQ(memory.text(kData, 100) + memory.text(kData + 0x1000, 412) + memory.text(kData + 0x2000, 1024), sectors(7, 3));
  EXPECT_EQ(memory.get<uint32_t>(kList + 4), 1536u);
  EXPECT_EQ(run({.command = 0x35, .sector = 100, .count = 3}, 0, kIsWrite, regions), kDhrs);
  EXPECT_EQ(sectors(100, 3), sectors(7, 3));
}

TEST_F(Ahci0, ReadsAndWritesThroughTheDataRegister) {
  make_disk();
  start();
  prepare(0, {.command = 0x24, .sector = 3, .count = 300}, 300 * 512);
  put(kCi, 1);
  while (get(kCi) != 0) EXPECT_EQ(wait(), kPss);
  EXPECT_EQ(memory.text(kData, 300 * 512), sectors(3, 300)) << "more than the disk's buffer holds";
  EXPECT_EQ(get(kTfd), kGood);
  prepare(4, {.command = 0x34, .sector = 1000, .count = 300}, 300 * 512, kIsWrite);
  put(kCi, 1 << 4);
  // Each sector but the first asks for data with an interrupt; the end is a frame of its own.
  uint32_t seen = 0;
  while (!(seen & kDhrs)) seen |= wait();
  EXPECT_EQ(get(kCi), 0u);
  EXPECT_EQ(sectors(1000, 300), sectors(3, 300));
}

TEST_F(Ahci0, ReportsWhatIsOutOfRange) {
  make_disk();
  start();
  EXPECT_EQ(run({.command = 0x25, .sector = kSectors, .count = 1}, 512), kDhrs | kTfes);
  EXPECT_EQ(get(kTfd), kGood | kError | kIdNotFound << 8);
  EXPECT_EQ(get(kCi), 1u) << "the command that failed keeps its bit";
  EXPECT_EQ(get(kCmd) >> 8 & 0x1f, 0u);
  put(kCi, 2);
  EXPECT_EQ(get(kCi), 3u) << "and the list stands still";
  put(kCmd, 0x10);
  EXPECT_EQ(get(kCi), 0u);
  EXPECT_EQ(get(kCmd) & 0x8000, 0u);
  put(kCmd, 0x11);
  EXPECT_EQ(run({.command = 0x25, .sector = 1, .count = 1}, 512), kDhrs);
}

TEST_F(Ahci0, StopsWhereTheGuestNamesNoMemory) {
  make_disk();
  start();
  EXPECT_EQ(run({.command = 0x25, .sector = 1, .count = 1}, 0, 0, {{kNowhere, 512}}), kHbfs);
  put(kCmd, 0x10);
  put(kSctl, 1);
  put(kSctl, 0);
  put(kSerr, ~0u);
  put(kIs, ~0u);
  put(kCmd, 0x11);
  put(kClb, kNowhere);
  EXPECT_EQ(issue(0), kHbfs) << "the list";
  put(kCmd, 0x10);
  put(kClb, kList);
  put(kCmd, 0x11);
  memory.put<uint64_t>(kList + 8, kNowhere);
  EXPECT_EQ(issue(0), kHbfs) << "the table";
  put(kCi, 8);
  EXPECT_EQ(get(kCi), 9u) << "nothing goes on until the port is started anew";
}

TEST_F(Ahci0, ATableThatIsTooShortAborts) {
  make_disk();
  start();
  EXPECT_EQ(run({.command = 0x25, .sector = 1, .count = 2}, 512), kDhrs | kTfes | kOfs);
  EXPECT_EQ(get(kTfd), kGood | kError | kAborted << 8);
}

TEST_F(Ahci0, AFrameOfAnotherKindIsNotTaken) {
  make_disk();
  start();
  prepare(0, {.command = 0xec}, 512);
  memory.put<uint8_t>(kTables, 0x41);
  EXPECT_EQ(issue(0), kIfs);
  EXPECT_EQ(get(kSerr), 1u << 22);
}

TEST_F(Ahci0, CommandsAreTakenInTurns) {
  make_disk();
  start();
  prepare(5, {.command = 0x25, .sector = 50, .count = 1}, 512);
  prepare(2, {.command = 0x25, .sector = 20, .count = 1}, 512, 0, {{kData + 0x1000, 512}});
  put(kCi, 1 << 5 | 1 << 2);
  while (get(kCi) != 0) wait();
  EXPECT_EQ(memory.text(kData, 512), sectors(50, 1));
  EXPECT_EQ(memory.text(kData + 0x1000, 512), sectors(20, 1));
}

TEST_F(Ahci0, NothingHappensWithoutTheBusOrTheStart) {
  make_disk();
  start();
  put(kCmd, 0x10);
  prepare(0, {.command = 0xec}, 512);
  put(kCi, 1);
  put(kSact, 1);
  EXPECT_EQ(get(kCi), 0u);
  EXPECT_EQ(get(kSact), 0u);
  put(kCmd, 0x11);
  ahci.write_config(4, 2, 2);
  put(kCi, 1);
  EXPECT_EQ(get(kCi), 1u);
  ahci.write_config(4, 2, 6);
  EXPECT_EQ(wait(), kPss);
}

TEST_F(Ahci0, ASoftResetIsTwoFrames) {
  make_disk();
  start();
  ASSERT_EQ(run({.command = 0xc6, .count = 16}, 0), kDhrs);
  prepare(1, {.control = 4, .is_command = false}, 0, 1 << 10 | 1 << 8);
  put(kCi, 2);
  EXPECT_EQ(get(kCi), 0u);
  prepare(2, {.control = 0, .is_command = false}, 0);
  put(kCi, 4);
  EXPECT_EQ(get(kCi), 0u);
  EXPECT_EQ(get(kTfd), kGood | 0x100u);
  EXPECT_EQ(get(kIs), 0u) << "without an interrupt";
  EXPECT_EQ(run({.command = 0x29, .sector = 0, .count = 16}, 8192), kDhrs | kTfes) << "READ MULTIPLE is not set up any more";
}

TEST_F(Ahci0, EveryInterruptCanBeEnabled) {
  put(kIe, ~0u);
  EXPECT_EQ(get(kIe), 0x7dc0007fu) << "but those of cold presence and mechanical switches";
  put(kIe, 0);
  EXPECT_EQ(get(kIe), 0u);
}

TEST_F(Ahci0, AResetOfTheLinkShowsTheSignatureAgain) {
  make_disk();
  start();
  put(kSctl, 0x301);
  EXPECT_EQ(get(kSsts), 0u);
  EXPECT_EQ(get(kTfd), 0x7fu);
  put(kSctl, 0x300);
  EXPECT_EQ(get(kSsts), 0x123u);
  EXPECT_EQ(get(kSig), 0x101u);
  EXPECT_EQ(get(kIs) & kPcs, kPcs);
  EXPECT_EQ(get(kSctl), 0x300u);
  put(kSctl, 4);
  EXPECT_EQ(get(kSsts), 4u) << "offline";
}

TEST_F(Ahci0, TheControllersResetTakesAllAway) {
  make_disk();
  start();
  put(kGhc, 0x80000003);
  EXPECT_EQ(get(kGhc), 0x80000000u);
  EXPECT_EQ(get(kClb), 0u);
  EXPECT_EQ(get(kIe), 0u);
  EXPECT_EQ(get(kCmd) & 0xc011u, 0u);
  EXPECT_EQ(get(kTfd), 0x7fu);
}

TEST_F(Ahci0, InterruptsByMessage) {
  make_disk();
  const unsigned msi = [&] {
    unsigned offset = ahci.read_config(0x34, 1);
    while (offset && ahci.read_config(offset, 1) != 5) offset = ahci.read_config(offset + 1, 1);
    return offset;
  }();
  ASSERT_NE(msi, 0u);
  start();
  ahci.write_config(msi + 2, 2, 1);
  prepare(0, {.command = 0xec}, 512);
  put(kCi, 1);
  EXPECT_EQ(messages, 1u);
  put(kHbaIs, ~0u);
  EXPECT_EQ(messages, 2u) << "the port still has its cause";
  put(kIs, ~0u);
  put(kHbaIs, ~0u);
  EXPECT_EQ(messages, 2u);
  EXPECT_FALSE(line);
}

TEST_F(Ahci0, TheIndexPortsReachTheSameRegisters) {
  ahci.write_bar(Ahci::kIndexBar, 0x10, 4, kPi);
  EXPECT_EQ(ahci.read_bar(Ahci::kIndexBar, 0x14, 4), 0x3fu);
  ahci.write_bar(Ahci::kIndexBar, 0x10, 4, kClb);
  ahci.write_bar(Ahci::kIndexBar, 0x14, 4, 0x12345678);
  EXPECT_EQ(get(kClb), 0x12345400u);
}

// --- The native queue

TEST_F(Ahci0, QueuedCommandsGoSideBySide) {
  make_disk();
  start();
  for (unsigned tag = 0; tag < 32; ++tag) prepare(tag, queued(false, tag * 10, 2, tag), 0, 0, {{kData + tag * 0x400, 1024}});
  put(kSact, ~0u);
  put(kCi, ~0u);
  EXPECT_EQ(get(kCi), 0u) << "all are with the disk";
  while (get(kSact) != 0) EXPECT_EQ(wait() & ~kSdbs, 0u);
  for (unsigned tag = 0; tag < 32; ++tag) EXPECT_EQ(memory.text(kData + tag * 0x400, 1024), sectors(tag * 10, 2)) << tag;
  EXPECT_EQ(memory.get<uint8_t>(kReceived + 0x58), 0xa1);
  prepare(9, queued(true, 2000, 2, 9), 1024, kIsWrite);
  put(kSact, 1 << 9);
  put(kCi, 1 << 9);
  while (get(kSact) != 0) wait();
  EXPECT_EQ(sectors(2000, 2), memory.text(kData, 1024));
}

TEST_F(Ahci0, AQueuedCommandThatFailsIsInTheLog) {
  make_disk();
  start();
  prepare(3, queued(false, kSectors - 1, 2, 3), 1024);
  put(kSact, 1 << 3);
  EXPECT_EQ(issue(3), kSdbs | kTfes);
  EXPECT_EQ(get(kTfd), kReady | kError | kIdNotFound << 8);
  EXPECT_EQ(get(kSact), 1u << 3);
  put(kCmd, 0x10);
  put(kCmd, 0x11);
  EXPECT_EQ(get(kSact), 0u);
  EXPECT_EQ(run({.command = 0x2f, .sector = 0x10, .count = 1}, 512), kPss);
  EXPECT_EQ(memory.get<uint8_t>(kData), 3);
  EXPECT_EQ(memory.get<uint8_t>(kData + 3), kIdNotFound);
  EXPECT_EQ(memory.get<uint16_t>(kData + 4), kSectors - 1);
  const std::string log = memory.text(kData, 512);
  EXPECT_EQ(static_cast<uint8_t>(std::accumulate(log.begin(), log.end(), 0)), 0);
  EXPECT_EQ(run({.command = 0x2f, .sector = 0x10, .count = 1}, 512), kPss);
  EXPECT_EQ(memory.get<uint8_t>(kData), 0x80) << "it is told once";
  EXPECT_EQ(run({.command = 0x2f, .sector = 0x00, .count = 1}, 512), kPss);
  EXPECT_EQ(memory.get<uint16_t>(kData + 2 * 0x10), 1) << "the directory";
  EXPECT_EQ(run({.command = 0x2f, .sector = 0x11, .count = 1}, 512), kDhrs | kTfes);
}

TEST_F(Ahci0, AnErrorOfTheHostEndsTheWholeQueue) {
  make_disk();
  start();
  image->memory->fault = [](const block::Request& request) { return request.offset == 512 * 20 ? EIO : 0; };
  prepare(0, queued(false, 20, 1, 0), 512);
  put(kSact, 1);
  EXPECT_EQ(issue(0), kSdbs | kTfes);
  EXPECT_EQ(get(kTfd) >> 8, kUncorrectable);
}

TEST_F(Ahci0, OtherCommandsDoNotGoBesideQueuedOnes) {
  make_disk();
  start();
  std::atomic<bool> held = true;
  image->memory->fault = [&](const block::Request&) {
    held.wait(true);
    return 0;
  };
  prepare(0, queued(false, 20, 1, 0), 512);
  prepare(1, {.command = 0xec}, 512);
  put(kSact, 1);
  put(kCi, 1);
  EXPECT_EQ(issue(1), kDhrs | kTfes);
  EXPECT_EQ(get(kTfd) >> 8, kAborted);
  put(kCmd, 0x10);
  EXPECT_EQ(get(kCmd) & 0x8000, 0x8000u) << "what is on the disk still reaches memory";
  held = false;
  held.notify_all();
  while (get(kCmd) & 0x8000) std::this_thread::yield();
}

TEST_F(Ahci0, ATagIsUsedOnce) {
  make_disk();
  start();
  prepare(0, queued(false, 20, 1, 5), 512);
  EXPECT_EQ(issue(0), kDhrs | kTfes) << "and only if software waits for it";
}

// --- A packet device

struct AhciOptical : Ahci0 {
  AhciOptical() {
    image.emplace(kSectors, storage::DiskOptions{.read_only = true});
    ahci.attach(0, std::make_unique<OpticalDrive>(ahci.link(0), &*image->disk, 1));
    start();
  }
  uint32_t packet(std::array<uint8_t, 12> bytes, uint32_t length, uint16_t features) {
    prepare(0, {.command = 0xa0, .device = 0, .sector = 0xfffe00, .features = features}, length, kPacket);
    memory.put(kTables + 0x40, bytes);
    put(kCi, 1);
    uint32_t seen = 0;
    while (!(seen & kDhrs)) seen |= wait();
    return seen;
  }
};

TEST_F(AhciOptical, HasASignatureOfItsOwn) {
  EXPECT_EQ(get(kSig), 0xeb140101u);
  EXPECT_EQ(run({.command = 0xec, .device = 0}, 512), kDhrs | kTfes);
}

TEST_F(AhciOptical, ReadsByDmaAndThroughTheDataRegister) {
  for (const uint16_t features : {0, 1}) {
    ASSERT_EQ(packet({0x28, 0, 0, 0, 0, 10, 0, 0, 40}, 40 * 2048, features) & ~kPss, kDhrs);
    EXPECT_EQ(memory.text(kData, 40 * 2048), image->text(10 * 2048, 40 * 2048));
    EXPECT_EQ(memory.get<uint32_t>(kList + 4), 40u * 2048);
    EXPECT_EQ(get(kCi), 0u);
  }
}

TEST_F(AhciOptical, AnAnswerMayBeShorterThanItsTable) {
  EXPECT_EQ(packet({0x12, 0, 0, 0, 96}, 96, 1), kDhrs);
  EXPECT_EQ(memory.get<uint32_t>(kList + 4), 36u);
  EXPECT_EQ(memory.text(kData + 8, 5), "LODGE");
}

TEST_F(AhciOptical, RefusesWithASense) {
  EXPECT_EQ(packet({0xff}, 0, 0), kDhrs | kTfes);
  EXPECT_EQ(get(kTfd) >> 8, 0x50u | kAborted);
}

}  // namespace
}  // namespace lodge::devices::ata
