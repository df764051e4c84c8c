#include "engine/soft/vcpu/vm.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include "base/log.hpp"
#include "engine/soft/irqchip/irqchip.hpp"
#include "engine/soft/vcpu/event.hpp"
#include "engine/soft/vcpu/tsc_frequency.hpp"
#include "engine/soft/vcpu/vcpu.hpp"

namespace lodge::engine::soft {

namespace {

// Source numbers at the interrupt pins: 0 is KVM_IRQ_LINE's.
constexpr uint32_t kIrqfdSource = 1;
constexpr uint32_t kMaxVcpuId = IrqChip::kMostVcpus;
constexpr uint32_t kKnownDoorbellFlags = KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_PIO;

uint64_t vm_now(void* vm) { return clock_now(static_cast<VmContext*>(vm)->clock); }
void vm_pit_changed(void* vm) { pit_deadline_changed(*static_cast<VmContext*>(vm)); }
void vcpu_wake(void* vcpu) { vcpu_request(*static_cast<VcpuContext*>(vcpu), kRequestEvent); }
uint64_t vcpu_guest_tsc(void* vcpu) { return guest_tsc(*static_cast<VcpuContext*>(vcpu)); }

void yield() { sched_yield(); }

std::unexpected<Error> refuse(int error, const char* what) { return os_fail(what, error); }

}  // namespace

// --- VmCore

Result<std::shared_ptr<VmCore>> VmCore::create(const Options& options) {
  std::shared_ptr<VmCore> core(new VmCore());
  core->context_ = std::make_unique<VmContext>();
  VmContext& vm = *core->context_;
  timers_init(vm.timers);
  clock_init(vm.clock, options.virtual_clock ? 0 : tsc_frequency_khz(), options.virtual_clock ? options.picoseconds_per_instruction : 0);
  // KVM's guests find their TSC at zero.
  vm.tsc_offset.store(-vm.clock.base);
  constexpr uint64_t kPage = 4096;
  if (!options.jitdump.empty()) core->jitdump_ = TRY(JitDump::create(options.jitdump));
  vm.code = code_cache_create({.size = (options.code_cache_size + kPage - 1) / kPage * kPage,
                               .second_tier = options.second_tier,
                               .exact_flags = options.exact_flags,
                               .jitdump = core->jitdump_.get()});
  if (!vm.code) return fail(ErrorKind::Resource, "the software engine got no memory for translated code");
  if (!options.state_trace.empty()) {
    core->trace_ = Fd(open(options.state_trace.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!core->trace_) return os_fail(fmt::format("cannot write the states to {}", options.state_trace));
    vm.clock.trace = core->trace_.get();
    vm.clock.trace_every = options.state_trace_every;
    vm.clock.trace_next = options.state_trace_from;
  }
  if (!options.profile.empty()) core->profile_ = TRY(Profile::create(options.profile));
  core->slots_ = std::make_unique<MemorySlots>(vm.map);
  return core;
}

VmCore::~VmCore() {
  if (timer_thread_.joinable()) {
    timers_end(context_->timers);
    timer_thread_.join();
  }
  events_.reset();
  if (profile_) {
    if (const auto written = profile_->write(vcpus_); !written) log::error("{}", written.error().message);
  }
  if (context_ && context_->code) code_cache_destroy(context_->code);
}

Result<> VmCore::set_user_memory_region(const kvm_userspace_memory_region& region) {
  const std::unique_lock lock(slots_mutex_);
  const Exclusive exclusive(context_->quiesce);
  // Translations know the flags of their pages, which the new map may lay out elsewhere.
  const auto no_translator = code_invalidate_all(context_->code, context_->quiesce);
  TRY(slots_->set(region));
  // Asked for while all vCPUs stand still: none may come back with TLB entries made from the old map.
  request_forget(context_->quiesce);
  return {};
}

// protect -> acknowledge -> read. A page whose bit is clear has no writable TLB entry, once every vCPU has emptied its TLBs
// after the bit was cleared. The bits are taken first, then the acknowledgements awaited, then the bits returned:
//  - A store through an entry that is still there happens before the acknowledgement, so the caller, who reads the
//    page after this returns, sees it.
//  - A slow path that marks its page after the bit was taken leaves the mark for the next call.
//  - A slow path that marked before, but installs its entry after the bit was taken, does so before its acknowledgement,
//    which empties the TLB: no entry outlives this call without its page being marked.
Result<std::vector<uint64_t>> VmCore::get_dirty_log(uint32_t slot) {
  const std::shared_lock lock(slots_mutex_);
  auto bits = TRY(slots_->harvest(slot));
  request_flush_and_wait(context_->quiesce, nullptr);
  return bits;
}

void VmCore::commit_write(uint64_t gpa, uint64_t length) noexcept {
  const std::shared_lock lock(slots_mutex_);
  physical_commit(*context_, gpa, length);
}

Result<> VmCore::create_irqchip() {
  const std::lock_guard lock(vcpus_mutex_);
  if (chip_) return refuse(EEXIST, "KVM_CREATE_IRQCHIP");
  if (!vcpus_.empty()) return refuse(EINVAL, "KVM_CREATE_IRQCHIP after KVM_CREATE_VCPU");
  set_spin_relax(yield);
  chip_ = std::make_unique<IrqChip>(VmHost{vm_now, vm_pit_changed, context_.get()});
  context_->chip = chip_.get();
  if (!virtual_clock()) start_timer_thread();
  return {};
}

Result<> VmCore::create_pit2(const kvm_pit_config& config) {
  const std::lock_guard lock(vcpus_mutex_);
  if (!chip_) return refuse(ENOENT, "KVM_CREATE_PIT2 without KVM_CREATE_IRQCHIP");
  if (chip_->has_pit()) return refuse(EEXIST, "KVM_CREATE_PIT2");
  if (config.flags & ~static_cast<uint32_t>(KVM_PIT_SPEAKER_DUMMY)) return refuse(EINVAL, "KVM_CREATE_PIT2: unknown flags");
  chip_->create_pit((config.flags & KVM_PIT_SPEAKER_DUMMY) != 0);
  return {};
}

void VmCore::start_timer_thread() {
  timer_thread_ = std::thread([this] { run_timers(); });
  pthread_setname_np(timer_thread_.native_handle(), "timer");
}

void VmCore::run_timers() {
  prctl(PR_SET_TIMERSLACK, 1UL);
  VmContext& vm = *context_;
  for (;;) {
    const uint32_t due = timers_wait(vm.timers, vm_now, &vm);
    if (due == kTimerCount) return;
    if (due == kPitTimer) {
      chip_->expire_pit(clock_now(vm.clock));
      pit_deadline_changed(vm);
    } else if (VcpuContext* vcpu = vm.vcpu[due].load()) {
      vcpu_request(*vcpu, kRequestEvent);
    }
  }
}

Result<VcpuMemory*> VmCore::add_vcpu(uint32_t id) {
  const std::lock_guard lock(vcpus_mutex_);
  if (id >= kMaxVcpuId) return refuse(EINVAL, "KVM_CREATE_VCPU: the id is too large");
  if (virtual_clock() && !vcpus_.empty()) return fail(ErrorKind::Unsupported, "a virtual clock counts the instructions of one vCPU only");
  for (const auto& other : vcpus_)
    if (other->cpu.id == id) return refuse(EEXIST, "KVM_CREATE_VCPU: the id is in use");
  if (vcpus_.size() == kMaxVcpus) return refuse(EINVAL, "KVM_CREATE_VCPU: no more than 64");
  VcpuMemoryPtr memory = TRY(create_vcpu_memory(*context_, id));
  VcpuContext& vcpu = memory->context;
  vcpu.index = static_cast<uint32_t>(vcpus_.size());
  vcpu.tsc_offset.store(context_->tsc_offset.load());
  constexpr uint64_t kApicBase = 0xfee00000, kApicEnabled = 1 << 11, kBootstrap = 1 << 8;
  vcpu.apic_base = kApicBase | kApicEnabled | (id == 0 ? kBootstrap : 0);
  memory->cpu.budget = INT64_MAX;
  if (chip_) {
    vcpu.lapic = &chip_->attach_vcpu(id, id == 0, {vcpu_wake, vcpu_guest_tsc, &vcpu});
    vcpu.lapic->set_features({.tsc_khz = context_->clock.khz});
  }
  if (virtual_clock()) {
    context_->clock.virtual_cpu = &memory->cpu;
    memory->cpu.random = 0x9e3779b97f4a7c15;  // a run that repeats may have no randomness of the host
  }
  vcpu.participant = quiesce_add(context_->quiesce, &memory->cpu);
  context_->vcpu[vcpu.index].store(&vcpu);
  vcpus_.push_back(std::move(memory));
  return vcpus_.back().get();
}

void VmCore::set_kvmclock(uint64_t nanoseconds) {
  clock_set_kvmclock(context_->clock, nanoseconds);
  for (auto& entry : context_->vcpu) {
    VcpuContext* vcpu = entry.load();
    if (!vcpu) continue;
    vcpu->clock_stale.store(1);
    vcpu_request(*vcpu, kRequestEvent);
  }
}

// An edge, or the message that the GSI is routed to. One at a time: two overlapping pulses would be one edge.
void VmCore::raise_edge(uint32_t gsi) {
  const std::lock_guard lock(edge_mutex_);
  chip_->set_irq(kIrqfdSource, gsi, true);
  chip_->set_irq(kIrqfdSource, gsi, false);
}

Result<> VmCore::watch_interrupt(int fd, uint32_t gsi) {
  const std::lock_guard lock(events_mutex_);
  if (!events_) events_ = TRY(EventThread::create());
  return events_->add(fd, [this, gsi] { raise_edge(gsi); });
}

void VmCore::unwatch_interrupt(int fd) {
  const std::lock_guard lock(events_mutex_);
  if (events_) events_->remove(fd);
}

Result<> VmCore::add_doorbell(const DoorbellEntry& entry) {
  const bool any_length = entry.length == 0;
  if (entry.flags & ~kKnownDoorbellFlags) return refuse(EINVAL, "KVM_IOEVENTFD: unknown flags");
  if (!any_length && entry.length != 1 && entry.length != 2 && entry.length != 4 && entry.length != 8)
    return refuse(EINVAL, "KVM_IOEVENTFD: the length is not 0, 1, 2, 4 or 8");
  if (any_length && (entry.flags & KVM_IOEVENTFD_FLAG_DATAMATCH)) return refuse(EINVAL, "KVM_IOEVENTFD: a data match needs a length");
  if (entry.address + entry.length < entry.address) return refuse(EINVAL, "KVM_IOEVENTFD: the range wraps around");
  const std::lock_guard lock(events_mutex_);
  Doorbells& doorbells = context_->doorbells;
  if (doorbells.count == Doorbells::kMax) return refuse(ENOSPC, "KVM_IOEVENTFD: too many");
  for (uint32_t i = 0; i < doorbells.count; ++i) {
    const DoorbellEntry& other = doorbells.entry[i];
    const bool same_place = other.address == entry.address && ((other.flags ^ entry.flags) & KVM_IOEVENTFD_FLAG_PIO) == 0;
    const bool same_length = other.length == 0 || any_length || other.length == entry.length;
    const bool same_data = !(other.flags & entry.flags & KVM_IOEVENTFD_FLAG_DATAMATCH) || other.datamatch == entry.datamatch;
    if (same_place && same_length && same_data) return refuse(EEXIST, "KVM_IOEVENTFD: another doorbell matches the same writes");
  }
  const Exclusive exclusive(context_->quiesce);
  doorbells.entry[doorbells.count++] = entry;
  return {};
}

void VmCore::remove_doorbell(int fd) {
  const std::lock_guard lock(events_mutex_);
  const Exclusive exclusive(context_->quiesce);
  Doorbells& doorbells = context_->doorbells;
  for (uint32_t i = 0; i < doorbells.count; ++i) {
    if (doorbells.entry[i].fd != fd) continue;
    doorbells.entry[i] = doorbells.entry[--doorbells.count];
    return;
  }
}

// --- the Vm

namespace {

class SoftVm final : public Vm {
 public:
  explicit SoftVm(std::shared_ptr<VmCore> core) : core_(std::move(core)) {}

  // Between begin and commit nothing need happen: translations made of half-written bytes are dropped by the commit.
  void begin_write(uint64_t, uint64_t) noexcept override {}
  void commit_write(uint64_t gpa, uint64_t length) noexcept override { core_->commit_write(gpa, length); }

  [[nodiscard]] Result<> set_user_memory_region(const kvm_userspace_memory_region& region) override {
    return core_->set_user_memory_region(region);
  }
  [[nodiscard]] Result<std::vector<uint64_t>> get_dirty_log(uint32_t slot) override { return core_->get_dirty_log(slot); }
  [[nodiscard]] Result<std::unique_ptr<Vcpu>> create_vcpu(uint32_t id) override { return SoftVcpu::create(core_, id); }
  [[nodiscard]] Result<> create_irqchip() override { return core_->create_irqchip(); }
  [[nodiscard]] Result<> create_pit2(const kvm_pit_config& config) override { return core_->create_pit2(config); }

  [[nodiscard]] Result<> irq_line(uint32_t gsi, bool level) override {
    IrqChip& chip = *TRY(irqchip("KVM_IRQ_LINE"));
    chip.set_irq(IrqChip::kUserSource, gsi, level);
    return {};
  }
  // A message that no local APIC takes is the guest's business, no error.
  [[nodiscard]] Result<> signal_msi(const kvm_msi& msi) override {
    IrqChip& chip = *TRY(irqchip("KVM_SIGNAL_MSI"));
    if (msi.flags) return refuse(EINVAL, "KVM_SIGNAL_MSI: unknown flags");
    static_cast<void>(chip.signal_msi(static_cast<uint64_t>(msi.address_hi) << 32 | msi.address_lo, msi.data));
    return {};
  }
  [[nodiscard]] Result<> set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) override {
    IrqChip& chip = *TRY(irqchip("KVM_SET_GSI_ROUTING"));
    if (!chip.set_routing(entries.data(), entries.size())) return refuse(EINVAL, "KVM_SET_GSI_ROUTING");
    return {};
  }
  [[nodiscard]] Result<kvm_irqchip> get_irqchip(uint32_t chip_id) override {
    IrqChip& chip = *TRY(irqchip("KVM_GET_IRQCHIP"));
    kvm_irqchip state = {};
    state.chip_id = chip_id;
    if (!chip.get_irqchip(state)) return refuse(EINVAL, "KVM_GET_IRQCHIP: no such chip");
    return state;
  }
  [[nodiscard]] Result<> set_irqchip(const kvm_irqchip& state) override {
    IrqChip& chip = *TRY(irqchip("KVM_SET_IRQCHIP"));
    if (!chip.set_irqchip(state)) return refuse(EINVAL, "KVM_SET_IRQCHIP: no such chip");
    return {};
  }
  [[nodiscard]] Result<kvm_pit_state2> get_pit2() override {
    IrqChip& chip = *TRY(pit("KVM_GET_PIT2"));
    kvm_pit_state2 state = {};
    chip.get_pit(state);
    return state;
  }
  [[nodiscard]] Result<> set_pit2(const kvm_pit_state2& state) override {
    IrqChip& chip = *TRY(pit("KVM_SET_PIT2"));
    chip.set_pit(state);
    return {};
  }

  // One linear clock for all vCPUs: KVM_CLOCK_TSC_STABLE says that the answer is what they see.
  [[nodiscard]] Result<kvm_clock_data> get_clock() override {
    kvm_clock_data data = {};
    data.clock = clock_kvmclock(core_->context().clock);
    data.flags = core_->context().tsc_unstable.load() ? 0 : KVM_CLOCK_TSC_STABLE;
    return data;
  }
  [[nodiscard]] Result<> set_clock(const kvm_clock_data& data) override {
    // KVM_CLOCK_REALTIME would need the host's time of the saving; it is not offered (KVM_CAP_ADJUST_CLOCK).
    if (data.flags & ~static_cast<uint32_t>(KVM_CLOCK_TSC_STABLE)) return refuse(EINVAL, "KVM_SET_CLOCK: unknown flags");
    core_->set_kvmclock(data.clock);
    return {};
  }

  [[nodiscard]] Result<std::unique_ptr<InterruptEvent>> create_interrupt(uint32_t gsi) override {
    TRY(irqchip("KVM_IRQFD"));
    return soft::create_interrupt(core_, gsi);
  }
  [[nodiscard]] Result<std::unique_ptr<DoorbellEvent>> create_doorbell(const Doorbell& doorbell) override {
    return soft::create_doorbell(core_, doorbell);
  }

 private:
  [[nodiscard]] Result<IrqChip*> irqchip(const char* call) const {
    IrqChip* chip = core_->context().chip;
    if (!chip) return os_fail(fmt::format("{} without KVM_CREATE_IRQCHIP", call), ENXIO);
    return chip;
  }
  [[nodiscard]] Result<IrqChip*> pit(const char* call) const {
    IrqChip* chip = TRY(irqchip(call));
    if (!chip->has_pit()) return os_fail(fmt::format("{} without KVM_CREATE_PIT2", call), ENXIO);
    return chip;
  }

  std::shared_ptr<VmCore> core_;
};

}  // namespace

Result<std::unique_ptr<Vm>> create_vm(const Options& options) { return std::make_unique<SoftVm>(TRY(VmCore::create(options))); }

}  // namespace lodge::engine::soft
