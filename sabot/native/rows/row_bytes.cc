#include "sabot/native/rows/row_bytes.h"

#include <arrow/array.h>
#include <arrow/type_traits.h>
#include <arrow/util/bit_util.h>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"

namespace sabot::rows {
namespace {

using arrow::ArrayData;
using arrow::Type;

int64_t BytesOf(const ArrayData& data, int64_t first, int64_t rows);

/// -1 where values differ in length.
int64_t FixedBytes(const arrow::DataType& type) {
  const arrow::DataType& storage = StorageOf(type);
  if (storage.id() == Type::NA) return 0;
  if (storage.id() == Type::BOOL) return 1;
  return arrow::is_fixed_width(storage.id()) ? storage.byte_width() : -1;
}

template <typename Offset>
Offset OffsetAt(const ArrayData& data, int64_t place) {
  return LoadAt<Offset>(data.buffers[1]->data(), place);
}

bool IsValid(const ArrayData& data, int64_t place) {
  return data.buffers[0] == nullptr || arrow::bit_util::GetBit(data.buffers[0]->data(), place);
}

int64_t BytesOfViews(const ArrayData& data, int64_t first, int64_t rows) {
  int64_t bytes = rows * arrow::BinaryViewType::kSize;
  for (int64_t place = first; place < first + rows; ++place) {
    const auto view = LoadAt<arrow::BinaryViewType::c_type>(data.buffers[1]->data(), place);
    if (IsValid(data, place) && !view.is_inline()) bytes += view.size();
  }
  return bytes;
}

int64_t BytesOfChild(const ArrayData& data, size_t child, int64_t first, int64_t rows) {
  const ArrayData& values = *data.child_data[child];
  return BytesOf(values, values.offset + first, rows);
}

template <typename Offset>
int64_t BytesOfLists(const ArrayData& data, int64_t first, int64_t rows) {
  const int64_t start = OffsetAt<Offset>(data, first);
  const int64_t values = OffsetAt<Offset>(data, first + rows) - start;
  return rows * static_cast<int64_t>(sizeof(Offset)) + BytesOfChild(data, 0, start, values);
}

template <typename Offset>
int64_t BytesOfListViews(const ArrayData& data, int64_t first, int64_t rows) {
  int64_t bytes = rows * 2 * static_cast<int64_t>(sizeof(Offset));
  for (int64_t place = first; place < first + rows; ++place) {
    if (!IsValid(data, place)) continue;
    bytes += BytesOfChild(data, 0, OffsetAt<Offset>(data, place), LoadAt<Offset>(data.buffers[2]->data(), place));
  }
  return bytes;
}

template <typename Offset>
int64_t BytesOfTexts(const ArrayData& data, int64_t first, int64_t rows) {
  return rows * static_cast<int64_t>(sizeof(Offset)) + OffsetAt<Offset>(data, first + rows) -
         OffsetAt<Offset>(data, first);
}

/// Of `rows` values from place `first` in the buffers, the array's own offset included.
int64_t BytesOf(const ArrayData& data, int64_t first, int64_t rows) {
  if (rows == 0) return 0;  // there may be no buffers
  const arrow::DataType& type = StorageOf(*data.type);
  if (const int64_t fixed = FixedBytes(type); fixed >= 0) return rows * fixed;
  switch (type.id()) {
    case Type::STRING:
    case Type::BINARY:
      return BytesOfTexts<int32_t>(data, first, rows);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
      return BytesOfTexts<int64_t>(data, first, rows);
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      return BytesOfViews(data, first, rows);
    case Type::LIST:
    case Type::MAP:
      return BytesOfLists<int32_t>(data, first, rows);
    case Type::LARGE_LIST:
      return BytesOfLists<int64_t>(data, first, rows);
    case Type::LIST_VIEW:
      return BytesOfListViews<int32_t>(data, first, rows);
    case Type::LARGE_LIST_VIEW:
      return BytesOfListViews<int64_t>(data, first, rows);
    case Type::FIXED_SIZE_LIST: {
      const int64_t size = static_cast<const arrow::FixedSizeListType&>(type).list_size();
      return BytesOfChild(data, 0, first * size, rows * size);
    }
    case Type::STRUCT: {
      int64_t bytes = 0;
      for (size_t child = 0; child < data.child_data.size(); ++child) bytes += BytesOfChild(data, child, first, rows);
      return bytes;
    }
    default:
      return 0;  // unions and run ends are not shuffled
  }
}

}  // namespace

RowBytes::RowBytes(const arrow::RecordBatch& batch) {
  for (int column = 0; column < batch.num_columns(); ++column) {
    const ArrayData& data = *batch.column_data(column);
    const int64_t fixed = FixedBytes(*data.type);
    fixed_ += fixed < 0 ? 0 : fixed;
    if (fixed < 0) varying_.push_back(&data);
  }
}

int64_t RowBytes::Of(int64_t start, int64_t rows) const {
  int64_t bytes = rows * fixed_;
  for (const ArrayData* data : varying_) bytes += BytesOf(*data, data->offset + start, rows);
  return bytes;
}

int64_t BytesOfRows(const arrow::RecordBatch& batch) { return RowBytes(batch).Of(0, batch.num_rows()); }

}  // namespace sabot::rows
