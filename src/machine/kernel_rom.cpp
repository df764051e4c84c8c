#include "machine/kernel_rom.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <numeric>
#include <span>

#include "base/append_little.hpp"
#include "base/settings.hpp"
#include "machine/bzimage.hpp"
#include "machine/config.hpp"
#include "machine/multiboot.hpp"
#include "machine/payload.hpp"

// kernel_rom.S: the image, and in it the place of two words that are ours to fill, the plan's item and its bytes.
extern "C" {
extern const uint8_t lodge_kernel_rom[], lodge_kernel_rom_end[], lodge_kernel_rom_plan[];
}

namespace lodge::machine {

namespace {

constexpr uint64_t kPage = 4096, kUnpackedLimit = kGiB;
constexpr uint32_t kLinux = 0, kMultiboot = 1;

// Low memory, as kernel_rom.S has it.
constexpr uint32_t kPlanRoom = 0x7c00 - 0x6000, kMemoryMapAt = 0x8000, kInfoAt = 0x9000, kInfoEnd = 0x80000;
// Linux's real-mode part, its heap and stack behind it, and the command line.
constexpr uint32_t kSetupAt = 0x10000, kHeapEnd = 0xe000, kHeapSlack = 0x200, kCommandLineAt = 0x20000;
// At the end of memory is what the BIOS keeps for tables and its drivers: SeaBIOS has 256 KiB there, and what does not fit.
constexpr uint64_t kBiosMargin = kMiB;

uint64_t page_up(uint64_t at) { return (at + kPage - 1) / kPage * kPage; }

void append_big(std::vector<uint8_t>& out, uint64_t value, unsigned bytes) {
  for (unsigned i = bytes; i-- != 0;) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

template <typename T>
void poke(std::span<uint8_t> bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// vga=NUMBER of the command line, which the loader tells the real-mode part (boot protocol, vid_mode): normal, ext, ask, or a number.
std::optional<uint16_t> video_mode(std::string_view command_line) {
  constexpr std::string_view kName = "vga=";
  size_t at = command_line.find(kName);
  while (at != std::string_view::npos && at != 0 && command_line[at - 1] != ' ') at = command_line.find(kName, at + 1);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view value = command_line.substr(at + kName.size());
  value = value.substr(0, value.find(' '));
  if (value == "normal") return 0xffff;
  if (value == "ext") return 0xfffe;
  if (value == "ask") return 0xfffd;
  const bool hexadecimal = value.starts_with("0x");
  if (hexadecimal) value.remove_prefix(2);
  uint16_t mode = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), mode, hexadecimal ? 16 : 10);
  return error == std::errc() && end == value.data() + value.size() ? std::optional(mode) : std::nullopt;
}

}  // namespace

// The items that the plan speaks of, and the plan itself.
class BiosKernel::Plan {
 public:
  explicit Plan(devices::FwCfg& fw_cfg) : fw_cfg_(fw_cfg) {}

  // Zeros fill what is longer than the bytes.
  Result<> place(uint64_t at, std::vector<uint8_t> bytes, uint64_t length) {
    const std::string name = fmt::format("etc/lodge/kernel/{}", transfers_);
    TRY(fw_cfg_.add_file(name, std::move(bytes)));
    constexpr uint64_t kSelect = 8, kRead = 2;
    append_big(requests_, uint64_t{fw_cfg_.key_of(name)} << 16 | kSelect | kRead, 4);
    append_big(requests_, length, 4);
    append_big(requests_, at, 8);
    ++transfers_;
    return {};
  }
  Result<> place(uint64_t at, std::vector<uint8_t> bytes) {
    const uint64_t length = bytes.size();
    return place(at, std::move(bytes), length);
  }

  // The plan and the ROM that carries it out.
  Result<> finish(uint32_t mode, uint32_t entry) {
    constexpr std::string_view kPlanFile = "etc/lodge/kernel/plan";
    std::vector<uint8_t> plan;
    append_little(plan, mode, 4);
    append_little(plan, entry, 4);
    append_little(plan, transfers_, 4);
    plan.insert(plan.end(), requests_.begin(), requests_.end());
    if (plan.size() > kPlanRoom) return fail(ErrorKind::Usage, "--kernel: it has {} parts and modules: that is too many", transfers_);
    const auto bytes = static_cast<uint16_t>(plan.size());
    TRY(fw_cfg_.add_file(kPlanFile, std::move(plan)));

    std::vector<uint8_t> rom(lodge_kernel_rom, lodge_kernel_rom_end);
    const auto words = static_cast<size_t>(lodge_kernel_rom_plan - lodge_kernel_rom);
    poke(rom, words, fw_cfg_.key_of(kPlanFile));
    poke(rom, words + 2, bytes);
    constexpr size_t kHeaderPointer = 0x1a, kHeaderBytes = 32, kHeaderSum = 9, kRomSum = 6;
    uint16_t header = 0;
    std::memcpy(&header, rom.data() + kHeaderPointer, sizeof header);
    const auto make_sum_zero = [](std::span<uint8_t> all, size_t at) {
      all[at] = static_cast<uint8_t>(all[at] - std::accumulate(all.begin(), all.end(), 0u));
    };
    make_sum_zero(std::span(rom).subspan(header, kHeaderBytes), kHeaderSum);
    make_sum_zero(rom, kRomSum);
    return fw_cfg_.add_file(kKernelRomFile, std::move(rom));
  }

 private:
  devices::FwCfg& fw_cfg_;
  std::vector<uint8_t> requests_;
  uint32_t transfers_ = 0;
};

std::vector<ModuleName> parse_module_names(std::string_view text) {
  std::vector<ModuleName> all;
  if (text.empty()) return all;
  std::string one;
  const auto add = [&] {
    const size_t space = one.find(' ');
    all.push_back({.file = one.substr(0, space), .words = space == std::string::npos ? "" : one.substr(space + 1)});
    one.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      one += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      one += text[i++];
    } else {
      add();
    }
  }
  add();
  return all;
}

Result<BiosKernel> BiosKernel::create(std::vector<uint8_t> file, std::string path) {
  BiosKernel kernel(std::move(file), std::move(path));
  const auto name_it = [&](const Error& error) { return fail(error.kind, "kernel {}: {}", kernel.path_, error.message); };
  if (looks_like_bzimage(kernel.file_)) {
    if (const auto image = parse_bzimage(kernel.file_); !image) return name_it(image.error());
    return kernel;
  }
  const Compression packed = identify_compression(kernel.file_);
  if (packed != Compression::None && packed != Compression::Unknown) {
    auto unpacked = unpack(kernel.file_, kUnpackedLimit);
    if (!unpacked) return name_it(unpacked.error());
    kernel.file_ = *std::move(unpacked);
  }
  if (!looks_like_multiboot(kernel.file_))
    return fail(ErrorKind::Usage, "kernel {}: a BIOS starts a bzImage (/boot/vmlinuz-...) or a multiboot kernel, and it is neither",
                kernel.path_);
  if (const auto image = parse_multiboot(kernel.file_); !image) return name_it(image.error());
  kernel.multiboot_ = true;
  return kernel;
}

Result<> BiosKernel::offer(devices::FwCfg& fw_cfg, const MemoryMap& map, std::string_view command_line,
                           std::span<const KernelModule> modules) const {
  Plan plan(fw_cfg);
  return multiboot_ ? plan_multiboot(plan, map, command_line, modules) : plan_linux(plan, map, command_line, modules);
}

// Boot protocol, "The real-mode kernel header" and what follows.
Result<> BiosKernel::plan_linux(Plan& plan, const MemoryMap& map, std::string_view command_line,
                                std::span<const KernelModule> modules) const {
  const BzImage image = TRY(parse_bzimage(file_));
  const setup_header& header = image.header;
  if (command_line.size() > header.cmdline_size)
    return fail(ErrorKind::Usage, "--append has {} bytes; this kernel takes at most {}", command_line.size(),
                uint32_t{header.cmdline_size});
  const uint64_t end = image.end(), most = map.low_end - std::min(map.low_end, kBiosMargin);
  if (end > most)
    return fail(ErrorKind::Usage, "kernel {} needs at least {} MiB of memory, the guest has {} MiB: give it more (-m)", path_,
                mib_up(end + kBiosMargin), (map.low_end + map.above_size) / kMiB);
  uint64_t initrd_at = 0, initrd_bytes = 0;
  if (!modules.empty()) {
    initrd_bytes = modules[0].bytes.size();
    const uint64_t limit = std::min(most, uint64_t{header.initrd_addr_max} + 1) / kPage * kPage;
    if (limit < end || limit - end < page_up(initrd_bytes))
      return fail(ErrorKind::Usage, "initrd {} ({} MiB) does not fit beside the kernel: give the guest at least {} MiB (-m)",
                  modules[0].name.file, mib_up(initrd_bytes), mib_up(end + page_up(initrd_bytes) + kBiosMargin));
    initrd_at = limit - page_up(initrd_bytes);
    TRY(plan.place(initrd_at, modules[0].bytes));
  }
  std::vector<uint8_t> setup(file_.begin(), file_.begin() + static_cast<ptrdiff_t>(setup_bytes(file_)));
  constexpr uint8_t kLoaderUndefined = 0xff, kCanUseHeap = 0x80;
  constexpr size_t kVideoModeAt = 0x1fa, kLoaderAt = 0x210, kFlagsAt = 0x211, kInitrdAt = 0x218, kInitrdSizeAt = 0x21c, kHeapEndAt = 0x224,
                   kCommandLinePointerAt = 0x228;
  setup[kLoaderAt] = kLoaderUndefined;
  setup[kFlagsAt] |= kCanUseHeap;
  poke(setup, kInitrdAt, static_cast<uint32_t>(initrd_at));
  poke(setup, kInitrdSizeAt, static_cast<uint32_t>(initrd_bytes));
  poke(setup, kHeapEndAt, static_cast<uint16_t>(kHeapEnd - kHeapSlack));
  poke(setup, kCommandLinePointerAt, kCommandLineAt);
  if (const auto mode = video_mode(command_line)) poke(setup, kVideoModeAt, *mode);
  TRY(plan.place(kSetupAt, std::move(setup)));
  TRY(plan.place(kHighMemory, {image.protected_mode.begin(), image.protected_mode.end()}));
  std::vector<uint8_t> words(command_line.begin(), command_line.end());
  words.push_back(0);
  TRY(plan.place(kCommandLineAt, std::move(words)));
  return plan.finish(kLinux, 0);
}

// Multiboot 0.6.96, 3.3: what the ROM itself finds out of the BIOS is left open.
Result<> BiosKernel::plan_multiboot(Plan& plan, const MemoryMap& map, std::string_view command_line,
                                    std::span<const KernelModule> modules) const {
  const MultibootImage image = TRY(parse_multiboot(file_));
  uint64_t end = page_up(image.end());
  std::vector<std::pair<uint64_t, uint64_t>> places;
  for (const KernelModule& module : modules) {
    places.emplace_back(end, module.bytes.size());
    end = page_up(end + module.bytes.size());
  }
  if (end + kBiosMargin > map.low_end)
    return fail(ErrorKind::Usage, "kernel {} with its modules needs at least {} MiB of memory, the guest has {} MiB: give it more (-m)",
                path_, mib_up(end + kBiosMargin), (map.low_end + map.above_size) / kMiB);
  for (const MultibootImage::Segment& segment : image.segments)
    TRY(plan.place(segment.address, {segment.bytes.begin(), segment.bytes.end()}, segment.memory_size));
  for (size_t i = 0; i < modules.size(); ++i) TRY(plan.place(places[i].first, modules[i].bytes));

  constexpr uint32_t kHasMemory = 1 << 0, kHasCommandLine = 1 << 2, kHasModules = 1 << 3, kHasMap = 1 << 6, kHasLoader = 1 << 9;
  constexpr size_t kInfoBytes = 116, kCommandLine = 16, kModuleCount = 20, kModules = 24, kMap = 48, kLoader = 64, kModuleBytes = 16;
  std::vector<uint8_t> info(kInfoBytes + modules.size() * kModuleBytes);
  const auto add_text = [&](std::string_view text) {
    const auto at = static_cast<uint32_t>(kInfoAt + info.size());
    info.insert(info.end(), text.begin(), text.end());
    info.push_back(0);
    return at;
  };
  const auto put = [&](size_t at, uint32_t value) { poke(info, at, value); };
  put(0, kHasMemory | kHasCommandLine | kHasModules | kHasMap | kHasLoader);
  put(kCommandLine, add_text(command_line.empty() ? path_ : fmt::format("{} {}", path_, command_line)));
  put(kModuleCount, static_cast<uint32_t>(modules.size()));
  put(kModules, kInfoAt + kInfoBytes);
  put(kMap, kMemoryMapAt);
  put(kLoader, add_text("Lodge"));
  for (size_t i = 0; i < modules.size(); ++i) {
    const size_t at = kInfoBytes + i * kModuleBytes;
    const ModuleName& name = modules[i].name;
    put(at, static_cast<uint32_t>(places[i].first));
    put(at + 4, static_cast<uint32_t>(places[i].first + places[i].second));
    put(at + 8, add_text(name.words.empty() ? name.file : fmt::format("{} {}", name.file, name.words)));
  }
  if (kInfoAt + info.size() > kInfoEnd) return fail(ErrorKind::Usage, "--append and --initrd: they have too many words");
  TRY(plan.place(kInfoAt, std::move(info)));
  return plan.finish(kMultiboot, image.entry);
}

}  // namespace lodge::machine
