// The value hash: equal values hash alike whatever their layout, and what cannot be a key is refused.
#include "sabot/native/rows/hash.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

std::vector<uint64_t> Hashes(const arrow::Array& array) {
  std::vector<uint64_t> hashes(static_cast<size_t>(array.length()));
  EXPECT_TRUE(HashColumn(array, hashes.data()).ok());
  return hashes;
}

std::vector<uint64_t> Hashes(const std::shared_ptr<arrow::DataType>& type, const std::string& json) {
  return Hashes(*FromJson(type, json));
}

TEST(Hash, IsPinned) {
  // Published outputs of splitmix64 (seeds 0 and 1) and of XXH3-64 ("" and "abc").
  EXPECT_EQ(Hashes(arrow::int64(), "[0, 1, null]"),
            (std::vector<uint64_t>{0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, kNullHash}));
  EXPECT_EQ(Hashes(arrow::utf8(), R"(["", "abc"])"), (std::vector<uint64_t>{0x2D06800538D394C2, 0x78AF5F94892F3950}));
}

TEST(Hash, SliceHashesAsItsValues) {
  for (const auto& array : OneOfEach()) {
    EXPECT_EQ(Hashes(*Moved(array)), Hashes(*array)) << array->type()->ToString();
    EXPECT_EQ(Hashes(*array->Slice(2, 1)).front(), Hashes(*array)[2]) << array->type()->ToString();
    EXPECT_EQ(Hashes(*array)[1], kNullHash) << array->type()->ToString();
  }
}

TEST(Hash, EmptyArrayOfAnyTypeIsFine) {
  for (const auto& array : OneOfEach()) {
    EXPECT_TRUE(HashColumn(*arrow::MakeEmptyArray(array->type()).ValueOrDie(), nullptr).ok());
    EXPECT_TRUE(HashColumn(*array->Slice(4), nullptr).ok());
  }
}

TEST(Hash, WidthOfANumberDoesNotCount) {
  using namespace arrow;  // NOLINT: a table of type factories
  const auto expected = Hashes(int64(), "[0, 100, null]");
  for (const auto& type : {int8(), int16(), int32(), uint8(), uint16(), uint32(), uint64()}) {
    EXPECT_EQ(Hashes(type, "[0, 100, null]"), expected) << type->ToString();
  }
  EXPECT_EQ(Hashes(int8(), "[-1]"), Hashes(int64(), "[-1]"));
  EXPECT_EQ(Hashes(float32(), "[0.5, -3, null]"), Hashes(float64(), "[0.5, -3, null]"));
  EXPECT_EQ(Hashes(float16(), "[0.5, -3, null]"), Hashes(float64(), "[0.5, -3, null]"));
  for (const auto& type : {decimal32(9, 2), decimal64(18, 2), decimal256(76, 2)}) {
    EXPECT_EQ(Hashes(type, R"(["1.23", "-1.23", null])"), Hashes(decimal128(38, 2), R"(["1.23", "-1.23", null])"));
  }
  EXPECT_EQ(Hashes(decimal256(76, 0), R"(["18446744073709551615", "-9223372036854775809"])"),
            Hashes(decimal128(38, 0), R"(["18446744073709551615", "-9223372036854775809"])"));
}

TEST(Hash, ZerosAreOneValueAndSoAreNans) {
  arrow::DoubleBuilder builder;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  ASSERT_TRUE(builder.AppendValues({0.0, -0.0, nan, -nan, std::bit_cast<double>(0x7FF0000000000001)}).ok());
  const auto hashes = Hashes(*builder.Finish().ValueOrDie());
  EXPECT_EQ(hashes[0], hashes[1]);
  EXPECT_EQ(hashes[2], hashes[3]);
  EXPECT_EQ(hashes[2], hashes[4]);
  EXPECT_NE(hashes[0], hashes[2]);
  EXPECT_NE(Hashes(arrow::float64(), "[Inf]"), Hashes(arrow::float64(), "[-Inf]"));
}

TEST(Hash, EncodingOfBytesDoesNotCount) {
  using namespace arrow;  // NOLINT: a table of type factories
  const std::string json = R"(["", "abc", null, "a value of more than twelve bytes"])";
  for (const auto& type : {binary(), large_utf8(), large_binary(), utf8_view(), binary_view()}) {
    EXPECT_EQ(Hashes(type, json), Hashes(utf8(), json)) << type->ToString();
  }
  EXPECT_EQ(Hashes(fixed_size_binary(3), R"(["abc"])"), Hashes(utf8(), R"(["abc"])"));
}

TEST(Hash, DictionaryHashesByValue) {
  for (const auto& index : {arrow::int8(), arrow::uint16(), arrow::int32(), arrow::uint64()}) {
    const auto indices = FromJson(index, "[2, null, 0, 1, 2]");
    const auto dictionary = FromJson(arrow::utf8(), R"(["a", null, "b"])");
    const auto type = arrow::dictionary(index, arrow::utf8());
    const arrow::DictionaryArray array(type, indices, dictionary);
    EXPECT_EQ(Hashes(array), Hashes(arrow::utf8(), R"(["b", null, "a", null, "b"])"));
    EXPECT_EQ(Hashes(*array.Slice(2)), Hashes(arrow::utf8(), R"(["a", null, "b"])"));
  }
}

TEST(Hash, ListsHashAsWhatTheyHold) {
  using namespace arrow;  // NOLINT: a table of type factories
  const std::string json = "[[1, 2], null, [], [null, 2]]";
  const auto expected = Hashes(list(int32()), json);
  for (const auto& type : {large_list(int8()), list_view(int64()), large_list_view(uint16())}) {
    EXPECT_EQ(Hashes(type, json), expected) << type->ToString();
  }
  EXPECT_EQ(Hashes(fixed_size_list(int32(), 2), "[[1, 2]]").front(), expected.front());
  EXPECT_NE(Hashes(list(list(int32())), "[[[1], [2]]]"), Hashes(list(list(int32())), "[[[1, 2], []]]"));
}

TEST(Hash, KeysAreCombinedInOrder) {
  const auto batch = MakeBatch({{"a", FromJson(arrow::int32(), "[1, 2]")}, {"b", FromJson(arrow::int32(), "[2, 1]")}});
  std::vector<uint64_t> none(2, 7), a(2), ab(2), ba(2);
  ASSERT_TRUE(HashKeys(*batch, {}, none.data()).ok());
  ASSERT_TRUE(HashKeys(*batch, {0}, a.data()).ok());
  ASSERT_TRUE(HashKeys(*batch, {0, 1}, ab.data()).ok());
  ASSERT_TRUE(HashKeys(*batch, {1, 0}, ba.data()).ok());
  EXPECT_EQ(none, (std::vector<uint64_t>{0, 0}));
  EXPECT_EQ(a, Hashes(*batch->column(0)));
  EXPECT_EQ(ab[0], Mix(a[0], a[1]));
  EXPECT_NE(ab[0], ba[0]);
  EXPECT_EQ(ab[0], ba[1]);
  ExpectCode(HashKeys(*batch, {2}, a.data()), Code::kUsage, "out of range: there are 2 columns");
}

TEST(Hash, KeyThatCannotBeHashedIsNamed) {
  using namespace arrow;  // NOLINT: a table of type factories
  const auto bad = {float16(),
                    list(int8()),
                    struct_({field("a", int8())}),
                    map(utf8(), int8()),
                    list_view(int8()),
                    fixed_size_list(int8(), 1),
                    run_end_encoded(int32(), utf8()),
                    sparse_union({field("a", int8())}),
                    dictionary(int8(), list(int8()))};
  for (const auto& type : bad) {
    const auto status = CheckKeyType(*type, "price");
    ExpectCode(status, Code::kUnhashableKey, "Column 'price' has type " + type->ToString());
  }
  for (const auto& type : {null(), boolean(), utf8_view(), dictionary(int8(), utf8()), month_interval(), float32()}) {
    EXPECT_TRUE(CheckKeyType(*type, "price").ok()) << type->ToString();
  }
}

TEST(Hash, TypeWithoutAHashIsNamed) {
  for (const auto& type : {arrow::sparse_union({arrow::field("a", arrow::int8())}),
                           arrow::run_end_encoded(arrow::int32(), arrow::utf8())}) {
    const auto array = arrow::MakeEmptyArray(type).ValueOrDie();
    ExpectCode(HashColumn(*array, nullptr), Code::kUsage, type->ToString());
  }
}

TEST(Hash, PartitionsAreInRangeAndEvenForHashesThatDifferInFewBits) {
  EXPECT_EQ(PartitionOf(std::numeric_limits<uint64_t>::max(), 1), 0);
  EXPECT_LT(PartitionOf(12345, std::numeric_limits<int32_t>::max()), std::numeric_limits<int32_t>::max());
  for (const int shift : {0, 20, 48}) {
    std::map<int32_t, int> counts;
    for (uint64_t i = 0; i < 16'000; ++i) ++counts[PartitionOf(i << shift, 16)];
    ASSERT_EQ(counts.size(), 16u);
    for (const auto& [partition, count] : counts) EXPECT_NEAR(count, 1'000, 150) << partition << " at shift " << shift;
  }
}

TEST(Hash, BoundsOfAPartitionHaveItsHashesAndNoOthers) {
  for (const int32_t parts : {1, 2, 3, 7, 16, 1000, std::numeric_limits<int32_t>::max()}) {
    for (uint64_t i = 0; i < 1'000; ++i) {
      const int32_t partition = PartitionOf(i, parts);
      EXPECT_TRUE(PartitionBounds(partition, parts).Have(i));
      if (partition > 0) EXPECT_FALSE(PartitionBounds(partition - 1, parts).Have(i));
      if (partition + 1 < parts) EXPECT_FALSE(PartitionBounds(partition + 1, parts).Have(i));
    }
  }
  for (const int32_t parts : {3, 7, 1000}) {  // side by side, from the first of all to the last
    for (int32_t partition = 1; partition < parts; ++partition) {
      EXPECT_EQ(PartitionBounds(partition, parts).first, PartitionBounds(partition - 1, parts).last + 1);
    }
    EXPECT_EQ(PartitionBounds(0, parts).first, 0u);
    EXPECT_EQ(PartitionBounds(parts - 1, parts).last, std::numeric_limits<uint64_t>::max());
  }
}

TEST(Hash, ContentSumAddsWhatRowsAreBoundToOverBlocks) {
  arrow::Int64Builder keys;
  arrow::Int64Builder values;
  uint64_t expected = 0;
  uint64_t without_keys = 0;
  for (int64_t i = 0; i < 5'000; ++i) {
    ASSERT_TRUE(keys.Append(3 * i).ok() && values.Append(i).ok());
    if (i < 7) continue;
    expected += Bind(SplitMix(static_cast<uint64_t>(3 * i)), SplitMix(static_cast<uint64_t>(i)));
    without_keys += SplitMix(static_cast<uint64_t>(i));
  }
  const auto batch = MakeBatch({{"k", keys.Finish().ValueOrDie()}, {"v", values.Finish().ValueOrDie()}})->Slice(7);
  EXPECT_EQ(ContentSum(*batch, std::vector<int>{0}, 1).ValueOrDie(), expected);
  EXPECT_EQ(ContentSum(*batch, {}, 1).ValueOrDie(), without_keys);
  EXPECT_EQ(ContentSum(*batch->Slice(0, 0), std::vector<int>{0}, 1).ValueOrDie(), 0u);
  EXPECT_EQ(ContentSum(*MakeBatch({}), {}, 0).ValueOrDie(), 0u);
  ExpectCode(
      ContentSum(*MakeBatch({{"l", FromJson(arrow::list(arrow::int8()), "[[1]]")}}), std::vector<int>{0}, 0).status(),
      Code::kUnhashableKey, "cannot be keys");
}

TEST(Hash, ContentSumOfADictionaryIsThatOfItsValues) {
  const auto keys = FromJson(arrow::int64(), "[1, 2, 3]");
  const auto encoded = std::make_shared<arrow::DictionaryArray>(arrow::dictionary(arrow::int8(), arrow::utf8()),
                                                                FromJson(arrow::int8(), "[1, 0, 1]"),
                                                                FromJson(arrow::utf8(), R"(["a", "b"])"));
  const auto plain = FromJson(arrow::utf8(), R"(["b", "a", "b"])");
  const std::vector<int> key{0};
  EXPECT_EQ(ContentSum(*MakeBatch({{"k", keys}, {"v", encoded}}), key, 1).ValueOrDie(),
            ContentSum(*MakeBatch({{"k", keys}, {"v", plain}}), key, 1).ValueOrDie());
}

}  // namespace
}  // namespace sabot::rows
