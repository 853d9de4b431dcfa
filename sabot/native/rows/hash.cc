#include "sabot/native/rows/hash.h"

#include <arrow/type.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <vector>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/row_hasher.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

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

uint64_t Mix(uint64_t first, uint64_t second) { return MixHashes(first, second); }

uint64_t Bind(uint64_t key_hash, uint64_t value_hash) { return BindHashes(key_hash, value_hash); }

arrow::Result<uint64_t> ContentSum(const arrow::RecordBatch& batch, std::span<const int> key_columns, int column) {
  if (batch.num_columns() == 0) return 0;
  for (const int key : key_columns) {
    ARROW_RETURN_NOT_OK(CheckKeyType(*batch.column(key)->type(), batch.column_name(key)));
  }
  RowHasher hasher(batch, key_columns, column);
  const int64_t block_rows = std::min(hasher.block_rows(), batch.num_rows());
  std::vector<uint64_t> key_hashes(static_cast<size_t>(block_rows));
  uint64_t sum = 0;
  int64_t row = 0;
  do {  // also without rows: the types are checked
    const int64_t rows = std::min(block_rows, batch.num_rows() - row);
    ARROW_ASSIGN_OR_RAISE(const uint64_t added, hasher.Sum(row, rows, key_hashes.data()));
    sum += added;
    row += rows;
  } while (row < batch.num_rows());
  return sum;
}

}  // namespace sabot::rows
