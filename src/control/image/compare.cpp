#include <algorithm>
#include <cstring>

#include "control/image/command.hpp"
#include "control/image/interrupt.hpp"
#include "control/image/progress.hpp"

namespace lodge::control::image {

namespace {

constexpr int kSame = 0, kDifferent = 1;
constexpr uint64_t kChunk = 2 << 20;

struct Compare {
  std::string first, second, second_format;
  Source source;
  bool quiet = false, percent = false, strict = false, as_qemu_img = false;

  // What an image has at an offset; zeros behind its end.
  static Task<Result<block::Extent>> at(Node& image, uint64_t offset, uint64_t length) {
    if (offset >= image.size()) co_return block::Extent{.length = length, .zero = true};
    co_return co_await image.map(offset, std::min(length, image.size() - offset));
  }
  static Task<Result<>> get(Node& image, const block::Extent& extent, uint64_t offset, std::byte* to, uint64_t length) {
    if (!extent.zero && (extent.present || extent.data)) co_return co_await read(image, offset, to, length);
    std::memset(to, 0, length);
    co_return Result<>{};
  }

  Task<Result<int>> run(IoContext& context) const {
    auto options = source.options(true);
    if (!options) co_return std::unexpected(options.error());
    CO_TRY_VALUE(a, open_image(context, first, *options));
    const auto format = parse_optional_format(second_format);
    if (!format) co_return std::unexpected(format.error());
    options->format = *format;
    CO_TRY_VALUE(b, open_image(context, second, *options));
    const auto tell = [&](const std::string& text) {
      if (!quiet) say(text);
    };
    if (a->size() != b->size()) {
      if (strict) {
        tell("Strict mode: Image size mismatch!");
        co_return kDifferent;
      }
      if (!quiet) warn("Warning: Image size mismatch!");
    }
    const uint64_t size = std::max(a->size(), b->size());
    Progress progress(percent, quiet, as_qemu_img);
    std::vector<std::byte> of_a(kChunk), of_b(kChunk);
    for (uint64_t offset = 0; offset < size;) {
      progress.show(offset, size);
      if (auto stop = interrupted(); !stop) co_return std::unexpected(stop.error());
      CO_TRY_VALUE(in_a, at(*a, offset, size - offset));
      CO_TRY_VALUE(in_b, at(*b, offset, size - offset));
      uint64_t length = std::min(in_a.length, in_b.length);
      const auto nothing = [](const block::Extent& extent) { return extent.zero || (!extent.present && !extent.data); };
      if (strict && in_a.present != in_b.present) {
        tell(fmt::format("Strict mode: Offset {} allocation mismatch!", offset));
        co_return kDifferent;
      }
      if (!nothing(in_a) || !nothing(in_b)) {
        length = std::min(length, kChunk);
        CO_TRY(get(*a, in_a, offset, of_a.data(), length));
        CO_TRY(get(*b, in_b, offset, of_b.data(), length));
        if (std::memcmp(of_a.data(), of_b.data(), length) != 0) {
          const auto where = std::mismatch(of_a.begin(), of_a.begin() + static_cast<ptrdiff_t>(length), of_b.begin()).first - of_a.begin();
          tell(fmt::format("Content mismatch at offset {}!", offset + static_cast<uint64_t>(where)));
          co_return kDifferent;
        }
      }
      offset += length;
    }
    tell("Images are identical.");
    co_return kSame;
  }
};

}  // namespace

void add_compare(CLI::App& app, Chosen& chosen) {
  auto state = std::make_shared<Compare>();
  state->as_qemu_img = chosen.as_qemu_img;
  CLI::App* const command = app.add_subcommand("compare",
                                               "Tells whether two images hold the same. Exit code: 0 they do, 1 they do not, 2 or "
                                               "more could not be compared.");
  command->add_option("first", state->first, "an image")->required();
  command->add_option("second", state->second, "another one")->required();
  state->source.add_format(*command);
  command->add_option("-F,--second-format", state->second_format, "the second one's format")->type_name("FORMAT");
  state->source.add_cache(*command, "-T,--cache");
  state->source.add_force_share(*command);
  command->add_flag("-s,--strict", state->strict, "sizes and what is allocated must be the same, too");
  command->add_flag("-p,--progress", state->percent, "say how far it is in a form for scripts");
  add_quiet(*command, state->quiet);
  command->callback([state, &chosen] {
    chosen.error_code = 2;  // 1 is an answer
    chosen.run = [state](IoContext& context) { return state->run(context); };
  });
}

}  // namespace lodge::control::image
