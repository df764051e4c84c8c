#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

#include "base/size.hpp"
#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"

namespace lodge::control::image {

namespace {

using Clock = std::chrono::steady_clock;
using block::Operation;
using block::Request;

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};

struct Bench {
  std::string path, size = "4k", step, offset = "0", io = "auto";
  Source source;
  uint64_t count = 75000;
  unsigned depth = 64, flush_interval = 0, pattern = 0;
  bool writes = false, quiet = false, random = false, no_drain = false, native = false;

  // One of the requests that are in flight at all times.
  struct State {
    Node& image;
    uint64_t bytes, step, next, begun = 0, flushes = 0;
    std::mt19937_64 generator{1};
    std::vector<double> microseconds{};
  };

  Task<Result<>> work(State& state) const {
    const std::unique_ptr<std::byte, FreeMemory> memory(
        static_cast<std::byte*>(std::aligned_alloc(4096, (state.bytes + 4095) & ~uint64_t{4095})));
    std::fill_n(memory.get(), state.bytes, static_cast<std::byte>(pattern));
    const uint64_t places = (state.image.size() - state.bytes) / state.bytes + 1;
    while (state.begun < count) {
      if (auto stop = interrupted(); !stop) co_return stop;
      ++state.begun;
      uint64_t at = state.next;
      if (random) {
        at = state.generator() % places * state.bytes;
      } else {
        state.next += state.step;
        if (state.next + state.bytes > state.image.size()) state.next = 0;
      }
      const Request request(writes ? Operation::Write : Operation::Read, at, block::Buffers(memory.get(), state.bytes));
      const auto before = Clock::now();
      CO_TRY(state.image.submit(request));
      state.microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - before).count());
      if (flush_interval && state.begun / flush_interval > state.flushes) {
        state.flushes = state.begun / flush_interval;
        CO_TRY(flush(state.image));
      }
    }
    co_return Result<>{};
  }

  Task<Result<int>> run(IoContext& context) const {
    const auto bytes = parse_bytes(size), begin = parse_bytes(offset);
    if (!bytes) co_return fail(ErrorKind::Usage, "-s: {}", bytes.error().message);
    if (!begin) co_return fail(ErrorKind::Usage, "-o: {}", begin.error().message);
    const auto stride = step.empty() ? bytes : parse_bytes(step);
    if (!stride) co_return fail(ErrorKind::Usage, "-S: {}", stride.error().message);
    if (*bytes == 0 || *bytes > (1u << 30)) co_return fail(ErrorKind::Usage, "-s {}: 1 byte to 1G", size);
    if (depth < 1 || depth > 4096) co_return fail(ErrorKind::Usage, "-d {}: 1 to 4096", depth);
    if (pattern > 255) co_return fail(ErrorKind::Usage, "--pattern {}: a byte, 0 to 255", pattern);
    if (flush_interval && !writes) co_return fail(ErrorKind::Usage, "--flush-interval: only with -w");
    auto options = source.options(!writes);
    if (!options) co_return std::unexpected(options.error());
    CO_TRY_VALUE(image, open_image(context, path, *options));
    if (image->size() < *bytes || *begin + *bytes > image->size())
      co_return fail(ErrorKind::Usage, "{}: its {} bytes are too few for requests of {} at {}", path, image->size(), *bytes, *begin);
    if (!quiet)
      say(fmt::format("Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, {})", count, writes ? "write" : "read",
                      *bytes, depth, *begin, random ? std::string("at random places") : fmt::format("step size {}", *stride)));
    State state{*image, *bytes, *stride, *begin};
    state.microseconds.reserve(count);
    const auto start = Clock::now();
    block::TaskGroup group(depth);
    for (unsigned n = 0; n < depth; ++n) co_await group.add(work(state));
    CO_TRY(group.finish());
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (!quiet) {
      say(fmt::format("Run completed in {:.3f} seconds.", seconds));
      auto& times = state.microseconds;
      std::ranges::sort(times);
      if (!times.empty() && seconds > 0)
        say(fmt::format("{:.0f} requests/s, {}/s; latency: median {:.1f} us, 99 % {:.1f} us, worst {:.1f} us",
                        static_cast<double>(times.size()) / seconds,
                        format_bytes(static_cast<uint64_t>(static_cast<double>(times.size() * *bytes) / seconds)), times[times.size() / 2],
                        times[times.size() * 99 / 100], times.back()));
    }
    CO_TRY(image->close());
    co_return 0;
  }
};

}  // namespace

void add_bench(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Bench>();
  CLI::App* const command = app.add_subcommand("bench", "Measures how fast requests to an image are.");
  command->add_option("file", state->path, "the image; with -w its contents are lost")->required();
  state->source.add_format(*command);
  state->source.add_cache(*command);
  state->source.add_force_share(*command);
  command->add_option("-c,--count", state->count, "of requests")->capture_default_str();
  command->add_option("-d,--depth", state->depth, "requests in flight")->capture_default_str();
  command->add_option("-s,--size", state->size, "of a request")->capture_default_str();
  command->add_option("-S,--step", state->step, "from one request to the next (default: its size)");
  command->add_option("-o,--offset", state->offset, "of the first request")->capture_default_str();
  command->add_flag("-w,--write", state->writes, "write instead of reading");
  command->add_option("--pattern", state->pattern, "the byte that is written")->capture_default_str();
  command->add_option("--flush-interval", state->flush_interval, "a flush after so many writes");
  command->add_flag("--no-drain", state->no_drain, "as qemu-img has it: requests go on beside a flush, as they always do here");
  command->add_flag("-n,--native", state->native, "as qemu-img has it: io_uring is what is used anyway");
  command->add_option("-i,--aio", state->io, "as qemu-img has it: io_uring is what is used, or threads where it is not to be had");
  command->add_flag("--random", state->random, "at random places");
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] { chosen.run = [state](IoContext& context) { return state->run(context); }; });
}

}  // namespace lodge::control::image
