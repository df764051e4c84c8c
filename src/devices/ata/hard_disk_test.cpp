#include "devices/ata/hard_disk.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "devices/ata/test_channel.hpp"

namespace lodge::devices::ata {
namespace {

using test::Image;

constexpr uint64_t kSectors = 4096;
constexpr uint8_t kGood = kReady | kServiceOrSeekComplete;

struct DiskOnIde : testing::Test, test::Ide {
  void make(const storage::DiskOptions& options = {}) {
    image.emplace(kSectors, options);
    attach(0, std::make_unique<HardDisk>(primary(), *image->disk, 0));
    start();
  }
  ~DiskOnIde() override { ide->shut_down(); }
  std::array<uint16_t, 256> identify() {
    put(6, 0xe0);
    EXPECT_EQ(command(0xec), kGood | kDataRequest);
    const std::string data = read_data(512);
    std::array<uint16_t, 256> words{};
    std::memcpy(words.data(), data.data(), data.size());
    return words;
  }
  [[nodiscard]] std::string sectors(uint64_t first, uint64_t count) const { return image->text(first * 512, count * 512); }

  std::optional<Image> image;
};

TEST_F(DiskOnIde, SaysWhatItIs) {
  make({.serial = "S-1"});
  const auto words = identify();
  EXPECT_EQ(get(7), kGood);
  EXPECT_EQ(words[0] & 0x8000, 0);
  EXPECT_EQ(words[60] | words[61] << 16, static_cast<int>(kSectors));
  EXPECT_EQ(words[100], kSectors);
  EXPECT_EQ(words[1], 4);  // cylinders of 16 heads with 63 sectors
  EXPECT_EQ(words[10], 'S' << 8 | '-');
  EXPECT_EQ(words[11], '1' << 8 | ' ');
  uint8_t sum = 0;
  for (const uint16_t word : words) sum = static_cast<uint8_t>(sum + (word & 0xff) + (word >> 8));
  EXPECT_EQ(sum, 0);
}

TEST_F(DiskOnIde, WithoutASerialNumberEachDiskHasItsOwn) {
  make();
  EXPECT_EQ(identify()[10], 'L' << 8 | 'D');
}

TEST_F(DiskOnIde, ReadsThroughTheDataRegisterSectorBySector) {
  make();
  address(5, 2);
  EXPECT_EQ(command(0x20), kGood | kDataRequest);
  EXPECT_EQ(read_data(512), sectors(5, 1));
  EXPECT_EQ(wait(), kGood | kDataRequest);
  EXPECT_EQ(read_data(512), sectors(6, 1));
  EXPECT_EQ(get(7), kGood);
  EXPECT_EQ(edges[0], 2u);  // one a sector, and none for the end
}

TEST_F(DiskOnIde, ReadsMoreThanItsBufferHolds) {
  make();
  address_long(7, 600);
  put(7, 0x24);
  std::string all;
  for (unsigned i = 0; i < 600; ++i) {
    ASSERT_EQ(wait(), kGood | kDataRequest);
    all += read_data(512);
  }
  EXPECT_EQ(all, sectors(7, 600));
  EXPECT_EQ(get(7), kGood);
}

TEST_F(DiskOnIde, ReadsSeveralSectorsAtOnceWhenToldTo) {
  make();
  address(0, 1);
  EXPECT_EQ(command(0xc4), kGood | kError);  // not set yet
  EXPECT_EQ(get(1), kAborted);
  put(2, 3);
  EXPECT_EQ(command(0xc6), kGood | kError);  // no power of two
  put(2, 4);
  EXPECT_EQ(command(0xc6), kGood);
  EXPECT_EQ(identify()[59], 0x0104);
  address(8, 6);
  EXPECT_EQ(command(0xc4), kGood | kDataRequest);
  EXPECT_EQ(read_data(4 * 512), sectors(8, 4));
  EXPECT_EQ(wait(), kGood | kDataRequest);
  EXPECT_EQ(read_data(2 * 512), sectors(12, 2));
  EXPECT_EQ(get(7), kGood);
}

TEST_F(DiskOnIde, WritesThroughTheDataRegister) {
  make();
  address(9, 2);
  put(7, 0x30);
  EXPECT_EQ(get(7), kGood | kDataRequest);  // at once, and without an interrupt
  EXPECT_EQ(edges[0], 0u);
  write_data(std::string(512, 'a'));
  EXPECT_EQ(wait(), kGood | kDataRequest);
  write_data(std::string(512, 'b'));
  EXPECT_EQ(wait(), kGood);
  EXPECT_EQ(sectors(9, 2), std::string(512, 'a') + std::string(512, 'b'));
}

TEST_F(DiskOnIde, FindsSectorsByCylinderHeadAndSector) {
  make();
  put(6, 0xa3);  // head 3
  put(2, 1);
  put(3, 10);
  put(4, 2);  // cylinder
  put(5, 0);
  EXPECT_EQ(command(0x20), kGood | kDataRequest);
  EXPECT_EQ(read_data(512), sectors((2 * 16 + 3) * 63 + 9, 1));
  // With a geometry of the guest's own.
  put(2, 17);
  put(6, 0xa3);
  EXPECT_EQ(command(0x91), kGood);
  put(6, 0xa1);
  put(2, 1);
  put(3, 17);
  put(4, 5);
  EXPECT_EQ(command(0x20), kGood | kDataRequest);
  EXPECT_EQ(read_data(512), sectors((5 * 4 + 1) * 17 + 16, 1));
  put(3, 0);  // there is no sector 0
  EXPECT_EQ(command(0x20), kGood | kError);
  EXPECT_EQ(get(1), kIdNotFound);
}

TEST_F(DiskOnIde, EndsWhereItEnds) {
  make();
  address(kSectors - 1, 1);
  EXPECT_EQ(command(0x20), kGood | kDataRequest);
  read_data(512);
  address(kSectors - 1, 2);
  EXPECT_EQ(command(0x20), kGood | kError);
  EXPECT_EQ(get(1), kIdNotFound);
  address_long(uint64_t{1} << 40, 1);
  EXPECT_EQ(command(0x24), kGood | kError);
  put(6, 0x40);
  EXPECT_EQ(command(0x27), kGood);  // READ NATIVE MAX ADDRESS EXT
  EXPECT_EQ(get(3) | get(4) << 8, static_cast<int>(kSectors - 1));
  control(0x80);
  EXPECT_EQ(get(3), 0);
}

TEST_F(DiskOnIde, MovesDataByDmaIntoScatteredMemory) {
  make();
  table({{0x8000, 512}, {0x20000, 1024}});
  set_master(0, 1, 8);
  address(30, 3);
  put(7, 0xc8);
  EXPECT_EQ(get(7) & kBusy, kBusy);
  set_master(0, 1, 9);
  EXPECT_EQ(wait(), kGood);
  EXPECT_EQ(memory.text(0x8000, 512) + memory.text(0x20000, 1024), sectors(30, 3));
  EXPECT_EQ(master(2) & 7, 4u);  // not active, no error, interrupt
  set_master(2, 1, 4);
  EXPECT_EQ(master(2) & 7, 0u);
  set_master(0, 1, 0);

  memory.put_text(0x8000, std::string(512, 'x'));
  table({{0x8000, 512}});
  set_master(0, 1, 1);  // the other order: the bus master first
  address_long(40, 1);
  put(7, 0x35);
  EXPECT_EQ(wait(), kGood);
  EXPECT_EQ(sectors(40, 1), std::string(512, 'x'));
}

TEST_F(DiskOnIde, ATableLongerThanTheTransferLeavesTheMasterActive) {
  make();
  table({{0x8000, 2048}});
  address(1, 1);
  set_master(0, 1, 9);
  put(7, 0xc8);
  EXPECT_EQ(wait(), kGood);
  EXPECT_EQ(master(2) & 7, 5u);
}

TEST_F(DiskOnIde, ATableThatIsNoMemoryIsAnErrorOfTheMaster) {
  make();
  table({{0xf0000000, 512}});
  address(1, 1);
  set_master(0, 1, 9);
  put(7, 0xc8);
  EXPECT_EQ(master(2) & 7, 2u);
  EXPECT_EQ(get(7) & kBusy, kBusy);
  control(kControlSoftReset);
  control(0);
  EXPECT_EQ(get(7), kGood);
}

TEST_F(DiskOnIde, AResetEndsWhatIsGoingOn) {
  make();
  table({{0x8000, 512}});
  address(1, 1);
  put(7, 0xc8);
  control(kControlSoftReset);
  EXPECT_EQ(alternate_status() & kBusy, kBusy);
  control(0);
  EXPECT_EQ(get(7), kGood);
  EXPECT_EQ(get(1), 1);
  EXPECT_EQ(get(2) | get(3) << 8 | get(4) << 16 | get(5) << 24, 0x0101);
  set_master(0, 1, 9);  // nothing waits for it any more
  EXPECT_EQ(memory.text(0x8000, 4), std::string(4, '\0'));
  EXPECT_EQ(edges[0], 0u);
}

// The disk still writes into the guest's memory, and that stays announced until it has done so: idle is who has let go of it.
TEST_F(DiskOnIde, IsIdleOnlyWhenItsMemoryIs) {
  make();
  table({{0x8000, 512}});
  set_master(0, 1, 9);
  for (unsigned i = 0; i < 200; ++i) {
    address(1, 1);
    put(7, 0xc8);
    control(kControlSoftReset);
    control(0);
    ide->shut_down();
    ASSERT_EQ(memory.open, 0) << i;
    set_master(0, 1, 0);
    set_master(0, 1, 9);
  }
}

TEST_F(DiskOnIde, InterruptsCanBeTurnedOffAndAreNotLost) {
  make();
  control(kControlNoInterrupt);
  put(6, 0xe0);
  put(7, 0xe1);
  EXPECT_FALSE(line[0]);
  control(0);
  EXPECT_TRUE(line[0]);
  EXPECT_EQ(alternate_status(), kGood);
  EXPECT_TRUE(line[0]);
  EXPECT_EQ(get(7), kGood);
  EXPECT_FALSE(line[0]);
}

TEST_F(DiskOnIde, AnAbsentSecondDeviceReadsAsZero) {
  make();
  put(6, 0xf0);
  EXPECT_EQ(get(7), 0);
  put(7, 0xec);
  EXPECT_EQ(edges[0], 0u);
  put(6, 0xe0);
  EXPECT_EQ(get(7), kGood);
}

TEST_F(DiskOnIde, AWriteProtectedDiskRefusesWrites) {
  make({.read_only = true});
  for (const unsigned write : {0x30u, 0xcau}) {
    address(1, 1);
    EXPECT_EQ(command(write), kGood | kError);
    EXPECT_EQ(get(1), kAborted);
  }
}

TEST_F(DiskOnIde, TellsOfErrorsWithTheSector) {
  make({.on_write_error = storage::OnError::Report});
  image->memory->fault = [](const block::Request&) { return EIO; };
  address(77, 1);
  EXPECT_EQ(command(0x20), kGood | kError);
  EXPECT_EQ(get(1), kUncorrectable);
  EXPECT_EQ(get(3), 77);
  address(78, 1);
  put(7, 0x30);
  write_data(std::string(512, 'w'));
  EXPECT_EQ(wait(), kGood | kError);
  EXPECT_EQ(get(1), kAborted);
  table({{0x8000, 512}});
  set_master(0, 1, 9);
  address(79, 1);
  EXPECT_EQ(command(0xc8), kGood | kError);
  EXPECT_EQ(command(0xe7), kGood | kError);  // FLUSH CACHE
}

TEST_F(DiskOnIde, FlushesAndWritesThroughWithoutItsCache) {
  make();
  image->memory->keeps_diary = true;
  put(6, 0xe0);
  EXPECT_EQ(command(0xe7), kGood);
  ASSERT_EQ(image->memory->diary.size(), 1u);
  EXPECT_TRUE(image->memory->diary[0].flush);
  put(1, 0x82);
  EXPECT_EQ(command(0xef), kGood);
  EXPECT_EQ(identify()[85] & 0x20, 0);
  bool fua = false;
  image->memory->fault = [&fua](const block::Request& request) {
    fua = request.fua;
    return 0;
  };
  address(3, 1);
  put(7, 0x30);
  write_data(std::string(512, 'w'));
  EXPECT_EQ(wait(), kGood);
  EXPECT_TRUE(fua);
}

TEST_F(DiskOnIde, TakesTransferModesThatItHas) {
  make();
  put(6, 0xe0);
  put(1, 3);
  put(2, 0x45);  // Ultra DMA 5
  EXPECT_EQ(command(0xef), kGood);
  EXPECT_EQ(identify()[88], 0x203f);
  put(1, 3);
  put(2, 0x46);
  EXPECT_EQ(command(0xef), kGood | kError);
}

TEST_F(DiskOnIde, GivesUpTrimmedRanges) {
  make();
  ASSERT_EQ(identify()[169], 1);
  std::vector<std::pair<uint64_t, uint64_t>> discarded;
  image->memory->fault = [&](const block::Request& request) {
    if (request.operation == block::Operation::Discard) discarded.emplace_back(request.offset, request.length);
    return 0;
  };
  memory.put<uint64_t>(0x8000, 100 | uint64_t{8} << 48);
  memory.put<uint64_t>(0x8008, 200 | uint64_t{1} << 48);
  table({{0x8000, 512}});
  set_master(0, 1, 1);
  address_long(0, 1);
  put(1, 1);
  EXPECT_EQ(command(0x06), kGood);
  EXPECT_EQ(discarded, (std::vector<std::pair<uint64_t, uint64_t>>{{100 * 512, 8 * 512}, {200 * 512, 512}}));
  set_master(0, 1, 0);
  memory.put<uint64_t>(0x8000, kSectors | uint64_t{8} << 48);
  set_master(0, 1, 1);
  address_long(0, 1);
  put(1, 1);
  EXPECT_EQ(command(0x06), kGood | kError);
}

TEST_F(DiskOnIde, DoesNotKnowOtherCommands) {
  make();
  put(6, 0xe0);
  for (const unsigned unknown : {0x00u, 0xa0u, 0xa1u, 0xb0u, 0xffu}) {
    EXPECT_EQ(command(unknown), kGood | kError);
    EXPECT_EQ(get(1), kAborted);
  }
}

TEST_F(DiskOnIde, PortsAnswerOnlyWhenDecoded) {
  image.emplace(kSectors);
  attach(0, std::make_unique<HardDisk>(primary(), *image->disk, 0));
  EXPECT_EQ(get(7), kGood);
  EXPECT_EQ(ports.read(0x177, 1), 0x7fu);  // a channel without drives
  EXPECT_EQ(ports.read(0x376, 1), 0x7fu);
  ide->write_config(0x40, 2, 0);
  EXPECT_EQ(get(7), 0xff);
}

TEST_F(DiskOnIde, WhatAResetLeftOnTheDiskReachesNoLaterCommand) {
  make();
  std::atomic<bool> held = true;
  image->memory->fault = [&](const block::Request&) {
    held.wait(true);
    return 0;
  };
  address(5, 1);
  put(7, 0x20);
  control(4);
  control(0);
  put(6, 0xe0);
  EXPECT_EQ(command(0xec), kGood | kDataRequest);
  held = false;
  held.notify_all();
  image->thread->call([this]() -> block::Task<int> {
    co_await image->disk->settle();
    co_return 0;
  });
  ide->shut_down();
  const std::string data = read_data(512);
  EXPECT_EQ(static_cast<uint8_t>(data[120]) | static_cast<uint8_t>(data[121]) << 8, static_cast<int>(kSectors));
}

}  // namespace
}  // namespace lodge::devices::ata
