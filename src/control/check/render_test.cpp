#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "control/check/report.hpp"

namespace lodge::control {
namespace {

using testing::HasSubstr;

Report small_report() {
  Report report;
  report.sections.push_back({"Part", {{"a.good", Verdict::Good, "fine", ""}, {"a.bad", Verdict::Bad, "broken", "mend it"}}});
  report.choice = {"soft", "the other one is broken"};
  return report;
}

TEST(Render, TextShowsMarksAdviceAndChoice) {
  EXPECT_EQ(to_text(small_report()),
            "Part\n[  ok  ] fine\n[  NO  ] broken\n         -> mend it\n\n"
            "`--engine auto` takes soft, Lodge's own engine: the other one is broken.\n");
}

TEST(Render, TextSaysThatNoEngineWorks) {
  Report report = small_report();
  report.choice = {"", "nothing does"};
  EXPECT_THAT(to_text(report), HasSubstr("No engine works here: nothing does."));
}

TEST(Render, JsonHoldsChecksAndFacts) {
  host::Facts facts;
  facts.processor.svm = true;
  facts.kvm.answer.capabilities["IRQFD"] = 1;
  const auto document = nlohmann::json::parse(to_json(small_report(), facts, {false, "it hung", 12.5}));
  EXPECT_EQ(document["works"], true);
  EXPECT_EQ(document["engine"], "soft");
  EXPECT_EQ(document["sections"][0]["checks"][1]["id"], "a.bad");
  EXPECT_EQ(document["sections"][0]["checks"][1]["verdict"], "bad");
  EXPECT_EQ(document["facts"]["processor"]["svm"], true);
  EXPECT_EQ(document["facts"]["kvm_device"]["capabilities"]["IRQFD"], 1);
  EXPECT_EQ(document["facts"]["proof"]["reason"], "it hung");
}

TEST(Render, JsonOfTextThatIsNotUtf8IsStillJson) {
  host::Facts facts;
  facts.surroundings.machine = "bad \xff byte";
  const auto document = nlohmann::json::parse(to_json(small_report(), facts, {}));
  EXPECT_EQ(document["facts"]["machine"], "bad \xEF\xBF\xBD byte");
}

}  // namespace
}  // namespace lodge::control
