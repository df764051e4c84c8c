#include "machine/machine.hpp"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

#include "base/load_little.hpp"
#include "base/log.hpp"
#include "devices/ata/hard_disk.hpp"
#include "devices/ata/optical_drive.hpp"
#include "devices/virtio/entropy/entropy.hpp"
#include "machine/acpi/loader.hpp"
#include "machine/acpi/tables.hpp"
#include "machine/boot_state.hpp"
#include "machine/cpuid.hpp"
#include "machine/dump.hpp"
#include "machine/engine_clock.hpp"
#include "machine/firmware_items.hpp"
#include "machine/smbios.hpp"

namespace lodge::machine {

namespace {

// Requests that wait for the host's storage must keep neither the machine nor the medium where it is.
void give_up(devices::storage::Disk& disk) {
  disk.thread().post([&disk] { disk.set_giving_up(true); });
}

// Slots behind those of main memory.
constexpr uint32_t kVideoSlot = FirmwareMemory::kSlots, kVariablesSlot = kVideoSlot + VideoMemory::kSlots,
                   kHighAreaSlot = kVariablesSlot + 1;

// What real mode reaches behind 1 MiB, FFFF:0010 and on.
constexpr uint64_t kA20Bytes = 64 << 10;

constexpr unsigned kParkedSamples = 3;  // this many looks at a sleeping machine make it stuck for good
constexpr uint64_t kFlagInterrupt = 1 << 9;

// The BIOS data area words by which an operating system finds the EBDA (and keeps off it).
Result<> place_bios_data(memory::GuestMemory& memory) {
  constexpr uint64_t kEbdaSegmentAt = 0x40e, kBaseMemoryKibAt = 0x413;
  const std::array<uint16_t, 1> segment{kEbda >> 4}, kib{kEbda >> 10};
  if (memory.write(kEbdaSegmentAt, std::as_bytes(std::span(segment))) && memory.write(kBaseMemoryKibAt, std::as_bytes(std::span(kib))))
    return {};
  return fail(ErrorKind::Internal, "no memory for the BIOS data area");
}

// What CPUID's leaf 1 says in EAX and EDX.
uint64_t processor_signature(std::span<const kvm_cpuid_entry2> leaves) {
  const auto leaf = std::ranges::find(leaves, 1u, &kvm_cpuid_entry2::function);
  return leaf == leaves.end() ? 0 : uint64_t{leaf->edx} << 32 | leaf->eax;
}

}  // namespace

Machine::Machine(const Parts& parts) : parts_(parts), map_(parts.config.memory, parts.config.kind() == Kind::Q35 ? kQ35Hole : kHole) {}

Result<std::unique_ptr<Machine>> Machine::create(const Parts& parts) {
  std::unique_ptr<Machine> machine(new Machine(parts));
  TRY(machine->build());
  return machine;
}

Machine::~Machine() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    resumed_.notify_all();
  }
  for (const auto& processor : processors_) {
    if (!processor->thread.joinable()) continue;
    processor->vcpu->kick();
    processor->thread.join();
  }
  stop_devices();
  parts_.seat.disconnect();
}

// The firmware's file at the end of 4 GiB, and what it wants to know.
Result<> Machine::load_firmware(std::span<const kvm_cpuid_entry2> supported) {
  memory_ = TRY(memory::GuestMemory::create(map_.backing_with_firmware()));
  const std::vector<uint8_t>& bytes = parts_.firmware->bytes();
  const uint64_t base = kAbove4G - bytes.size();
  rom_ = TRY(memory::GuestMemory::create({{base, bytes.size()}}));
  if (!rom_->write(base, std::as_bytes(std::span(bytes)))) return fail(ErrorKind::Internal, "no memory for the firmware");
  fw_cfg_ = std::make_unique<devices::FwCfg>(*memory_);
  if (!parts_.handed_kernel.empty())
    hand_over_kernel(*fw_cfg_, {.image = parts_.handed_kernel, .initrd = parts_.initrd, .command_line = parts_.config.append});
  if (parts_.bios_kernel) TRY(parts_.bios_kernel->offer(*fw_cfg_, map_, parts_.config.append, parts_.modules));
  TRY(offer_smbios(*fw_cfg_, parts_.config, map_, processor_signature(supported)));
  return describe_machine(*fw_cfg_, map_, parts_.config);
}

Result<> Machine::start_firmware() {
  const memory::GuestMemory::Region& rom = rom_->regions()[0];
  firmware_memory_ = std::make_unique<FirmwareMemory>(*vm_, *memory_, std::span(rom.host, rom.size), slots_);
  TRY(firmware_memory_->start());
  if (!parts_.variables) return {};
  flash_ = std::make_unique<devices::flash::ParallelFlash>(
      parts_.variables->bytes(),
      devices::flash::ParallelFlash::Board{
          .show_array = [this](bool shown) { show_variables(shown); },
          .changed = [store = parts_.variables](uint64_t offset, uint64_t length) { store->save(offset, length); }});
  show_variables(true);
  return {};
}

// With the gate of address line 20 closed, these addresses are those of the first 64 KiB. All other odd megabytes stay what they are: a
// program that reaches them is in protected mode, and has opened the gate before.
void Machine::set_a20(bool open) {
  kvm_userspace_memory_region slot{
      .slot = slots_ + kHighAreaSlot, .flags = 0, .guest_phys_addr = kHighMemory, .memory_size = 0, .userspace_addr = 0};
  Result<> done;
  if (high_area_shown_) done = vm_->set_user_memory_region(slot);  // a slot that moves is a new one
  slot.memory_size = kA20Bytes;
  slot.userspace_addr = reinterpret_cast<uint64_t>(memory_->regions()[0].host + (open ? kHighMemory : 0));
  if (done) done = vm_->set_user_memory_region(slot);
  high_area_shown_ = true;
  if (!done) end(Outcome::EngineFailed, fmt::format("address line 20: {}", done.error().message));
}

// The boards' INIT#, which reaches all processors: the first one begins at its reset vector, the others wait for it, and memory stays. An
// interrupt message to all carries the same.
void Machine::init_processors() {
  constexpr uint32_t kToAll = 0xfeeff000, kDeliveryInit = 5 << 8;
  if (parts_.config.kind() == Kind::Direct) return end(Outcome::Reset);  // there is nothing at the reset vector
  if (const auto sent = vm_->signal_msi({.address_lo = kToAll, .address_hi = 0, .data = kDeliveryInit}); !sent)
    end(Outcome::EngineFailed, fmt::format("INIT: {}", sent.error().message));
}

// Right below the firmware's code, as OVMF is linked.
uint64_t Machine::variables_base() const { return kAbove4G - rom_->size() - parts_.variables->bytes().size(); }

void Machine::show_variables(bool shown) {
  const std::span<uint8_t> bytes = parts_.variables->bytes();
  const auto done = vm_->set_user_memory_region({.slot = slots_ + kVariablesSlot,
                                                 .flags = KVM_MEM_READONLY,
                                                 .guest_phys_addr = variables_base(),
                                                 .memory_size = shown ? bytes.size() : 0,
                                                 .userspace_addr = reinterpret_cast<uint64_t>(bytes.data())});
  if (!done) log::error("UEFI variables: {}", done.error().message);
}

Result<> Machine::load_memory(std::span<const kvm_cpuid_entry2> supported) {
  if (parts_.config.kind() != Kind::Direct) return load_firmware(supported);
  memory_ = TRY(memory::GuestMemory::create(map_.backing()));
  TRY(place_bios_data(*memory_));
  const uint64_t rsdp = TRY(acpi::place_tables(*memory_, parts_.config.vcpus));
  const Kernel::Boot boot{.command_line = parts_.config.append, .initrd = parts_.initrd, .initrd_path = parts_.config.initrd, .rsdp = rsdp};
  entry_ = TRY(parts_.kernel->place(*memory_, map_, boot));
  return {};
}

Result<> Machine::create_slots() {
  const bool read_only = parts_.system.check_extension(KVM_CAP_READONLY_MEM) > 0;
  const auto show = [&](uint64_t base, uint64_t size, std::byte* host, uint32_t flags) {
    return vm_->set_user_memory_region({.slot = slots_++,
                                        .flags = flags,
                                        .guest_phys_addr = base,
                                        .memory_size = size,
                                        .userspace_addr = reinterpret_cast<uint64_t>(host)});
  };
  for (const memory::GuestMemory::Region& region : memory_->regions()) {
    if (parts_.config.kind() == Kind::Direct || region.guest_physical != 0) {
      const bool rom = parts_.config.kind() == Kind::Direct && region.guest_physical == kRom;
      TRY(show(region.guest_physical, region.size, region.host, rom && read_only ? KVM_MEM_READONLY : 0));
      continue;
    }
    // What lies between is the display's and the ROMs', and the first 64 KiB of high memory come and go (set_a20()).
    constexpr uint64_t kBehind = kHighMemory + kA20Bytes;
    TRY(show(0, kEbdaEnd, region.host, 0));
    TRY(show(kBehind, region.size - kBehind, region.host + kBehind, 0));
  }
  memory_->set_observer(vm_.get());
  if (parts_.config.kind() == Kind::Direct) return {};
  set_a20(true);
  return start_firmware();
}

Result<> Machine::create_processors(const std::vector<kvm_cpuid_entry2>& supported) {
  const uint32_t bits = parts_.config.kind() == Kind::Direct ? 64 : physical_bits(map_);
  for (uint32_t i = 0; i < parts_.config.vcpus; ++i) {
    auto processor = std::make_unique<Processor>();
    processor->vcpu = TRY(vm_->create_vcpu(i));
    TRY(processor->vcpu->set_cpuid2(guest_cpuid(supported, i, parts_.config.vcpus, bits)));
    if (parts_.config.kind() == Kind::Direct) TRY(set_firmware_state(*processor->vcpu, i == 0));
    processors_.push_back(std::move(processor));
  }
  if (parts_.config.kind() != Kind::Direct) return {};  // they begin at the reset vector
  return set_entry_state(*processors_[0]->vcpu, entry_);
}

Result<> Machine::build() {
  const std::vector<kvm_cpuid_entry2> supported = TRY(parts_.system.get_supported_cpuid());
  TRY(load_memory(supported));
  vm_ = TRY(parts_.system.create_vm());
  TRY(create_slots());
  TRY(vm_->create_irqchip());
  TRY(vm_->create_pit2({.flags = KVM_PIT_SPEAKER_DUMMY}));
  const auto routing = pc_gsi_routing();
  TRY(vm_->set_gsi_routing(routing));
  TRY(create_processors(supported));
  if (parts_.config.virtual_clock)
    clock_ = std::make_unique<EngineClock>(*vm_);
  else
    clock_ = std::make_unique<HostClock>();
  std::function<void(uint32_t)> debug_exit;
  if (parts_.config.debug_exit) {
    // As QEMU has it: an odd number, so that it is none of a program's that ended well.
    debug_exit = [this](uint32_t value) {
      debug_exit_code_ = static_cast<int>((value << 1 | 1) & 0xff);
      end(Outcome::DebugExit);
    };
  }
  pc_ = TRY(Pc::create(
      parts_.config.kind(), *vm_, map_, *memory_,
      {.loop = parts_.loop,
       .serial = parts_.serial,
       .debug_console = parts_.debug_console,
       .clock = *clock_,
       .power_off = [this] { end(Outcome::PowerOff); },
       .reset = [this] { end(Outcome::Reset); },
       .init = [this] { init_processors(); },
       .a20 = parts_.config.kind() == Kind::Direct ? std::function<void(bool)>() : [this](bool open) { set_a20(open); },
       .shadow_changed = [this](const auto& area, auto state) { firmware_memory_->set(area, state); },
       .panicked = [this] { panicked(); },
       .debug_exit = std::move(debug_exit),
       .floppy = std::ranges::any_of(parts_.config.drives, [](const DriveConfig& drive) { return drive.media == Media::Floppy; }),
       .root_ports = parts_.config.root_ports()}));
  if (fw_cfg_) TRY(attach_firmware());
  TRY(create_devices());
  return pc_->start();
}

Result<> Machine::attach_firmware() {
  TRY(acpi::offer_tables(*fw_cfg_, parts_.config.vcpus, [this] {
    acpi::Board board = pc_->acpi_board(parts_.config.vcpus);
    board.hardware.vga = parts_.config.vga;
    return board;
  }));
  TRY(pc_->ports().attach(devices::FwCfg::kPorts, devices::FwCfg::kPortBytes, fw_cfg_->ports(), "fw_cfg"));
  TRY(pc_->ports().attach(devices::FwCfg::kDmaPorts, devices::FwCfg::kDmaPortBytes, fw_cfg_->dma_ports(), "fw_cfg DMA"));
  TRY(pc_->mmio().attach(FirmwareMemory::kBase, FirmwareMemory::kEnd - FirmwareMemory::kBase, *firmware_memory_, "ROM and shadow"));
  return flash_ ? pc_->mmio().attach(variables_base(), parts_.variables->bytes().size(), *flash_, "UEFI variables") : Result<>();
}

Result<> Machine::create_devices() {
  const PciPlaces places = pci_places(parts_.config.kind());
  unsigned number = places.first_nic;
  for (const auto& nic : parts_.peripherals.nics()) TRY(plug_nic(*nic, number++));
  devices::LoopThread& services = parts_.peripherals.services();
  if (parts_.config.entropy) TRY(plug(std::make_unique<devices::virtio::Entropy>(services), places.entropy));
  if (parts_.config.balloon) {
    const uint64_t wanted = parts_.config.balloon_keeps == 0 ? 0 : parts_.config.memory - parts_.config.balloon_keeps;
    auto balloon =
        std::make_unique<devices::virtio::Balloon>(services, static_cast<uint32_t>(wanted / devices::virtio::Balloon::kPageBytes));
    balloon_ = balloon.get();
    TRY(plug(std::move(balloon), places.balloon));
  }
  if (const ConsoleLine* line = parts_.peripherals.console()) {
    auto console = line->make_device();
    console_ = console.get();
    TRY(plug(std::move(console), places.console));
  }
  TRY(create_graphics());
  number = places.first_drive;
  for (const auto& drive : parts_.peripherals.drives()) {
    if (drive->medium()) connect_disk(*drive->medium());
    if (drive->config().interface == DriveInterface::Floppy)
      pc_->floppy()->add_drive(drive->config().place, drive->medium());
    else if (drive->config().interface == DriveInterface::Ata)
      attach_ata(*drive);
    else
      TRY(plug(std::make_unique<devices::virtio::Block>(drive->disk(), drive->config().virtio), drive->config().port == 0 ? number++ : 0,
               {.transitional = drive->config().transitional, .packed = drive->config().packed}, drive->config().port));
  }
  return {};
}

void Machine::connect_disk(devices::storage::Disk& disk) {
  disk.set_machine({.pause =
                        [this](const std::string& why) {
                          log::warning("{}: the guest stands still, and goes on when that has changed", why);
                          pause();
                        },
                    .resume =
                        [this] {
                          log::warning("the guest goes on");
                          resume();
                        }});
  disk.thread().post([&disk] { disk.set_giving_up(false); });
}

Result<> Machine::create_graphics() {
  const Config& config = parts_.config;
  if (config.kind() != Kind::Direct && config.vga) {
    video_memory_ = TRY(VideoMemory::create(*vm_, slots_ + kVideoSlot));
    graphics_ = std::make_unique<devices::vga::Card>(*video_memory_, video_memory_.get(), parts_.vga_rom, *clock_);
    TRY(graphics_->attach(pc_->ports(), pc_->mmio()));
    TRY(pc_->plug(*graphics_, pci_places(config.kind()).display));
    tablet_ = std::make_unique<devices::usb::Tablet>();
    usb_ = std::make_unique<devices::usb::Xhci>(*memory_, *clock_);
    usb_->attach(1, *tablet_);
    if (config.usb_keyboard) {
      keyboards_ = std::make_unique<Keyboards>(pc_->keyboard());
      usb_->attach(2, keyboards_->usb());
    }
    TRY(pc_->plug(*usb_, pci_places(config.kind()).usb));
  }
  display::KeyboardInput& keyboard = keyboards_ ? static_cast<display::KeyboardInput&>(*keyboards_) : pc_->keyboard();
  parts_.seat.connect({.screen = graphics_.get(), .keyboard = &keyboard, .mouse = &pc_->keyboard(), .tablet = tablet_.get()});
  return {};
}

Result<> Machine::plug_nic(const Nic& nic, unsigned number) {
  if (nic.config().model == NicConfig::Model::Virtio)
    return plug(nic.make_virtio(), number,
                {.transitional = nic.config().transitional, .packed = nic.config().packed, .rom = parts_.virtio_rom}, nic.config().port);
  e1000_.push_back(nic.make_e1000(*memory_, parts_.e1000_rom));
  return pc_->plug(e1000_.back()->function(), number);
}

Result<> Machine::plug(std::unique_ptr<devices::virtio::Device> device, unsigned number, devices::virtio::PciTransport::Options options,
                       unsigned port) {
  options.express = port != 0;
  const auto attach = [this](uint64_t address, int eventfd) -> std::shared_ptr<void> {
    auto doorbell = vm_->create_doorbell({.address = address, .eventfd = eventfd});
    if (!doorbell) log::debug("doorbell at {:#x}: {}", address, doorbell.error().message);
    return doorbell ? std::shared_ptr<engine::DoorbellEvent>(std::move(*doorbell)) : nullptr;
  };
  virtio_.push_back(TRY(devices::virtio::PciTransport::create(std::move(device), *memory_, attach, options)));
  return port == 0 ? pc_->plug(*virtio_.back(), number) : pc_->plug_behind(*virtio_.back(), port);
}

// validate() has seen to it that there is such a controller, with a place for it.
void Machine::attach_ata(Drive& drive) {
  const unsigned place = drive.config().place, number = drive.config().number;
  devices::ata::Controller& controller = *pc_->ata();
  devices::ata::Link& link = controller.link(place);
  if (drive.config().media != Media::Optical)
    return controller.attach(place, std::make_unique<devices::ata::HardDisk>(link, drive.disk(), number));
  auto optical_drive = std::make_unique<devices::ata::OpticalDrive>(link, drive.medium(), number);
  optical_.emplace_back(&drive, optical_drive.get());
  controller.attach(place, std::move(optical_drive));
}

devices::ata::OpticalDrive* Machine::optical(const Drive& drive) {
  const auto found = std::ranges::find(optical_, &drive, &std::pair<const Drive*, devices::ata::OpticalDrive*>::first);
  return found == optical_.end() ? nullptr : found->second;
}

void Machine::put_medium(Drive& drive, devices::storage::Disk* medium) {
  if (medium)
    connect_disk(*medium);
  else if (drive.medium())
    give_up(*drive.medium());
  if (drive.config().media == Media::Floppy)
    pc_->floppy()->set_medium(drive.config().place, medium);
  else if (devices::ata::OpticalDrive* const inside = optical(drive))
    inside->set_medium(medium);
}

// Their threads use guest memory and interrupt until this has returned.
void Machine::stop_devices() {
  for (const auto& drive : parts_.peripherals.drives())
    if (drive->medium()) give_up(*drive->medium());
  if (pc_ && pc_->ata()) pc_->ata()->shut_down();
  if (pc_ && pc_->floppy()) pc_->floppy()->shut_down();
  for (const auto& transport : virtio_) transport->shut_down();
  for (const auto& card : e1000_) card->shut_down();
}

void Machine::pause() {
  MutexLock lock(mutex_);
  if (pauses_++ != 0) return;
  paused_ = true;
  for (const auto& processor : processors_) processor->vcpu->kick();
}

void Machine::resume() {
  MutexLock lock(mutex_);
  if (--pauses_ != 0) return;
  paused_ = false;
  resumed_.notify_all();
}

void Machine::wait_while_paused() {
  MutexLock lock(mutex_);
  while (pauses_ != 0 && !ending_) lock.wait(resumed_);
}

void Machine::window_changed() {
  if (console_) console_->size_changed();
}

void Machine::report_memory() {
  if (!balloon_) return log::warning("the guest has no balloon that could say what it knows of its memory");
  parts_.peripherals.services().post([balloon = balloon_] {
    const bool asked = balloon->ask_statistics([balloon](const devices::virtio::MemoryStatistics& statistics) {
      using Statistics = devices::virtio::MemoryStatistics;
      const auto mib = [&](Statistics::Tag tag) {
        const auto value = statistics.values[tag];
        return value ? fmt::format("{} MiB", *value / kMiB) : std::string("?");
      };
      log::write(log::Level::Info, fmt::format("the guest's memory: {} in all, {} free, {} available, {} of caches; {} MiB in the balloon",
                                               mib(Statistics::Total), mib(Statistics::Free), mib(Statistics::Available),
                                               mib(Statistics::Caches), balloon->actual() * devices::virtio::Balloon::kPageBytes / kMiB));
    });
    if (!asked) log::warning("the guest's balloon driver says nothing of its memory: is virtio_balloon loaded?");
  });
}

void Machine::end(Outcome outcome, std::string reason) {
  {
    MutexLock lock(mutex_);
    if (outcome_) return;
    outcome_ = outcome;
    reason_ = std::move(reason);
  }
  ending_ = true;
  parts_.loop.stop();
}

std::string Machine::reason() {
  MutexLock lock(mutex_);
  return reason_;
}

Outcome Machine::run() {
  next_watch_ns_ = HostClock().monotonic_ns() + parts_.config.watch_ns;
  watch_ = parts_.loop.add_deadline([this] { return next_watch_ns_; }, [this] { watch(); });
  for (uint32_t i = 0; i < processors_.size(); ++i) processors_[i]->thread = std::thread([this, i] { run_processor(*processors_[i], i); });
  parts_.loop.run();
  parts_.loop.remove(watch_);

  ending_ = true;
  Outcome outcome = Outcome::Quit;
  {
    MutexLock lock(mutex_);
    resumed_.notify_all();
    outcome = outcome_.value_or(Outcome::Quit);
  }
  if (outcome == Outcome::Quit) {
    // A vCPU or the console's thread may wait for a reader that never comes.
    parts_.serial.shut_down();
    if (ConsoleLine* line = parts_.peripherals.console()) line->shut_down();
  }
  for (const auto& processor : processors_) processor->vcpu->kick();
  for (const auto& processor : processors_) processor->thread.join();
  stop_devices();
  return outcome;
}

std::string Machine::dump() {
  std::string text;
  for (uint32_t i = 0; i < processors_.size(); ++i) text += dump_vcpu(*processors_[i]->vcpu, *memory_, i);
  return text;
}

void Machine::run_processor(Processor& processor, uint32_t number) {
  prctl(PR_SET_NAME, fmt::format("vcpu{}", number).c_str());
  while (!ending_) {
    if (paused_) wait_while_paused();
    const auto result = processor.vcpu->run();
    if (!result) return end(Outcome::EngineFailed, fmt::format("vcpu{}: {}", number, result.error().message));
    if (*result == engine::RunResult::Exit)
      handle_exit(processor.vcpu->shared());
    else if (processor.sample.exchange(false))
      take_sample(processor);
  }
}

void Machine::panicked() {
  log::warning("the guest's kernel has panicked");
  if (parts_.on_panic) parts_.loop.post(parts_.on_panic);
  if (!parts_.config.reboot) end(Outcome::Panicked, "its kernel panicked");
}

void Machine::handle_exit(kvm_run& run) {
  switch (run.exit_reason) {
    case KVM_EXIT_IO: return handle_port(run);
    case KVM_EXIT_MMIO: return handle_mmio(run);
    case KVM_EXIT_SHUTDOWN: return shut_down(run);
    case KVM_EXIT_HLT:
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN: return;
    default: return end(Outcome::EngineFailed, describe_exit(run));
  }
}

// A processor that can go on no more asks for help by a bus cycle of its own, which the bridges answer by INIT# (PIIX3, 3.6; ICH9,
// 5.13.6): programs for the 80286 left protected mode in this way.
void Machine::shut_down(const kvm_run& run) {
  if (parts_.config.kind() == Kind::Direct || !parts_.config.reboot) return end(Outcome::TripleFault, describe_exit(run));
  log::warning("the guest had a triple fault: its processors are reset, as hardware does");
  init_processors();
}

void Machine::handle_port(kvm_run& run) {
  auto* data = reinterpret_cast<uint8_t*>(&run) + run.io.data_offset;
  const unsigned size = run.io.size;
  for (uint32_t i = 0; i < run.io.count; ++i, data += size) {
    if (run.io.direction == KVM_EXIT_IO_OUT) {
      pc_->ports().write(run.io.port, size, static_cast<uint32_t>(load_little(data, size)));
    } else {
      const uint32_t value = pc_->ports().read(run.io.port, size);
      std::memcpy(data, &value, size);
    }
  }
}

void Machine::handle_mmio(kvm_run& run) {
  const unsigned size = std::min<unsigned>(run.mmio.len, sizeof run.mmio.data);
  if (run.mmio.is_write) {
    pc_->mmio().write(run.mmio.phys_addr, size, load_little(run.mmio.data, size));
  } else {
    const uint64_t value = pc_->mmio().read(run.mmio.phys_addr, size);
    std::memcpy(run.mmio.data, &value, size);
  }
}

// A processor is parked when it halts with interrupts off and no NMI is on its way, or waits for its SIPI. An engine with an
// interrupt controller of its own does not report a HLT, so the state is looked at from time to time.
void Machine::take_sample(Processor& processor) {
  engine::Vcpu& vcpu = *processor.vcpu;
  const auto state = vcpu.get_mp_state();
  const auto regs = vcpu.get_regs();
  const auto events = vcpu.get_vcpu_events();
  const bool waits = state && (state->mp_state == KVM_MP_STATE_UNINITIALIZED || state->mp_state == KVM_MP_STATE_INIT_RECEIVED);
  const bool halted = state && regs && events && state->mp_state == KVM_MP_STATE_HALTED && !(regs->rflags & kFlagInterrupt) &&
                      !events->nmi.pending && !events->nmi.injected;
  processor.waits_for_sipi = waits;
  processor.parked_for = waits || halted ? processor.parked_for + 1 : 0;
}

void Machine::watch() {
  next_watch_ns_ = HostClock().monotonic_ns() + parts_.config.watch_ns;
  const auto parked = [](const auto& processor) { return processor->parked_for >= kParkedSamples; };
  const auto never_started = [](const auto& processor) { return processor->waits_for_sipi.load(); };
  if (std::ranges::all_of(processors_, parked) && !std::ranges::all_of(processors_, never_started))
    return end(Outcome::Stuck, "all vCPUs halted with interrupts off");
  for (const auto& processor : processors_) {
    processor->sample = true;
    processor->vcpu->kick();
  }
}

}  // namespace lodge::machine
