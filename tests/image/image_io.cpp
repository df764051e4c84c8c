// Random requests to an image, and what it must hold after them: for the tests that have other programs look on or that kill it.
//
//   image_io write IMAGE --seed N --count N [--model FILE] [--discard] [--depth N]
//       carries out the requests of the seed. Says "flushed K" when what the first K requests did is durable, and "begun K" before
//       request K may have reached the image. --model: a raw file of the image's size gets the same, request by request.
//   image_io verify IMAGE --seed N --flushed K --begun B
//       whether the image, which was all zeros or what --base FILE holds, holds what the first K requests wrote, wherever requests up to B
//       did not write something else. Exit code: 0 it does, 1 it does not.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "block/open.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::block {
namespace {

constexpr uint64_t kLongest = 300'000;  // bytes of a request

struct Options {
  std::string command, image, model, base;
  uint64_t seed = 1, count = 100, flushed = 0, begun = 0;
  bool discard = false;
};

// The requests of a seed, one after another: the same for an image of the same size and cluster.
class Script {
 public:
  Script(uint64_t seed, uint64_t size, uint64_t cluster, bool compression, bool discard)
      : random_(seed), size_(size), cluster_(cluster), compression_(compression), discard_(discard) {}

  struct Step {
    Request request;
    std::vector<std::byte> data;
  };
  Step next() {
    const uint64_t unit = std::array<uint64_t, 4>{1, 512, 4096, cluster_}[random_() % 4];
    uint64_t offset = random_() % size_ / unit * unit;
    uint64_t length = 1 + random_() % std::min(size_ - offset, 1 + random_() % std::min(4 * cluster_ + 20'000, kLongest));
    if (unit > 1 && length > unit) length = length / unit * unit;
    const unsigned kind = random_() % 16;
    Step step;
    if (kind == 15) {
      step.request.operation = Operation::Flush;
    } else if (kind >= 13 && (kind == 13 || !discard_)) {
      step.request = Request(Operation::WriteZeroes, offset, length);
      step.request.unmap = random_() % 2;
    } else if (kind == 14) {
      step.request = Request(Operation::Discard, offset, length);
    } else {
      if (kind == 12 && compression_) {
        offset = random_() % size_ / cluster_ * cluster_;
        length = std::min(cluster_, size_ - offset);
        step.request.compressed = true;
      }
      step.data.resize(length);
      const bool dense = random_() % 2;
      for (auto& byte : step.data) byte = static_cast<std::byte>(dense ? random_() : random_() % 4);
      step.request.operation = Operation::Write;
      step.request.offset = offset;
      step.request.length = length;
      step.request.fua = random_() % 16 == 0;
    }
    return step;
  }

 private:
  std::mt19937_64 random_;
  const uint64_t size_, cluster_;
  const bool compression_, discard_;
};

Task<Result<>> submit(Node& node, Script::Step& step) {
  step.request.buffers = step.data.empty() ? Buffers() : Buffers(step.data.data(), step.data.size());
  return node.submit(step.request);
}

Script script(const Options& options, Node& image) {
  const auto* qcow2 = dynamic_cast<qcow2::Image*>(&image);
  const bool compression = qcow2 && !qcow2->data_file();
  return {options.seed, image.size(), image.limits().optimal, compression, options.discard};
}

Task<Result<int>> write_all(IoContext& context, const Options& options) {
  CO_TRY_VALUE(image, open_image(context, options.image, {}));
  std::unique_ptr<Node> model;
  if (!options.model.empty()) {
    CO_TRY_VALUE(opened, open_image(context, options.model, {.format = Format::Raw}));
    model = std::move(opened);
  }
  Script steps = script(options, *image);
  for (uint64_t n = 1; n <= options.count; ++n) {
    Script::Step step = steps.next();
    fmt::print("begun {}\n", n);
    std::fflush(stdout);
    CO_TRY(submit(*image, step));
    if (step.request.operation == Operation::Flush) {
      fmt::print("flushed {}\n", n);
      std::fflush(stdout);
    }
    step.request.compressed = false;
    if (model) CO_TRY(submit(*model, step));
  }
  CO_TRY(image->close());
  if (model) CO_TRY(model->close());
  fmt::print("flushed {}\n", options.count);
  co_return 0;
}

Task<Result<int>> verify(IoContext& context, const Options& options) {
  CO_TRY_VALUE(image, open_image(context, options.image, {.read_only = true}));
  std::vector<std::byte> right(image->size()), there(image->size());
  std::vector<bool> uncertain(image->size());
  if (!options.base.empty()) {
    CO_TRY_VALUE(base, open_image(context, options.base, {.read_only = true}));
    CO_TRY(read(*base, 0, right.data(), std::min<uint64_t>(right.size(), base->size())));
  }
  Options same = options;
  Script steps = script(same, *image);
  for (uint64_t n = 1; n <= options.begun; ++n) {
    const Script::Step step = steps.next();
    const Request& request = step.request;
    const auto at = static_cast<ptrdiff_t>(request.offset), length = static_cast<ptrdiff_t>(request.length);
    // What a discarded range holds is not said.
    const bool unknown = n > options.flushed || request.operation == Operation::Discard;
    if (request.operation == Operation::Flush) continue;
    std::fill_n(uncertain.begin() + at, length, unknown);
    if (request.operation == Operation::Write)
      std::ranges::copy(step.data, right.begin() + at);
    else
      std::fill_n(right.begin() + at, length, std::byte{0});
  }
  CO_TRY(read(*image, 0, there.data(), there.size()));
  for (uint64_t n = 0; n < there.size(); ++n) {
    if (uncertain[n] || there[n] == right[n]) continue;
    fmt::print("byte {:#x} is {:#x}, should be {:#x}\n", n, static_cast<int>(there[n]), static_cast<int>(right[n]));
    co_return 1;
  }
  co_return 0;
}

}  // namespace
}  // namespace lodge::block

int main(int argc, char** argv) {
  using namespace lodge::block;
  CLI::App app("Random requests to an image.");
  Options options;
  app.add_option("command", options.command)->required()->check(CLI::IsMember({"write", "verify"}));
  app.add_option("image", options.image)->required();
  app.add_option("--seed", options.seed);
  app.add_option("--count", options.count);
  app.add_option("--model", options.model);
  app.add_option("--base", options.base);
  app.add_option("--flushed", options.flushed);
  app.add_option("--begun", options.begun);
  app.add_flag("--discard", options.discard);
  CLI11_PARSE(app, argc, argv);
  auto context = IoContext::create();
  if (!context) return 2;
  const auto done = (*context)->run(options.command == "write" ? write_all(**context, options) : verify(**context, options));
  if (done) return *done;
  fmt::print(stderr, "image_io: {}\n", done.error().message);
  return 2;
}
