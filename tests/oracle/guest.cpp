#include "guest.hpp"

#include <chrono>
#include <cstring>
#include <span>

namespace lodge::oracle {
namespace {

constexpr uint64_t kMemorySize = 1 << 20;
constexpr uint64_t kSupervisorBase = 0xffffc90000000000;  // linear address of guest-physical 0, for the supervisor only
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40, kNoExecute = uint64_t{1} << 63;
constexpr uint16_t kPortBase = 0x400;  // + vector
constexpr uint16_t kSelKernelCode = 0x10, kSelTss = 0x40, kSelLdt = 0x50;
constexpr unsigned kVectors = 32;
constexpr unsigned kHandlerSize = 16;
constexpr auto kPatience = std::chrono::milliseconds(2000);

kvm_segment segment(uint16_t selector) {
  kvm_segment s = {};
  s.selector = selector;
  const uint64_t d = selector > 3 ? descriptor_of(selector) : 0;
  if (d == 0) {
    s.unusable = 1;
    return s;
  }
  s.base = descriptor_base(d);
  s.limit = descriptor_limit(d);
  s.type = uint8_t(d >> 40 & 0xf);
  s.s = d >> 44 & 1;
  s.dpl = d >> 45 & 3;
  s.present = d >> 47 & 1;
  s.avl = d >> 52 & 1;
  s.l = d >> 53 & 1;
  s.db = d >> 54 & 1;
  s.g = d >> 55 & 1;
  return s;
}

kvm_segment system_segment(uint16_t selector, uint64_t base, uint32_t limit, uint8_t type) {
  kvm_segment s = {};
  s.selector = selector;
  s.base = base;
  s.limit = limit;
  s.type = type;
  s.present = 1;
  return s;
}

}  // namespace

uint64_t Guest::allocate_page() {
  const uint64_t page = next_page_;
  next_page_ += kPage;
  return page;
}

void Guest::put(uint64_t physical, uint64_t value) { std::memcpy(memory_->span(physical, 8).data(), &value, 8); }

void Guest::map(uint64_t linear, uint64_t physical, uint64_t flags) {
  uint64_t table = cr3_;
  for (unsigned shift = 39; shift > 12; shift -= 9) {
    const uint64_t at = table + (linear >> shift & 0x1ff) * 8;
    uint64_t entry = 0;
    std::memcpy(&entry, memory_->span(at, 8).data(), 8);
    if (!(entry & kPresent)) {
      entry = allocate_page() | kPresent | kWritable | kUser | kAccessed;
      put(at, entry);
    }
    table = entry & 0x000ffffffffff000;
  }
  put(table + (linear >> 12 & 0x1ff) * 8, physical | flags | kPresent | kAccessed);
}

Result<> Guest::build_memory() {
  memory_ = TRY(memory::GuestMemory::create({{0, kMemorySize}}));
  cr3_ = allocate_page();
  gdt_ = allocate_page();
  ldt_ = allocate_page();
  idt_ = allocate_page();
  tss_ = allocate_page();
  stack_ = allocate_page();
  handlers_ = allocate_page();
  image_ = next_page_;
  next_page_ += kImageSize;

  for (uint64_t page = 0; page < image_; page += kPage) map(kSupervisorBase + page, page, kWritable | kDirty);
  for (const Area& area : kAreas) {
    for (uint64_t page = 0; page < area.pages; ++page) {
      const uint64_t flags = kUser | (area.writable ? kWritable | kDirty : 0) | (area.executable ? 0 : kNoExecute);
      map(area.linear + page * kPage, image_ + area.offset + page * kPage, flags);
    }
  }
  // The tables are Linux's, so that LAR, LSL and loads of selectors find the same descriptors as natively.
  for (size_t i = 0; i < kGdt.size(); ++i) put(gdt_ + i * 8, kGdt[i]);
  const auto put_system = [&](uint16_t selector, uint64_t base, uint64_t limit, uint64_t type) {
    const uint64_t low = limit | (base & 0xffffff) << 16 | type << 40 | uint64_t{1} << 47 | (base >> 24 & 0xff) << 56;
    put(gdt_ + selector, low);
    put(gdt_ + selector + 8, base >> 32);
  };
  put_system(kSelTss, kSupervisorBase + tss_, 0x67, 11);
  put_system(kSelLdt, kSupervisorBase + ldt_, kLdt.size() * 8 - 1, 2);
  for (size_t i = 0; i < kLdt.size(); ++i) put(ldt_ + i * 8, descriptor(kLdt[i]));
  put(tss_ + 4, kSupervisorBase + stack_ + kPage);  // RSP0
  put(tss_ + 0x60, uint64_t{0x68} << 48);           // no I/O permission map

  for (unsigned vector = 0; vector < kVectors; ++vector) {
    const uint64_t handler = kSupervisorBase + handlers_ + vector * kHandlerSize;
    // The gates that Linux opens to INT3 and INTO.
    const uint64_t dpl = vector == 3 || vector == 4 ? 3 : 0;
    put(idt_ + vector * 16, (handler & 0xffff) | uint64_t{kSelKernelCode} << 16 | uint64_t{0xe} << 40 | dpl << 45 | uint64_t{1} << 47 |
                                (handler >> 16 & 0xffff) << 48);
    put(idt_ + vector * 16 + 8, handler >> 32);
    // push rdx; mov dx, port; out dx, al; hlt. RDX is read back from the stack.
    const uint16_t port = uint16_t(kPortBase + vector);
    const uint8_t code[] = {0x52, 0x66, 0xba, uint8_t(port), uint8_t(port >> 8), 0xee, 0xf4};
    std::memcpy(memory_->span(handlers_ + vector * kHandlerSize, sizeof code).data(), code, sizeof code);
  }
  std::memcpy(memory_->span(image_, kImageSize).data(), pattern().data(), kImageSize);
  return {};
}

Result<> Guest::build_vcpu(engine::System& system) {
  vm_ = TRY(system.create_vm());
  TRY(vm_->create_irqchip());
  kvm_userspace_memory_region region = {};
  region.memory_size = kMemorySize;
  region.userspace_addr = reinterpret_cast<uint64_t>(memory_->regions()[0].host);
  TRY(vm_->set_user_memory_region(region));
  memory_->set_observer(vm_.get());
  vcpu_ = TRY(vm_->create_vcpu(0));
  const auto cpuid = TRY(system.get_supported_cpuid());
  TRY(vcpu_->set_cpuid2(cpuid));

  sregs_ = TRY(vcpu_->get_sregs());
  sregs_.cr0 = 0x80050033;  // PG AM WP NE ET MP PE
  sregs_.cr3 = cr3_;
  sregs_.cr4 = 0x50620;  // PAE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
  sregs_.efer = 0xd00;   // NXE LMA LME
  sregs_.gdt.base = kSupervisorBase + gdt_;
  sregs_.gdt.limit = uint16_t(kGdt.size() * 8 - 1);
  sregs_.idt.base = kSupervisorBase + idt_;
  sregs_.idt.limit = kVectors * 16 - 1;
  sregs_.tr = system_segment(kSelTss, kSupervisorBase + tss_, 0x67, 11);
  sregs_.ldt = system_segment(kSelLdt, kSupervisorBase + ldt_, uint32_t(kLdt.size() * 8 - 1), 2);
  // XCR0 can only name AVX once CR4.OSXSAVE is there.
  State start = {};
  start.cs = kSelUserCode64;
  start.ss = kSelUserData;
  TRY(load_state(start));
  kvm_xcrs xcrs = {};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = 7;
  TRY(vcpu_->set_xcrs(xcrs));
  return {};
}

Result<std::unique_ptr<Guest>> Guest::create(engine::System& system) {
  std::unique_ptr<Guest> guest(new Guest);
  TRY(guest->build_memory());
  TRY(guest->build_vcpu(system));
  guest->watchdog_ = std::thread([g = guest.get()] { g->watch(); });
  return guest;
}

Guest::~Guest() {
  stop_ = true;
  if (watchdog_.joinable()) watchdog_.join();
  vcpu_.reset();
  vm_.reset();
}

void Guest::watch() {
  uint64_t seen = 0;
  auto since = std::chrono::steady_clock::now();
  while (!stop_) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto now = std::chrono::steady_clock::now();
    if (const uint64_t runs = runs_; runs != seen || !running_) {
      seen = runs;
      since = now;
    } else if (now - since > kPatience) {
      vcpu_->kick();
      since = now;
    }
  }
}

void Guest::write_memory(const Case& test) {
  for (const Patch& patch : test.patches) {
    for (size_t i = 0; i < patch.length;) {
      const int64_t at = image_offset(patch.linear + i);
      size_t run = 1;
      if (at >= 0) {
        while (i + run < patch.length && image_offset(patch.linear + i + run) == at + int64_t(run)) ++run;
        (void)memory_->write(image_ + uint64_t(at), std::as_bytes(std::span(&patch.data[i], run)));
      }
      i += run;
    }
  }
}

// Reads the memory, and puts back what differs from the pattern.
void Guest::read_memory(Outcome& out) {
  const std::span<std::byte> pages = memory_->span(image_, kImageSize);
  std::memcpy(out.memory.data(), pages.data(), kImageSize);
  for (size_t at = 0; at < kImageSize; at += 256) {
    if (std::memcmp(&out.memory[at], &pattern()[at], 256) != 0) {
      (void)memory_->write(image_ + at, std::as_bytes(std::span(&pattern()[at], 256)));
    }
  }
}

Result<> Guest::load_state(const State& s) {
  kvm_sregs sregs = sregs_;
  sregs.cs = segment(s.cs);
  sregs.ss = segment(s.ss);
  sregs.ds = segment(s.ds);
  sregs.es = segment(s.es);
  sregs.fs = segment(s.fs);
  sregs.gs = segment(s.gs);
  sregs.fs.base = s.fs_base;
  sregs.gs.base = s.gs_base;
  sregs.cr2 = 0;
  TRY(vcpu_->set_sregs(sregs));
  kvm_regs regs = {};
  const auto& g = s.gpr;
  regs.rax = g[kRax], regs.rcx = g[kRcx], regs.rdx = g[kRdx], regs.rbx = g[kRbx];
  regs.rsp = g[kRsp], regs.rbp = g[kRbp], regs.rsi = g[kRsi], regs.rdi = g[kRdi];
  regs.r8 = g[8], regs.r9 = g[9], regs.r10 = g[10], regs.r11 = g[11];
  regs.r12 = g[12], regs.r13 = g[13], regs.r14 = g[14], regs.r15 = g[15];
  regs.rip = s.rip;
  regs.rflags = s.rflags;
  return vcpu_->set_regs(regs);
}

Result<> Guest::read_state(Outcome& out) {
  const kvm_regs regs = TRY(vcpu_->get_regs());
  const kvm_sregs sregs = TRY(vcpu_->get_sregs());
  const engine::Xsave xsave = TRY(vcpu_->get_xsave());
  State& s = out.state;
  s.gpr = {regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
           regs.r8,  regs.r9,  regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15};
  const auto at = [&](uint64_t linear) {
    uint64_t value = 0;
    const auto bytes = memory_->span(linear - kSupervisorBase, 8);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), 8);
    return value;
  };
  uint64_t frame = regs.rsp;
  s.gpr[kRdx] = at(frame);
  frame += 8;
  if (has_error_code(out.vector)) {
    out.error = uint32_t(at(frame));
    frame += 8;
  }
  s.rip = at(frame);
  s.cs = uint16_t(at(frame + 8));
  s.rflags = at(frame + 16);
  s.gpr[kRsp] = at(frame + 24);
  s.ss = uint16_t(at(frame + 32));
  s.ds = sregs.ds.selector;
  s.es = sregs.es.selector;
  s.fs = sregs.fs.selector;
  s.gs = sregs.gs.selector;
  s.fs_base = sregs.fs.base;
  s.gs_base = sregs.gs.base;
  std::memcpy(&s.vectors, xsave.region, sizeof s.vectors);
  normalise(s.vectors);
  out.cr2 = out.vector == 14 ? sregs.cr2 : 0;
  return {};
}

Result<> Guest::run(const Case& test, Outcome& out) {
  out.error = 0;
  write_memory(test);
  engine::Xsave xsave = {};
  std::memcpy(xsave.region, &test.initial.vectors, sizeof test.initial.vectors);
  TRY(vcpu_->set_xsave(xsave));
  TRY(load_state(test.initial));
  ++runs_;
  running_ = true;
  const engine::RunResult result = TRY(vcpu_->run());
  running_ = false;
  kvm_run& shared = vcpu_->shared();
  if (result == engine::RunResult::Interrupted) {
    out.vector = kHang;
    read_memory(out);
    return {};
  }
  if (shared.exit_reason != KVM_EXIT_IO || shared.io.port < kPortBase || shared.io.port >= kPortBase + kVectors) {
    return fail(ErrorKind::Internal, "unexpected exit {} from the engine", shared.exit_reason);
  }
  out.vector = uint8_t(shared.io.port - kPortBase);
  // The OUT completes, so that the next case starts from a whole state.
  shared.immediate_exit = 1;
  (void)TRY(vcpu_->run());
  shared.immediate_exit = 0;
  TRY(read_state(out));
  read_memory(out);
  return {};
}

}  // namespace lodge::oracle
