#include "devices/floppy/controller.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>

#include "devices/storage/test_image.hpp"
#include "memory/test_memory.hpp"

namespace lodge::devices::floppy {
namespace {

using Bytes = std::vector<uint8_t>;

using storage::test::Image;

std::string sectors(const Image& image, uint64_t first, uint64_t count) { return image.text(first * 512, count * 512); }

struct Floppy : testing::Test {
  static constexpr uint64_t kBuffer = 0x20000;

  Floppy() {
    EXPECT_TRUE(dma.attach(ports));
    EXPECT_TRUE(chip.attach(ports));
    ports.write(0xd4, 1, 0);
  }
  ~Floppy() override { chip.shut_down(); }

  uint8_t in(uint16_t port) { return static_cast<uint8_t>(ports.read(port, 1)); }
  void out(uint16_t port, unsigned value) { ports.write(port, 1, value); }
  void wait_for_line() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return line; });
  }
  void send(const Bytes& bytes) {
    for (const uint8_t byte : bytes) {
      EXPECT_EQ(in(0x3f4) & 0xc0, 0x80);
      out(0x3f5, byte);
    }
  }
  Bytes results() {
    Bytes bytes;
    while ((in(0x3f4) & 0xd0) == 0xd0) bytes.push_back(in(0x3f5));
    return bytes;
  }
  Bytes command(const Bytes& bytes) {
    send(bytes);
    wait_for_line();
    return results();
  }
  Bytes sense() {
    send({0x08});
    return results();
  }
  void start(unsigned rate = 0, unsigned selected = 0) {
    out(0x3f2, 0);
    out(0x3f2, 0x0c | 0x10 << selected | selected);
    wait_for_line();
    for (int drive = 0; drive < 4; ++drive) sense();
    out(0x3f7, rate);
    send({0x03, 0xdf, 0x02});
  }
  void set_dma(uint8_t mode, unsigned bytes) {
    out(0x0a, 6);
    out(0x0c, 0);
    out(0x0b, mode | 2u);
    out(0x04, 0);
    out(0x04, 0);
    out(0x81, kBuffer >> 16);
    out(0x05, (bytes - 1) & 0xff);
    out(0x05, (bytes - 1) >> 8);
    out(0x0a, 2);
  }
  Bytes seek(uint8_t cylinder) {
    send({0x0f, 0, cylinder});
    wait_for_line();
    return sense();
  }

  std::mutex mutex;
  std::condition_variable changed;
  bool line = false;
  memory::test::Memory memory;
  PortBus ports;
  I8237 dma{*memory.guest};
  Controller chip{IrqPin([this](bool level) {
                    std::lock_guard lock(mutex);
                    line = level;
                    changed.notify_all();
                  }),
                  dma};
};

TEST(FloppyFormat, FollowsFromTheSize) {
  EXPECT_EQ(format_of(2880)->sectors, 18);
  EXPECT_EQ(format_of(1440)->rate, k250Kbps);
  EXPECT_EQ(format_of(2400)->drive, kDrive1200);
  EXPECT_EQ(format_of(5760)->rate, k1Mbps);
  EXPECT_EQ(format_of(2879)->sectors, 18) << "the smallest that holds it";
  EXPECT_FALSE(format_of(5761));
}

TEST_F(Floppy, TellsOfItsResetFourTimes) {
  chip.add_drive(0, nullptr);
  out(0x3f2, 0);
  EXPECT_EQ(in(0x3f4), 0);
  EXPECT_FALSE(line);
  out(0x3f2, 0x0c);
  EXPECT_TRUE(line);
  for (uint8_t drive = 0; drive < 4; ++drive) EXPECT_EQ(sense(), (Bytes{static_cast<uint8_t>(0xc0 | drive), 0}));
  EXPECT_FALSE(line);
  EXPECT_EQ(sense(), Bytes{0x80}) << "nothing more";
  out(0x3f4, 0x80);
  EXPECT_TRUE(line) << "by the other register";
}

TEST_F(Floppy, SaysWhatItIs) {
  start();
  send({0x10});
  EXPECT_EQ(results(), Bytes{0x90});
  send({0x18});
  EXPECT_EQ(results(), Bytes{0x41});
  send({0x1f});
  EXPECT_EQ(results(), Bytes{0x80}) << "no such command";
  send({0x94});
  EXPECT_EQ(results(), Bytes{0x10});
  send({0x13, 0, 0x57, 0});
  send({0x0e});
  const Bytes dump = results();
  ASSERT_EQ(dump.size(), 10u);
  EXPECT_EQ(dump[4], 0xdf);
  EXPECT_EQ(dump[7] & 0x80, 0x80);
  EXPECT_EQ(dump[8], 0x57);
}

TEST_F(Floppy, SeeksAndFindsTrack0) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  EXPECT_EQ(in(0x3f7), 0x80) << "the medium has been changed";
  EXPECT_EQ(seek(33), (Bytes{0x20, 33}));
  EXPECT_EQ(in(0x3f7), 0) << "until the head has moved";
  send({0x04, 0});
  EXPECT_EQ(results(), Bytes{0x28});
  send({0x07, 0});
  EXPECT_EQ(in(0x3f4) & 1, 1) << "it seeks until somebody asks";
  EXPECT_EQ(sense(), (Bytes{0x20, 0}));
  EXPECT_EQ(in(0x3f4) & 1, 0);
  send({0x04, 4});
  EXPECT_EQ(results(), Bytes{0x3c});
  send({0x07, 1});
  EXPECT_EQ(sense(), (Bytes{0x71, 0})) << "no second drive";
  send({0xcf, 0, 5});
  EXPECT_EQ(sense()[0], 0x20) << "outwards";
  send({0x0a, 0});
  EXPECT_EQ(results()[3], 5);
}

TEST_F(Floppy, ReadsByDma) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  seek(2);
  set_dma(0x44, 18 * 512);
  EXPECT_EQ(command({0xe6, 0, 2, 0, 10, 2, 18, 0x1b, 0xff}), (Bytes{4, 0, 0, 2, 1, 10, 2})) << "from one side to the other";
  EXPECT_EQ(memory.text(kBuffer, 18 * 512), sectors(image, 2 * 36 + 9, 18));
  EXPECT_FALSE(line);
  set_dma(0x44, 512);
  EXPECT_EQ(command({0x46, 0, 2, 1, 18, 2, 18, 0x1b, 0xff}), (Bytes{4, 0, 0, 3, 1, 1, 2})) << "the last one of a cylinder";
}

TEST_F(Floppy, WritesByDma) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  memory.put_text(kBuffer, std::string(600, 'w'));
  set_dma(0x48, 600);
  EXPECT_EQ(command({0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff}), (Bytes{0, 0, 0, 0, 0, 3, 2}));
  EXPECT_EQ(sectors(image, 0, 2), std::string(600, 'w') + std::string(424, '\0'));
}

TEST_F(Floppy, WithoutATerminalCountTheCylinderEnds) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  set_dma(0x44, 0x4000);
  EXPECT_EQ(command({0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff}), (Bytes{0x40, 0x80, 0, 1, 0, 1, 2}));
  EXPECT_EQ(memory.text(kBuffer, 1024), sectors(image, 16, 2));
}

TEST_F(Floppy, SaysWhatIsNotThere) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  set_dma(0x44, 512);
  EXPECT_EQ(command({0x46, 0, 0, 0, 19, 2, 19, 0x1b, 0xff})[1], 0x04) << "no such sector";
  EXPECT_EQ(command({0x46, 0, 7, 0, 1, 2, 18, 0x1b, 0xff})[2], 0x10) << "another cylinder";
  EXPECT_EQ(command({0x46, 0, 0, 0, 1, 3, 18, 0x1b, 0xff})[1], 0x04) << "another size";
  EXPECT_EQ(command({0x46, 1, 0, 0, 1, 2, 18, 0x1b, 0xff})[1], 0x01) << "no drive";
  out(0x3f7, 2);
  EXPECT_EQ(command({0x4a, 0}), (Bytes{0x40, 0x01, 0, 0, 0, 0, 0})) << "another rate";
  out(0x3f7, 0);
  EXPECT_EQ(command({0x4a, 4})[0], 0x04);
  image.memory->fault = [](const block::Request&) { return EIO; };
  EXPECT_EQ(command({0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff})[1], 0x20);
}

TEST_F(Floppy, TheConfiguredSeekComesByItself) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  send({0x13, 0, 0x40, 0});
  set_dma(0x44, 512);
  EXPECT_EQ(command({0x46, 0, 40, 0, 1, 2, 18, 0x1b, 0xff})[0], 0);
  EXPECT_EQ(memory.text(kBuffer, 512), sectors(image, 40 * 36, 1));
}

TEST_F(Floppy, GoesThroughTheFifoWithoutDma) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  send({0x03, 0xdf, 0x03});
  send({0x46, 0, 0, 0, 3, 2, 4, 0x1b, 0xff});
  std::string read;
  for (int i = 0; i < 1024; ++i) {
    if (i % 512 == 0) wait_for_line();
    EXPECT_EQ(in(0x3f4), 0xf0);
    read += static_cast<char>(in(0x3f5));
  }
  EXPECT_EQ(read, sectors(image, 2, 2));
  wait_for_line();
  EXPECT_EQ(results()[1], 0x80) << "nobody says that it is the end";
  send({0x45, 0, 0, 0, 3, 2, 3, 0x1b, 0xff});
  for (int i = 0; i < 512; ++i) {
    EXPECT_EQ(in(0x3f4), 0xb0);
    out(0x3f5, 'f');
  }
  wait_for_line();
  results();
  EXPECT_EQ(sectors(image, 2, 1), std::string(512, 'f'));
}

TEST_F(Floppy, FormatsATrack) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  seek(1);
  for (uint8_t i = 0; i < 18; ++i) memory.put<uint32_t>(kBuffer + 4 * i, 1u | 1u << 8 | (i + 1u) << 16 | 2u << 24);
  set_dma(0x48, 72);
  EXPECT_EQ(command({0x4d, 4, 2, 18, 0x54, 0xf6})[0], 0x04);
  EXPECT_EQ(sectors(image, 36 + 18, 18), std::string(18 * 512, '\xf6'));
}

TEST_F(Floppy, AWriteProtectedDiskIsNotWritten) {
  Image image(2880, {.read_only = true});
  chip.add_drive(0, &*image.disk);
  start();
  set_dma(0x48, 512);
  EXPECT_EQ(command({0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff})[1], 0x02);
  EXPECT_EQ(command({0x4d, 0, 2, 18, 0x54, 0xf6})[1], 0x02);
  send({0x04, 0});
  EXPECT_EQ(results()[0] & 0x40, 0x40);
}

TEST_F(Floppy, TheDiskCanBeChanged) {
  Image first(2880), second(1440);
  chip.add_drive(0, &*first.disk);
  EXPECT_EQ(chip.drive_types(), 0x40);
  start();
  seek(1);
  EXPECT_EQ(in(0x3f7), 0);
  chip.set_medium(0, nullptr);
  EXPECT_EQ(in(0x3f7), 0x80);
  seek(2);
  EXPECT_EQ(in(0x3f7), 0x80) << "there is none";
  EXPECT_EQ(command({0x4a, 0})[1], 0x01);
  chip.set_medium(0, &*second.disk);
  out(0x3f7, 2);
  seek(1);
  set_dma(0x44, 512);
  EXPECT_EQ(command({0x46, 0, 1, 1, 9, 2, 9, 0x2a, 0xff})[0], 0x04);
  EXPECT_EQ(memory.text(kBuffer, 512), sectors(second, 35, 1));
}

TEST_F(Floppy, AResetInTheMiddleEndsWhatGoesOn) {
  Image image(2880);
  chip.add_drive(0, &*image.disk);
  start();
  std::atomic<bool> held = true;
  image.memory->fault = [&](const block::Request&) {
    held.wait(true);
    return 0;
  };
  set_dma(0x44, 512);
  send({0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff});
  EXPECT_EQ(in(0x3f4), 0x10);
  out(0x3f2, 0);
  out(0x3f2, 0x1c);
  EXPECT_EQ(in(0x3f4), 0x80);
  held = false;
  held.notify_all();
  chip.shut_down();
  EXPECT_EQ(memory.get<uint8_t>(kBuffer), 0) << "nothing reached memory";
  for (int drive = 0; drive < 4; ++drive) EXPECT_EQ(sense()[0] & 0xc0, 0xc0);
}

}  // namespace
}  // namespace lodge::devices::floppy
