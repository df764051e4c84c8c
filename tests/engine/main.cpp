// The engine suite: the same guest code on either engine through the same calls.
//   engine_suite --engine kvm|soft|soft1 [--processor tcg] [GoogleTest's options]
// soft1: without the second tier.
// --processor tcg: the kernel's KVM runs on QEMU's emulated processor; what that does not carry out is skipped.
// Exit code 77: the kernel's KVM was asked for and does not run a guest here.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "engine/select/select.hpp"
#include "guest.hpp"

namespace lodge::engine::suite {

namespace {
std::unique_ptr<System> opened;
bool on_tcg = false;
constexpr int kSkipped = 77;
}  // namespace

System& system() { return *opened; }
bool processor_is_tcg() { return on_tcg; }

namespace {
int run_all(std::string_view engine, bool tcg) {
  on_tcg = tcg;
  const bool first_tier = engine == "soft1";
  auto result = select::open_system(first_tier ? "soft" : engine, {.second_tier = !first_tier, .state_trace = {}});
  if (!result) {
    const bool skip = engine == "kvm";  // the summary of ./test shows what follows SKIP
    fprintf(stderr, "%s%s\n", skip ? "SKIP: " : "engine_suite: ", result.error().message.c_str());
    return skip ? kSkipped : 1;
  }
  opened = std::move(*result);
  const int failed = RUN_ALL_TESTS();
  opened.reset();
  return failed;
}
}  // namespace

}  // namespace lodge::engine::suite

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  const bool tcg = argc == 5 && std::string_view(argv[3]) == "--processor" && std::string_view(argv[4]) == "tcg";
  if ((argc != 3 && !tcg) || std::string_view(argv[1]) != "--engine") {
    fprintf(stderr, "usage: engine_suite --engine kvm|soft|soft1 [--processor tcg] [--gtest_...]\n");
    return 2;
  }
  return lodge::engine::suite::run_all(argv[2], tcg);
}
