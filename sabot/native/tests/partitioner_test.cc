// The partitioner: rows come out once, in order, cut as asked; what cannot be done is a typed error.
#include "sabot/native/rows/partitioner.h"

#include <arrow/extension/bool8.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/rows/hash.h"
#include "sabot/native/rows/hash_values.h"
#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

using Chunks = std::vector<ScatteredChunk>;

ScatterOptions Options(int32_t num_partitions, int32_t num_owners = 1) {
  ScatterOptions options;
  options.key_columns = {0};
  options.num_partitions = num_partitions;
  for (int32_t partition = 0; partition < num_partitions; ++partition) {
    options.owner_of.push_back(partition % num_owners);
  }
  return options;
}

ArrayPtr Numbers(int64_t count) {
  arrow::Int64Builder builder;
  for (int64_t i = 0; i < count; ++i) EXPECT_TRUE(builder.Append(i).ok());
  return builder.Finish().ValueOrDie();
}

int64_t RowsOf(const Chunks& chunks) {
  return std::accumulate(chunks.begin(), chunks.end(), int64_t{0},
                         [](int64_t rows, const auto& chunk) { return rows + chunk.batch->num_rows(); });
}

/// Repeats the four rows of `array` (slices of it) up to `rows`.
ArrayPtr Repeated(const ArrayPtr& array, int64_t rows) {
  arrow::ArrayVector pieces;
  for (int64_t i = 0; i < rows; i += 4) pieces.push_back(Moved(array));
  return arrow::Concatenate(pieces).ValueOrDie()->Slice(0, rows);
}

TEST(Partitioner, EveryTypeKeepsItsValues) {
  constexpr int64_t kRows = 103;
  for (const auto& array : OneOfEach()) {
    const auto values = Repeated(array, kRows);
    const auto batch = MakeBatch({{"id", Numbers(kRows)}, {"x", values}});
    auto options = Options(7, 3);
    options.sum_column = 1;
    options.chunk_bytes_max = 500;
    const auto chunks = Scatter({batch->Slice(0, 31), batch->Slice(31, 0), batch->Slice(31)}, options).ValueOrDie();
    EXPECT_EQ(RowsOf(chunks), kRows);
    for (const auto& chunk : chunks) {
      ASSERT_TRUE(chunk.batch->ValidateFull().ok()) << array->type()->ToString();
      const auto& ids = static_cast<const arrow::Int64Array&>(*chunk.batch->column(0));
      for (int64_t row = 0; row < ids.length(); ++row) {
        EXPECT_TRUE(chunk.batch->column(1)->RangeEquals(row, row + 1, ids.Value(row), *values))
            << array->type()->ToString() << " row " << ids.Value(row);
      }
    }
  }
}

TEST(Partitioner, ExtentsListWhatIsInAChunkAndRowsKeepTheirOrder) {
  constexpr int64_t kRows = 10'000;
  const auto batch = MakeBatch({{"id", Numbers(kRows)}});
  auto options = Options(16, 3);
  options.chunk_bytes_max = 4'096;
  const auto chunks = Scatter({batch->Slice(0, 5'000), batch->Slice(5'000)}, options).ValueOrDie();
  std::vector<int64_t> last(16, -1);
  uint64_t total = 0;
  for (const auto& chunk : chunks) {
    EXPECT_LE(chunk.batch->num_rows(), 512);
    const auto& ids = static_cast<const arrow::Int64Array&>(*chunk.batch->column(0));
    std::vector<uint64_t> hashes(static_cast<size_t>(ids.length()));
    ASSERT_TRUE(HashColumn(ids, hashes.data()).ok());
    int64_t row = 0;
    for (const Extent& extent : chunk.extents) {
      EXPECT_EQ(chunk.owner, options.owner_of[static_cast<size_t>(extent.partition)]);
      uint64_t sum = 0;
      for (int64_t end = row + extent.rows; row < end; ++row) {
        EXPECT_EQ(PartitionOf(hashes[static_cast<size_t>(row)], 16), extent.partition);
        EXPECT_GT(ids.Value(row), last[static_cast<size_t>(extent.partition)]);
        last[static_cast<size_t>(extent.partition)] = ids.Value(row);
        sum += Bind(hashes[static_cast<size_t>(row)], hashes[static_cast<size_t>(row)]);
      }
      EXPECT_EQ(sum, extent.content_sum);
      total += extent.content_sum;
    }
    EXPECT_EQ(row, chunk.batch->num_rows());
  }
  EXPECT_EQ(total, ContentSum(*batch, std::vector<int>{0}, 0).ValueOrDie());
}

TEST(Partitioner, ChecksumTakenByColumnsIsThatOfTheChunkAndOfThoseOwnersThatCompareIt) {
  std::vector<std::pair<std::string, ArrayPtr>> columns{{"k", FromJson(arrow::int64(), "[1, 2, 3, 4]")}};
  for (const ArrayPtr& column : OneOfEach()) columns.emplace_back(std::to_string(columns.size()), column);
  const auto batch = MakeBatch(std::move(columns));
  ScatterOptions options = Options(3);
  options.owner_of = {0, 1, 2};
  options.checked_owners = {false, true};
  int checked = 0;
  for (const ScatteredChunk& chunk : Scatter({batch, batch}, options).ValueOrDie()) {
    EXPECT_EQ(chunk.checksum.has_value(), chunk.owner == 1);
    if (chunk.owner == 1) EXPECT_EQ(*chunk.checksum, ChecksumBatch(*chunk.batch).ValueOrDie());
    checked += chunk.owner == 1 ? 1 : 0;
  }
  EXPECT_GT(checked, 0);
}

TEST(Partitioner, ManyMorePartitionsThanRows) {
  const auto chunks = Scatter({MakeBatch({{"id", Numbers(10)}})}, Options(100'000, 4)).ValueOrDie();
  EXPECT_EQ(RowsOf(chunks), 10);
  for (const auto& chunk : chunks) {
    for (const Extent& extent : chunk.extents) EXPECT_GT(extent.rows, 0);
  }
}

TEST(Partitioner, NoNullsMeansNoBitmap) {
  auto with_bitmap = FromJson(arrow::int32(), "[1, null, 3, 4]");
  const auto batch = MakeBatch({{"x", with_bitmap->Slice(2)}});
  const auto chunks = Scatter({batch}, Options(1)).ValueOrDie();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0].batch->column_data(0)->buffers[0], nullptr);
  EXPECT_EQ(chunks[0].batch->column_data(0)->null_count.load(), 0);
}

TEST(Partitioner, ViewsOfAChunkHaveOnlyTheirOwnBytesBehindThem) {
  arrow::StringViewBuilder builder;
  for (int i = 0; i < 1'000; ++i) ASSERT_TRUE(builder.Append("more than twelve bytes, " + std::to_string(i)).ok());
  const auto batch = MakeBatch({{"x", builder.Finish().ValueOrDie()}});
  auto options = Options(4);
  options.chunk_bytes_max = 2'000;
  for (const auto& chunk : Scatter({batch}, options).ValueOrDie()) {
    int64_t bytes = 0;
    const auto& views = static_cast<const arrow::StringViewArray&>(*chunk.batch->column(0));
    for (int64_t row = 0; row < views.length(); ++row) bytes += static_cast<int64_t>(views.GetView(row).size());
    int64_t held = 0;
    for (size_t i = 2; i < views.data()->buffers.size(); ++i) held += views.data()->buffers[i]->size();
    EXPECT_EQ(held, bytes);
  }
}

TEST(Partitioner, ExtensionKeepsItsType) {
  const auto flags =
      arrow::ExtensionType::WrapArray(arrow::extension::bool8(), FromJson(arrow::int8(), "[1, null, 0]"));
  const auto nested = arrow::ListArray::FromArrays(*FromJson(arrow::int32(), "[0, 1, 1, 3]"), *flags).ValueOrDie();
  const auto batch = MakeBatch({{"flag", flags}, {"flags", nested}});
  const auto chunks = Scatter({batch}, Options(1)).ValueOrDie();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(chunks[0].batch->Equals(*batch));
}

TEST(Partitioner, StringsBeyondTheirOffsetsAreALimitNotACrash) {
  // The same 64 MiB 33 times: more than 2 GiB in one scatter, without holding them.
  const auto bytes = std::string(64 << 20, 'x');
  arrow::StringBuilder builder;
  ASSERT_TRUE(builder.Append(bytes).ok());
  const auto strings = builder.Finish().ValueOrDie();
  const auto key = FromJson(arrow::int8(), "[1]");
  const std::vector<BatchPtr> flat(33, MakeBatch({{"id", key}, {"text", strings}}));
  ExpectCode(Scatter(flat, Options(2)).status(), Code::kLimit, "'text' of type string has more than 2147483647 bytes");

  const auto lists = arrow::ListArray::FromArrays(*FromJson(arrow::int32(), "[0, 1]"), *strings).ValueOrDie();
  const std::vector<BatchPtr> nested(33, MakeBatch({{"id", key}, {"texts", lists}}));
  auto options = Options(2);
  options.chunk_bytes_max = int64_t{1} << 40;
  ExpectCode(Scatter(nested, options).status(), Code::kLimit, "Column 'texts'");
}

TEST(Partitioner, RoundRobinNeedsNoKeysAndCountsFromTheFirstRow) {
  auto options = Options(3);
  options.key_columns = {};
  options.partitioning = Partitioning::kRoundRobin;
  options.first_row = 4;
  const auto chunks = Scatter({MakeBatch({{"id", Numbers(2)}}), MakeBatch({{"id", Numbers(3)}})}, options).ValueOrDie();
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_TRUE(chunks[0].batch->column(0)->Equals(*FromJson(arrow::int64(), "[0, 0, 1, 1, 2]")));
  ASSERT_EQ(chunks[0].extents.size(), 3u);
  EXPECT_EQ(chunks[0].extents[0].rows, 1);
  EXPECT_EQ(chunks[0].extents[0].content_sum, SplitMix(0));
}

TEST(Partitioner, NothingInGivesNothingOut) {
  EXPECT_TRUE(Scatter({}, Options(2)).ValueOrDie().empty());
  EXPECT_TRUE(Scatter({MakeBatch({{"id", Numbers(0)}})}, Options(2)).ValueOrDie().empty());
}

TEST(Partitioner, WrongOptionsAreRefused) {
  const auto batch = MakeBatch({{"id", Numbers(2)}});
  const auto refused = [&](auto change, const std::string& part) {
    auto options = Options(2);
    change(options);
    ExpectCode(Scatter({batch}, options).status(), Code::kUsage, part);
  };
  refused([](auto& options) { options.num_partitions = 0; }, "at least 1");
  refused([](auto& options) { options.owner_of.pop_back(); }, "owners for 1");
  refused([](auto& options) { options.owner_of[0] = -1; }, "negative");
  refused([](auto& options) { options.key_columns.clear(); }, "at least one key column");
  refused([](auto& options) { options.key_columns = {1}; }, "Key column number 1");
  refused([](auto& options) { options.sum_column = 1; }, "number 1, is out of range");
  refused([](auto& options) { options.chunk_bytes_max = 0; }, "at least 1 byte");
  refused([](auto& options) { options.first_row = -1; }, "the first row at least 0");
  const auto other = MakeBatch({{"id", FromJson(arrow::int32(), "[1]")}});
  ExpectCode(Scatter({batch, other}, Options(2)).status(), Code::kUsage, "Batch 1 has another schema");
}

TEST(Partitioner, TypesThatCannotBeScatteredAreNamedAtAnyDepth) {
  using namespace arrow;  // NOLINT: a table of type factories
  for (const auto& type :
       {dictionary(int8(), utf8()), list(dictionary(int8(), utf8())), sparse_union({field("a", int8())}),
        struct_({field("a", run_end_encoded(int32(), utf8()))})}) {
    const auto batch = MakeBatch({{"id", Numbers(0)}, {"odd", MakeEmptyArray(type).ValueOrDie()}});
    ExpectCode(Scatter({batch}, Options(2)).status(), Code::kUsage, "Column 'odd' holds");
  }
}

}  // namespace
}  // namespace sabot::rows
