// Sort keys as numbers and bytes that compare like the values they stand for.
#pragma once

#include <arrow/array/data.h>
#include <arrow/status.h>
#include <arrow/type.h>

#include <cstdint>
#include <string>

namespace sabot::rows {

/// How one column sorts. As in pyarrow, NaN stands between the values and the nulls, whatever the direction.
struct SortOrder {
  bool descending = false;
  bool nulls_first = false;
};

/// The key of a value of at most 64 bits: whether it is a null, NaN or a value, then the value.
using NumberKey = unsigned __int128;

/// kUsage naming `name` unless values of `type` have an order.
arrow::Status CheckSortType(const arrow::DataType& type, const std::string& name);

/// Whether a NumberKey can stand for any value of `type`.
bool IsNumberType(const arrow::DataType& type);

/// Writes one key per value; `values` is of a number type.
void WriteNumberKeys(const arrow::ArraySpan& values, SortOrder order, NumberKey* out);

/// Appends to each of `keys` the bytes of one value, so that keys of several columns are made column by column.
void AppendKeyBytes(const arrow::ArraySpan& values, SortOrder order, std::string* keys);

}  // namespace sabot::rows
