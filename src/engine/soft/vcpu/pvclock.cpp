#include "engine/soft/irqchip/muldiv.hpp"
#include "engine/soft/vcpu/context.hpp"
#include "engine/soft/vcpu/futex.hpp"

namespace lodge::engine::soft {

namespace {

// The guest's structures, as msr.rst has them.
struct [[gnu::packed]] TimeInfo {
  uint32_t version;  // odd while it changes
  uint32_t pad0;
  uint64_t tsc_timestamp;
  uint64_t system_time;
  uint32_t tsc_to_system_mul;
  int8_t tsc_shift;
  uint8_t flags;
  uint8_t pad[2];
};
static_assert(sizeof(TimeInfo) == 32);
struct [[gnu::packed]] WallClock {
  uint32_t version, sec, nsec;
};

constexpr uint64_t kEnabled = 1;  // of KVM_SYSTEM_TIME's MSR
constexpr uint8_t kTscStable = 1;
constexpr int64_t kVirtualEpoch = 946684800;  // 2000-01-01: what a virtual clock starts at
constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

uint32_t read_version(const VmContext& vm, uint64_t gpa) {
  const Slot* slot = vm.map.find(gpa);
  if (!slot || slot->size - (gpa - slot->gpa) < sizeof(uint32_t)) return 0;
  return *reinterpret_cast<const volatile uint32_t*>(slot->host + (gpa - slot->gpa));
}

// Version odd, contents, version even; x86 keeps the order of the stores, and the lengths of the copies keep each version whole.
template <typename Page>
void publish(VmContext& vm, uint64_t gpa, Page& page) {
  const uint32_t odd = (read_version(vm, gpa) + 1) | 1;
  if (!physical_write(vm, gpa, &odd, sizeof odd)) return;
  asm volatile("" : : : "memory");
  physical_write(vm, gpa + sizeof odd, reinterpret_cast<const uint8_t*>(&page) + sizeof odd, sizeof page - sizeof odd);
  const uint32_t even = odd + 1;
  physical_write(vm, gpa, &even, sizeof even);
}

uint64_t wall_now(const VmContext& vm) {
  if (vm.clock.picoseconds) return static_cast<uint64_t>(kVirtualEpoch) * kNanosecondsPerSecond + clock_now(vm.clock);
  __kernel_timespec now = {};
  constexpr long kClockRealtime = 0;
  raw_syscall(SYS_clock_gettime, kClockRealtime, reinterpret_cast<long>(&now));
  return static_cast<uint64_t>(now.tv_sec) * kNanosecondsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

// Time is linear from the VM's creation on, so one reference point serves for good.
void pvclock_update(VcpuContext& vcpu) {
  VmContext& vm = *vcpu.vm;
  const uint64_t msr = vcpu.cpu->msrs.kvm_system_time;
  if (!(msr & kEnabled)) return;
  TimeInfo page = {};
  page.tsc_timestamp = vm.clock.base + vcpu.tsc_offset.load();
  page.system_time = vm.clock.kvmclock_at_base.load();
  page.tsc_to_system_mul = vm.clock.scale.mul;
  page.tsc_shift = vm.clock.scale.shift;
  page.flags = vm.tsc_unstable.load() ? 0 : kTscStable;
  publish(vm, msr & ~kEnabled, page);
}

// The wall clock's zero point of the paravirtual clock: the guest adds its system time.
void pvclock_write_wall_clock(VcpuContext& vcpu, uint64_t gpa) {
  const uint64_t start = wall_now(*vcpu.vm) - clock_kvmclock(vcpu.vm->clock);
  WallClock wall = {};
  wall.sec = static_cast<uint32_t>(start / kNanosecondsPerSecond);
  wall.nsec = static_cast<uint32_t>(start % kNanosecondsPerSecond);
  publish(*vcpu.vm, gpa, wall);
}

uint64_t guest_tsc(const VcpuContext& vcpu) { return clock_counter(vcpu.vm->clock) + vcpu.tsc_offset.load(std::memory_order_relaxed); }

// vCPUs that share one offset have TSCs that agree; when one leaves the others, the guest must not compare them.
void set_tsc_offset(VcpuContext& vcpu, uint64_t offset) {
  VmContext& vm = *vcpu.vm;
  vcpu.tsc_offset.store(offset);
  bool unstable = false;
  const uint32_t count = vm.quiesce.count.load();
  for (uint32_t i = 0; i < count; ++i)
    if (const VcpuContext* other = vm.vcpu[i].load()) unstable |= other->tsc_offset.load() != offset;
  vm.tsc_unstable.store(unstable);
  for (uint32_t i = 0; i < count; ++i) {
    VcpuContext* other = vm.vcpu[i].load();
    if (!other || other == &vcpu) continue;
    other->clock_stale.store(1);
    vcpu_request(*other, kRequestEvent);
  }
  pvclock_update(vcpu);
}

}  // namespace lodge::engine::soft
