#include "devices/ata/optical_drive.hpp"

#include <algorithm>
#include <cerrno>
#include <semaphore>
#include <thread>

#include "devices/ata/test_channel.hpp"

namespace lodge::devices::ata {
namespace {

using test::Image;

constexpr uint64_t kSectors = 300;  // of 2048 bytes
constexpr uint8_t kGood = kReady | kServiceOrSeekComplete;

struct DriveOnIde : testing::Test, test::Ide {
  void make(bool with_disc = true) {
    image.emplace(kSectors * 4);
    auto made = std::make_unique<OpticalDrive>(primary(), with_disc ? &*image->disk : nullptr, 3);
    drive = made.get();
    attach(0, std::move(made));
    start();
    put(6, 0xa0);
  }
  ~DriveOnIde() override { ide->shut_down(); }

  // Sends the packet; the status after it.
  uint8_t packet(std::vector<uint8_t> bytes, unsigned limit = 0xfffe, bool dma = false) {
    bytes.resize(12);
    put(1, dma ? 1 : 0);
    put(4, limit & 0xff);
    put(5, limit >> 8);
    put(7, 0xa0);
    EXPECT_EQ(get(7), kReady | kDataRequest);
    EXPECT_EQ(get(2) & 3, kReasonCommand);
    write_data({bytes.begin(), bytes.end()});
    return wait();
  }
  // All that the drive has to say, in as many pieces as it takes.
  std::string answer(std::vector<uint8_t> bytes, unsigned limit = 0xfffe) {
    std::string all;
    uint8_t status = packet(std::move(bytes), limit);
    while (status & kDataRequest) {
      EXPECT_EQ(get(2) & 3, kReasonToHost);
      const unsigned count = get(4) | get(5) << 8;
      EXPECT_LE(count, limit);
      pieces.push_back(count);
      all += read_data(count).substr(0, count);
      status = wait();
    }
    EXPECT_EQ(get(2) & 3, kReasonCommand | kReasonToHost);
    failed = (status & kError) != 0;
    return all;
  }
  // Key, code and qualifier of the error just seen.
  std::array<uint8_t, 3> sense() {
    const std::string data = answer({0x03, 0, 0, 0, 18});
    EXPECT_EQ(data.size(), 18u);
    return {static_cast<uint8_t>(data[2]), static_cast<uint8_t>(data[12]), static_cast<uint8_t>(data[13])};
  }
  static std::vector<uint8_t> read10(uint32_t sector, uint16_t count) {
    return {0x28,
            0,
            static_cast<uint8_t>(sector >> 24),
            static_cast<uint8_t>(sector >> 16),
            static_cast<uint8_t>(sector >> 8),
            static_cast<uint8_t>(sector),
            0,
            static_cast<uint8_t>(count >> 8),
            static_cast<uint8_t>(count)};
  }
  [[nodiscard]] std::string sectors(uint64_t first, uint64_t count) const { return image->text(first * 2048, count * 2048); }

  std::optional<Image> image;
  OpticalDrive* drive = nullptr;
  std::vector<unsigned> pieces;
  bool failed = false;
};

TEST_F(DriveOnIde, IsKnownByItsSignature) {
  make();
  EXPECT_EQ(get(7), 0);
  EXPECT_EQ(get(4) | get(5) << 8, 0xeb14);
  // A driver that takes it for a disk.
  EXPECT_EQ(command(0xec), kGood | kError);
  EXPECT_EQ(get(1), kAborted);
  EXPECT_EQ(get(4) | get(5) << 8, 0xeb14);
  EXPECT_EQ(command(0xa1), kGood | kDataRequest);
  const std::string identity = read_data(512);
  EXPECT_EQ(static_cast<uint8_t>(identity[1]), 0x85);
  EXPECT_EQ(get(7), kGood);
}

TEST_F(DriveOnIde, SaysWhatItIsAndHowLargeTheDiscIs) {
  make();
  const std::string inquiry = answer({0x12, 0, 0, 0, 36});
  ASSERT_EQ(inquiry.size(), 36u);
  EXPECT_EQ(inquiry[0], 5);
  EXPECT_EQ(inquiry.substr(8, 5), "LODGE");
  EXPECT_EQ(answer({0x00}), "");
  EXPECT_FALSE(failed);
  EXPECT_EQ(answer({0x25}), std::string({0, 0, 1, 0x2b, 0, 0, 8, 0}));
}

TEST_F(DriveOnIde, ReadsInPiecesAsLargeAsTheHostWants) {
  make();
  EXPECT_EQ(answer(read10(10, 3), 2048), sectors(10, 3));
  EXPECT_EQ(pieces, (std::vector<unsigned>{2048, 2048, 2048}));
  pieces.clear();
  EXPECT_EQ(answer(read10(0, 100), 0xfffe), sectors(0, 100));
  EXPECT_EQ(answer({0xa8, 0, 0, 0, 0, 7, 0, 0, 0, 2}), sectors(7, 2));
  EXPECT_EQ(answer({0xbe, 0, 0, 0, 0, 8, 0, 0, 1, 0x10}), sectors(8, 1));
}

TEST_F(DriveOnIde, ReadsByDma) {
  make();
  table({{0x8000, 2048}, {0x10000, 2048}});
  set_master(0, 1, 9);
  EXPECT_EQ(packet(read10(20, 2), 0, true), kGood);
  EXPECT_EQ(memory.text(0x8000, 2048) + memory.text(0x10000, 2048), sectors(20, 2));
  set_master(0, 1, 0);
  table({{0x8000, 8}});
  set_master(0, 1, 9);
  EXPECT_EQ(packet({0x25}, 0, true), kGood);
  EXPECT_EQ(memory.text(0x8000, 4), std::string({0, 0, 1, 0x2b}));
}

TEST_F(DriveOnIde, EndsWhereTheDiscEnds) {
  make();
  answer(read10(kSectors - 1, 1));
  EXPECT_FALSE(failed);
  EXPECT_EQ(packet(read10(kSectors - 1, 2)), kGood | kError);
  EXPECT_EQ(get(1), 0x05 << 4 | kAborted);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{5, 0x21, 0}));
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{0, 0, 0}));  // once
}

TEST_F(DriveOnIde, HasATableOfContentsWithOneTrack) {
  make();
  const std::string toc = answer({0x43, 0, 0, 0, 0, 0, 0, 0, 20});
  ASSERT_EQ(toc.size(), 20u);
  EXPECT_EQ(toc.substr(0, 8), std::string({0, 18, 1, 1, 0, 0x14, 1, 0}));
  EXPECT_EQ(static_cast<uint8_t>(toc[14]), 0xaa);
  EXPECT_EQ(toc.substr(16), std::string({0, 0, 1, 0x2c}));
  // In minutes, seconds and frames: 300 + 150 of them.
  EXPECT_EQ(answer({0x43, 2, 0, 0, 0, 0, 0xaa, 0, 20}).substr(8), std::string({0, 0, 6, 0}));
  EXPECT_EQ(answer({0x43, 0, 1, 0, 0, 0, 0, 0, 4}), std::string({0, 10, 1, 1}));
  EXPECT_EQ(answer({0x43, 2, 2, 0, 0, 0, 0, 0, 255}).size(), 48u);
  answer({0x43, 0, 5, 0, 0, 0, 0, 0, 255});
  EXPECT_TRUE(failed);
}

TEST_F(DriveOnIde, WithoutADiscSaysSo) {
  make(false);
  for (const uint8_t needs_one : {0x00, 0x25, 0x28, 0x43, 0x51}) {
    EXPECT_EQ(packet({needs_one}), kGood | kError);
    EXPECT_EQ(sense(), (std::array<uint8_t, 3>{2, 0x3a, 1})) << "the tray is closed";
  }
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8})[5], 0);
}

TEST_F(DriveOnIde, AnswersWhatOperatingSystemsAskOfIt) {
  make();
  const std::string configuration = answer({0x46, 0, 0, 0, 0, 0, 0, 0, 255});
  EXPECT_EQ(configuration.substr(6, 2), std::string({0, 8}));  // a CD
  EXPECT_EQ(static_cast<uint8_t>(configuration[3]) + 4u, configuration.size());
  EXPECT_EQ(answer({0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255}).size(), 30u);
  EXPECT_EQ(answer({0x51, 0, 0, 0, 0, 0, 0, 0, 255}).size(), 34u);
  EXPECT_EQ(answer({0x52, 1, 0, 0, 0, 1, 0, 0, 255}).size(), 36u);
  EXPECT_EQ(answer({0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8}).size(), 8u);
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}), std::string({0, 6, 4, 0x10, 0, 2, 0, 0}));
  answer({0xff});
  EXPECT_TRUE(failed);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{5, 0x20, 0}));
}

TEST_F(DriveOnIde, ALockedTrayStaysIn) {
  make();
  answer({0x1e, 0, 0, 0, 1});
  EXPECT_EQ(packet({0x1b, 0, 0, 0, 2}), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{5, 0x53, 2}));
  answer({0x1e, 0, 0, 0, 0});
  EXPECT_EQ(packet({0x1b, 0, 0, 0, 2}), kGood);
  EXPECT_EQ(packet({0x00}), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{2, 0x3a, 2})) << "the tray is open";
  EXPECT_TRUE(drive->tray().open);
  // Closed again, the same disc is a new one.
  EXPECT_EQ(packet({0x1b, 0, 0, 0, 3}), kGood);
  EXPECT_EQ(packet({0x00}), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{6, 0x28, 0}));
  EXPECT_EQ(answer(read10(4, 1)), sectors(4, 1));
}

TEST_F(DriveOnIde, MediaAreChangedFromOutside) {
  make();
  EXPECT_EQ(answer(read10(4, 1)), sectors(4, 1));
  drive->set_medium(nullptr);
  EXPECT_EQ(packet(read10(4, 1)), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{2, 0x3a, 1}));
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8})[4], 3) << "media removal, told once";
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8})[4], 0);
  drive->set_medium(&*image->disk);
  EXPECT_EQ(answer({0x12, 0, 0, 0, 36}).size(), 36U) << "INQUIRY does not tell of it";
  EXPECT_EQ(packet(read10(4, 1)), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{6, 0x28, 0})) << "the medium may have changed";
  EXPECT_EQ(answer(read10(4, 1)), sectors(4, 1));
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}).substr(4, 2), std::string({2, 2})) << "new media, present";
}

TEST_F(DriveOnIde, AMediumTakenOutInMidReadEndsIt) {
  make();
  packet(read10(4, 100), 2048);
  drive->set_medium(nullptr);
  uint8_t status = get(7);
  while (status & kDataRequest) {  // what was read before
    read_data(get(4) | get(5) << 8);
    status = wait();
  }
  EXPECT_EQ(status, kGood | kError);
  EXPECT_EQ(sense()[0], 2);
}

TEST_F(DriveOnIde, AMediumTakenOutUnderAReadEndsItToo) {
  make();
  std::binary_semaphore begun{0}, go_on{0};
  image->memory->fault = [&](const block::Request&) {
    begun.release();
    go_on.acquire();
    return 0;
  };
  std::thread remover([&] {
    begun.acquire();
    std::thread releaser([&] {
      while (drive->has_medium()) std::this_thread::yield();
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // it waits for the read by now, most likely
      go_on.release();
    });
    drive->set_medium(nullptr);
    releaser.join();
  });
  // One piece, which is on its way while the disc is taken out.
  const uint8_t status = packet(read10(4, 1));
  remover.join();
  EXPECT_EQ(status, kGood | kDataRequest) << "it does not end";
  EXPECT_EQ(read_data(2048), sectors(4, 1));
  image->memory->fault = {};
}

TEST_F(DriveOnIde, ItsButtonAsksTheGuest) {
  make();
  answer({0x1e, 0, 0, 0, 1});
  EXPECT_TRUE(drive->tray().locked);
  drive->press_button();
  EXPECT_EQ(answer({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8})[4], 1);
}

TEST_F(DriveOnIde, TellsOfErrorsOfTheImage) {
  make();
  image->memory->fault = [](const block::Request&) { return EIO; };
  EXPECT_EQ(packet(read10(4, 1)), kGood | kError);
  EXPECT_EQ(sense(), (std::array<uint8_t, 3>{3, 0x11, 0}));
}

TEST_F(DriveOnIde, CanBeResetOutOfAnything) {
  make();
  packet(read10(4, 2), 2048);
  put(7, 0x08);  // DEVICE RESET
  EXPECT_EQ(get(7), 0);
  EXPECT_EQ(get(4) | get(5) << 8, 0xeb14);
  EXPECT_EQ(answer(read10(4, 1)), sectors(4, 1));
}

}  // namespace
}  // namespace lodge::devices::ata
