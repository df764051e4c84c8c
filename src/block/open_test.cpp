// Names, formats and chains, and what is said of those that are wrong.
#include "block/open.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <fstream>

#include "base/test_folder.hpp"
#include "block/qcow2/image.hpp"

namespace lodge::block {
namespace {

class Open : public testing::Test {
 protected:
  void SetUp() override {
    auto made = IoContext::create();
    ASSERT_TRUE(made) << made.error().message;
    context_ = std::move(*made);
  }
  std::string make(const std::string& name, qcow2::CreateOptions options) {
    if (!options.size) options.size = 1 << 20;
    auto file = File::create(*context_, folder_ / name, {});
    EXPECT_TRUE(file) << file.error().message;
    const auto created = context_->run(qcow2::create(**file, options));
    EXPECT_TRUE(created) << created.error().message;
    return folder_ / name;
  }
  std::string make_raw(const std::string& name, std::string_view contents) {
    std::ofstream(folder_ / name, std::ios::binary) << contents;
    return folder_ / name;
  }
  Result<std::unique_ptr<Node>> open(const std::string& path, ImageOptions options = {.read_only = true}) {
    return context_->run(open_image(*context_, path, std::move(options)));
  }
  std::string fault(const std::string& path, ImageOptions options = {.read_only = true}) {
    auto node = open(path, std::move(options));
    return node ? "none" : node.error().message;
  }
  std::string first_bytes(Node& node, uint64_t count) {
    std::string text(count, '?');
    EXPECT_TRUE(context_->run(read(node, 0, text.data(), count)));
    return text;
  }

  test::Folder folder_;
  std::unique_ptr<IoContext> context_;
};

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST_F(Open, ChainOfRelativeNames) {
  ASSERT_EQ(mkdir((folder_ / "below").c_str(), 0700), 0);
  make_raw("below/base.raw", std::string(4096, 'r'));
  make("below/middle", {.backing_file = "base.raw", .backing_format = "raw"});
  const std::string top = make("top", {.backing_file = "below/middle", .backing_format = "qcow2"});
  auto node = open(top);
  ASSERT_TRUE(node) << node.error().message;
  EXPECT_EQ(first_bytes(**node, 4), "rrrr");
  ASSERT_TRUE((*node)->backing());
  ASSERT_TRUE((*node)->backing()->backing());
  EXPECT_EQ((*node)->backing()->backing()->kind(), "raw");
  EXPECT_EQ((*node)->backing()->backing()->name(), folder_ / "below/base.raw");
  // Without the chain.
  auto alone = open(top, {.read_only = true, .backing = false});
  ASSERT_TRUE(alone);
  EXPECT_EQ(first_bytes(**alone, 1), std::string(1, '\0'));
}

TEST_F(Open, ChainThatComesBack) {
  make("a", {.backing_file = "b", .backing_format = "qcow2"});
  const std::string b = make("b", {.backing_file = "a", .backing_format = "qcow2"});
  EXPECT_TRUE(contains(fault(b), "the chain of backing files comes back to this image")) << fault(b);
  const std::string own = make("own", {.backing_file = "own", .backing_format = "qcow2"});
  EXPECT_TRUE(contains(fault(own), "comes back")) << fault(own);
  // Not "the image is in use", which it is by ourselves.
  EXPECT_TRUE(contains(fault(b, {.read_only = false}), "comes back")) << fault(b, {.read_only = false});
}

TEST_F(Open, BackingFileThatIsMissingOrOfAnotherFormat) {
  const std::string top = make("top", {.backing_file = "gone", .backing_format = "raw"});
  EXPECT_TRUE(contains(fault(top), "top: its backing file: ")) << fault(top);
  EXPECT_TRUE(contains(fault(top), "gone: there is no such file")) << fault(top);
  make_raw("gone", std::string(1000, 'x'));
  EXPECT_EQ(fault(top), "none");
  const std::string other = make("other", {.backing_file = "gone", .backing_format = "qcow2"});
  EXPECT_TRUE(contains(fault(other), "gone: is not a qcow2 image (it looks like a raw one)")) << fault(other);
  const std::string vendor = make("vendor", {.backing_file = "gone", .backing_format = "vmdk"});
  EXPECT_TRUE(contains(fault(vendor), "'vmdk' cannot be used yet")) << fault(vendor);
}

TEST_F(Open, BackingFileThatGrewOrShrank) {
  const std::string base = make_raw("base", std::string(4096, 'b'));
  const std::string top = make("top", {.size = 4096, .backing_file = "base", .backing_format = "raw"});
  std::filesystem::resize_file(base, 1000);
  auto node = open(top);
  ASSERT_TRUE(node) << node.error().message;
  EXPECT_EQ(first_bytes(**node, 4096), std::string(1000, 'b') + std::string(3096, '\0'));
  std::filesystem::resize_file(base, 1 << 20);
  node = open(top);
  ASSERT_TRUE(node);
  EXPECT_EQ((*node)->size(), 4096u);
}

TEST_F(Open, WhatIsNoImage) {
  EXPECT_TRUE(contains(fault(folder_ / "none"), "there is no such file"));
  EXPECT_TRUE(contains(fault("rbd:pool/image"), "no protocol 'rbd'")) << fault("rbd:pool/image");
  EXPECT_TRUE(contains(fault(""), "empty"));
  EXPECT_TRUE(contains(fault(folder_ / ""), "is a folder")) << fault(folder_ / "");
  EXPECT_TRUE(contains(fault(make_raw("v", "KDMV....")), "looks like a vmdk image")) << fault(folder_ / "v");
  EXPECT_EQ(fault(folder_ / "v", {.format = Format::Raw, .read_only = true}), "none");
  EXPECT_TRUE(contains(fault(make_raw("short", "QFI\xfb")), "short")) << fault(folder_ / "short");
  EXPECT_EQ(fault(make_raw("empty", "")), "none");
  EXPECT_EQ(fault("file:" + folder_ / "empty"), "none");
}

// Otherwise a guest with a raw disk could write itself an overlay over any file of the host.
TEST_F(Open, RawImageThatNobodyCalledRawStaysRaw) {
  const std::string path = make_raw("disk", std::string(4096, '\0'));
  const std::array<char, 512> magic{'Q', 'F', 'I', '\xfb', 0, 0, 0, 3};
  {
    auto node = open(path, {});
    ASSERT_TRUE(node) << node.error().message;
    auto done = context_->run(write(**node, 0, magic.data(), magic.size()));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().os_errno, EPERM);
    EXPECT_TRUE(contains(done.error().message, "format=raw")) << done.error().message;
    // Not in two parts either; anything else is fine.
    EXPECT_TRUE(context_->run(write(**node, 0, magic.data(), 2)));
    EXPECT_FALSE(context_->run(write(**node, 2, magic.data() + 2, 6)));
    EXPECT_TRUE(context_->run(write(**node, 512, magic.data(), magic.size())));
    const std::string plain(1024, 'p');
    EXPECT_TRUE(context_->run(write(**node, 0, plain.data(), plain.size())));
  }
  auto node = open(path, {.format = Format::Raw});
  ASSERT_TRUE(node);
  EXPECT_TRUE(context_->run(write(**node, 0, magic.data(), magic.size())));
}

TEST_F(Open, SnapshotLeavesTheImageAsItIs) {
  const std::string path = make_raw("disk", std::string(100'000, 'o'));
  const ImageOptions options{.snapshot = true};
  {
    auto node = open(path, options);
    ASSERT_TRUE(node) << node.error().message;
    EXPECT_FALSE((*node)->read_only());
    EXPECT_TRUE(context_->run(write(**node, 0, "new", 3)));
    EXPECT_EQ(first_bytes(**node, 5), "newoo");
    // Others may look at the image and put their own overlays over it.
    EXPECT_TRUE(open(path, options));
    EXPECT_TRUE(contains(fault(path, {}), "in use"));
  }
  auto node = open(path);
  ASSERT_TRUE(node);
  EXPECT_EQ(first_bytes(**node, 5), "ooooo");
}

TEST_F(Open, DataFile) {
  make_raw("data", "");
  const std::string path = make("disk", {.data_file = "data"});
  {
    auto node = open(path, {});
    ASSERT_TRUE(node) << node.error().message;
    EXPECT_TRUE(context_->run(write(**node, 65536, "data", 4)));
    EXPECT_TRUE(context_->run((*node)->close()));
  }
  std::ifstream data(folder_ / "data", std::ios::binary);
  data.seekg(65536);
  std::string text(4, '?');
  data.read(text.data(), 4);
  EXPECT_EQ(text, "data");
  std::filesystem::remove(folder_ / "data");
  EXPECT_TRUE(contains(fault(path), "its data file: ")) << fault(path);
}

TEST_F(Open, ImageInUse) {
  const std::string path = make("disk", {});
  auto first = open(path, {});
  ASSERT_TRUE(first);
  EXPECT_TRUE(contains(fault(path, {}), "in use"));
  EXPECT_TRUE(contains(fault(path), "in use"));
  EXPECT_EQ(fault(path, {.read_only = true, .force_share = true}), "none");
  // An image below another that is open is not written.
  first->reset();
  const std::string top = make("top", {.backing_file = "disk", .backing_format = "qcow2"});
  auto over = open(top, {});
  ASSERT_TRUE(over);
  EXPECT_TRUE(contains(fault(path, {}), "in use"));
  EXPECT_EQ(fault(path), "none");
}

TEST(Names, Relative) {
  EXPECT_EQ(resolve_name("/a/b/top", "base"), "/a/b/base");
  EXPECT_EQ(resolve_name("top", "base"), "base");
  EXPECT_EQ(resolve_name("file:a/top", "base"), "a/base");
  EXPECT_EQ(resolve_name("a/top", "/base"), "/base");
  EXPECT_EQ(resolve_name("a/top", "nbd://host/x"), "nbd://host/x");
  EXPECT_EQ(resolve_name("nbd://host/x", "base"), "base");
}

}  // namespace
}  // namespace lodge::block
