#include "devices/fw_cfg.hpp"

#include <gtest/gtest.h>

#include "memory/test_memory.hpp"

namespace lodge::devices {
namespace {

using memory::test::Memory;

struct FwCfgPorts : testing::Test {
  static constexpr uint64_t kRequest = 0x1000, kBuffer = 0x2000;

  void SetUp() override {
    ASSERT_TRUE(ports.attach(FwCfg::kPorts, FwCfg::kPortBytes, chip.ports(), "fw_cfg"));
    ASSERT_TRUE(ports.attach(FwCfg::kDmaPorts, FwCfg::kDmaPortBytes, chip.dma_ports(), "fw_cfg DMA"));
  }
  std::string read(uint16_t key, size_t bytes) {
    ports.write(0x510, 2, key);
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(ports.read(0x511, 1));
    return text;
  }
  // The control word that the device leaves behind.
  uint32_t dma(uint32_t control, uint32_t length, uint64_t address = kBuffer) {
    memory.put<uint32_t>(kRequest, __builtin_bswap32(control));
    memory.put<uint32_t>(kRequest + 4, __builtin_bswap32(length));
    memory.put<uint64_t>(kRequest + 8, __builtin_bswap64(address));
    ports.write(0x514, 4, 0);
    ports.write(0x518, 4, __builtin_bswap32(static_cast<uint32_t>(kRequest)));
    return __builtin_bswap32(memory.get<uint32_t>(kRequest));
  }

  Memory memory;
  FwCfg chip{*memory.guest};
  PortBus ports;
};

TEST_F(FwCfgPorts, IsThereAndSaysWhatItCan) {
  EXPECT_EQ(read(FwCfg::kSignature, 4), "QEMU");
  EXPECT_EQ(read(FwCfg::kFeatures, 4), std::string("\3\0\0\0", 4));
  EXPECT_EQ(ports.read(0x514, 4), 0x554d4551u);  // "QEMU", most significant byte first
  EXPECT_EQ(ports.read(0x518, 4), 0x47464320u);
}

TEST_F(FwCfgPorts, ItemsEndInZeros) {
  chip.add_number16(FwCfg::kProcessors, 0x1234);
  EXPECT_EQ(read(FwCfg::kProcessors, 5), std::string("\x34\x12\0\0\0", 5));
  EXPECT_EQ(read(0x7777, 3), std::string(3, '\0'));
  // Selecting begins anew.
  EXPECT_EQ(read(FwCfg::kProcessors, 1), "\x34");
}

TEST_F(FwCfgPorts, FilesStandInTheDirectoryByName) {
  ASSERT_TRUE(chip.add_file("etc/second", {1, 2, 3}));
  ASSERT_TRUE(chip.add_file("etc/a-first", {9}));
  const std::string directory = read(FwCfg::kDirectory, 4 + 2 * 64);
  EXPECT_EQ(directory.substr(0, 4), std::string("\0\0\0\2", 4));
  EXPECT_EQ(directory.substr(4, 4), std::string("\0\0\0\1", 4));
  EXPECT_STREQ(directory.c_str() + 12, "etc/a-first");
  EXPECT_EQ(directory.substr(68, 8), std::string("\0\0\0\3\0\x20\0\0", 8));
  EXPECT_STREQ(directory.c_str() + 76, "etc/second");
  EXPECT_EQ(read(0x20, 4), std::string("\1\2\3\0", 4));
  EXPECT_EQ(read(0x21, 1), "\t");
  EXPECT_FALSE(chip.add_file("etc/second", {}));
  EXPECT_FALSE(chip.add_file(std::string(56, 'x'), {}));
  EXPECT_TRUE(chip.add_file(std::string(55, 'x'), {}));
}

TEST_F(FwCfgPorts, MadeFilesAreMadeAnewWhenSelected) {
  char next = 'a';
  ASSERT_TRUE(chip.add_made_file("etc/made", [&] { return std::vector<uint8_t>(2, static_cast<uint8_t>(next++)); }));
  EXPECT_EQ(read(0x20, 3), std::string("bb\0", 3)) << "a was for the directory";
  EXPECT_EQ(read(0x20, 1), "c");
  EXPECT_EQ(static_cast<char>(ports.read(0x511, 1)), 'c') << "reading on is of the same one";
}

TEST_F(FwCfgPorts, ReadsAndSkipsByDma) {
  chip.add(0x40, {'a', 'b', 'c', 'd', 'e'});
  memory.put_text(kBuffer, "........");
  EXPECT_EQ(dma(0x40 << 16 | 8 | 2, 2), 0u);  // select and read
  EXPECT_EQ(dma(4, 1), 0u);                   // skip
  EXPECT_EQ(dma(2, 4, kBuffer + 2), 0u);      // read: two that are there and two that are not
  EXPECT_EQ(memory.text(kBuffer, 8), std::string("abde\0\0..", 8));
  EXPECT_EQ(dma(0x99 << 16 | 8 | 2, 4), 0u);
  EXPECT_EQ(memory.text(kBuffer, 4), std::string(4, '\0'));
}

TEST_F(FwCfgPorts, TellsOfErrorsInDma) {
  chip.add(0x40, {'a', 'b'});
  EXPECT_EQ(dma(0x40 << 16 | 8 | 2, 2, Memory::kBytes - 1), 1u);
  EXPECT_EQ(dma(0x40 << 16 | 8 | 2, 2, ~uint64_t{0}), 1u);
  EXPECT_EQ(dma(0x40 << 16 | 8 | 16, 2), 1u);  // not for writing
  // A request that is no memory is forgotten; the next one is not harmed by it.
  ports.write(0x514, 4, 0xffffffff);
  ports.write(0x518, 4, 0xffffffff);
  EXPECT_EQ(dma(0x40 << 16 | 8 | 2, 2), 0u);
}

TEST_F(FwCfgPorts, WritesIntoFilesThatAreForIt) {
  ASSERT_TRUE(chip.add_file("etc/back", {0, 0, 0, 0}, true));
  memory.put_text(kBuffer, "wxyz!");
  EXPECT_EQ(dma(0x20 << 16 | 8 | 16, 3), 0u);
  EXPECT_EQ(chip.file("etc/back"), (std::vector<uint8_t>{'w', 'x', 'y', 0}));
  EXPECT_EQ(dma(16, 2), 1u);  // past its end
  EXPECT_EQ(chip.file("etc/back"), (std::vector<uint8_t>{'w', 'x', 'y', 0}));
  EXPECT_TRUE(chip.file("etc/none").empty());
}

}  // namespace
}  // namespace lodge::devices
