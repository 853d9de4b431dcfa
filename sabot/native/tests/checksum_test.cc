// The chunk checksum: equal on both ends of an IPC stream, and never read beyond a buffer, whatever is in it.
#include "sabot/native/rows/checksum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "sabot/native/rows/xxh3.h"
#include "sabot/native/tests/rows_arrays.h"

namespace sabot::rows {
namespace {

uint64_t Checksum(const BatchPtr& batch) { return ChecksumBatch(*batch).ValueOrDie(); }

TEST(Checksum, SurvivesSlicingAndIpc) {
  for (const auto& array : OneOfEach()) {
    const auto whole = MakeBatch({{"x", Moved(array)}});
    for (int64_t start = 0; start <= 4; ++start) {
      for (int64_t length = 0; length <= 4 - start; ++length) {
        const auto part = whole->Slice(start, length);
        EXPECT_EQ(Checksum(IpcCopy(part)), Checksum(part)) << array->type()->ToString() << start << length;
      }
    }
    if (array->type_id() != arrow::Type::STRING_VIEW && array->type_id() != arrow::Type::LARGE_LIST_VIEW) {
      EXPECT_EQ(Checksum(whole), Checksum(MakeBatch({{"x", array}}))) << array->type()->ToString();
    }
  }
}

TEST(Checksum, LargeBitmapsAtAnyOffsetEqualAlignedOnes) {
  std::mt19937 random(1);
  arrow::BooleanBuilder builder;
  for (int i = 0; i < 100'000; ++i) {
    const auto value = random();
    ASSERT_TRUE((value % 5 == 0 ? builder.AppendNull() : builder.Append(value % 2 == 0)).ok());
  }
  const auto array = builder.Finish().ValueOrDie();
  for (const int64_t start : {1, 8, 13, 32'768, 65'537}) {
    const auto part = MakeBatch({{"x", array->Slice(start, 33'001)}});
    EXPECT_EQ(Checksum(IpcCopy(part)), Checksum(part)) << start;
  }
}

TEST(Checksum, RebasedOffsetsEqualThoseFromZero) {
  arrow::StringBuilder builder;
  for (int i = 0; i < 5'000; ++i) ASSERT_TRUE(builder.Append(std::string(static_cast<size_t>(i % 7), 'x')).ok());
  const auto part = MakeBatch({{"x", builder.Finish().ValueOrDie()->Slice(3, 4'500)}});
  EXPECT_EQ(Checksum(IpcCopy(part)), Checksum(part));
}

TEST(Checksum, RowsWithoutColumnsCount) {
  const auto none = arrow::schema(arrow::FieldVector{});
  EXPECT_NE(Checksum(arrow::RecordBatch::Make(none, 1, arrow::ArrayVector{})),
            Checksum(arrow::RecordBatch::Make(none, 2, arrow::ArrayVector{})));
}

TEST(Checksum, ListViewsMayOverlapAndLieInAnyOrder) {
  const auto values = FromJson(arrow::int32(), "[9, 1, 2, 3, 9]");
  const auto array = arrow::ListViewArray::FromArrays(*FromJson(arrow::int32(), "[2, 1, 5, 1]"),
                                                      *FromJson(arrow::int32(), "[2, 3, 0, 1]"), *values)
                         .ValueOrDie();
  for (const int64_t start : {0, 1, 2}) {
    const auto part = MakeBatch({{"x", array->Slice(start)}});
    EXPECT_EQ(Checksum(IpcCopy(part)), Checksum(part)) << start;
  }
}

std::shared_ptr<arrow::Buffer> Copy(const std::shared_ptr<arrow::Buffer>& buffer) {
  auto copy = arrow::AllocateBuffer(buffer->size()).ValueOrDie();
  std::memcpy(copy->mutable_data(), buffer->data(), static_cast<size_t>(buffer->size()));
  return copy;
}

/// `data` with one byte of each buffer that has any replaced by chance, at every depth.
std::shared_ptr<arrow::ArrayData> Damaged(const arrow::ArrayData& data, std::mt19937* random) {
  auto damaged = data.Copy();
  for (auto& buffer : damaged->buffers) {
    if (buffer == nullptr || buffer->size() == 0) continue;
    buffer = Copy(buffer);
    buffer->mutable_data()[(*random)() % static_cast<uint32_t>(buffer->size())] = static_cast<uint8_t>((*random)());
  }
  for (auto& child : damaged->child_data) child = Damaged(*child, random);
  return damaged;
}

TEST(Checksum, DamagedBatchIsReadWithinItsBuffers) {
  std::mt19937 random(7);
  for (const auto& array : OneOfEach()) {
    const auto sent = IpcCopy(MakeBatch({{"x", array}}))->column_data(0);
    int refused = 0;
    for (int round = 0; round < 200; ++round) {
      const auto damaged = arrow::MakeArray(Damaged(*sent, &random));
      const auto result = ChecksumBatch(*MakeBatch({{"x", damaged}}));
      if (result.ok()) continue;
      ++refused;
      ExpectCode(result.status(), Code::kIntegrity, "reach out of their buffer");
    }
    const auto id = array->type_id();
    if (id == arrow::Type::LIST || id == arrow::Type::STRING_VIEW || id == arrow::Type::LIST_VIEW) {
      EXPECT_GT(refused, 0) << array->type()->ToString();
    }
  }
}

TEST(Checksum, BufferShorterThanItsRowsIsRefused) {
  for (const auto& type :
       {arrow::int64(), arrow::boolean(), arrow::utf8(), arrow::utf8_view(), arrow::fixed_size_binary(3)}) {
    auto data = arrow::MakeEmptyArray(type).ValueOrDie()->data()->Copy();
    data->length = 1'000'000;
    data->null_count = 0;
    const auto result = ChecksumBatch(*MakeBatch({{"x", arrow::MakeArray(data)}}));
    ExpectCode(result.status(), Code::kIntegrity, type->ToString());
  }
}

TEST(Checksum, ChildShorterThanItsRowsIsRefused) {
  for (const auto& array : {FromJson(arrow::fixed_size_list(arrow::int8(), 2), "[[1, 2], [3, 4]]"),
                            FromJson(arrow::struct_({arrow::field("a", arrow::int8())}), R"([{"a": 1}, {"a": 2}])"),
                            FromJson(arrow::list(arrow::int8()), "[[1, 2], [3, 4]]")}) {
    auto data = array->data()->Copy();
    data->child_data[0] = data->child_data[0]->Slice(0, 1);
    const auto result = ChecksumBatch(*MakeBatch({{"x", arrow::MakeArray(data)}}));
    ExpectCode(result.status(), Code::kIntegrity, "The children of a column of type " + array->type()->ToString());
  }
}

TEST(Checksum, TypeWithoutAChecksumIsNamed) {
  const auto type = arrow::run_end_encoded(arrow::int32(), arrow::utf8());
  const auto batch = MakeBatch({{"x", arrow::MakeEmptyArray(type).ValueOrDie()}});
  ExpectCode(ChecksumBatch(*batch).status(), Code::kUsage, type->ToString());
}

TEST(Checksum, AllRegistersGiveTheSame) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "this machine has no AVX2";
  std::string bytes(5'000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i);
  const auto hash = [&](const Xxh3::Functions& functions, size_t size, size_t step) {
    alignas(64) std::byte state[576];
    functions.reset(state);
    for (size_t at = 0; at < size; at += step) functions.update(state, bytes.data() + at, std::min(step, size - at));
    return functions.digest(state);
  };
  for (const size_t size : {0, 1, 17, 240, 241, 1'024, 4'999}) {
    for (const size_t step : {1, 63, 256, 5'000}) {
      EXPECT_EQ(hash(kXxh3, size, step), hash(kXxh3Avx2, size, step)) << size << " bytes, " << step << " at a time";
    }
  }
#else
  GTEST_SKIP() << "there is one compilation of it";
#endif
}

}  // namespace
}  // namespace sabot::rows
