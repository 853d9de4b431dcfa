// The value hash: equal values hash alike, whatever their layout, on every agent and version. docs/protocol.md has the
// contract and its test vectors; a change of any value that is returned here is a change of the protocol.
#pragma once

#include <arrow/array.h>
#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sabot::rows {

/// kUnhashableKey naming `name` and the type unless values of `type` can be keys (nested, float16, union ... cannot).
arrow::Status CheckKeyType(const arrow::DataType& type, const std::string& name);

/// Writes one hash per row of `array` (any type but union and run-end encoded, nested included) to `out`.
/// The array must be valid as by ValidateFull.
arrow::Status HashColumn(const arrow::Array& array, uint64_t* out);

/// Writes the key hash of every row: the columns' hashes combined in order; 0 for every row if there are no columns.
arrow::Status HashKeys(const arrow::RecordBatch& batch, const std::vector<int>& key_columns, uint64_t* out);

/// The partition of a key hash: [0, num_partitions), where num_partitions is at least 1.
int32_t PartitionOf(uint64_t key_hash, int32_t num_partitions);

/// Combines two hashes, in this order.
uint64_t Mix(uint64_t first, uint64_t second);

/// Binds a value hash to its row's key hash; audits add these up, wrapping.
uint64_t Bind(uint64_t key_hash, uint64_t value_hash);

/// The wrapping sum over rows of Bind(key hash, hash of column number `column`); 0 for a batch without columns. The
/// columns must be there.
arrow::Result<uint64_t> ContentSum(const arrow::RecordBatch& batch, std::span<const int> key_columns, int column);

}  // namespace sabot::rows
