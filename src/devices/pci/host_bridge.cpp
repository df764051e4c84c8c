#include "devices/pci/host_bridge.hpp"

#include <algorithm>
#include <cassert>

namespace lodge::devices::pci {

namespace {

// CONFIG_ADDRESS (3.2.2.3.2, figure 3-2).
constexpr uint32_t kEnable = 0x80000000, kAddressBits = 0x80fffffc;
constexpr unsigned register_of(uint32_t address) { return address & 0xfc; }

uint32_t all_ones(unsigned size) { return size >= 4 ? ~0u : (1u << (8 * size)) - 1; }

// A host bridge without registers of its own, for which no operating system knows peculiarities.
constexpr Identity kRootIdentity{
    .vendor = 0x1b36, .device = 0x0008, .revision = 0, .class_code = 0x060000, .subsystem_vendor = 0, .subsystem = 0};

}  // namespace

// The bridge as a function of its own bus, 00:00.0.
class HostBridge::Root final : public Function {
 public:
  Root() : Function(kRootIdentity, "host bridge") {}

 protected:
  uint64_t bar_read(unsigned, uint64_t, unsigned) override { return ~uint64_t{0}; }
  void bar_write(unsigned, uint64_t, unsigned, uint64_t) override {}
};

class HostBridge::MemoryBar final : public MmioDevice {
 public:
  MemoryBar(Function& function, unsigned index) : function_(function), index_(index) {}
  uint64_t read(uint64_t offset, unsigned size) override { return function_.read_bar(index_, offset, size); }
  void write(uint64_t offset, unsigned size, uint64_t value) override { function_.write_bar(index_, offset, size, value); }

 private:
  Function& function_;
  const unsigned index_;
};

class HostBridge::PortBar final : public PortDevice {
 public:
  PortBar(Function& function, unsigned index) : function_(function), index_(index) {}
  uint32_t read(uint64_t offset, unsigned size) override { return static_cast<uint32_t>(function_.read_bar(index_, offset, size)); }
  void write(uint64_t offset, unsigned size, uint32_t value) override { function_.write_bar(index_, offset, size, value); }

 private:
  Function& function_;
  const unsigned index_;
};

// A function in its place: its BARs on the buses, and its way out.
class HostBridge::Slot final : public FunctionPort {
 public:
  Slot(HostBridge& bridge, Function& plugged, const Bridge* plugged_bridge, const Slot* behind, unsigned device_number,
       unsigned function_number, unsigned in_order)
      : function(plugged),
        itself(plugged_bridge),
        parent(behind),
        device(device_number),
        number(function_number),
        bridge_(bridge),
        order_(in_order) {
    for (unsigned i = 0; i < Function::kRanges; ++i) {
      const BarKind kind = function.bar(i).kind;
      if (kind == BarKind::Io) ports_[i] = std::make_unique<PortBar>(function, i);
      if (kind == BarKind::Memory32 || kind == BarKind::Memory64 || kind == BarKind::Rom)
        memory_[i] = std::make_unique<MemoryBar>(function, i);
    }
  }

  void send_message(uint64_t address, uint32_t data) override { bridge_.board_.send_message(address, data); }
  void set_intx(bool level) override { bridge_.lines_[line()]->set(order_, level); }
  // The pins of what is behind a bridge are the bridge's own, each device's turned on by one (PCI-to-PCI Bridge 1.2, table 9-1).
  [[nodiscard]] unsigned line() const {
    const unsigned pin = function.interrupt_pin();
    return parent ? bridge_.board_.line_of(parent->device, (device + pin - 1) % kPins + 1) : bridge_.board_.line_of(device, pin);
  }

  [[nodiscard]] bool attach(unsigned index, uint64_t address) {
    const uint64_t size = function.bar(index).size;
    const Result<> done = ports_[index] ? bridge_.board_.ports.attach(address, size, *ports_[index], function.name())
                                        : bridge_.board_.memory.attach(address, size, *memory_[index], function.name());
    if (done) at[index] = address;
    return done.has_value();
  }
  void detach(unsigned index) {
    if (!at[index]) return;
    if (ports_[index])
      bridge_.board_.ports.detach(*at[index]);
    else
      bridge_.board_.memory.detach(*at[index]);
    at[index].reset();
  }

  // The bus that it sits on, as bridges are set up now; nothing: no access reaches it.
  [[nodiscard]] std::optional<unsigned> bus() const {
    if (!parent) return 0;
    const unsigned behind = parent->itself->secondary_bus();
    return behind == 0 ? std::nullopt : std::optional(behind);
  }

  Function& function;
  const Bridge* const itself;  // null: it is none
  const Slot* const parent;    // the bridge in front of it; null: it sits on bus 0
  const unsigned device, number;
  std::array<std::optional<uint64_t>, Function::kRanges> at;  // where each BAR answers

 private:
  HostBridge& bridge_;
  const unsigned order_;
  std::array<std::unique_ptr<MemoryBar>, Function::kRanges> memory_;
  std::array<std::unique_ptr<PortBar>, Function::kRanges> ports_;
};

// --- The two ways into configuration space

class HostBridge::ConfigAddressPort final : public PortDevice {
 public:
  explicit ConfigAddressPort(HostBridge& bridge) : bridge_(bridge) {}
  uint32_t read(uint64_t offset, unsigned size) override {
    if (size != 4) return bridge_.board_.beside_config_address.read(kConfigAddress + offset, size);
    MutexLock lock(bridge_.mutex_);
    return bridge_.config_address_;
  }
  void write(uint64_t offset, unsigned size, uint32_t value) override {
    if (size != 4) return bridge_.board_.beside_config_address.write(kConfigAddress + offset, size, value);
    MutexLock lock(bridge_.mutex_);
    bridge_.config_address_ = value & kAddressBits;
  }

 private:
  HostBridge& bridge_;
};

class HostBridge::ConfigDataPort final : public PortDevice {
 public:
  explicit ConfigDataPort(HostBridge& bridge) : bridge_(bridge) {}
  static Place place_of(uint32_t address) {
    return {.bus = address >> 16 & 0xff, .device = address >> 11 & 0x1f, .function = address >> 8 & 7};
  }
  uint32_t read(uint64_t offset, unsigned size) override {
    MutexLock lock(bridge_.mutex_);
    const uint32_t address = bridge_.config_address_;
    if (!(address & kEnable)) return all_ones(size);
    return bridge_.read_config(place_of(address), register_of(address) + static_cast<unsigned>(offset), size);
  }
  void write(uint64_t offset, unsigned size, uint32_t value) override {
    MutexLock lock(bridge_.mutex_);
    const uint32_t address = bridge_.config_address_;
    if (!(address & kEnable)) return;
    bridge_.write_config(place_of(address), register_of(address) + static_cast<unsigned>(offset), size, value);
  }

 private:
  HostBridge& bridge_;
};

// PCI Express Base 4.0, table 7-1: bus, device, function and register in the address. An access that is larger than a dword or leaves
// one, which a bridge need not take, is carried out in parts.
class HostBridge::Ecam final : public MmioDevice {
 public:
  explicit Ecam(HostBridge& bridge) : bridge_(bridge) {}
  uint64_t read(uint64_t offset, unsigned size) override {
    uint64_t value = 0;
    MutexLock lock(bridge_.mutex_);
    const unsigned part = part_of(offset, size);
    for (unsigned i = 0; i < size; i += part) {
      const auto at = static_cast<uint32_t>(offset + i);
      value |= uint64_t{bridge_.read_config(place_of(at), at & 0xfff, part)} << (8 * i);
    }
    return value;
  }
  void write(uint64_t offset, unsigned size, uint64_t value) override {
    MutexLock lock(bridge_.mutex_);
    const unsigned part = part_of(offset, size);
    for (unsigned i = 0; i < size; i += part) {
      const auto at = static_cast<uint32_t>(offset + i);
      bridge_.write_config(place_of(at), at & 0xfff, part, static_cast<uint32_t>(value >> (8 * i)) & all_ones(part));
    }
  }

 private:
  static Place place_of(uint32_t at) { return {.bus = at >> 20, .device = at >> 15 & 0x1f, .function = at >> 12 & 7}; }
  static unsigned part_of(uint64_t offset, unsigned size) {
    if (offset % 4 + size <= 4) return size;
    return offset % 4 == 0 && size == 8 ? 4 : 1;
  }
  HostBridge& bridge_;
};

// --- Life

HostBridge::HostBridge(Board board)
    : board_(std::move(board)),
      root_(std::make_unique<Root>()),
      address_port_(std::make_unique<ConfigAddressPort>(*this)),
      data_port_(std::make_unique<ConfigDataPort>(*this)),
      ecam_(std::make_unique<Ecam>(*this)) {
  for (const IrqPin& line : board_.lines) lines_.push_back(std::make_unique<SharedLine>(line));
}

HostBridge::~HostBridge() = default;

Result<std::unique_ptr<HostBridge>> HostBridge::create(Board board) {
  std::unique_ptr<HostBridge> bridge(new HostBridge(std::move(board)));
  TRY(bridge->attach());
  TRY(bridge->plug(bridge->board_.bridge ? *bridge->board_.bridge : *bridge->root_, 0));
  return bridge;
}

Result<> HostBridge::attach() {
  TRY(board_.ports.attach(kConfigAddress, 4, *address_port_, "PCI configuration address"));
  TRY(board_.ports.attach(kConfigData, 4, *data_port_, "PCI configuration data"));
  show_ecam(board_.ecam);
  return {};
}

void HostBridge::show_ecam(std::optional<Window> where) {
  MutexLock lock(ecam_mutex_);
  if (shown_ecam_) board_.memory.detach(shown_ecam_->base);
  shown_ecam_.reset();
  if (where && board_.memory.attach(where->base, where->size, *ecam_, "PCI configuration")) shown_ecam_ = where;
}

std::optional<Window> HostBridge::ecam() {
  MutexLock lock(ecam_mutex_);
  return shown_ecam_;
}

Result<> HostBridge::add_slot(Function& function, const Bridge* itself, const Slot* parent, unsigned device, unsigned number) {
  const bool taken = std::ranges::any_of(
      slots_, [&](const auto& slot) { return slot->parent == parent && slot->device == device && slot->number == number; });
  if (device >= kDevices || number >= kFunctions || taken || slots_.size() == SharedLine::kMost)
    return fail(ErrorKind::Internal, "{}: no place at PCI device {:02x}.{}", function.name(), device, number);
  slots_.push_back(std::make_unique<Slot>(*this, function, itself, parent, device, number, static_cast<unsigned>(slots_.size())));
  function.connect(*slots_.back());
  return {};
}

Result<> HostBridge::plug(Function& function, unsigned device, unsigned number) {
  MutexLock lock(mutex_);
  TRY(add_slot(function, nullptr, nullptr, device, number));
  mark_several(device);
  return {};
}

Result<> HostBridge::plug_bridge(Bridge& bridge, unsigned device, unsigned number) {
  MutexLock lock(mutex_);
  TRY(add_slot(bridge, &bridge, nullptr, device, number));
  mark_several(device);
  return {};
}

Result<> HostBridge::plug_behind(const Bridge& bridge, Function& function) {
  MutexLock lock(mutex_);
  const auto slot = std::ranges::find_if(slots_, [&](const auto& one) { return one->itself == &bridge; });
  if (slot == slots_.end()) return fail(ErrorKind::Internal, "{}: there is no such bridge", function.name());
  return add_slot(function, nullptr, slot->get(), 0, 0);
}

// 6.2.1: software looks for further functions only where function 0 says that there are some.
void HostBridge::mark_several(unsigned device) {
  Slot* first = find({.bus = 0, .device = device, .function = 0});
  const auto several = std::ranges::count_if(slots_, [&](const auto& slot) { return !slot->parent && slot->device == device; });
  if (first && several > 1) first->function.mark_multi_function();
}

HostBridge::Slot* HostBridge::find(const Place& place) {
  for (const auto& slot : slots_)
    if (slot->device == place.device && slot->number == place.function && slot->bus() == place.bus) return slot.get();
  return nullptr;
}

// --- Configuration accesses

// Where no function answers: a master abort, which reads as all ones (6.1). A conventional function has 256 bytes, and accesses beyond
// them end the same way; there is nothing beyond them in one of PCI Express either, which so ends its list of extended capabilities
// (PCI Express Base 4.0, 7.6.1).
uint32_t HostBridge::read_config(const Place& place, unsigned offset, unsigned size) {
  Slot* slot = find(place);
  if (!slot) return all_ones(size);
  if (offset + size <= ConfigSpace::kBytes) return slot->function.read_config(offset, size);
  return slot->itself || slot->parent ? 0 : all_ones(size);
}

void HostBridge::write_config(const Place& place, unsigned offset, unsigned size, uint32_t value) {
  Slot* slot = find(place);
  if (!slot || offset + size > ConfigSpace::kBytes) return;
  slot->function.write_config(offset, size, value);
  const unsigned dword = offset & ~3u;
  const bool bars = (dword >= kBar0 && dword < kBar0 + 4 * Function::kBars) || dword == kExpansionRom;
  const bool windows = slot->itself && dword >= kPrimaryBus && dword <= kPrefetchableLimitHigh;
  if (dword == kCommand || bars || windows) remap();
}

// --- Where BARs answer

bool HostBridge::acceptable(const Slot& slot, const Bar& bar, uint64_t address) const {
  if (slot.parent && !slot.parent->itself->passes(bar.kind, address, bar.size)) return false;
  if (bar.kind == BarKind::Io) return board_.io.holds(address, bar.size);
  return board_.memory32.holds(address, bar.size) || board_.memory64.holds(address, bar.size);
}

// First all that left, so that BARs may change places; then all that have a place and do not answer yet.
void HostBridge::remap() {
  std::vector<std::array<std::optional<uint64_t>, Function::kRanges>> before;
  before.reserve(slots_.size());
  for (const auto& slot : slots_) {
    before.push_back(slot->at);
    for (unsigned i = 0; i < Function::kRanges; ++i)
      if (slot->at[i] && (slot->at[i] != slot->function.decoded(i) || !acceptable(*slot, slot->function.bar(i), *slot->at[i])))
        slot->detach(i);
  }
  for (size_t s = 0; s < slots_.size(); ++s) {
    Slot& slot = *slots_[s];
    for (unsigned i = 0; i < Function::kRanges; ++i) {
      const auto wanted = slot.function.decoded(i);
      // An overlap is the guest's mistake: who came first stays.
      if (wanted && !slot.at[i] && acceptable(slot, slot.function.bar(i), *wanted)) static_cast<void>(slot.attach(i, *wanted));
      if (slot.at[i] != before[s][i]) slot.function.bar_moved(i, slot.at[i]);
    }
  }
}

Result<> HostBridge::place(Function& function, unsigned index, std::array<uint64_t, 3>& next) {
  const Bar& bar = function.bar(index);
  const std::array<Window, 3> windows{board_.io, board_.memory32, board_.memory64};
  // A 64-bit BAR goes below 4 GiB if it is not large: there every guest can reach it.
  constexpr uint64_t kShareOfWindow = 8;
  std::vector<size_t> choices;
  if (bar.kind == BarKind::Io)
    choices = {0};
  else if (bar.kind == BarKind::Memory32)
    choices = {1};
  else if (bar.size <= board_.memory32.size / kShareOfWindow)
    choices = {1, 2};
  else
    choices = {2, 1};
  for (const size_t choice : choices) {
    const uint64_t address = (std::max(next[choice], windows[choice].base) + bar.size - 1) & ~(bar.size - 1);
    if (!windows[choice].holds(address, bar.size)) continue;
    next[choice] = address + bar.size;
    function.place_bar(index, address);
    return {};
  }
  return fail(ErrorKind::Internal, "{}: no room for a PCI range of {:#x} bytes", function.name(), bar.size);
}

Result<> HostBridge::assign_resources() {
  MutexLock lock(mutex_);
  struct Wanted {
    Function* function;
    unsigned index;
  };
  std::vector<Wanted> all;
  for (const auto& slot : slots_) {
    for (unsigned i = 0; i < Function::kRanges; ++i)
      if (const BarKind kind = slot->function.bar(i).kind; kind != BarKind::None && kind != BarKind::Rom)
        all.push_back({&slot->function, i});
    if (const unsigned pin = slot->function.interrupt_pin(); pin != 0)
      slot->function.set_interrupt_line(board_.interrupt_numbers[slot->line()]);
  }
  // The large ones first leave no gaps; and those that have no choice before those that have.
  std::ranges::stable_sort(all, [](const Wanted& a, const Wanted& b) {
    const Bar &left = a.function->bar(a.index), &right = b.function->bar(b.index);
    return std::pair(left.kind, ~left.size) < std::pair(right.kind, ~right.size);
  });
  std::array<uint64_t, 3> next{};
  for (const Wanted& wanted : all) TRY(place(*wanted.function, wanted.index, next));
  remap();
  return {};
}

}  // namespace lodge::devices::pci
