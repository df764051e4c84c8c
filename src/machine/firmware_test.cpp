#include "machine/firmware.hpp"

#include <gtest/gtest.h>

namespace lodge::machine {
namespace {

std::vector<uint8_t> image(size_t bytes) {
  std::vector<uint8_t> made(bytes);
  if (bytes >= 16) made[bytes - 16] = 0xea;
  return made;
}

std::string refusal(const std::vector<uint8_t>& bytes) {
  const auto checked = check_firmware(bytes, "rom.bin");
  if (checked) return {};
  EXPECT_EQ(checked.error().kind, ErrorKind::Usage);
  return checked.error().message;
}

TEST(FirmwareFile, MayBeOfManySizes) {
  for (const size_t kib : {128u, 132u, 192u, 256u, 4096u, 16384u}) EXPECT_EQ(refusal(image(kib << 10)), "") << kib;
}

TEST(FirmwareFile, IsNoOtherFile) {
  EXPECT_NE(refusal(image(64 << 10)).find("rom.bin: it has 65536 bytes"), std::string::npos);
  EXPECT_NE(refusal(image((128 << 10) + 1)).find("4 KiB"), std::string::npos);
  EXPECT_NE(refusal(image((16384 + 64) << 10)).find("16 MiB"), std::string::npos);
  EXPECT_NE(refusal(std::vector<uint8_t>(256 << 10)).find("no code"), std::string::npos);
  EXPECT_NE(refusal(std::vector<uint8_t>(256 << 10, 0xff)).find("no code"), std::string::npos);
}

TEST(FirmwareFile, ThatIsMissingIsNamed) {
  const auto opened = Firmware::open("/nonexistent/rom.bin");
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("firmware /nonexistent/rom.bin"), std::string::npos);
}

}  // namespace
}  // namespace lodge::machine
