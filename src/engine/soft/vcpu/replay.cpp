#include "engine/soft/vcpu/replay.hpp"

#include <linux/kvm.h>

#include "engine/soft/cpu/unwind.hpp"
#include "engine/soft/vcpu/hooks.hpp"

namespace lodge::engine::soft {

namespace {

void store(void* to, uint64_t value, uint32_t size) {
  for (uint32_t i = 0; i < size; ++i) static_cast<uint8_t*>(to)[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint64_t fetch(const void* from, uint32_t size) {
  uint64_t value = 0;
  for (uint32_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<const uint8_t*>(from)[i]) << (8 * i);
  return value;
}

// Port data lie behind kvm_run in the same page, as the kernel's KVM_EXIT_IO has them.
constexpr uint64_t kPortDataOffset = 4096;

void fill_exit(CpuState& c, const ReplayEntry& entry) {
  kvm_run& run = *c.run;
  if (entry.port) {
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = entry.write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    run.io.size = static_cast<uint8_t>(entry.size);
    run.io.port = static_cast<uint16_t>(entry.address);
    run.io.count = entry.elements;
    run.io.data_offset = kPortDataOffset;
    if (entry.write) store(reinterpret_cast<uint8_t*>(&run) + kPortDataOffset, entry.value, entry.size);
  } else {
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = entry.address;
    run.mmio.len = entry.size;
    run.mmio.is_write = entry.write;
    store(run.mmio.data, entry.write ? entry.value : 0, 8);
  }
  c.exit_reason = run.exit_reason;
}

// The log entry for the running instruction's next access, or null when the access is new.
ReplayEntry* logged(CpuState& c) {
  Replay& replay = *c.replay;
  if (replay.rip != c.rip) {
    replay.rip = c.rip;
    replay.count = replay.next = 0;
  }
  return replay.next < replay.count ? &replay.entry[replay.next++] : nullptr;
}

ReplayEntry& append(CpuState& c, uint64_t address, uint32_t size, bool port, bool write, uint64_t value) {
  Replay& replay = *c.replay;
  // More accesses than any instruction makes: forget the oldest state rather than run over. (Only REP iterations without a
  // commit could get here, and they commit.)
  if (replay.count == Replay::kMax) replay.count = replay.next = 0;
  ReplayEntry& entry = replay.entry[replay.count++];
  entry = {address, value, size, port, write, false, 1};
  replay.next = replay.count;
  return entry;
}

[[noreturn]] void leave_with(CpuState& c, const ReplayEntry& entry) {
  fill_exit(c, entry);
  c.replay->pending = true;
  unwind_to_loop(c, Unwind::Exit);
}

}  // namespace

uint64_t replay_mmio_read(CpuState& c, uint64_t gpa, uint32_t size) {
  if (const ReplayEntry* entry = logged(c)) return entry->value;
  uint64_t value = 0;
  ReplayEntry& entry = append(c, gpa, size, false, false, 0);
  if (c.hooks->chip_mmio_read(&c, gpa, size, &value)) {
    entry.done = true;
    return entry.value = value;
  }
  leave_with(c, entry);
}

void replay_mmio_write(CpuState& c, uint64_t gpa, uint32_t size, uint64_t value) {
  if (logged(c)) return;
  ReplayEntry& entry = append(c, gpa, size, false, true, value);
  if (c.hooks->chip_mmio_write(&c, gpa, size, value)) {
    entry.done = true;
    return;
  }
  leave_with(c, entry);
}

namespace {

// The answered read of one element, or of so many when no chip of the engine's own has that port.
const ReplayEntry& port_read(CpuState& c, uint16_t port, uint32_t size, uint32_t elements) {
  if (const ReplayEntry* entry = logged(c)) return *entry;
  uint32_t value = 0;
  ReplayEntry& entry = append(c, port, size, true, false, 0);
  if (c.hooks->chip_port_read(&c, port, size, &value)) {
    entry.done = true;
    entry.value = value;
    return entry;
  }
  entry.elements = elements;
  leave_with(c, entry);
}

}  // namespace

uint32_t replay_port_read(CpuState& c, uint16_t port, uint32_t size) { return static_cast<uint32_t>(port_read(c, port, size, 1).value); }

uint32_t replay_port_read_string(CpuState& c, uint16_t port, uint32_t size, uint32_t elements) {
  const ReplayEntry& entry = port_read(c, port, size, elements);
  if (entry.elements == 1) store(c.replay->string, entry.value, size);
  return entry.elements;
}

void replay_port_write(CpuState& c, uint16_t port, uint32_t size, uint32_t value) {
  if (logged(c)) return;
  ReplayEntry& entry = append(c, port, size, true, true, value);
  if (c.hooks->chip_port_write(&c, port, size, value)) {
    entry.done = true;
    return;
  }
  leave_with(c, entry);
}

void replay_add_write(CpuState& c, uint64_t gpa, uint32_t size, uint64_t value) {
  if (c.hooks->chip_mmio_write(&c, gpa, size, value)) return;
  append(c, gpa, size, false, true, value);
}

void replay_drain(CpuState& c) {
  Replay& replay = *c.replay;
  for (uint32_t i = 0; i < replay.count; ++i) {
    if (replay.entry[i].done || !replay.entry[i].write) continue;
    replay.draining = true;
    replay.next = i;
    leave_with(c, replay.entry[i]);
  }
}

bool replay_resume(CpuState& c) {
  Replay& replay = *c.replay;
  if (!replay.pending) return true;
  replay.pending = false;
  ReplayEntry& entry = replay.entry[replay.draining ? replay.next : replay.count - 1];
  entry.done = true;
  if (!entry.write && entry.elements > 1) {
    const auto* data = reinterpret_cast<uint8_t*>(c.run) + kPortDataOffset;
    for (uint32_t i = 0; i < entry.elements * entry.size; ++i) replay.string[i] = data[i];
  } else if (!entry.write) {
    entry.value = entry.port ? fetch(reinterpret_cast<uint8_t*>(c.run) + kPortDataOffset, entry.size) : fetch(c.run->mmio.data, entry.size);
  }
  replay.next = 0;
  if (!replay.draining) return true;
  for (uint32_t i = 0; i < replay.count; ++i) {
    if (replay.entry[i].done || !replay.entry[i].write) continue;
    replay.next = i;
    replay.pending = true;
    fill_exit(c, replay.entry[i]);
    return false;
  }
  replay.draining = false;
  replay_commit(c);
  c.rip = c.next_rip;
  return true;
}

void replay_commit(CpuState& c) {
  c.replay->count = c.replay->next = 0;
  c.replay->rip = c.rip;
}

}  // namespace lodge::engine::soft
