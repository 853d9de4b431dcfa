// The copy of what came: its checksum is taken on the way, whatever the type and wherever it lay.
#include "sabot/native/spill/row_block.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "sabot/native/tests/rows_arrays.h"

namespace sabot::spill {
namespace {

using rows::BatchPtr;
using rows::ExpectCode;
using rows::MakeBatch;

/// As gRPC's memory is: not aligned for what is in it.
BatchPtr Unaligned(const std::vector<uint8_t>& bytes) {
  const auto count = static_cast<int64_t>(bytes.size() / 8 - 1);
  const auto buffer = std::make_shared<arrow::Buffer>(bytes.data() + 1, static_cast<int64_t>(bytes.size()) - 1);
  return MakeBatch({{"x", arrow::MakeArray(arrow::ArrayData::Make(arrow::int64(), count, {nullptr, buffer}, 0))}});
}

TEST(RowBlock, ChecksumTakenWithTheCopyIsThatOfTheCopyAndOfWhatCame) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1 << 30});
  std::vector<uint8_t> bytes(800'023);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>((i * 7) >> 3);
  std::vector<BatchPtr> came{Unaligned(bytes), Unaligned(bytes)->Slice(7)};
  for (const auto& array : rows::OneOfEach()) {
    const BatchPtr whole = MakeBatch({{"x", array}, {"y", array}});
    came.insert(came.end(), {whole, whole->Slice(1, 3), whole->Slice(2, 0)});
  }
  for (const BatchPtr& batch : came) {
    rows::BatchChecksum checksum(batch->num_rows());
    const auto copy = CopyBuffers(*batch, {.ledger = ledger}, &checksum);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_TRUE((*copy)->Equals(*batch)) << batch->schema()->ToString();
    EXPECT_EQ(checksum.Digest(), rows::ChecksumBatch(**copy).ValueOrDie());
    EXPECT_EQ(checksum.Digest(), rows::ChecksumBatch(*batch).ValueOrDie());
    EXPECT_TRUE(CopyBuffers(*batch, {.ledger = ledger}).ValueOrDie()->Equals(*batch));
    EXPECT_TRUE(CopyRows(*batch, {.ledger = ledger}).ValueOrDie()->Equals(*batch));
  }
}

TEST(RowBlock, BufferMayHaveAnyNumberOfBytesBehindItsValues) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1 << 30});
  const std::shared_ptr<arrow::Buffer> long_one = arrow::AllocateBuffer(100'000).ValueOrDie();
  std::memset(long_one->mutable_data(), 7, 100'000);
  for (const int64_t rows : {1, 3, 1001, 10'001}) {
    const BatchPtr batch =
        MakeBatch({{"x", arrow::MakeArray(arrow::ArrayData::Make(arrow::int32(), rows, {nullptr, long_one}, 0))}});
    rows::BatchChecksum checksum(rows);
    const auto copy = CopyBuffers(*batch, {.ledger = ledger}, &checksum);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_TRUE((*copy)->Equals(*batch));
    EXPECT_EQ(checksum.Digest(), rows::ChecksumBatch(*batch).ValueOrDie());
  }
}

TEST(RowBlock, ColumnThatReachesOutOfItsBufferIsRefusedByItsChecksum) {
  const std::shared_ptr<arrow::Buffer> short_by_one = arrow::AllocateBuffer(7992).ValueOrDie();
  const auto batch =
      MakeBatch({{"x", arrow::MakeArray(arrow::ArrayData::Make(arrow::int64(), 1000, {nullptr, short_by_one}, 0))}});
  rows::BatchChecksum checksum(batch->num_rows());
  ExpectCode(CopyBuffers(*batch, {}, &checksum).status(), Code::kIntegrity, "reach out of their buffer");
}

}  // namespace
}  // namespace sabot::spill
