#include "machine/variable_store.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/test_folder.hpp"

namespace lodge::machine {
namespace {

class UefiVariables : public testing::Test {
 protected:
  const test::Folder folder;
  const std::string path = folder / "vars";
  const std::vector<uint8_t> fresh = std::vector<uint8_t>(8192, 0x11);
};

TEST_F(UefiVariables, AreMadeFromTheTemplateAndKept) {
  {
    const auto store = VariableStore::open(path, fresh);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_EQ((*store)->bytes()[8191], 0x11);
    (*store)->bytes()[4097] = 0x22;
    (*store)->bytes()[5] = 0x33;
    (*store)->save(4096, 4096);
  }
  const auto store = VariableStore::open(path, fresh);
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->bytes()[4097], 0x22);
  EXPECT_EQ((*store)->bytes()[5], 0x11) << "not saved";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1) << "nothing is left beside it";
}

TEST_F(UefiVariables, BelongToOneMachineAtATime) {
  const auto first = VariableStore::open(path, fresh);
  ASSERT_TRUE(first);
  const auto second = VariableStore::open(path, fresh);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::Usage);
  EXPECT_NE(second.error().message.find("another machine"), std::string::npos);
}

TEST_F(UefiVariables, OtherFilesAreLeftAlone) {
  std::ofstream(path) << "a letter";
  const auto store = VariableStore::open(path, fresh);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().kind, ErrorKind::Usage);
  EXPECT_EQ(std::filesystem::file_size(path), 8U);
  const auto nowhere = VariableStore::open(folder / "none/vars", fresh);
  ASSERT_FALSE(nowhere);
  EXPECT_NE(nowhere.error().kind, ErrorKind::Internal);
}

TEST_F(UefiVariables, NeedNoFile) {
  const auto store = VariableStore::open("", fresh);
  ASSERT_TRUE(store);
  (*store)->bytes()[0] = 1;
  (*store)->save(0, 1);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace lodge::machine
