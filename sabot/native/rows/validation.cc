#include "sabot/native/rows/validation.h"

#include <arrow/array.h>
#include <arrow/util/bitmap_ops.h>
#include <arrow/util/utf8.h>

#include <cstdint>

#include "sabot/native/rows/hash_values.h"

namespace sabot::rows {
namespace {

using arrow::ArrayData;
using arrow::Type;

bool NullCountFits(const ArrayData& data) {
  const int64_t null_count = data.null_count.load();
  if (null_count == arrow::kUnknownNullCount) return true;
  if (data.buffers[0] == nullptr) return null_count == 0;
  const int64_t set = arrow::internal::CountSetBits(data.buffers[0]->data(), data.offset, data.length);
  return null_count == data.length - set;
}

template <typename Offset>
bool OffsetsRise(const uint8_t* offsets, int64_t length) {
  bool falls = false;  // without a way out, so that the loop has no branch
  for (int64_t i = 0; i < length; ++i) falls |= LoadAt<Offset>(offsets, i + 1) < LoadAt<Offset>(offsets, i);
  return !falls;
}

bool IsAscii(const uint8_t* bytes, int64_t size) {
  uint8_t all = 0;
  for (int64_t i = 0; i < size; ++i) all |= bytes[i];
  return all < 0x80;
}

/// Whether every value is UTF-8 because all of them together are, and each begins with a character.
template <typename Offset>
bool ValuesAreUtf8(const ArrayData& data, const uint8_t* offsets) {
  const auto first = static_cast<int64_t>(LoadAt<Offset>(offsets, 0));
  const int64_t size = static_cast<int64_t>(LoadAt<Offset>(offsets, data.length)) - first;
  if (size == 0) return true;
  const uint8_t* bytes = data.buffers[2]->data() + first;
  if (IsAscii(bytes, size)) return true;
  arrow::util::InitializeUTF8();
  if (!arrow::util::ValidateUTF8(bytes, size)) return false;
  bool splits = false;
  for (int64_t i = 1; i < data.length; ++i) {
    const int64_t at = static_cast<int64_t>(LoadAt<Offset>(offsets, i)) - first;
    splits |= at < size && (bytes[at] & 0xC0) == 0x80;
  }
  return !splits;
}

/// Whether a column of a valid layout is valid beyond doubt; it is binary or text.
template <typename Offset>
bool IsPlainlyValid(const ArrayData& data, bool is_text) {
  if (!NullCountFits(data)) return false;
  if (data.length == 0 || data.buffers[1] == nullptr) return data.length == 0;
  const uint8_t* offsets = data.buffers[1]->data() + data.offset * static_cast<int64_t>(sizeof(Offset));
  if (LoadAt<Offset>(offsets, 0) < 0 || !OffsetsRise<Offset>(offsets, data.length)) return false;
  const auto end = static_cast<int64_t>(LoadAt<Offset>(offsets, data.length));
  if (end > (data.buffers[2] == nullptr ? 0 : data.buffers[2]->size())) return false;
  return !is_text || ValuesAreUtf8<Offset>(data, offsets);
}

bool IsPlainlyValid(const ArrayData& data) {
  switch (data.type->id()) {
    case Type::BINARY:
    case Type::STRING:
      return IsPlainlyValid<int32_t>(data, data.type->id() == Type::STRING);
    case Type::LARGE_BINARY:
    case Type::LARGE_STRING:
      return IsPlainlyValid<int64_t>(data, data.type->id() == Type::LARGE_STRING);
    default:
      return false;
  }
}

}  // namespace

arrow::Status ValidateRows(const arrow::RecordBatch& batch) {
  ARROW_RETURN_NOT_OK(batch.Validate());  // the layout: lengths and sizes of buffers, on which all else relies
  for (int i = 0; i < batch.num_columns(); ++i) {
    if (IsPlainlyValid(*batch.column_data(i))) continue;
    const arrow::Status status = batch.column(i)->ValidateFull();
    if (!status.ok()) return status.WithMessage("In column ", i, ": ", status.message());
  }
  return arrow::Status::OK();
}

}  // namespace sabot::rows
