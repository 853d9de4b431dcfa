#include "sabot/native/rows/hash.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <vector>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

constexpr int64_t kBlockRows = 1024;  // two blocks of hashes stay in the first-level cache

bool CanBeKey(const arrow::DataType& any_type) {
  using arrow::Type;
  const arrow::DataType& type = StorageOf(any_type);
  switch (type.id()) {
    case Type::DICTIONARY:
      return CanBeKey(*static_cast<const arrow::DictionaryType&>(type).value_type());
    case Type::HALF_FLOAT:
    case Type::RUN_END_ENCODED:
      return false;
    default:
      return !arrow::is_nested(type.id());
  }
}

}  // namespace

arrow::Status CheckKeyType(const arrow::DataType& type, const std::string& name) {
  if (CanBeKey(type)) return arrow::Status::OK();
  return MakeStatus(Code::kUnhashableKey, "Column '" + name + "' has type " + type.ToString() +
                                              ", whose values cannot be keys; use another column as key, or append one "
                                              "computed from it (a cast, a field of it, its length) and use that.");
}

arrow::Status HashColumn(const arrow::Array& array, uint64_t* out) {
  return HashSpan(arrow::ArraySpan(*array.data()), out);
}

arrow::Status HashKeys(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, uint64_t* out) {
  if (key_columns.empty()) {
    std::fill_n(out, batch.num_rows(), 0);
    return arrow::Status::OK();
  }
  std::vector<uint64_t> more(key_columns.size() > 1 ? static_cast<size_t>(batch.num_rows()) : 0);
  for (size_t k = 0; k < key_columns.size(); ++k) {
    const int column = key_columns[k];
    if (column < 0 || column >= batch.num_columns()) {
      return MakeStatus(Code::kUsage, "Key column number " + std::to_string(column) + " is out of range: there are " +
                                          std::to_string(batch.num_columns()) + " columns.");
    }
    ARROW_RETURN_NOT_OK(CheckKeyType(*batch.column(column)->type(), batch.column_name(column)));
    ARROW_RETURN_NOT_OK(HashColumn(*batch.column(column), k == 0 ? out : more.data()));
    if (k == 0) continue;
    for (int64_t i = 0; i < batch.num_rows(); ++i) out[i] = MixHashes(out[i], more[static_cast<size_t>(i)]);
  }
  return arrow::Status::OK();
}

int32_t PartitionOf(uint64_t key_hash, int32_t num_partitions) { return PartitionOfHash(key_hash, num_partitions); }

uint64_t Mix(uint64_t key_hash, uint64_t value_hash) { return MixHashes(key_hash, value_hash); }

arrow::Result<uint64_t> ContentSum(const uint64_t* key_hashes, const arrow::Array& column) {
  arrow::ArraySpan span(*column.data());
  const int64_t first = span.offset;
  const int64_t block_rows = HasDictionary(*column.type()) ? std::max<int64_t>(column.length(), 1) : kBlockRows;
  std::vector<uint64_t> hashes(static_cast<size_t>(std::min(block_rows, column.length())));
  uint64_t sum = 0;
  int64_t row = 0;
  do {
    const int64_t rows = std::min(block_rows, column.length() - row);
    span.SetSlice(first + row, rows);
    ARROW_RETURN_NOT_OK(HashSpan(span, hashes.data()));
    for (int64_t i = 0; i < rows; ++i) sum += MixHashes(key_hashes[row + i], hashes[static_cast<size_t>(i)]);
    row += rows;
  } while (row < column.length());
  return sum;
}

}  // namespace sabot::rows
