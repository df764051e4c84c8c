// One machine from power-on to its power-off or reset: memory, processors, board. A reset makes a new one.
//
// Threads: one a vCPU ("vcpu0", ...), which run the guest and carry its accesses to the chips; the main thread
// runs the event loop. Whoever ends the machine first says how; then all vCPUs are kicked out and joined.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.hpp"
#include "base/mutex.hpp"
#include "console/backend.hpp"
#include "devices/ata/optical_drive.hpp"
#include "devices/flash/parallel_flash.hpp"
#include "devices/fw_cfg.hpp"
#include "devices/usb/tablet.hpp"
#include "devices/usb/xhci.hpp"
#include "devices/virtio/balloon/balloon.hpp"
#include "devices/virtio/console/console.hpp"
#include "devices/virtio/pci_transport.hpp"
#include "display/seat.hpp"
#include "engine/api/engine.hpp"
#include "machine/config.hpp"
#include "machine/firmware.hpp"
#include "machine/firmware_memory.hpp"
#include "machine/kernel.hpp"
#include "machine/kernel_rom.hpp"
#include "machine/keyboards.hpp"
#include "machine/pc.hpp"
#include "machine/peripherals.hpp"
#include "machine/variable_store.hpp"
#include "machine/video_memory.hpp"

namespace lodge::machine {

enum class Outcome {
  PowerOff,      // the guest switched itself off
  Reset,         // it asked for a reset
  Restart,       // the person resets it
  TripleFault,   // a vCPU shut down
  Panicked,      // its kernel says that it has panicked, and no reboot is wanted
  DebugExit,     // it asked for the process's end with an exit code
  Stuck,         // all vCPUs wait with interrupts off: nothing can wake them
  EngineFailed,  // the engine cannot go on
  Quit,          // the person or a signal ends the process
};

class Machine {
 public:
  struct Parts {
    engine::System& system;
    const Config& config;
    const Kernel* kernel = nullptr;                      // of Kind::Direct
    std::span<const uint8_t> handed_kernel{};            // to UEFI firmware, which starts it; empty: none
    const BiosKernel* bios_kernel = nullptr;             // of a BIOS, which starts it
    std::span<const KernelModule> modules{};             // its
    const Firmware* firmware = nullptr;                  // of the other kinds
    VariableStore* variables = nullptr;                  // of firmware that has them
    std::span<const uint8_t> vga_rom{};                  // of the graphics card
    std::span<const uint8_t> e1000_rom{}, virtio_rom{};  // of network cards; empty: none
    std::span<const uint8_t> initrd{};
    EventLoop& loop;
    console::Backend& serial;
    int debug_console = -1;
    const Peripherals& peripherals;
    display::Seat& seat;
    std::function<void()> on_panic{};  // the guest's kernel has panicked; main thread
  };
  static Result<std::unique_ptr<Machine>> create(const Parts& parts);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Runs the guest on its threads and the event loop on this one until the machine ends.
  [[nodiscard]] Outcome run();
  void press_power_button() { pc_->press_power_button(); }
  // --- Drives whose medium can be changed, by the host's drive that they are. Main thread.
  // Null: it is none for CDs.
  [[nodiscard]] devices::ata::OpticalDrive* optical(const Drive& drive);
  // The drive's medium is a new one, or gone; before it goes, put_medium(drive, nullptr).
  void put_medium(Drive& drive, devices::storage::Disk* medium);
  // The terminal has another size.
  void window_changed();
  // Logs what the guest says of its memory, when it has said it.
  void report_memory();
  void end(Outcome outcome, std::string reason = {}) LODGE_EXCLUDES(mutex_);  // any thread; the first one counts

  // The vCPUs stand still until every pause() has its resume(). Any thread; returns at once.
  void pause() LODGE_EXCLUDES(mutex_);
  void resume() LODGE_EXCLUDES(mutex_);

  [[nodiscard]] int debug_exit_code() const { return debug_exit_code_; }  // of Outcome::DebugExit
  [[nodiscard]] std::string reason() LODGE_EXCLUDES(mutex_);              // one line, for a crash
  [[nodiscard]] std::string dump();                                       // all vCPUs; after run()

 private:
  struct Processor {
    std::unique_ptr<engine::Vcpu> vcpu;
    std::thread thread;
    std::atomic<bool> sample = false;      // a look at its state is wanted
    std::atomic<unsigned> parked_for = 0;  // samples in a row in which nothing could wake it
    std::atomic<bool> waits_for_sipi = false;
  };
  explicit Machine(const Parts& parts);
  [[nodiscard]] Result<> build();
  [[nodiscard]] Result<> load_memory(std::span<const kvm_cpuid_entry2> supported);
  [[nodiscard]] Result<> load_firmware(std::span<const kvm_cpuid_entry2> supported);
  [[nodiscard]] Result<> start_firmware();
  [[nodiscard]] Result<> attach_firmware();
  void show_variables(bool shown);
  void set_a20(bool open);
  void init_processors();
  [[nodiscard]] uint64_t variables_base() const;
  [[nodiscard]] Result<> create_slots();
  [[nodiscard]] Result<> create_processors(const std::vector<kvm_cpuid_entry2>& supported);
  [[nodiscard]] Result<> create_devices();
  [[nodiscard]] Result<> create_graphics();
  [[nodiscard]] Result<> plug_nic(const Nic& nic, unsigned number);
  // On bus 0 as this device, or behind a root port.
  [[nodiscard]] Result<> plug(std::unique_ptr<devices::virtio::Device> device, unsigned number,
                              devices::virtio::PciTransport::Options options = {}, unsigned port = 0);
  void attach_ata(Drive& drive);
  void connect_disk(devices::storage::Disk& disk);
  void stop_devices();
  void wait_while_paused() LODGE_EXCLUDES(mutex_);
  void run_processor(Processor& processor, uint32_t number);
  void panicked();
  void handle_exit(kvm_run& run);
  void shut_down(const kvm_run& run);
  void handle_port(kvm_run& run);
  void handle_mmio(kvm_run& run);
  void take_sample(Processor& processor);
  void watch();

  Parts parts_;
  MemoryMap map_;
  Entry entry_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<memory::GuestMemory> rom_;  // the firmware's; not the guest's memory, so that no device reaches it
  std::unique_ptr<engine::Vm> vm_;
  bool high_area_shown_ = false;  // set_a20() has been here
  uint32_t slots_ = 0;
  std::unique_ptr<FirmwareMemory> firmware_memory_;
  std::unique_ptr<devices::flash::ParallelFlash> flash_;  // null: no variables
  std::unique_ptr<devices::FwCfg> fw_cfg_;
  std::unique_ptr<Clock> clock_;               // the chips'
  std::unique_ptr<VideoMemory> video_memory_;  // null: no graphics card
  std::unique_ptr<devices::vga::Card> graphics_;
  std::unique_ptr<Keyboards> keyboards_;  // null: no keyboard on USB
  std::unique_ptr<devices::usb::Tablet> tablet_;
  std::unique_ptr<devices::usb::Xhci> usb_;
  std::vector<std::unique_ptr<devices::virtio::PciTransport>> virtio_;
  std::vector<std::unique_ptr<Nic::E1000>> e1000_;
  std::vector<std::pair<const Drive*, devices::ata::OpticalDrive*>> optical_;
  devices::virtio::Balloon* balloon_ = nullptr;  // null: none
  devices::virtio::Console* console_ = nullptr;
  std::unique_ptr<Pc> pc_;
  std::vector<std::unique_ptr<Processor>> processors_;
  std::atomic<bool> ending_ = false;
  uint64_t next_watch_ns_ = 0;
  EventLoop::Handle watch_ = 0;
  Mutex mutex_;
  std::condition_variable resumed_;
  unsigned pauses_ LODGE_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> paused_ = false;
  std::atomic<int> debug_exit_code_ = 0;
  std::optional<Outcome> outcome_ LODGE_GUARDED_BY(mutex_);
  std::string reason_ LODGE_GUARDED_BY(mutex_);
};

}  // namespace lodge::machine
