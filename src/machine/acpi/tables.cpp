#include "machine/acpi/tables.hpp"

#include <array>
#include <cstring>
#include <span>

#include "devices/acpi_pm.hpp"
#include "devices/chipset_ports.hpp"
#include "devices/hpet.hpp"
#include "machine/acpi/dsdt.hpp"
#include "machine/acpi/header.hpp"
#include "machine/memory_map.hpp"

namespace lodge::machine::acpi {

namespace {

using devices::AcpiPm;

constexpr std::array<uint8_t, 1> kDirectLevelLines{kSciIrq};

struct [[gnu::packed]] GenericAddress {  // table 5.1
  uint8_t space;                         // 1: system I/O
  uint8_t bits;
  uint8_t bit_offset;
  uint8_t access;  // 1 byte, 2 word, 3 dword
  uint64_t address;
};

struct [[gnu::packed]] Fadt {  // table 5.9
  Header header;
  uint32_t firmware_ctrl, dsdt;
  uint8_t reserved0, preferred_pm_profile;
  uint16_t sci_int;
  uint32_t smi_cmd;
  uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
  uint32_t pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk, pm2_cnt_blk, pm_tmr_blk, gpe0_blk, gpe1_blk;
  uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_blk_len, gpe1_blk_len, gpe1_base, cst_cnt;
  uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
  uint8_t duty_offset, duty_width, day_alarm, month_alarm, century;
  uint16_t boot_arch;
  uint8_t reserved1;
  uint32_t flags;
  GenericAddress reset_reg;
  uint8_t reset_value;
  uint16_t arm_boot_arch;
  uint8_t minor_version;
  uint64_t x_firmware_ctrl, x_dsdt;
  GenericAddress x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk, x_pm2_cnt_blk, x_pm_tmr_blk, x_gpe0_blk, x_gpe1_blk,
      sleep_control_reg, sleep_status_reg;
  uint64_t hypervisor_vendor;
};
static_assert(sizeof(GenericAddress) == 12 && sizeof(Fadt) == 276);

struct [[gnu::packed]] Rsdp {  // table 5.3
  char signature[8];
  uint8_t checksum;
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt;
  uint32_t length;
  uint64_t xsdt;
  uint8_t extended_checksum;
  uint8_t reserved[3];
};
static_assert(sizeof(Rsdp) == 36);

struct [[gnu::packed]] Facs {  // table 5.13
  char signature[4];
  uint32_t length, hardware_signature, waking_vector, global_lock, flags;
  uint64_t x_waking_vector;
  uint8_t version;
  uint8_t reserved[31];
};
static_assert(sizeof(Facs) == 64);

struct [[gnu::packed]] MadtLocalApic {  // 5.2.12.2
  uint8_t type = 0, length = 8, processor_uid, apic_id;
  uint32_t flags = 1;  // enabled
};
struct [[gnu::packed]] MadtIoApic {  // 5.2.12.3
  uint8_t type = 1, length = 12, id = 0, reserved = 0;
  uint32_t address;
  uint32_t gsi_base = 0;
};
struct [[gnu::packed]] MadtOverride {  // 5.2.12.5
  uint8_t type = 2, length = 10, bus = 0, source;
  uint32_t gsi;
  uint16_t flags;
};
struct [[gnu::packed]] MadtLocalNmi {  // 5.2.12.7: all processors, LINT1
  uint8_t type = 4, length = 6, processor_uid = 0xff;
  uint16_t flags = 0;
  uint8_t lint = 1;
};

enum FadtFlag : uint32_t {
  kWbinvd = 1 << 0,
  kProcC1 = 1 << 2,
  kSleepButtonIsDevice = 1 << 5,  // there is no fixed sleep button
  kTimer32Bit = 1 << 8,
  kResetRegister = 1 << 10,
};
enum BootArch : uint16_t { kLegacyDevices = 1 << 0, k8042 = 1 << 1, kNoVga = 1 << 2 };

GenericAddress port(uint16_t address, uint8_t bits, uint8_t access) { return {1, bits, 0, access, address}; }

std::vector<uint8_t> build_xsdt(std::span<const uint64_t> tables) {
  std::vector<uint8_t> out;
  append(out, make_header("XSDT", 1));
  for (uint64_t table : tables) append(out, table);
  return finish(std::move(out));
}

Rsdp build_rsdp(uint64_t xsdt) {
  Rsdp rsdp{};
  std::memcpy(rsdp.signature, "RSD PTR ", 8);
  std::memcpy(rsdp.oem_id, "LODGE ", 6);
  rsdp.revision = 2;
  rsdp.length = sizeof rsdp;
  rsdp.xsdt = xsdt;
  const auto* bytes = reinterpret_cast<const uint8_t*>(&rsdp);
  rsdp.checksum = checksum_of({bytes, 20});
  rsdp.extended_checksum = checksum_of({bytes, sizeof rsdp});
  return rsdp;
}

}  // namespace

std::vector<uint8_t> build_madt(uint32_t vcpus, std::span<const uint8_t> level_lines) {
  constexpr uint32_t kPcAtCompatible = 1;
  constexpr uint16_t kBusDefault = 0, kActiveHighLevel = 0b1101;
  std::vector<uint8_t> out;
  append(out, make_header("APIC", 5));
  append(out, static_cast<uint32_t>(kLocalApic));
  append(out, kPcAtCompatible);
  for (uint32_t i = 0; i < vcpus; ++i)
    append(out, MadtLocalApic{.processor_uid = static_cast<uint8_t>(i), .apic_id = static_cast<uint8_t>(i)});
  append(out, MadtIoApic{.address = static_cast<uint32_t>(kIoapic)});
  append(out, MadtOverride{.source = 0, .gsi = 2, .flags = kBusDefault});  // the 8254 at IOAPIC input 2, as on PCs
  for (const uint8_t line : level_lines) append(out, MadtOverride{.source = line, .gsi = line, .flags = kActiveHighLevel});
  append(out, MadtLocalNmi{});
  return finish(std::move(out));
}

// PCI Firmware 3.2, tables 4-2 and 4-3: one allocation.
std::vector<uint8_t> build_mcfg(const devices::pci::Window& configuration) {
  struct [[gnu::packed]] Body {
    uint64_t reserved = 0;
    uint64_t base;
    uint16_t segment = 0;
    uint8_t first_bus = 0, last_bus;
    uint32_t reserved_behind = 0;
  };
  static_assert(sizeof(Body) == 24);
  std::vector<uint8_t> out;
  append(out, make_header("MCFG", 1));
  const auto buses = configuration.size / devices::pci::HostBridge::kEcamBytes;
  append(out, Body{.base = configuration.base, .last_bus = static_cast<uint8_t>(buses - 1)});
  return finish(std::move(out));
}

std::vector<uint8_t> build_hpet() {
  using devices::Hpet;
  constexpr uint8_t kInMemory = 0, kBits = 64;
  struct [[gnu::packed]] Body {
    uint32_t block_id = Hpet::kBlockId;
    GenericAddress base{kInMemory, kBits, 0, 0, Hpet::kBase};
    uint8_t number = 0;
    uint16_t least_periodic_tick = 100;  // of the counter, without losing interrupts
    uint8_t page_protection = 0;
  };
  static_assert(sizeof(Body) == 20);
  std::vector<uint8_t> out;
  append(out, make_header("HPET", 1));
  append(out, Body{});
  return finish(std::move(out));
}

std::vector<uint8_t> build_fadt(const FixedHardware& hardware, uint64_t dsdt, uint64_t facs) {
  const uint16_t base = hardware.base;
  Fadt fadt{};
  fadt.header = make_header("FACP", 6);
  fadt.firmware_ctrl = static_cast<uint32_t>(facs);
  fadt.dsdt = static_cast<uint32_t>(dsdt);
  fadt.preferred_pm_profile = 1;  // desktop
  fadt.sci_int = kSciIrq;
  fadt.pm1a_evt_blk = base + AcpiPm::kEventBlock;
  fadt.pm1a_cnt_blk = base + AcpiPm::kControlBlock;
  fadt.pm_tmr_blk = base + AcpiPm::kTimerBlock;
  fadt.gpe0_blk = base + hardware.layout.gpe0_block;
  fadt.pm1_evt_len = AcpiPm::kEventBytes;
  fadt.pm1_cnt_len = AcpiPm::kControlBytes;
  fadt.pm_tmr_len = AcpiPm::kTimerBytes;
  fadt.gpe0_blk_len = AcpiPm::kGpe0Bytes;
  fadt.p_lvl2_lat = 0xfff;  // no C2, no C3
  fadt.p_lvl3_lat = 0xfff;
  fadt.century = 0x32;
  fadt.boot_arch = static_cast<uint16_t>(kLegacyDevices | k8042 | (hardware.vga ? 0 : kNoVga));
  fadt.flags = kWbinvd | kProcC1 | kSleepButtonIsDevice | kTimer32Bit | kResetRegister;
  fadt.reset_reg = port(0xcf9, 8, 1);
  fadt.reset_value = devices::ResetControl::kResetValue;
  fadt.minor_version = 5;
  // X_FIRMWARE_CTRL stays 0: only one of the two may be given.
  fadt.x_dsdt = dsdt;
  fadt.x_pm1a_evt_blk = port(base + AcpiPm::kEventBlock, 32, 2);
  fadt.x_pm1a_cnt_blk = port(base + AcpiPm::kControlBlock, 16, 2);
  fadt.x_pm_tmr_blk = port(base + AcpiPm::kTimerBlock, 32, 3);
  fadt.x_gpe0_blk = port(base + hardware.layout.gpe0_block, 32, 1);
  std::vector<uint8_t> out;
  append(out, fadt);
  return finish(std::move(out));
}

std::vector<uint8_t> build_facs() {
  Facs facs{};
  std::memcpy(facs.signature, "FACS", 4);
  facs.length = sizeof facs;
  facs.version = 2;
  std::vector<uint8_t> out;
  append(out, facs);
  return out;
}

Result<uint64_t> place_tables(memory::GuestMemory& memory, uint32_t vcpus) {
  uint64_t at = kRom + 0x100;  // behind the RSDP
  const auto place = [&](const std::vector<uint8_t>& table) -> Result<uint64_t> {
    const uint64_t where = at;
    at = (at + table.size() + 15) & ~uint64_t{15};
    if (at > kRomEnd || !memory.write(where, std::as_bytes(std::span(table))))
      return fail(ErrorKind::Internal, "the ACPI tables do not fit into the ROM area");
    return where;
  };

  // The operating system writes the FACS's global lock, so it lies in RAM.
  constexpr uint64_t kFacs = kEbda + 0x400;
  const std::vector<uint8_t> facs = build_facs();
  if (!memory.write(kFacs, std::as_bytes(std::span(facs)))) return fail(ErrorKind::Internal, "no memory for the FACS");

  const uint64_t dsdt = TRY(place(build_direct_dsdt(vcpus)));
  const std::array<uint64_t, 3> tables{TRY(place(build_fadt({}, dsdt, kFacs))), TRY(place(build_madt(vcpus, kDirectLevelLines))),
                                       TRY(place(build_mcfg({kPciConfiguration, kPciConfigurationBytes})))};
  const Rsdp rsdp = build_rsdp(TRY(place(build_xsdt(tables))));
  if (!memory.write(kRom, std::as_bytes(std::span(&rsdp, 1)))) return fail(ErrorKind::Internal, "no memory for the RSDP");
  return kRom;
}

}  // namespace lodge::machine::acpi
