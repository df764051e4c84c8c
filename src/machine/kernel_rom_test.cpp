#include "machine/kernel_rom.hpp"

#include <asm/bootparam.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/append_little.hpp"
#include "machine/config.hpp"
#include "memory/guest_memory.hpp"

namespace lodge::machine {
namespace {

uint64_t load(std::span<const uint8_t> bytes, size_t at, unsigned size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + at, size);
  return value;
}

unsigned sum(std::span<const uint8_t> bytes) { return std::accumulate(bytes.begin(), bytes.end(), 0u) & 0xff; }

class KernelRom : public testing::Test {
 protected:
  // What the ROM does with the plan: every request is made as it stands.
  void carry_out() {
    const std::vector<uint8_t> plan = fw_cfg.file("etc/lodge/kernel/plan");
    ASSERT_GE(plan.size(), 12u);
    mode = static_cast<uint32_t>(load(plan, 0, 4));
    entry = static_cast<uint32_t>(load(plan, 4, 4));
    const size_t transfers = load(plan, 8, 4);
    ASSERT_EQ(plan.size(), 12 + 16 * transfers);
    constexpr uint64_t kRequest = 0x6000;
    for (size_t i = 0; i < transfers; ++i) {
      ASSERT_TRUE(memory->write(kRequest, std::as_bytes(std::span(plan).subspan(12 + 16 * i, 16))));
      fw_cfg.dma_ports().write(0, 4, 0);
      fw_cfg.dma_ports().write(4, 4, __builtin_bswap32(kRequest));
      EXPECT_EQ(word(kRequest), 0u) << "done";
    }
  }
  uint32_t word(uint64_t at) {
    std::array<uint32_t, 1> value{};
    EXPECT_TRUE(memory->read(at, std::as_writable_bytes(std::span(value))));
    return value[0];
  }
  std::string text(uint64_t at) {
    std::string out;
    for (std::array<char, 1> c{}; memory->read(at++, std::as_writable_bytes(std::span(c))) && c[0];) out += c[0];
    return out;
  }
  std::string offer(std::vector<uint8_t> file, std::string_view words, const std::vector<KernelModule>& modules = {}) {
    const auto kernel = BiosKernel::create(std::move(file), "the-kernel");
    if (!kernel) return kernel.error().message;
    const auto done = kernel->offer(fw_cfg, map, words, modules);
    return done ? "" : done.error().message;
  }

  MemoryMap map{64 * kMiB};
  std::unique_ptr<memory::GuestMemory> memory = *memory::GuestMemory::create({{0, 64 * kMiB}});
  devices::FwCfg fw_cfg{*memory};
  uint32_t mode = ~0u, entry = 0;
};

std::vector<uint8_t> linux_kernel() {
  std::vector<uint8_t> file(3 * 512 + 1000, 0xcc);
  setup_header header{};
  header.setup_sects = 2;
  header.boot_flag = 0xaa55;
  header.jump = 0x66eb;
  header.header = 0x53726448;
  header.version = 0x20f;
  header.loadflags = LOADED_HIGH;
  header.code32_start = 0x100000;
  header.initrd_addr_max = 0x7fffffff;
  header.cmdline_size = 2047;
  header.pref_address = 0x1000000;
  header.init_size = 4 << 20;
  std::memcpy(file.data() + 0x1f1, &header, sizeof header);
  file[3 * 512] = 0xfa;
  return file;
}

std::vector<uint8_t> multiboot_kernel() {
  constexpr uint32_t kMagic = 0x1badb002, kFlags = 1 << 16 | 3, kLoad = 0x200000;
  std::vector<uint8_t> file;
  for (const uint32_t value : {kMagic, kFlags, 0 - kMagic - kFlags, kLoad, kLoad, 0u, kLoad + 0x3000, kLoad + 32})
    append_little(file, value, 4);
  file.resize(100, 0xf4);
  return file;
}

TEST_F(KernelRom, IsAnOptionRomWithABootEntry) {
  ASSERT_EQ(offer(linux_kernel(), ""), "");
  const std::vector<uint8_t> rom = fw_cfg.file(kKernelRomFile);
  ASSERT_GT(rom.size(), 64u);
  EXPECT_EQ(load(rom, 0, 2), 0xaa55u);
  EXPECT_EQ(rom[2] * 512u, rom.size());
  EXPECT_EQ(sum(rom), 0u);
  const size_t header = load(rom, 0x1a, 2);
  ASSERT_LE(header + 32, rom.size());
  EXPECT_EQ(std::string(rom.begin() + static_cast<ptrdiff_t>(header), rom.begin() + static_cast<ptrdiff_t>(header) + 4), "$PnP");
  EXPECT_EQ(sum(std::span(rom).subspan(header, 32)), 0u);
  EXPECT_NE(load(rom, header + 0x1a, 2), 0u) << "bootstrap entry vector";
  EXPECT_EQ(load(rom, 8, 2), fw_cfg.key_of("etc/lodge/kernel/plan"));
  EXPECT_EQ(load(rom, 10, 2), fw_cfg.file("etc/lodge/kernel/plan").size());
}

TEST_F(KernelRom, LinuxLiesAsItsProtocolSays) {
  ASSERT_EQ(
      offer(linux_kernel(), "quiet vga=0x317", {{.name = {.file = "initrd", .words = ""}, .bytes = std::vector<uint8_t>(5000, 0x77)}}), "");
  carry_out();
  EXPECT_EQ(mode, 0u);
  EXPECT_EQ(word(0x100000) & 0xff, 0xfau);
  EXPECT_EQ(word(0x10202), 0x53726448u);
  EXPECT_EQ(word(0x10210) & 0xffff, 0x81ffu) << "loader, heap";
  EXPECT_EQ(word(0x101fa) & 0xffff, 0x317u) << "video mode";
  EXPECT_EQ(word(0x10224) & 0xffff, 0xde00u);
  EXPECT_EQ(text(word(0x10228)), "quiet vga=0x317");
  const uint32_t initrd = word(0x10218);
  EXPECT_EQ(word(0x1021c), 5000u);
  EXPECT_EQ(initrd % 4096, 0u);
  EXPECT_EQ(word(initrd), 0x77777777u);
  EXPECT_EQ(word(initrd + 4999) & 0xff, 0x77u);
}

TEST_F(KernelRom, VideoModesByNameAndOnlyAsWords) {
  for (const auto& [words, wanted] : std::initializer_list<std::pair<const char*, unsigned>>{
           {"vga=ask", 0xfffd}, {"a vga=normal b", 0xffff}, {"vga=ext", 0xfffe}, {"novga=5", 0}, {"vga=x", 0}, {"xvga=1 vga=791", 791}}) {
    devices::FwCfg other(*memory);
    const auto kernel = BiosKernel::create(linux_kernel(), "k");
    ASSERT_TRUE(kernel);
    ASSERT_TRUE(kernel->offer(other, map, words, {}));
    EXPECT_EQ(load(other.file("etc/lodge/kernel/0"), 0x1fa, 2), wanted) << words;
  }
}

TEST_F(KernelRom, AMultibootKernelFindsItsModules) {
  const std::vector<KernelModule> modules{{.name = {.file = "one", .words = "with words"}, .bytes = std::vector<uint8_t>(4097, 0x31)},
                                          {.name = {.file = "two", .words = ""}, .bytes = {0x32, 0x32}}};
  // What was there before is not what the kernel finds in its zeros.
  const std::vector<uint8_t> dirt(0x3000, 0xee);
  ASSERT_TRUE(memory->write(0x200000, std::as_bytes(std::span(dirt))));
  ASSERT_EQ(offer(multiboot_kernel(), "noisy", modules), "");
  carry_out();
  EXPECT_EQ(mode, 1u);
  EXPECT_EQ(entry, 0x200020u);
  EXPECT_EQ(word(0x200000), 0x1badb002u);
  EXPECT_EQ(word(0x200000 + 100), 0u);
  EXPECT_EQ(word(0x202ffc), 0u);
  constexpr uint64_t kInfo = 0x9000;
  EXPECT_EQ(word(kInfo), 0x24du);
  EXPECT_EQ(text(word(kInfo + 16)), "the-kernel noisy");
  EXPECT_EQ(text(word(kInfo + 64)), "Lodge");
  EXPECT_EQ(word(kInfo + 48), 0x8000u);
  ASSERT_EQ(word(kInfo + 20), 2u);
  const uint64_t list = word(kInfo + 24);
  EXPECT_EQ(word(list), 0x203000u);
  EXPECT_EQ(word(list + 4), 0x203000u + 4097);
  EXPECT_EQ(text(word(list + 8)), "one with words");
  EXPECT_EQ(word(list + 16), 0x205000u);
  EXPECT_EQ(word(list + 20), 0x205002u);
  EXPECT_EQ(text(word(list + 24)), "two");
  EXPECT_EQ(word(0x203000), 0x31313131u);
  EXPECT_EQ(word(0x205000) & 0xffff, 0x3232u);
}

TEST_F(KernelRom, SaysWhatDoesNotFit) {
  EXPECT_NE(offer(linux_kernel(), std::string(2048, 'x')).find("2047"), std::string::npos);
  const auto large = [](size_t bytes) {
    return std::vector<KernelModule>{{.name = {.file = "big", .words = ""}, .bytes = std::vector<uint8_t>(bytes)}};
  };
  EXPECT_NE(offer(linux_kernel(), "", large(60 << 20)).find("big"), std::string::npos);
  EXPECT_NE(offer(multiboot_kernel(), "", large(61 << 20)).find("-m"), std::string::npos);
  EXPECT_NE(offer({0x7f, 'E', 'L', 'F'}, "").find("neither"), std::string::npos);
  EXPECT_NE(offer(std::vector<uint8_t>(10000), "").find("neither"), std::string::npos);
  EXPECT_NE(offer({0x1f, 0x8b, 1, 2, 3}, "").find("the-kernel"), std::string::npos) << "packed, and damaged";
  EXPECT_NE(offer(multiboot_kernel(), "", std::vector<KernelModule>(1000)).find("too many"), std::string::npos);
}

TEST(ModuleNames, CommasSeparateAndDoubleOnesDoNot) {
  const auto names = parse_module_names("a,,b one two,c,d  e");
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(names[0].file, "a,b");
  EXPECT_EQ(names[0].words, "one two");
  EXPECT_EQ(names[1].file, "c");
  EXPECT_EQ(names[1].words, "");
  EXPECT_EQ(names[2].words, " e");
  EXPECT_TRUE(parse_module_names("").empty());
}

}  // namespace
}  // namespace lodge::machine
