#include "engine/soft/vcpu/profile.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/write_all.hpp"
#include "engine/soft/mmu/tlb.hpp"
#include "engine/soft/translate/cache.hpp"
#include "engine/soft/vcpu/host_faults.hpp"

namespace lodge::engine::soft {
namespace {

constexpr long kIntervalNs = 1'000'000;  // of CPU time; the host's kernel may round it up to its tick
constexpr uint32_t kCapacity = 1 << 20;  // samples a thread

constexpr std::array<const char*, kCounters> kNames = {
    "runs of second-tier code",
    "runs of first-tier code",
    "  of these in the slow form",
    "exits by an unlinked edge",
    "exits by a jump that the table did not know",
    "looks at requests",
    "blocks looked up by physical address",
    "exceptions",
    "interrupts",
    "data look-ups beyond the inline code",
    "page walks for data",
    "page walks for code",
    "TLB flushes of an address space",
    "TLB flushes of a page",
    "flushes after which code lay elsewhere",
    "blocks run without grouped look-ups",
    "writes to pages with translated code",
    "blocks translated by the first tier",
    "blocks translated by the second tier",
    "translations ended by writes",
    "resets of the code cache",
    "halts",
    "exits to the machine",
};

constinit thread_local Profile::Thread* sampled = nullptr;
// What `sampled` points to: a tick may come when the profile is gone already.
thread_local struct Own {
  std::shared_ptr<Profile::Thread> thread;
  ~Own() { sampled = nullptr; }
} own;

// In the signal handler: only plain data, and the index of the code cache, which is read without locks.
Profile::Sample sample_at(const ucontext_t& context) {
  using Place = Profile::Sample::Place;
  const CpuState* const c = running_guest;
  if (!c) return {Place::Outside, 0, 0};
  if (c->phase == Phase::Translate) return {Place::Translator, c->cpl, c->rip};
  const CodeIndex& index = *c->code_index;
  const auto* const pc = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  if (pc < index.code_begin || pc >= index.code_end) return {Place::Engine, c->cpl, c->rip};
  const Block* const block = block_at(index, pc);
  if (!block) return {Place::Code, c->cpl, c->rip};
  return {Place::Block, c->cpl, c->code_page + (reinterpret_cast<uint64_t>(block->host_pc) & (kPageSize - 1))};
}

void on_tick(int, siginfo_t*, void* context) {
  Profile::Thread* const thread = sampled;
  if (!thread) return;
  if (thread->count < kCapacity) thread->samples[thread->count] = sample_at(*static_cast<ucontext_t*>(context));
  ++thread->count;
}

using Sums = std::map<std::pair<uint64_t, uint8_t>, uint64_t>;

std::string places(const Sums& sums, uint64_t all, size_t most) {
  std::vector<std::pair<uint64_t, std::pair<uint64_t, uint8_t>>> sorted;
  for (const auto& [place, count] : sums) sorted.emplace_back(count, place);
  std::ranges::sort(sorted, std::greater());
  std::string text;
  for (size_t i = 0; i < std::min(most, sorted.size()); ++i) {
    const auto& [count, place] = sorted[i];
    text += fmt::format("  {:5.1f} %  {:#018x}  {}\n", 100.0 * static_cast<double>(count) / static_cast<double>(all), place.first,
                        place.second == 3 ? "user" : "kernel");
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<Profile>> Profile::create(const std::string& file) {
  Fd fd(open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return os_fail(fmt::format("cannot write the profile to {}", file));
  struct sigaction action = {};
  action.sa_sigaction = on_tick;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGPROF, &action, nullptr) != 0) return os_fail("SIGPROF");
  return std::unique_ptr<Profile>(new Profile(std::move(fd)));
}

Profile::~Profile() {
  const std::lock_guard lock(mutex_);
  stop_sampling();
}

void Profile::stop_sampling() {
  for (const auto& thread : threads_) {
    timer_delete(thread->timer);
    thread->cpu = nullptr;
  }
}

Result<> Profile::attach(const CpuState& cpu) {
  if (sampled && sampled->cpu == &cpu) return {};
  auto thread = std::make_shared<Thread>();
  thread->cpu = &cpu;
  thread->samples.resize(kCapacity);
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGPROF;
  event._sigev_un._tid = gettid();
  if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &thread->timer) != 0) return os_fail("a timer for the profile");
  const itimerspec interval = {{0, kIntervalNs}, {0, kIntervalNs}};
  sampled = thread.get();
  own.thread = thread;
  timer_settime(thread->timer, 0, &interval, nullptr);
  const std::lock_guard lock(mutex_);
  threads_.push_back(std::move(thread));
  return {};
}

Result<> Profile::write(std::span<const VcpuMemoryPtr> vcpus) {
  const std::lock_guard lock(mutex_);
  stop_sampling();
  std::array<uint64_t, 5> by_place{};
  Sums blocks, engine;
  uint64_t all = 0, lost = 0;
  for (const auto& thread : threads_) {
    const uint32_t kept = std::min(thread->count, kCapacity);
    lost += thread->count - kept;
    all += kept;
    for (uint32_t i = 0; i < kept; ++i) {
      const Sample& sample = thread->samples[i];
      ++by_place[static_cast<size_t>(sample.place)];
      if (sample.place == Sample::Place::Block) ++blocks[{sample.rip, sample.cpl}];
      if (sample.place == Sample::Place::Engine || sample.place == Sample::Place::Code) ++engine[{sample.rip, sample.cpl}];
    }
  }
  threads_.clear();
  std::string text =
      fmt::format("CPU time of the vCPUs' threads, {} samples{}\n\n", all, lost ? fmt::format("; {} more did not fit", lost) : "");
  constexpr std::array<const char*, 5> kPlaces = {"translated blocks", "other translated code", "the engine, for the guest",
                                                  "the translator", "outside guest mode (devices, sleep)"};
  for (size_t i = 0; i < kPlaces.size(); ++i)
    text += fmt::format("  {:5.1f} %  {}\n", all ? 100.0 * static_cast<double>(by_place[i]) / static_cast<double>(all) : 0.0, kPlaces[i]);
  text += "\nTranslated blocks, by the address of their first instruction:\n" + places(blocks, all, 40);
  text += "\nThe engine and single instructions, by the guest's address:\n" + places(engine, all, 40);
  text += "\nCounts of each vCPU:\n";
  for (uint32_t i = 0; i < kCounters; ++i) {
    text += fmt::format("  {:<45}", kNames[i]);
    for (const auto& vcpu : vcpus) text += fmt::format(" {:>14}", vcpu->cpu.counter[i]);
    text += '\n';
  }
  const int error = write_all(file_.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  if (error != 0) return os_fail("writing the profile", error);
  return {};
}

}  // namespace lodge::engine::soft
