#include "machine/kernel.hpp"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "machine/boot_layout.hpp"
#include "machine/config.hpp"

namespace lodge::machine {
namespace {

using Bytes = std::vector<uint8_t>;

template <typename T>
void put(Bytes& bytes, size_t at, const T& value) {
  if (bytes.size() < at + sizeof value) bytes.resize(at + sizeof value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// One segment at 16 MiB with eight bytes and 1 MiB of memory, optionally the PVH note.
template <typename Ehdr, typename Phdr>
Bytes make_elf(uint8_t elf_class, uint16_t machine, bool note) {
  Bytes file;
  Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elf_class;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_EXEC;
  header.e_machine = machine;
  header.e_entry = 0x1000040;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Phdr);
  header.e_phnum = note ? 2 : 1;
  put(file, 0, header);
  Phdr load{};
  load.p_type = PT_LOAD;
  load.p_offset = 0x200;
  load.p_paddr = 0x1000000;
  load.p_filesz = 8;
  load.p_memsz = kMiB;
  put(file, sizeof header, load);
  put(file, 0x200, uint64_t{0x1122334455667788});
  if (note) {
    Phdr notes{};
    notes.p_type = PT_NOTE;
    notes.p_offset = 0x300;
    notes.p_filesz = 20;
    put(file, sizeof header + sizeof load, notes);
    put(file, 0x300, Elf64_Nhdr{4, 4, 18});
    std::memcpy((file.resize(0x320), file.data() + 0x30c), "Xen\0", 4);
    put(file, 0x310, uint32_t{0x1000080});
  }
  return file;
}
Bytes elf64(bool note = false) { return make_elf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, EM_X86_64, note); }
Bytes elf32() { return make_elf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386, false); }

// A bzImage of one set-up sector around `payload` (an ELF file that is not compressed, or anything).
Bytes bzimage(const Bytes& payload, uint16_t xloadflags = XLF_KERNEL_64) {
  constexpr size_t kCode = 1024, kPayloadAt = 0x100;
  Bytes file(kCode + kPayloadAt + payload.size());
  file.resize((file.size() + 15) / 16 * 16);
  setup_header header{};
  header.setup_sects = 1;
  header.syssize = static_cast<uint32_t>((file.size() - kCode) / 16);
  header.boot_flag = 0xaa55;
  header.jump = static_cast<uint16_t>(0xeb | (0x268 - 0x202) << 8);
  header.header = 0x53726448;
  header.version = 0x20f;
  header.loadflags = LOADED_HIGH;
  header.initrd_addr_max = 0x7fffffff;
  header.cmdline_size = 100;
  header.pref_address = 0x1000000;
  header.init_size = 2 * kMiB;
  header.xloadflags = xloadflags;
  header.payload_offset = kPayloadAt;
  header.payload_length = static_cast<uint32_t>(payload.size());
  std::memcpy(file.data() + 0x1f1, &header, sizeof header);
  std::memcpy(file.data() + kCode + kPayloadAt, payload.data(), payload.size());
  return file;
}

class KernelTest : public testing::Test {
 protected:
  void make_memory(uint64_t bytes) {
    map = MemoryMap(bytes);
    memory = std::move(*memory::GuestMemory::create(map.backing()));
  }
  template <typename T>
  T load(uint64_t at) {
    T value{};
    EXPECT_TRUE(memory->read(at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  Result<Entry> boot(const Bytes& file, const Kernel::Boot& what = {}) {
    auto kernel = Kernel::create(file, "test-kernel");
    if (!kernel) return std::unexpected(kernel.error());
    return kernel->place(*memory, map, what);
  }
  MemoryMap map{64 * kMiB};
  std::unique_ptr<memory::GuestMemory> memory = std::move(*memory::GuestMemory::create(map.backing()));
};

TEST(KernelFile, AMultibootKernelIsABiosKernel) {
  Bytes file(64);
  put(file, 0, std::array<uint32_t, 3>{0x1badb002, 0, 0 - 0x1badb002u});
  const auto kernel = Kernel::create(file, "k");
  ASSERT_FALSE(kernel);
  EXPECT_NE(kernel.error().message.find("--machine pc"), std::string::npos) << kernel.error().message;
}

TEST_F(KernelTest, PayloadOf64BitKernelIsLoadedAndEnteredAtItsEntry) {
  const Bytes initrd(5000, 0x5a);
  const auto entry = boot(bzimage(elf64()), {.command_line = "quiet", .initrd = initrd, .rsdp = 0xe0000});
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, Entry::Mode::Long64);
  EXPECT_EQ(entry->instruction, 0x1000040u);
  EXPECT_EQ(entry->rsi, kBootParams);
  EXPECT_EQ(load<uint64_t>(0x1000000), 0x1122334455667788u);

  const auto params = load<boot_params>(kBootParams);
  EXPECT_EQ(params.hdr.cmd_line_ptr, kCommandLine);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(params.hdr.ramdisk_size, 5000u);
  EXPECT_EQ(params.hdr.ramdisk_image, 64 * kMiB - 8192) << "as high as it may be, on a page";
  EXPECT_EQ(load<uint8_t>(params.hdr.ramdisk_image + 4999), 0x5a);
  EXPECT_EQ(params.acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(params.e820_entries, e820(map).size());
  std::array<char, 6> line = load<std::array<char, 6>>(kCommandLine);
  EXPECT_STREQ(line.data(), "quiet");
}

TEST_F(KernelTest, First4GiBAreMappedOneToOne) {
  ASSERT_TRUE(boot(bzimage(elf64())));
  const uint64_t pml4e = load<uint64_t>(kBootPageTables);
  for (uint64_t address : {uint64_t{0}, uint64_t{0x1000000}, 4 * kGiB - 1}) {
    const uint64_t pdpte = load<uint64_t>((pml4e & ~0xfffull) + 8 * (address >> 30));
    const uint64_t pde = load<uint64_t>((pdpte & ~0xfffull) + 8 * (address >> 21 & 511));
    EXPECT_EQ(pde & 0x83, 0x83u) << "present, writable, 2 MiB";
    EXPECT_EQ(pde & ~0x1fffffull, address & ~0x1fffffull);
  }
}

TEST_F(KernelTest, PayloadOf32BitKernelIsEnteredWithoutPaging) {
  const auto entry = boot(bzimage(elf32(), 0));
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, Entry::Mode::Protected32);
  EXPECT_EQ(entry->instruction, 0x1000040u);
  EXPECT_EQ(load<uint64_t>(kBootGdt + kBootCs), 0x00cf9b000000ffffu);
  EXPECT_EQ(load<uint64_t>(kBootGdt + kBootDs), 0x00cf93000000ffffu);
}

TEST_F(KernelTest, UnknownCompressionTakesTheImagesOwnEntry) {
  const Bytes unknown(64, 0x42);
  const auto entry64 = boot(bzimage(unknown));
  ASSERT_TRUE(entry64);
  EXPECT_EQ(entry64->instruction, 0x100200u);
  EXPECT_EQ(load<uint8_t>(0x100000 + 0x100), 0x42);
  const auto entry32 = boot(bzimage(unknown, 0));
  ASSERT_TRUE(entry32);
  EXPECT_EQ(entry32->mode, Entry::Mode::Protected32);
  EXPECT_EQ(entry32->instruction, 0x100000u);
}

TEST_F(KernelTest, PvhKernelGetsItsStartInfo) {
  const Bytes initrd(10, 1);
  const auto entry = boot(elf64(true), {.command_line = "x", .initrd = initrd, .rsdp = 0xe0000});
  ASSERT_TRUE(entry) << entry.error().message;
  EXPECT_EQ(entry->mode, Entry::Mode::Protected32);
  EXPECT_EQ(entry->instruction, 0x1000080u);
  EXPECT_EQ(entry->rbx, kPvhStartInfo);
  EXPECT_EQ(load<uint32_t>(kPvhStartInfo), 0x336ec578u);
  EXPECT_EQ(load<uint32_t>(kPvhStartInfo + 12), 1u) << "one module";
  const auto module = load<uint64_t>(kPvhStartInfo + 16);
  EXPECT_EQ(load<uint8_t>(load<uint64_t>(module)), 1) << "the initrd";
  EXPECT_EQ(load<uint64_t>(kPvhStartInfo + 32), 0xe0000u);
  EXPECT_EQ(load<uint32_t>(kPvhStartInfo + 48), e820(map).size());
}

void expect_usage(const Result<Entry>& result, const std::string& part) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::Usage);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST_F(KernelTest, TooLittleMemoryForTheKernelSaysHowMuch) {
  make_memory(16 * kMiB);
  expect_usage(boot(bzimage(elf64())), "at least 17 MiB");
}

TEST_F(KernelTest, TooLittleMemoryForTheInitrdSaysHowMuch) {
  make_memory(18 * kMiB);
  const Bytes initrd(3 * kMiB);
  expect_usage(boot(bzimage(elf64()), {.initrd = initrd, .initrd_path = "big.img"}), "at least 20 MiB");
}

TEST_F(KernelTest, InitrdStaysBelowTheKernelsLimit) {
  make_memory(256 * kMiB);
  Bytes file = bzimage(elf64());
  const uint32_t limit = 0x7ffffff;  // 128 MiB
  std::memcpy(file.data() + 0x22c, &limit, 4);
  const Bytes initrd(4096, 1);
  ASSERT_TRUE(boot(file, {.initrd = initrd}));
  EXPECT_EQ(load<boot_params>(kBootParams).hdr.ramdisk_image, 128 * kMiB - 4096);
}

TEST_F(KernelTest, LongCommandLineIsRefused) {
  const std::string line(101, 'x');
  expect_usage(boot(bzimage(elf64()), {.command_line = line}), "at most 100");
}

TEST_F(KernelTest, ForeignFilesAreRefused) {
  expect_usage(boot({}), "empty");
  expect_usage(boot(Bytes(100000, 0)), "neither a bzImage");
  expect_usage(boot(Bytes{'#', '!', '/', 'b', 'i', 'n'}), "neither a bzImage");
  expect_usage(boot(elf64()), "PVH");
  Bytes arm = elf64(true);
  arm[18] = EM_AARCH64;
  expect_usage(boot(arm), "not an x86 kernel");
}

TEST_F(KernelTest, OldProtocolAndZImageAreRefused) {
  Bytes file = bzimage(elf64());
  file[0x206] = 5;
  expect_usage(boot(file), "2.05");
  file = bzimage(elf64());
  file[0x211] = 0;
  expect_usage(boot(file), "zImage");
}

// Cut at every length: always a message, never a kernel that pretends to be whole.
TEST_F(KernelTest, CutShortIsRefusedAtEveryLength) {
  for (const Bytes& whole : {bzimage(elf64()), elf64(true)}) {
    const size_t needed = whole == elf64(true) ? 0x314 : whole.size() - 15;
    for (size_t keep = 0; keep < needed; ++keep) {
      const auto result = boot(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep)));
      ASSERT_FALSE(result) << keep;
      EXPECT_EQ(result.error().kind, ErrorKind::Usage);
    }
  }
}

TEST_F(KernelTest, DamageNeverCrashes) {
  std::minstd_rand random(3);
  for (const Bytes& whole : {bzimage(elf64()), bzimage(elf32(), 0), elf64(true)}) {
    for (int round = 0; round < 2000; ++round) {
      Bytes damaged = whole;
      for (int i = 0; i < 4; ++i) damaged[random() % damaged.size()] = static_cast<uint8_t>(random());
      const auto result = boot(damaged);
      if (!result) {
        EXPECT_EQ(result.error().kind, ErrorKind::Usage) << result.error().message;
      }
    }
  }
}

}  // namespace
}  // namespace lodge::machine
