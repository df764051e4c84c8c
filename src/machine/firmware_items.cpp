#include "machine/firmware_items.hpp"

#include <algorithm>
#include <span>

#include "base/append_little.hpp"
#include "machine/bzimage.hpp"

namespace lodge::machine {

namespace {

std::vector<uint8_t> number(uint64_t value, unsigned bytes) {
  std::vector<uint8_t> out;
  append_little(out, value, bytes);
  return out;
}

// RAM as INT 15h E820 has it: base, length, type. What lies in the first MiB is the firmware's own knowledge.
std::vector<uint8_t> memory_ranges(const MemoryMap& map) {
  std::vector<uint8_t> out;
  const auto ram = [&](uint64_t base, uint64_t size) {
    append_little(out, base, 8);
    append_little(out, size, 8);
    append_little(out, static_cast<uint32_t>(E820Type::Ram), 4);
  };
  ram(0, map.low_end);
  if (map.above_size > 0) ram(kAbove4G, map.above_size);
  return out;
}

}  // namespace

void hand_over_kernel(devices::FwCfg& fw_cfg, const HandedKernel& kernel) {
  using devices::FwCfg;
  // A Linux kernel in two parts: the sectors of its setup, and the rest.
  const size_t setup = looks_like_bzimage(kernel.image) ? std::min(setup_bytes(kernel.image), kernel.image.size()) : 0;
  const auto put = [&](FwCfg::Key size, FwCfg::Key data, std::span<const uint8_t> bytes) {
    fw_cfg.add_number32(size, static_cast<uint32_t>(bytes.size()));
    fw_cfg.add(data, {bytes.begin(), bytes.end()});
  };
  put(FwCfg::kSetupSize, FwCfg::kSetupData, kernel.image.first(setup));
  put(FwCfg::kKernelSize, FwCfg::kKernelData, kernel.image.subspan(setup));
  put(FwCfg::kInitrdSize, FwCfg::kInitrdData, kernel.initrd);
  std::vector<uint8_t> words(kernel.command_line.begin(), kernel.command_line.end());
  words.push_back(0);
  put(FwCfg::kCommandLineSize, FwCfg::kCommandLineData, words);
}

Result<> check_efi_program(std::span<const uint8_t> image, const std::string& path) {
  if (image.size() > 2 && image[0] == 'M' && image[1] == 'Z') return {};
  return fail(ErrorKind::Usage, "kernel {}: it is no EFI program (a Linux kernel with CONFIG_EFI_STUB is one), which is what UEFI starts",
              path);
}

Result<> describe_machine(devices::FwCfg& fw_cfg, const MemoryMap& map, const Config& config) {
  using devices::FwCfg;
  fw_cfg.add(FwCfg::kRamSize, number(map.low_end + map.above_size, 8));
  fw_cfg.add_number16(FwCfg::kProcessors, static_cast<uint16_t>(config.vcpus));
  fw_cfg.add_number16(FwCfg::kMaximumProcessors, static_cast<uint16_t>(config.vcpus));
  fw_cfg.add_number16(FwCfg::kGraphics, 0);
  fw_cfg.add_number16(FwCfg::kBootMenu, config.boot.menu ? 1 : 0);
  fw_cfg.add(FwCfg::kIrq0Override, {1});  // the 8254 at input 2 of the IOAPIC
  TRY(fw_cfg.add_file("etc/e820", memory_ranges(map)));
  if (const std::string order = boot_order_file(config); !order.empty()) {
    std::vector<uint8_t> text(order.begin(), order.end());
    text.push_back(0);  // which both firmwares look for
    TRY(fw_cfg.add_file("bootorder", std::move(text)));
  }
  // SeaBIOS shows its screen on the serial port, where there is no other.
  TRY(fw_cfg.add_file("etc/sercon-port", number(0x3f8, 2)));
  // How long SeaBIOS waits at each empty port of USB, in milliseconds: what is there is there from the beginning.
  TRY(fw_cfg.add_file("etc/usb-time-sigatt", number(0, 4)));
  return {};
}

}  // namespace lodge::machine
