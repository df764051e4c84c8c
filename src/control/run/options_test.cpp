#include "control/run/options.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <vector>

namespace lodge::control {
namespace {

using Arguments = std::vector<std::string>;

machine::Config parse(Arguments arguments) {
  arguments.insert(arguments.begin(), {"--kernel", "/boot/vmlinuz"});
  const auto config = parse_run_options(arguments);
  EXPECT_TRUE(config) << config.error().message;
  return config.value_or(machine::Config{});
}

std::string refusal(const Arguments& arguments) {
  const auto config = parse_run_options(arguments);
  EXPECT_FALSE(config);
  if (config) return {};
  EXPECT_EQ(config.error().kind, ErrorKind::Usage);
  return config.error().message;
}

TEST(Size, SuffixesArePowersOf1024AndPlainNumbersMiB) {
  EXPECT_EQ(*parse_size("16"), 16u << 20);
  EXPECT_EQ(*parse_size("512M"), 512u << 20);
  EXPECT_EQ(*parse_size("1g"), 1u << 30);
  EXPECT_EQ(*parse_size("65536K"), 64u << 20);
  EXPECT_EQ(*parse_size("2T"), uint64_t{2} << 40);
}

TEST(Size, NonsenseIsRefused) {
  for (const char* wrong : {"", "G", "-1", "1.5G", "12X", "1GB", "0x10", " 1", "99999999999999999999", "18446744073709551615T"})
    EXPECT_FALSE(parse_size(wrong)) << wrong;
}

TEST(RunOptions, Defaults) {
  const auto config = parse({});
  EXPECT_EQ(config.kernel, "/boot/vmlinuz");
  EXPECT_EQ(config.name, "vmlinuz");
  EXPECT_EQ(config.memory, uint64_t{1} << 30);
  EXPECT_EQ(config.vcpus, 1u);
  EXPECT_EQ(config.engine, "auto");
  EXPECT_EQ(config.serial, "stdio");
  EXPECT_TRUE(config.reboot);
  EXPECT_FALSE(config.virtual_clock);
}

TEST(RunOptions, AllOfThem) {
  const auto config = parse({"--initrd", "i.gz", "--append", "console=ttyS0 quiet", "-m", "2G", "-c", "4", "--engine", "soft", "--cpu",
                             "host", "--serial", "unix:/tmp/s", "--no-reboot", "--name", "web"});
  EXPECT_EQ(config.initrd, "i.gz");
  EXPECT_EQ(config.append, "console=ttyS0 quiet");
  EXPECT_EQ(config.memory, uint64_t{2} << 30);
  EXPECT_EQ(config.vcpus, 4u);
  EXPECT_EQ(config.engine, "soft");
  EXPECT_EQ(config.serial, "unix:/tmp/s");
  EXPECT_FALSE(config.reboot);
  EXPECT_EQ(config.name, "web");
}

TEST(RunOptions, DisksInTheirOrder) {
  const auto config = parse({"one.img", "--drive", "file=two.qcow2,format=qcow2,readonly=on", "three.img", "--snapshot"});
  ASSERT_EQ(config.drives.size(), 3u);
  EXPECT_EQ(config.drives[0].file, "one.img");
  EXPECT_TRUE(config.drives[0].image.snapshot);
  EXPECT_EQ(config.drives[1].file, "two.qcow2");
  EXPECT_FALSE(config.drives[1].image.snapshot) << "it cannot be written anyway";
  EXPECT_TRUE(config.drives[1].disk.read_only);
  EXPECT_EQ(config.drives[2].file, "three.img");
}

TEST(RunOptions, EqualsSignAndLongNames) {
  const auto config = parse({"--memory=64", "--cpus=2", "--append=root=/dev/vda ro"});
  EXPECT_EQ(config.memory, 64u << 20);
  EXPECT_EQ(config.vcpus, 2u);
  EXPECT_EQ(config.append, "root=/dev/vda ro") << "only the first = divides";
}

TEST(RunOptions, MessagesNameTheArgument) {
  EXPECT_NE(refusal({"--kernal", "x"}).find("--kernal"), std::string::npos);
  EXPECT_NE(refusal({"--kernel"}).find("--kernel FILE"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "--drive", "file=a,reed=on"}).find("--drive: there is no setting 'reed'"), std::string::npos);
  EXPECT_NE(refusal({"--firmware", "bios"}).find("--cdrom FILE"), std::string::npos) << "there is nothing to boot from";
  EXPECT_NE(refusal({"--machine", "microvm", "disk.img"}).find("direct, pc or q35"), std::string::npos);
  EXPECT_NE(refusal({"--machine", "direct", "disk.img"}).find("--kernel FILE"), std::string::npos);
  EXPECT_NE(refusal({"--machine", "direct", "--firmware", "uefi", "--kernel", "k"}).find("leave --firmware out"), std::string::npos);
  EXPECT_NE(refusal({"--drive", "file=a,legacy=on"}).find("a: legacy= goes with if=virtio"), std::string::npos);
  EXPECT_NE(refusal({"--net", "user,model=e1000,legacy=on", "disk"}).find("legacy are virtio's"), std::string::npos);
  EXPECT_NE(refusal({"--append", "quiet", "disk"}).find("--kernel FILE"), std::string::npos);
  EXPECT_NE(refusal({"a", "b", "c", "d", "e"}).find("e: IDE has places for 4"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "--drive", "file=a,if=ide"}).find("--machine pc"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "-m", "lots"}).find("-m"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "-c", "two"}).find("'two'"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "-c", "0"}).find("-c 0"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "-c", "4294967297"}).find("at most"), std::string::npos) << "no wrap to 1";
  EXPECT_NE(refusal({"--kernel", "k", "--no-reboot=yes"}).find("no value"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "--engine", "tcg"}).find("tcg"), std::string::npos);
  EXPECT_NE(refusal({}).find("--kernel FILE"), std::string::npos);
}

TEST(RunOptions, HelpShowsAllThatAreNotHidden) {
  const std::string help = run_help();
  std::set<std::string_view> names;
  for (const Option& option : run_options()) {
    EXPECT_TRUE(names.insert(option.name).second) << option.name;
    EXPECT_EQ(help.find(option.name) == std::string::npos, option.hidden) << option.name;
  }
}

TEST(RunOptions, MachineFollowsFromWhatItBoots) {
  using machine::DriveInterface;
  const machine::Config direct = parse({"disk.img"});
  EXPECT_EQ(direct.kind(), machine::Kind::Direct);
  EXPECT_EQ(direct.drives[0].interface, DriveInterface::Virtio);
  const auto parsed = parse_run_options(
      Arguments{"one.img", "--cdrom", "cd.iso", "--drive", "file=two.img,if=virtio", "three.img", "--drive", "file=cd,media=cdrom"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  const machine::Config& pc = *parsed;
  EXPECT_EQ(pc.kind(), machine::Kind::Pc);
  EXPECT_EQ(pc.name, "one.img");
  const auto place = [&](size_t i) { return std::pair(pc.drives[i].interface, pc.drives[i].place); };
  EXPECT_EQ(place(0), std::pair(DriveInterface::Ata, 0u));
  EXPECT_EQ(place(1), std::pair(DriveInterface::Ata, 2u));
  EXPECT_EQ(pc.drives[2].interface, DriveInterface::Virtio);
  EXPECT_EQ(place(3), std::pair(DriveInterface::Ata, 1u));
  EXPECT_EQ(place(4), std::pair(DriveInterface::Ata, 3u));
  EXPECT_TRUE(pc.drives[1].media == machine::Media::Optical && pc.drives[1].disk.read_only);
  EXPECT_FALSE(pc.drives[0].disk.read_only);
  EXPECT_EQ(pc.drives[4].number, 4u);
  // A CD for a kernel that is booted directly.
  EXPECT_TRUE(parse({"--cdrom", "cd.iso"}).drives[0].disk.read_only);
}

TEST(RunOptions, TheQ35MachineHasSixPlacesOnSata) {
  using machine::DriveInterface;
  const auto parsed =
      parse_run_options(Arguments{"--machine", "q35", "--cdrom", "cd.iso", "one", "two", "--drive", "file=three,if=sata", "four", "five"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  const machine::Config& q35 = *parsed;
  EXPECT_EQ(q35.kind(), machine::Kind::Q35);
  std::vector<unsigned> places;
  for (const auto& drive : q35.drives) {
    EXPECT_EQ(drive.interface, DriveInterface::Ata);
    places.push_back(drive.place);
  }
  EXPECT_EQ(places, (std::vector<unsigned>{2, 0, 1, 3, 4, 5}));
  EXPECT_NE(refusal({"--machine", "q35", "1", "2", "3", "4", "5", "6", "7"}).find("SATA has places for 6 drives"), std::string::npos);
}

TEST(RunOptions, OnlyCdsAreCheckedForAFileSystem) {
  EXPECT_TRUE(parse({"--cdrom", "cd.iso"}).drives[0].check);
  EXPECT_FALSE(parse({"--drive", "file=cd,media=cdrom,check=off"}).drives[0].check);
  EXPECT_NE(refusal({"--drive", "file=a,check=off"}).find("media=cdrom"), std::string::npos);
}

TEST(RunOptions, FloppyDrives) {
  const auto parsed = parse_run_options(Arguments{"--floppy", "a.img", "--drive", "file=b.img,media=floppy"});
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->kind(), machine::Kind::Pc);
  for (unsigned i = 0; i < 2; ++i) {
    EXPECT_EQ(parsed->drives[i].interface, machine::DriveInterface::Floppy);
    EXPECT_EQ(parsed->drives[i].place, i);
  }
  EXPECT_NE(refusal({"--floppy", "a", "--floppy", "b", "--floppy", "c"}).find("c: a machine has at most 2"), std::string::npos);
  EXPECT_NE(refusal({"--kernel", "k", "--floppy", "a"}).find("--machine pc or q35"), std::string::npos);
  EXPECT_NE(refusal({"--drive", "file=a,media=floppy,if=ide"}).find("leave if= out"), std::string::npos);
  EXPECT_NE(refusal({"--drive", "file=a,media=tape"}).find("disk, cdrom or floppy"), std::string::npos);
}

// docs/running.md holds the help word for word.
TEST(RunOptions, DocumentationIsTheHelp) {
  std::ostringstream page;
  page << std::ifstream(LODGE_DOCS "/running.md").rdbuf();
  EXPECT_NE(page.str().find(run_help()), std::string::npos) << "put the output of 'lodge help run' into docs/running.md";
}

}  // namespace
}  // namespace lodge::control
