// Look-ups of memory operands in the second tier: form C, one comparison for tag and page crossing, answering for all accesses of the
// block through the same unchanged registers that lie close together.
#include <algorithm>

#include "engine/soft/cpu/mode.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/runtime.hpp"
#include "engine/soft/translate/tier2.hpp"

namespace lodge::engine::soft {

namespace {

constexpr int64_t kWidestGroup = 256;  // bytes: a wider one meets a page's end too often

constexpr uint32_t kEntryShift = 5;
static_assert(sizeof(TlbEntry) == 1u << kEntryShift);
constexpr int32_t kIndexMask = static_cast<int32_t>((TlbSpace::kEntries - 1) << kEntryShift);

uint32_t base_offset(int segment) {
  return static_cast<uint32_t>(offsetof(CpuState, seg) + static_cast<size_t>(segment) * sizeof(SegmentRegister) +
                               offsetof(SegmentRegister, base));
}

// The registers of an address: those in CpuState and those in host registers.
struct Terms {
  struct Term {
    uint32_t where;
    uint8_t scale;
  };
  Term state[4];
  Term host[2];
  uint32_t states = 0, hosts = 0;
};

template <typename P>
Terms terms_of(const P& place) {
  Terms terms;
  const auto add = [&](int guest, uint8_t scale) {
    if (host_of(guest) < 0)
      terms.state[terms.states++] = {gpr_offset(guest), scale};
    else
      terms.host[terms.hosts++] = {static_cast<uint32_t>(host_of(guest)), scale};
  };
  if (place.segment >= 0) terms.state[terms.states++] = {base_offset(place.segment), 0};
  if (place.rip) terms.state[terms.states++] = {static_cast<uint32_t>(offsetof(CpuState, code_page)), 0};
  if (place.base >= 0) add(place.base, 0);
  if (place.index >= 0) add(place.index, place.scale);
  return terms;
}

}  // namespace

// What the look-up for item i answers for beside its own access.
void Tier2::range_of(uint32_t i, const Access& access, int64_t& low, int64_t& high, bool& shared) const {
  low = access.displacement;
  high = access.displacement + access.size;
  shared = false;
  if (o_.ungrouped) return;
  for (size_t j = i + 1; j < items_.size(); ++j) {
    const Item& item = *items_[j];
    if (item.kind == Kind::Bridge) return;
    const Access& other = item.access;
    if (!other.valid || !(other.place == access.place) || (other.write && !access.write)) continue;
    const int64_t l = std::min(low, other.displacement), h = std::max<int64_t>(high, other.displacement + other.size);
    if (h - l > kWidestGroup) continue;
    low = l;
    high = h;
    shared = true;
  }
}

// The linear address into R11; R10 helps.
void Tier2::linear_into(const Place& place, int64_t displacement) {
  if (displacement != static_cast<int32_t>(displacement)) {
    failed_ = true;
    return;
  }
  addend_group_ = -1;
  const Terms terms = terms_of(place);
  const auto d = static_cast<int32_t>(displacement);
  bool begun = false;
  for (uint32_t i = 0; i < terms.states; ++i) {
    const auto [where, scale] = terms.state[i];
    if (!begun) {
      as_.load(kS1, where);
      if (scale) as_.lea(kS1, {.index = kS1, .scale = scale});
    } else {
      as_.load(kS0, where);
      as_.lea(kS1, {.base = kS1, .index = kS0, .scale = scale});
    }
    begun = true;
  }
  const auto h = terms.host;
  if (begun) {
    for (uint32_t i = 0; i < terms.hosts; ++i)
      as_.lea(kS1, {.base = kS1, .index = static_cast<int>(h[i].where), .scale = h[i].scale, .displacement = i + 1 == terms.hosts ? d : 0});
    if (!terms.hosts && d) as_.lea(kS1, {.base = kS1, .displacement = d});
  } else {
    from_registers(kS1, place, d);
  }
}

// An address of registers of the host's only. In 32-bit code it wraps at 4 GiB.
void Tier2::from_registers(Host into, const Place& place, int32_t d) {
  const Terms terms = terms_of(place);
  const auto h = terms.host;
  if (terms.hosts == 2) {
    as_.lea(into, {.base = static_cast<int>(h[0].where), .index = static_cast<int>(h[1].where), .scale = h[1].scale, .displacement = d},
            code64_);
  } else if (terms.hosts == 1 && !h[0].scale) {
    if (d)
      as_.lea(into, {.base = static_cast<int>(h[0].where), .displacement = d}, code64_);
    else
      as_.move(into, static_cast<Host>(h[0].where), code64_);
  } else if (terms.hosts == 1) {
    as_.lea(into, {.index = static_cast<int>(h[0].where), .scale = h[0].scale, .displacement = d}, code64_);
  } else {
    as_.move_imm(into, code64_ ? static_cast<uint64_t>(int64_t{d}) : static_cast<uint32_t>(d));
  }
}

// R11 is the addend: what the host's instruction has as its operand. Flags stay.
Address Tier2::with_addend(const Place& place, int64_t displacement, bool leave_scratch) {
  if (displacement != static_cast<int32_t>(displacement)) failed_ = true;
  if (!code64_) {
    // The host's address arithmetic has 64 bits, the guest's wraps: so it is done before.
    from_registers(kS0, place, static_cast<int32_t>(displacement));
    if (!leave_scratch) return {.base = kS1, .index = kS0};
    as_.lea(kS1, {.base = kS1, .index = kS0});
    addend_group_ = -1;
    return {.base = kS1};
  }
  const Terms terms = terms_of(place);
  Address address{.base = kS1, .displacement = static_cast<int32_t>(displacement)};
  const auto fold = [&](int index, uint8_t scale) {
    as_.lea(kS1, {.base = kS1, .index = index, .scale = scale});
    addend_group_ = -1;
  };
  // One term can stay the index.
  bool index_free = true;
  for (uint32_t i = 0; i < terms.hosts; ++i) {
    const auto [where, scale] = terms.host[terms.hosts - 1 - i];
    if (index_free) {
      address.index = static_cast<int>(where);
      address.scale = scale;
      index_free = false;
    } else {
      fold(static_cast<int>(where), scale);
    }
  }
  for (uint32_t i = 0; i < terms.states; ++i) {
    const auto [where, scale] = terms.state[i];
    as_.load(kS0, where);
    if (index_free && !leave_scratch && i + 1 == terms.states) {
      address.index = kS0;
      address.scale = scale;
      index_free = false;
    } else {
      fold(kS0, scale);
    }
  }
  return address;
}

// Where item i's operand lies in the host's memory. R11 belongs to the result, R10 too unless it must stay free. The host's flags are
// lost unless an earlier look-up answers.
Address Tier2::look_up(uint32_t i, const Access& access, bool leave_scratch) {
  const auto moved = [&](const Place& place) {
    return (place.base < 0 ? 0 : delta_[static_cast<size_t>(place.base)]) +
           (place.index < 0 ? 0 : delta_[static_cast<size_t>(place.index)] << place.scale);
  };
  const int64_t displacement = access.displacement - moved(access.place);
  for (uint32_t g = 0; g < kGroupSlots; ++g) {
    const Group& group = groups_[g];
    if (!group.valid || !(group.place == access.place) || (access.write && !group.write) || access.displacement < group.low ||
        access.displacement + access.size > group.high)
      continue;
    if (addend_group_ != static_cast<int>(g)) as_.load(kS1, static_cast<uint32_t>(offsetof(CpuState, group) + 8 * g));
    addend_group_ = static_cast<int>(g);
    return with_addend(access.place, displacement, leave_scratch);
  }

  before_clobber(items_[i]->live_in());
  int64_t low, high;
  bool shared;
  range_of(i, access, low, high, shared);
  const auto span = static_cast<int32_t>(high - low);
  linear_into(access.place, displacement - (access.displacement - low));
  if (span > 1)
    as_.lea(kS0, {.base = kS1, .displacement = span - 1});
  else
    as_.move(kS0, kS1);
  as_.shift_imm(5, kS1, 12 - kEntryShift);
  as_.alu_imm32(4, kS1, kIndexMask, false);
  as_.with_memory(0x03, kS1, {.displacement = offsetof(CpuState, tlb), .gs = true});
  as_.alu_imm32(4, kS0, static_cast<int32_t>(kPageMask));
  as_.with_memory(0x3b, kS0, {.base = kS1, .displacement = access.write ? 8 : 0});
  Stub stub = stub_with_flags(Stub::Kind::Resolve, as_.jump_if(kNotZero), i);
  as_.load(kS1, Address{.base = kS1, .displacement = 16});
  stub.back = as_.here();
  stub.place = access.place;
  stub.displacement = displacement;
  stub.form = {access.size | access.flags, static_cast<uint16_t>(access.displacement - low),
               static_cast<uint16_t>(high - access.displacement), static_cast<uint16_t>(at_ + items_[i]->offset), access.write};
  stub.x87 = x87_;
  stubs_.push_back(stub);
  addend_group_ = -1;
  if (shared) {
    const uint32_t g = next_group_++ % kGroupSlots;
    groups_[g] = {access.place, low, high, access.write, true};
    addend_group_ = static_cast<int>(g);
    as_.store(static_cast<uint32_t>(offsetof(CpuState, group) + 8 * g), kS1);
  }
  return with_addend(access.place, displacement, leave_scratch);
}

void Tier2::emit_resolve(const Stub& stub) {
  const Item& item = *items_[stub.item];
  flags_of_stub(stub);
  note(stub.item, false, flags_, stub.x87);
  if (stub.x87 >= 0) commit_x87(stub.x87);
  first_.wait_for_x87(item.in);
  count_back(stub.item);
  linear_into(stub.place, stub.displacement);
  as_.move_imm(kS0, stub.form.pack());
  as_.call_to((flags_ == kInHost ? thunks_.resolve_host : thunks_.resolve)[stub.form.write]);
  if (stub.form.before || stub.form.behind > (stub.form.size & kOperandSize)) {
    // The instructions from here on were counted back: the other form counts them.
    Stub ungrouped;
    ungrouped.kind = Stub::Kind::Edge;
    as_.align(4, 2);
    ungrouped.from = as_.jump_if(kNotZero).patch;
    ungrouped.target = at_ + item.offset;
    ungrouped.flags = kInState;
    ungrouped.ungrouped = true;
    stubs_.push_back(ungrouped);
  }
  if (o_.virtual_clock) {
    const auto left = static_cast<int32_t>(items_.size() - stub.item);
    as_.load(kS0, offsetof(CpuState, budget));
    as_.lea(kS0, {.base = kS0, .displacement = -left});
    as_.store(offsetof(CpuState, budget), kS0);
    as_.load(kS0, offsetof(CpuState, instructions));
    as_.lea(kS0, {.base = kS0, .displacement = left});
    as_.store(offsetof(CpuState, instructions), kS0);
  }
  as_.jump_to(stub.back);
}

}  // namespace lodge::engine::soft
