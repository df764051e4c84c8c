// oracle: random instructions on the host's processor and in the engine, compared (docs/testing.md).
//
// Exit code 0: no mismatch; 1: mismatches (a reproducer each on standard output); 2: bad usage; 77: this host cannot run it.
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "compare.hpp"
#include "engine/soft/soft.hpp"
#include "forms.hpp"
#include "generator.hpp"
#include "guest.hpp"
#include "native.hpp"

namespace lodge::oracle {
namespace {

constexpr const char* kUsage =
    "usage: oracle [--seconds N | --count N] [--seed S] [--mode 16|32|64] [--filter MNEMONIC] [--insn \"HEX BYTES\"]\n"
    "              [--case CASESEED] [--native] [--list-uncovered] [--list-excluded] [--max-mismatches N] [--verbose] [--tier 1|2]\n"
    "  Random instructions natively and in the engine; registers, flags, vectors, memory and faults are compared.\n"
    "  --count N        cases for each mode (default 20000)\n"
    "  --case CASESEED  the one case that a reproducer names\n"
    "  --native         the host against itself: checks the oracle\n";

constexpr int kExitMismatch = 1, kExitUsage = 2, kExitUnsupported = 77;

struct Options {
  uint64_t seconds = 0, count = 20000, seed = 1, max_mismatches = 50;
  std::vector<Mode> modes;
  std::string filter;
  std::vector<uint8_t> instruction;
  std::optional<uint64_t> case_seed;
  uint32_t tier = 2;  // the engine's: 1 is its first alone
  bool native = false, list_uncovered = false, list_excluded = false, verbose = false;
};

std::optional<uint64_t> number(std::string_view text) {
  int base = 10;
  if (text.starts_with("0x")) {
    text.remove_prefix(2);
    base = 16;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::vector<uint8_t>> hex_bytes(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != ' ') digits += c;
  }
  std::vector<uint8_t> bytes;
  for (size_t at = 0; at + 1 < digits.size(); at += 2) {
    uint8_t byte = 0;
    if (std::from_chars(&digits[at], &digits[at] + 2, byte, 16).ptr != &digits[at] + 2) return std::nullopt;
    bytes.push_back(byte);
  }
  if (bytes.empty() || digits.size() % 2) return std::nullopt;
  return bytes;
}

std::optional<Options> parse(int argc, char** argv) {
  Options o;
  const std::map<std::string_view, uint64_t*> numbers = {
      {"--seconds", &o.seconds}, {"--count", &o.count}, {"--seed", &o.seed}, {"--max-mismatches", &o.max_mismatches}};
  const std::map<std::string_view, bool*> switches = {
      {"--native", &o.native}, {"--list-uncovered", &o.list_uncovered}, {"--list-excluded", &o.list_excluded}, {"--verbose", &o.verbose}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (const auto found = switches.find(name); found != switches.end()) {
      *found->second = true;
      continue;
    }
    if (++i == argc) return std::nullopt;
    const std::string_view value = argv[i];
    if (const auto found = numbers.find(name); found != numbers.end()) {
      const auto n = number(value);
      if (!n) return std::nullopt;
      *found->second = *n;
    } else if (name == "--case") {
      o.case_seed = number(value);
      if (!o.case_seed) return std::nullopt;
    } else if (name == "--mode" && (value == "16" || value == "32" || value == "64")) {
      o.modes = {value == "16" ? Mode::Code16 : value == "32" ? Mode::Code32 : Mode::Code64};
    } else if (name == "--tier" && (value == "1" || value == "2")) {
      o.tier = value == "1" ? 1 : 2;
    } else if (name == "--filter") {
      o.filter = value;
    } else if (name == "--insn") {
      const auto bytes = hex_bytes(value);
      if (!bytes) return std::nullopt;
      o.instruction = *bytes;
    } else {
      return std::nullopt;
    }
  }
  if (o.modes.empty()) o.modes = {Mode::Code64, Mode::Code32, Mode::Code16};
  return o;
}

// What an instruction that does not exist leaves behind.
void invalid_opcode(const Case& test, Outcome& out) {
  constexpr uint64_t kResumeFlag = 1 << 16;
  out.state = test.initial;
  normalise(out.state.vectors);
  out.state.vectors.fop = 0;  // as differences() wants error pointers that it shall not compare
  out.state.vectors.fip = out.state.vectors.fdp = 0;
  out.state.rflags |= kResumeFlag;
  out.vector = 6;
  out.error = 0;
  out.cr2 = 0;
  out.memory = pattern();
  for (const Patch& patch : test.patches) {
    for (size_t i = 0; i < patch.length; ++i) {
      if (const int64_t at = image_offset(patch.linear + i); at >= 0) out.memory[size_t(at)] = patch.data[i];
    }
  }
}

class Oracle {
 public:
  explicit Oracle(const Options& options) : o_(options) {}
  int run();

 private:
  Result<> start();
  Result<> run_mode(Mode mode);
  Result<> run_case(const Case& test, Forms& forms);
  void run_natively(const Case& test, Outcome& out);
  void report(const Case& test, const std::string& text, const std::string& difference);
  void report_coverage(Mode mode, const Forms& forms) const;

  const Options& o_;
  std::unique_ptr<Native> native_;
  std::unique_ptr<engine::System> system_;
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<Outcome> host_ = std::make_unique<Outcome>(), engine_ = std::make_unique<Outcome>();
  std::map<unsigned, uint64_t> vectors_;
  uint64_t cases_ = 0, mismatches_ = 0, unrepeated_ = 0;
};

Result<> Oracle::start() {
  // LSL of Linux's per-CPU descriptor tells the processor's number: stay on one.
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(unsigned(std::max(0, ::sched_getcpu())), &set);
  (void)::sched_setaffinity(0, sizeof set, &set);
  native_ = TRY(Native::create());
  if (o_.native) return {};
  // The alarm of a native run must reach this thread: those made here do not take it.
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  ::pthread_sigmask(SIG_BLOCK, &alarm, nullptr);
  system_ = TRY(engine::soft::create_system({.second_tier = o_.tier == 2, .exact_flags = true, .state_trace = {}}));
  guest_ = TRY(Guest::create(*system_));
  ::pthread_sigmask(SIG_UNBLOCK, &alarm, nullptr);
  return {};
}

void Oracle::report(const Case& test, const std::string& text, const std::string& difference) {
  ++mismatches_;
  fmt::print("MISMATCH --mode {} --case {:#x}{}  # {:02x}: {}{}\n", bits(test.mode), test.seed,
             o_.instruction.empty() ? std::string() : fmt::format(" --insn {:02x}", fmt::join(o_.instruction, "")),
             fmt::join(test.bytes.begin(), test.bytes.begin() + test.length, ""), text, test.trap_flag ? " [TF]" : "");
  fmt::print("{}  native | {}:\n{}", describe(test), o_.native ? "native" : "engine", difference);
  std::fflush(stdout);
}

// The hang's alarm may also go off when the machine is busy: a true hang repeats.
void Oracle::run_natively(const Case& test, Outcome& out) {
  for (unsigned attempt = 0; attempt < 5; ++attempt) {
    native_->run(test, out);
    if (out.vector != kHang) return;
  }
}

Result<> Oracle::run_case(const Case& test, Forms& forms) {
  Instruction i;
  std::string text = "(not decodable)";
  uint64_t key = 0;
  if (!test.undecodable && decode(test.mode, {test.bytes.data(), test.length}, i)) {
    if (!o_.filter.empty() && i.mnemonic() != o_.filter) return {};
    if (!test.never_offered) key = form_key(test.mode, i);
  } else if (!o_.filter.empty()) {
    return {};
  }
  if (o_.verbose) {
    fmt::print("--mode {} --case {:#x}: ", bits(test.mode), test.seed);
    std::fflush(stdout);
  }
  if (test.never_offered) {
    if (o_.native) return {};
    invalid_opcode(test, *host_);
  } else {
    run_natively(test, *host_);
  }
  if (o_.native) {
    run_natively(test, *engine_);
  } else {
    TRY(guest_->run(test, *engine_));
  }
  ++cases_;
  ++vectors_[host_->vector];
  std::string difference = differences(test, *host_, *engine_);
  // AMD's processors lose x87 error pointers that no exception waits for when the kernel switches threads between the load of the state
  // and the instruction. What the host itself does not repeat is no mismatch; the summary counts such cases.
  for (unsigned attempt = 0; attempt < 3 && !difference.empty() && !test.never_offered && !o_.native; ++attempt) {
    run_natively(test, *host_);
    difference = differences(test, *host_, *engine_);
    if (difference.empty()) ++unrepeated_;
  }
  const uint64_t code_base = test.mode == Mode::Code16 ? kCode16Base : 0;
  if (!difference.empty() || o_.verbose) {
    if (!test.undecodable) text = disassemble(i, test.initial.rip + code_base);
    if (o_.verbose) {
      fmt::print("{:02x}: {} -> vector {}\n", fmt::join(test.bytes.begin(), test.bytes.begin() + test.length, ""), text, host_->vector);
    }
  }
  if (!difference.empty()) report(test, text, difference);
  if (key) forms.count(key, host_->vector == 3 || (host_->vector == 1 && test.trap_flag));
  return {};
}

Result<> Oracle::run_mode(Mode mode) {
  Forms forms(mode);
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::seconds(o_.seconds) / o_.modes.size();
  if (o_.case_seed) {
    const auto test = generate(mode, *o_.case_seed, forms, o_.instruction);
    if (!test) return fail(ErrorKind::Usage, "this case has no instruction");
    return run_case(*test, forms);
  }
  Random seeds(o_.seed * 3 + uint64_t(mode));
  const uint64_t before = cases_;
  for (uint64_t n = 0; mismatches_ < o_.max_mismatches; ++n) {
    if (o_.seconds ? (n % 64 == 0 && Clock::now() >= end) : n >= o_.count) break;
    const auto test = generate(mode, seeds.next(), forms, o_.instruction);
    if (test) TRY(run_case(*test, forms));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  fmt::print("{}-bit: {} cases in {:.1f} s\n", bits(mode), cases_ - before, seconds);
  if (o_.instruction.empty() && o_.filter.empty()) report_coverage(mode, forms);
  return {};
}

void Oracle::report_coverage(Mode mode, const Forms& forms) const {
  uint64_t run = 0, completed = 0, excluded = 0;
  for (const Form& form : forms.tested()) {
    run += form.runs != 0;
    completed += form.completions != 0;
  }
  for (const auto& [why, count] : forms.excluded()) excluded += count;
  fmt::print("{}-bit: {} of {} forms run, {} of them to their end; {} forms of the decoder are not tested\n", bits(mode), run,
             forms.tested().size(), completed, excluded);
  if (o_.list_excluded) {
    for (const auto& [why, count] : forms.excluded()) fmt::print("  {:6} {}\n", count, why);
  }
  if (!o_.list_uncovered) return;
  for (const Form& form : forms.tested()) {
    if (!form.runs || !form.completions) {
      fmt::print("  {}: {:02x}: {}\n", form.runs ? "always faulted" : "not run",
                 fmt::join(form.bytes.begin(), form.bytes.begin() + form.length, ""), form.text);
    }
  }
}

int Oracle::run() {
  if (const auto started = start(); !started) {
    fmt::print(stderr, "oracle: {}\n", started.error().message);
    return kExitUnsupported;
  }
  for (const Mode mode : o_.modes) {
    if (const auto done = run_mode(mode); !done) {
      fmt::print(stderr, "oracle: {}\n", done.error().message);
      return done.error().kind == ErrorKind::Usage ? kExitUsage : kExitMismatch;
    }
  }
  fmt::print("{} cases, {} mismatches, {} that the host did not repeat; native ends by vector:", cases_, mismatches_, unrepeated_);
  for (const auto& [vector, count] : vectors_) fmt::print(" {}:{}", vector, count);
  fmt::print("\n");
  return mismatches_ ? kExitMismatch : 0;
}

}  // namespace
}  // namespace lodge::oracle

int main(int argc, char** argv) {
  const auto options = lodge::oracle::parse(argc, argv);
  if (!options) {
    std::fputs(lodge::oracle::kUsage, stderr);
    return lodge::oracle::kExitUsage;
  }
  return lodge::oracle::Oracle(*options).run();
}
