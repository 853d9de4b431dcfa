// The credit that a chunk takes covers everything that its receiver keeps of it.
#include "sabot/native/shuffle/chunk_bytes.h"

#include <arrow/array.h>
#include <gtest/gtest.h>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::shuffle {
namespace {

TEST(ChunkBytes, DictionaryOfALongTextIsCountedOnBothSides) {
  const std::string text(100'000, 'x');
  const auto words = rows::FromJson(arrow::utf8(), "[\"" + text + "\"]");
  const auto codes = rows::FromJson(arrow::int8(), "[0, 0]");
  const auto coded = arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int8(), arrow::utf8()), codes, words);
  const auto nested = arrow::StructArray::Make({*coded}, std::vector<std::string>{"inner"}).ValueOrDie();
  for (const rows::ArrayPtr& column : {*coded, rows::ArrayPtr(nested)}) {
    const auto batch = rows::MakeBatch({{"word", column}});
    EXPECT_GT(ReceivedBytes(*batch), 100'000);
    EXPECT_GE(BytesToReceive(*batch).ValueOrDie(), ReceivedBytes(*batch));
    EXPECT_LT(BytesToReceive(*batch).ValueOrDie(), 110'000) << "counted once";
  }
}

}  // namespace
}  // namespace sabot::shuffle
