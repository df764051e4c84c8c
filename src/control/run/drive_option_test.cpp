#include "control/run/drive_option.hpp"

#include <gtest/gtest.h>

namespace lodge::control {
namespace {

using devices::storage::OnError;

std::string refusal(std::string_view text) {
  const auto drive = parse_drive(text);
  EXPECT_FALSE(drive) << text;
  if (!drive) {
    EXPECT_EQ(drive.error().kind, ErrorKind::Usage);
  }
  return drive ? "" : drive.error().message;
}

TEST(DriveOption, Defaults) {
  const auto drive = parse_drive("file=a.img").value();
  EXPECT_EQ(drive.file, "a.img");
  EXPECT_FALSE(drive.image.format);
  EXPECT_FALSE(drive.image.snapshot);
  EXPECT_FALSE(drive.disk.read_only);
  EXPECT_EQ(drive.image.cache, block::Cache::Writeback);
  EXPECT_TRUE(drive.image.discard);
  EXPECT_TRUE(drive.disk.discard);
  EXPECT_EQ(drive.disk.on_write_error, OnError::StopOnSpace);
  EXPECT_EQ(drive.disk.on_read_error, OnError::Report);
  EXPECT_EQ(drive.virtio.queues, 1);
  EXPECT_FALSE(drive.packed);
}

TEST(DriveOption, AllSettings) {
  const auto drive = parse_drive(
                         "file=dir,,with/a=b.img,format=qcow2,snapshot=on,cache=none,discard=ignore,werror=report,rerror=stop,serial=S1,"
                         "queues=4,packed=on,if=virtio,readonly=off")
                         .value();
  EXPECT_EQ(drive.file, "dir,with/a=b.img");
  EXPECT_EQ(drive.image.format, block::Format::Qcow2);
  EXPECT_TRUE(drive.image.snapshot);
  EXPECT_EQ(drive.image.cache, block::Cache::None);
  EXPECT_FALSE(drive.image.discard);
  EXPECT_FALSE(drive.disk.discard);
  EXPECT_EQ(drive.disk.on_write_error, OnError::Report);
  EXPECT_EQ(drive.disk.on_read_error, OnError::Stop);
  EXPECT_EQ(drive.disk.serial, "S1");
  EXPECT_EQ(drive.virtio.queues, 4);
  EXPECT_TRUE(drive.packed);
}

TEST(DriveOption, RefusalsSayWhatWouldBeRight) {
  EXPECT_NE(refusal("").find("file=NAME"), std::string::npos);
  EXPECT_NE(refusal("disk.img").find("file=NAME"), std::string::npos);
  EXPECT_NE(refusal("file=").find("file="), std::string::npos);
  EXPECT_NE(refusal("format=raw").find("file=NAME is missing"), std::string::npos);
  EXPECT_NE(refusal("file=a,file=b").find("twice"), std::string::npos);
  EXPECT_NE(refusal("file=a,format=qcow3").find("qcow2"), std::string::npos);
  EXPECT_NE(refusal("file=a,snapshot=maybe").find("neither on nor off"), std::string::npos);
  EXPECT_NE(refusal("file=a,cache=fast").find("writeback"), std::string::npos);
  EXPECT_NE(refusal("file=a,discard=trim").find("unmap"), std::string::npos);
  EXPECT_NE(refusal("file=a,werror=panic").find("enospc"), std::string::npos);
  EXPECT_NE(refusal("file=a,rerror=enospc").find("report"), std::string::npos);
  EXPECT_NE(refusal("file=a,serial=123456789012345678901").find("20"), std::string::npos);
  EXPECT_NE(refusal("file=a,queues=0").find("1 to 64"), std::string::npos);
  EXPECT_NE(refusal("file=a,queues=65").find("1 to 64"), std::string::npos);
  EXPECT_NE(refusal("file=a,queues=1x").find("1 to 64"), std::string::npos);
  EXPECT_NE(refusal("file=a,if=scsi").find("ide, sata or virtio"), std::string::npos);
  EXPECT_NE(refusal("file=a,snapshot=on,readonly=on").find("do not go together"), std::string::npos);
  EXPECT_NE(refusal("file=a,reed=on").find("readonly"), std::string::npos) << "the names that there are";
}

TEST(DriveOption, APlainDiskIsTakenAsItStands) { EXPECT_EQ(plain_drive("a,b=c.img").file, "a,b=c.img"); }

TEST(DriveOption, HelpNamesEverySetting) {
  const std::string help = drive_help();
  for (const char* name : {"file=", "format=", "snapshot=", "readonly=", "cache=", "discard=", "werror=", "rerror=", "serial=", "queues="})
    EXPECT_NE(help.find(name), std::string::npos) << name;
}

}  // namespace
}  // namespace lodge::control
