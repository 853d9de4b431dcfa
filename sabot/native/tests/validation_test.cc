#include "sabot/native/rows/validation.h"

#include <arrow/array.h>
#include <arrow/buffer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

std::shared_ptr<arrow::Buffer> CopyOf(const std::string& bytes) { return arrow::Buffer::FromString(bytes); }

/// Texts out of one, two, three and four byte characters, with what `random` then does to their bytes, offsets and
/// validity: mostly nothing, so that many are valid.
template <typename Offset>
std::shared_ptr<arrow::RecordBatch> MaybeBroken(const std::shared_ptr<arrow::DataType>& type, std::mt19937* random) {
  const auto below = [&](uint32_t bound) { return static_cast<int64_t>((*random)() % bound); };
  const std::vector<std::string> characters{"a", "z", "\xC3\xBC", "\xE2\x82\xAC", "\xF0\x9F\x9A\x80"};
  const bool ascii = below(3) == 0;
  const int64_t length = 1 + below(12);
  std::string bytes;
  std::vector<Offset> offsets{0};
  std::string validity(static_cast<size_t>(length + 7) / 8, '\xFF');
  int64_t nulls = 0;
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t k = below(5); k > 0; --k) bytes += characters[static_cast<size_t>(ascii ? below(2) : below(5))];
    offsets.push_back(static_cast<Offset>(bytes.size()));
    if (below(4) > 0) continue;
    validity[static_cast<size_t>(i / 8)] &= static_cast<char>(~(1 << (i % 8)));
    ++nulls;
  }
  if (below(3) == 0 && !bytes.empty()) bytes[static_cast<size_t>(below(static_cast<uint32_t>(bytes.size())))] ^= '\x80';
  if (below(4) == 0)
    offsets[static_cast<size_t>(below(static_cast<uint32_t>(length) + 1))] += static_cast<Offset>(below(5) - 2);
  if (below(8) == 0) ++nulls;
  const auto offset_bytes = std::string(reinterpret_cast<const char*>(offsets.data()), offsets.size() * sizeof(Offset));
  const bool with_validity = nulls > 0 || below(2) == 0;
  auto data = arrow::ArrayData::Make(
      type, length, {with_validity ? CopyOf(validity) : nullptr, CopyOf(offset_bytes), CopyOf(bytes)}, nulls);
  const int64_t start = below(static_cast<uint32_t>(length));
  if (below(3) == 0) data = data->Slice(start, length - start);
  return arrow::RecordBatch::Make(arrow::schema({arrow::field("x", type)}), data->length, {data});
}

template <typename Offset>
void ExpectArrowsVerdict(const std::shared_ptr<arrow::DataType>& type) {
  int valid = 0;
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    std::mt19937 random(seed);
    const auto batch = MaybeBroken<Offset>(type, &random);
    const bool is_valid = batch->ValidateFull().ok();
    ASSERT_EQ(ValidateRows(*batch).ok(), is_valid)
        << type->ToString() << ", seed " << seed << ": " << batch->ValidateFull().ToString();
    valid += is_valid;
  }
  EXPECT_GT(valid, 4'000);  // else the one verdict would be compared with itself
  EXPECT_LT(valid, 19'000);
}

TEST(Validation, TextsAreCalledValidWhereArrowCallsThemValid) {
  ExpectArrowsVerdict<int32_t>(arrow::utf8());
  ExpectArrowsVerdict<int64_t>(arrow::large_utf8());
}

TEST(Validation, BytesAreCalledValidWhereArrowCallsThemValid) {
  ExpectArrowsVerdict<int32_t>(arrow::binary());
  ExpectArrowsVerdict<int64_t>(arrow::large_binary());
}

TEST(Validation, OtherColumnsAreLookedAtInFull) {
  const auto indices = FromJson(arrow::int8(), "[0, 7]");
  const auto encoded = std::make_shared<arrow::DictionaryArray>(
      arrow::dictionary(arrow::int8(), arrow::utf8()), indices, FromJson(arrow::utf8(), R"(["the only one"])"));
  EXPECT_FALSE(ValidateRows(*MakeBatch({{"x", encoded}})).ok());
  EXPECT_TRUE(ValidateRows(*MakeBatch({{"x", indices}})).ok());
}

}  // namespace
}  // namespace sabot::rows
