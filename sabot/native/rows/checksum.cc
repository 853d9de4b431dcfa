#include "sabot/native/rows/checksum.h"

#include <arrow/type.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/bitmap_ops.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <type_traits>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/rows/xxh3.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArraySpan;
using arrow::BufferSpan;
using arrow::Status;
using arrow::Type;

constexpr int64_t kBlockBytes = 4096;
constexpr int64_t kPieceBytes = 32 << 10;
constexpr int64_t kLengthMax = int64_t{1} << 48;  // no array is longer, and byte counts of shorter ones do not overflow

Status OutOfBounds(const ArraySpan& array, const char* what) {
  return MakeStatus(Code::kIntegrity, std::string("The ") + what + " of a column of type " + array.type->ToString() +
                                          " reach out of their buffer.");
}

}  // namespace

/// Feeds a batch to one streaming XXH3 state, array by array; every read is checked against its buffer first.
class BatchChecksum::Stream {
 public:
  uint64_t Digest() const { return xxh3_.Digest(); }

  void AddNumber(int64_t number) { AddBytes(&number, sizeof(number)); }

  Status AddArray(const ArraySpan& array);
  void set_take(const Take* take) { take_ = take; }

 private:
  void AddBytes(const void* bytes, int64_t size) {
    if (size > 0) xxh3_.Update(bytes, static_cast<size_t>(size));
  }

  Status AddBitmap(const ArraySpan& array, const BufferSpan& bitmap, const char* what);
  Status AddFixedWidth(const ArraySpan& array, int64_t width);
  Status AddValues(const ArraySpan& array);
  Status AddViews(const ArraySpan& array);
  Status AddChild(const ArraySpan& array, int64_t first, int64_t count, size_t child = 0);

  template <typename Offset>
  arrow::Result<std::array<int64_t, 2>> AddOffsets(const ArraySpan& array);
  template <typename Offset>
  Status AddBinaries(const ArraySpan& array);
  template <typename Offset>
  Status AddLists(const ArraySpan& array);
  template <typename Offset>
  Status AddListViews(const ArraySpan& array);

  Xxh3 xxh3_;
  const Take* take_ = nullptr;  // of the values of one width that are added, if anybody
};

Status BatchChecksum::Stream::AddBitmap(const ArraySpan& array, const BufferSpan& bitmap, const char* what) {
  if (array.length == 0) return Status::OK();
  if (bitmap.data == nullptr || arrow::bit_util::BytesForBits(array.offset + array.length) > bitmap.size) {
    return OutOfBounds(array, what);
  }
  std::array<uint8_t, kBlockBytes> block;
  for (int64_t bit = 0; bit < array.length; bit += kBlockBytes * 8) {
    const int64_t bits = std::min(kBlockBytes * 8, array.length - bit);
    block[static_cast<size_t>((bits - 1) / 8)] = 0;  // bits beyond the last one are zero
    arrow::internal::CopyBitmap(bitmap.data, array.offset + bit, bits, block.data(), 0);
    if (bits % 8 != 0) block[static_cast<size_t>(bits / 8)] &= static_cast<uint8_t>((1 << (bits % 8)) - 1);
    AddBytes(block.data(), arrow::bit_util::BytesForBits(bits));
  }
  return Status::OK();
}

Status BatchChecksum::Stream::AddFixedWidth(const ArraySpan& array, int64_t width) {
  if (array.length == 0 || width == 0) return Status::OK();
  const BufferSpan& values = array.buffers[1];
  if (values.data == nullptr || array.offset + array.length > values.size / width) return OutOfBounds(array, "values");
  const uint8_t* bytes = values.data + array.offset * width;
  const int64_t size = array.length * width;
  if (take_ == nullptr) {
    AddBytes(bytes, size);
    return Status::OK();
  }
  for (int64_t at = 0; at < size; at += kPieceBytes) {
    const int64_t piece = std::min(kPieceBytes, size - at);
    AddBytes(bytes + at, piece);
    (*take_)(bytes + at, piece);
  }
  return Status::OK();
}

// Adds the offsets less the first one; returns where the values that they point to start and end.
template <typename Offset>
arrow::Result<std::array<int64_t, 2>> BatchChecksum::Stream::AddOffsets(const ArraySpan& array) {
  constexpr auto kWidth = static_cast<int64_t>(sizeof(Offset));
  if (array.length == 0) return std::array<int64_t, 2>{0, 0};
  const BufferSpan& buffer = array.buffers[1];
  if (buffer.data == nullptr || array.offset + array.length + 1 > buffer.size / kWidth) {
    return OutOfBounds(array, "offsets");
  }
  const uint8_t* offsets = buffer.data + array.offset * kWidth;
  const Offset first = LoadAt<Offset>(offsets, 0);
  const Offset last = LoadAt<Offset>(offsets, array.length);
  if (first < 0 || last < first) return OutOfBounds(array, "offsets");
  if (first == 0) {
    AddBytes(offsets, (array.length + 1) * kWidth);
  } else {
    std::array<Offset, kBlockBytes / sizeof(Offset)> block;
    for (int64_t i = 0; i <= array.length; i += static_cast<int64_t>(block.size())) {
      const int64_t count = std::min<int64_t>(static_cast<int64_t>(block.size()), array.length + 1 - i);
      for (int64_t k = 0; k < count; ++k) {
        // Unsigned, for offsets between the ends may be anything in a batch that nobody has validated.
        using Unsigned = std::make_unsigned_t<Offset>;
        block[static_cast<size_t>(k)] =
            static_cast<Offset>(static_cast<Unsigned>(LoadAt<Offset>(offsets, i + k)) - static_cast<Unsigned>(first));
      }
      AddBytes(block.data(), count * kWidth);
    }
  }
  return std::array<int64_t, 2>{first, last};
}

template <typename Offset>
Status BatchChecksum::Stream::AddBinaries(const ArraySpan& array) {
  ARROW_ASSIGN_OR_RAISE(const auto range, AddOffsets<Offset>(array));
  const auto [first, last] = range;
  if (first == last) return Status::OK();
  const BufferSpan& bytes = array.buffers[2];
  if (bytes.data == nullptr || last > bytes.size) return OutOfBounds(array, "values");
  AddBytes(bytes.data + first, last - first);
  return Status::OK();
}

Status BatchChecksum::Stream::AddChild(const ArraySpan& array, int64_t first, int64_t count, size_t child) {
  ArraySpan range = array.child_data[child];
  if (first < 0 || count < 0 || first > range.length || count > range.length - first) {
    return OutOfBounds(array, "children");
  }
  if (first != 0 || count != range.length) range.SetSlice(range.offset + first, count);
  return AddArray(range);
}

template <typename Offset>
Status BatchChecksum::Stream::AddLists(const ArraySpan& array) {
  ARROW_ASSIGN_OR_RAISE(const auto range, AddOffsets<Offset>(array));
  const auto [first, last] = range;
  return AddChild(array, first, last - first);
}

// IPC rebases the offsets of a list view only where it is a slice, so they count from the first value that a row uses,
// and rows without values count as (0, 0).
template <typename Offset>
Status BatchChecksum::Stream::AddListViews(const ArraySpan& array) {
  constexpr auto kWidth = static_cast<int64_t>(sizeof(Offset));
  if (array.length == 0) return AddChild(array, 0, 0);
  for (int i : {1, 2}) {
    const BufferSpan& buffer = array.buffers[i];
    if (buffer.data == nullptr || array.offset + array.length > buffer.size / kWidth) {
      return OutOfBounds(array, "offsets");
    }
  }
  const uint8_t* offsets = array.buffers[1].data + array.offset * kWidth;
  const uint8_t* sizes = array.buffers[2].data + array.offset * kWidth;
  const bool has_nulls = array.MayHaveNulls();
  const int64_t child_length = array.child_data[0].length;
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t last = 0;
  for (int64_t i = 0; i < array.length; ++i) {
    const int64_t start = LoadAt<Offset>(offsets, i);
    const int64_t size = LoadAt<Offset>(sizes, i);
    if ((has_nulls && !array.IsValid(i)) || size == 0) continue;
    if (start < 0 || size < 0 || start > child_length || size > child_length - start)
      return OutOfBounds(array, "views");
    first = std::min(first, start);
    last = std::max(last, start + size);
  }
  if (first > last) first = last;
  for (int64_t i = 0; i < array.length; ++i) {
    const int64_t size = has_nulls && !array.IsValid(i) ? 0 : LoadAt<Offset>(sizes, i);
    AddNumber(size == 0 ? 0 : LoadAt<Offset>(offsets, i) - first);
    AddNumber(size);
  }
  return AddChild(array, first, last - first);
}

Status BatchChecksum::Stream::AddViews(const ArraySpan& array) {
  ARROW_RETURN_NOT_OK(AddFixedWidth(array, arrow::BinaryViewType::kSize));
  const auto buffers = array.GetVariadicBuffers();
  const bool has_nulls = array.MayHaveNulls();
  for (int64_t i = 0; i < array.length; ++i) {
    if (has_nulls && !array.IsValid(i)) continue;
    const auto view = LoadAt<arrow::BinaryViewType::c_type>(array.buffers[1].data, array.offset + i);
    if (view.size() < 0) return OutOfBounds(array, "views");
    if (view.is_inline()) continue;
    const auto& ref = view.ref;
    if (ref.buffer_index < 0 || static_cast<size_t>(ref.buffer_index) >= buffers.size()) {
      return OutOfBounds(array, "views");
    }
    const auto& bytes = buffers[static_cast<size_t>(ref.buffer_index)];
    if (bytes == nullptr || ref.offset < 0 || ref.offset > bytes->size() || ref.size > bytes->size() - ref.offset) {
      return OutOfBounds(array, "views");
    }
    AddBytes(bytes->data() + ref.offset, ref.size);
  }
  return Status::OK();
}

Status BatchChecksum::Stream::AddValues(const ArraySpan& array) {
  switch (array.type->id()) {
    case Type::NA:
      return Status::OK();
    case Type::BOOL:
      return AddBitmap(array, array.buffers[1], "values");
    case Type::BINARY:
    case Type::STRING:
      return AddBinaries<int32_t>(array);
    case Type::LARGE_BINARY:
    case Type::LARGE_STRING:
      return AddBinaries<int64_t>(array);
    case Type::BINARY_VIEW:
    case Type::STRING_VIEW:
      return AddViews(array);
    case Type::LIST:
    case Type::MAP:
      return AddLists<int32_t>(array);
    case Type::LARGE_LIST:
      return AddLists<int64_t>(array);
    case Type::LIST_VIEW:
      return AddListViews<int32_t>(array);
    case Type::LARGE_LIST_VIEW:
      return AddListViews<int64_t>(array);
    case Type::FIXED_SIZE_LIST: {
      const int64_t size = static_cast<const arrow::FixedSizeListType&>(*array.type).list_size();
      if (size > 0 && array.length > array.child_data[0].length / size) return OutOfBounds(array, "children");
      return AddChild(array, array.offset * size, array.length * size);
    }
    case Type::STRUCT:
      for (size_t child = 0; child < array.child_data.size(); ++child) {
        ARROW_RETURN_NOT_OK(AddChild(array, array.offset, array.length, child));
      }
      return Status::OK();
    case Type::DICTIONARY:
      ARROW_RETURN_NOT_OK(AddFixedWidth(array, array.type->byte_width()));
      return AddArray(array.dictionary());
    case Type::SPARSE_UNION:
    case Type::DENSE_UNION:
    case Type::RUN_END_ENCODED:
      return MakeStatus(Code::kUsage, "Values of type " + array.type->ToString() +
                                          " have no checksum; cast the column to a plain type before it is shuffled.");
    default:
      return AddFixedWidth(array, array.type->byte_width());
  }
}

Status BatchChecksum::Stream::AddArray(const ArraySpan& array) {
  if (array.type->id() == Type::EXTENSION) {
    ArraySpan storage = array;
    storage.type = &StorageOf(*array.type);
    return AddArray(storage);
  }
  if (array.length < 0 || array.length > kLengthMax) return OutOfBounds(array, "rows");
  const bool has_bitmap = array.type->id() != Type::NA && array.buffers[0].data != nullptr;
  if (has_bitmap && arrow::bit_util::BytesForBits(array.offset + array.length) > array.buffers[0].size) {
    return OutOfBounds(array, "validity bits");  // before the nulls are counted
  }
  const int64_t null_count = has_bitmap ? array.GetNullCount() : 0;
  AddNumber(array.length);
  AddNumber(null_count);
  if (null_count > 0) ARROW_RETURN_NOT_OK(AddBitmap(array, array.buffers[0], "validity bits"));
  return AddValues(array);
}

BatchChecksum::BatchChecksum(int64_t num_rows) : stream_(std::make_unique<Stream>()) { stream_->AddNumber(num_rows); }
BatchChecksum::BatchChecksum(BatchChecksum&&) noexcept = default;
BatchChecksum& BatchChecksum::operator=(BatchChecksum&&) noexcept = default;
BatchChecksum::~BatchChecksum() = default;

Status BatchChecksum::Add(const arrow::ArrayData& column) { return stream_->AddArray(ArraySpan(column)); }

Status BatchChecksum::AddAndTake(const arrow::ArrayData& column, const Take& take) {
  stream_->set_take(&take);
  const Status status = Add(column);
  stream_->set_take(nullptr);
  return status;
}

uint64_t BatchChecksum::Digest() const { return stream_->Digest(); }

arrow::Result<uint64_t> ChecksumBatch(const arrow::RecordBatch& batch) {
  BatchChecksum checksum(batch.num_rows());
  for (int column = 0; column < batch.num_columns(); ++column) {
    ARROW_RETURN_NOT_OK(checksum.Add(*batch.column_data(column)));
  }
  return checksum.Digest();
}

}  // namespace sabot::rows
