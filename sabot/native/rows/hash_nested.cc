// Hashes of lists, maps and structs: a fold over the hashes of what they hold, led by the hash of how many those are.
#include <arrow/type.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "sabot/native/rows/hash_values.h"

namespace sabot::rows {
namespace {

using arrow::ArraySpan;
using arrow::Status;
using arrow::Type;

/// The hashes of `count` values of `child`, from its `first` on.
arrow::Result<std::vector<uint64_t>> HashesOfRange(const ArraySpan& child, int64_t first, int64_t count) {
  std::vector<uint64_t> hashes(static_cast<size_t>(count));
  ArraySpan range = child;
  range.SetSlice(child.offset + first, count);
  ARROW_RETURN_NOT_OK(HashSpan(range, hashes.data()));
  return hashes;
}

uint64_t FoldList(const uint64_t* hashes, int64_t count) {
  uint64_t hash = SplitMix(static_cast<uint64_t>(count));
  for (int64_t i = 0; i < count; ++i) hash = MixHashes(hash, hashes[i]);
  return hash;
}

template <typename Offset>
Status HashLists(const ArraySpan& values, uint64_t* out) {
  const uint8_t* offsets = values.buffers[1].data + values.offset * static_cast<int64_t>(sizeof(Offset));
  const int64_t first = LoadAt<Offset>(offsets, 0);
  const int64_t last = LoadAt<Offset>(offsets, values.length);
  ARROW_ASSIGN_OR_RAISE(const auto hashes, HashesOfRange(values.child_data[0], first, last - first));
  int64_t start = 0;
  for (int64_t i = 0; i < values.length; ++i) {
    const int64_t end = LoadAt<Offset>(offsets, i + 1) - first;
    out[i] = FoldList(hashes.data() + start, end - start);
    start = end;
  }
  return Status::OK();
}

template <typename Offset>
Status HashListViews(const ArraySpan& values, uint64_t* out) {
  const int64_t byte_offset = values.offset * static_cast<int64_t>(sizeof(Offset));
  const uint8_t* offsets = values.buffers[1].data + byte_offset;
  const uint8_t* sizes = values.buffers[2].data + byte_offset;
  const bool may_have_nulls = values.MayHaveNulls();
  const auto is_used = [&](int64_t row) {
    return (!may_have_nulls || values.IsValid(row)) && LoadAt<Offset>(sizes, row) > 0;
  };
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t last = 0;
  for (int64_t i = 0; i < values.length; ++i) {
    if (!is_used(i)) continue;
    const int64_t start = LoadAt<Offset>(offsets, i);
    first = std::min(first, start);
    last = std::max(last, start + LoadAt<Offset>(sizes, i));
  }
  if (first > last) first = last;
  ARROW_ASSIGN_OR_RAISE(const auto hashes, HashesOfRange(values.child_data[0], first, last - first));
  for (int64_t i = 0; i < values.length; ++i) {
    out[i] = is_used(i) ? FoldList(hashes.data() + (LoadAt<Offset>(offsets, i) - first), LoadAt<Offset>(sizes, i))
                        : FoldList(nullptr, 0);
  }
  return Status::OK();
}

Status HashFixedSizeLists(const ArraySpan& values, uint64_t* out) {
  const int64_t size = static_cast<const arrow::FixedSizeListType&>(*values.type).list_size();
  ARROW_ASSIGN_OR_RAISE(const auto hashes,
                        HashesOfRange(values.child_data[0], values.offset * size, values.length * size));
  for (int64_t i = 0; i < values.length; ++i) out[i] = FoldList(hashes.data() + i * size, size);
  return Status::OK();
}

Status HashStructs(const ArraySpan& values, uint64_t* out) {
  std::fill_n(out, values.length, SplitMix(values.child_data.size()));
  for (const ArraySpan& child : values.child_data) {
    ARROW_ASSIGN_OR_RAISE(const auto hashes, HashesOfRange(child, values.offset, values.length));
    for (int64_t i = 0; i < values.length; ++i) out[i] = MixHashes(out[i], hashes[static_cast<size_t>(i)]);
  }
  return Status::OK();
}

}  // namespace

Status HashNestedSpan(const ArraySpan& values, uint64_t* out) {
  switch (values.type->id()) {
    case Type::LIST:
    case Type::MAP:  // a list of structs of key and item
      return HashLists<int32_t>(values, out);
    case Type::LARGE_LIST:
      return HashLists<int64_t>(values, out);
    case Type::LIST_VIEW:
      return HashListViews<int32_t>(values, out);
    case Type::LARGE_LIST_VIEW:
      return HashListViews<int64_t>(values, out);
    case Type::FIXED_SIZE_LIST:
      return HashFixedSizeLists(values, out);
    default:
      return HashStructs(values, out);
  }
}

}  // namespace sabot::rows
