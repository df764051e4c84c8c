#include "machine/boot_order.hpp"

#include <gtest/gtest.h>

#include "machine/config.hpp"

namespace lodge::machine {
namespace {

// Two disks and a CD of the machine's own kind, a disk on virtio, two floppy drives and two cards.
Config board(Kind kind, std::string_view order) {
  Config config;
  config.machine = kind;
  for (const Media media : {Media::Disk, Media::Disk, Media::Optical, Media::Floppy, Media::Floppy}) {
    config.drives.emplace_back();
    config.drives.back().media = media;
  }
  config.drives.emplace_back();
  config.drives.back().interface = DriveInterface::Virtio;
  config.nics.resize(2);
  EXPECT_TRUE(place_drives(config));
  const auto parsed = parse_boot_order(order);
  EXPECT_TRUE(parsed) << order;
  if (parsed) config.boot = *parsed;
  return config;
}

std::string refusal(const Result<>& result) { return result ? "accepted" : result.error().message; }

TEST(BootOrder, NamesThePathsOfIde) {
  EXPECT_EQ(boot_order_file(board(Kind::Pc, "cd,disk")),
            "/pci@i0cf8/ide@1,1/drive@1/disk@0\n/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/ide@1,1/drive@0/disk@1\n"
            "/pci@i0cf8/scsi@b/disk@0,0");
}

TEST(BootOrder, NamesThePathsOfSata) {
  EXPECT_EQ(boot_order_file(board(Kind::Q35, "disk1,cd0")),
            "/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk@0\n/pci@i0cf8/pci8086,2922@1f,2/drive@2/disk@0");
}

TEST(BootOrder, NamesFloppyDrivesAndCards) {
  EXPECT_EQ(boot_order_file(board(Kind::Pc, "network1,floppy")),
            "/pci@i0cf8/ethernet@4/ethernet-phy@0\n/pci@i0cf8/isa@1/fdc@03f0/floppy@0\n/pci@i0cf8/isa@1/fdc@03f0/floppy@1");
  EXPECT_EQ(boot_order_file(board(Kind::Q35, "floppy1,network0")),
            "/pci@i0cf8/isa@1f/fdc@03f0/floppy@1\n/pci@i0cf8/ethernet@2/ethernet-phy@0");
}

TEST(BootOrder, NamesWhatIsBehindRootPorts) {
  Config config = board(Kind::Q35, "network,disk2");
  config.nics[0].port = 1;
  config.drives[5].port = 3;
  EXPECT_EQ(boot_order_file(config),
            "/pci@i0cf8/pci-bridge@1c/ethernet@0/ethernet-phy@0\n/pci@i0cf8/ethernet@3/ethernet-phy@0\n"
            "/pci@i0cf8/pci-bridge@1c,2/scsi@0/disk@0,0");
}

TEST(BootOrder, ADeviceNamedBeforeItsKindIsThereOnce) {
  EXPECT_EQ(boot_order_file(board(Kind::Q35, "network1,network")),
            "/pci@i0cf8/ethernet@3/ethernet-phy@0\n/pci@i0cf8/ethernet@2/ethernet-phy@0");
}

TEST(BootOrder, TheMenuIsAWordOfItsOwn) {
  const auto order = parse_boot_order("menu,cd");
  ASSERT_TRUE(order);
  EXPECT_TRUE(order->menu);
  EXPECT_TRUE(order->names(BootOrder::Kind::Optical));
  EXPECT_FALSE(order->names(BootOrder::Kind::Disk));
  EXPECT_TRUE(BootOrder().empty());
  EXPECT_FALSE(parse_boot_order("menu")->empty());
}

TEST(BootOrder, RefusesOtherWords) {
  for (const char* text : {"", "cd,", ",cd", "usb", "cd0x", "cd99999999999", "0", "cd,cd", "disk1,disk1", "d", "menu1"}) {
    const auto order = parse_boot_order(text);
    EXPECT_EQ(order ? ErrorKind::Internal : order.error().kind, ErrorKind::Usage) << text;
  }
}

TEST(BootOrder, RefusesWhatTheMachineHasNot) {
  EXPECT_EQ(refusal(check_boot_order(board(Kind::Pc, "disk2,cd,floppy1,network1"))), "accepted");
  EXPECT_NE(refusal(check_boot_order(board(Kind::Pc, "disk3"))).find("the last of the machine's disks is disk2"), std::string::npos);
  Config config = board(Kind::Pc, "cd");
  std::erase_if(config.drives, [](const DriveConfig& drive) { return drive.media == Media::Optical; });
  EXPECT_NE(refusal(check_boot_order(config)).find("no CD drives"), std::string::npos);
  Config direct;
  direct.kernel = "vmlinuz";
  direct.boot.menu = true;
  EXPECT_NE(refusal(check_boot_order(direct)).find("without firmware"), std::string::npos);
}

}  // namespace
}  // namespace lodge::machine
