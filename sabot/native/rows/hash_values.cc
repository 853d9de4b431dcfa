#include "sabot/native/rows/hash_values.h"

#include <arrow/type.h>
#include <arrow/util/binary_view_util.h>
#include <arrow/util/bit_block_counter.h>
#include <arrow/util/bit_util.h>
#include <arrow/util/float16.h>

#define XXH_INLINE_ALL
#include <arrow/vendored/xxhash.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "sabot/native/rows/storage.h"
#include "sabot/native/rows/wide_loops.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArraySpan;
using arrow::Status;
using arrow::Type;

uint64_t HashBytes(const void* bytes, int64_t size) { return XXH3_64bits(bytes, static_cast<size_t>(size)); }

[[gnu::always_inline]] inline uint64_t HashDouble(double value) {
  // One bit pattern for all that compare equal, and one for all NaNs; written to compile without branches.
  constexpr uint64_t kInfinity = 0x7FF0000000000000;
  constexpr uint64_t kNan = 0x7FF8000000000000;
  uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint64_t magnitude = bits & ~(uint64_t{1} << 63);
  bits = magnitude == 0 ? 0 : bits;
  bits = magnitude > kInfinity ? kNan : bits;
  return SplitMix(bits);
}

template <typename T>
void HashNumbers(const ArraySpan& values, uint64_t* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * static_cast<int64_t>(sizeof(T));
  Fill(
      values.length, out, [&](int64_t i) __attribute__((always_inline)) {
        const T value = LoadAt<T>(in, i);
        if constexpr (std::is_floating_point_v<T>) {
          return HashDouble(static_cast<double>(value));
        } else {
          return SplitMix(static_cast<uint64_t>(value));  // a signed value is sign-extended
        }
      });
}

void HashHalves(const ArraySpan& values, uint64_t* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * 2;
  for (int64_t i = 0; i < values.length; ++i) {
    out[i] = HashDouble(arrow::util::Float16::FromBits(LoadAt<uint16_t>(in, i)).ToDouble());
  }
}

void HashBooleans(const ArraySpan& values, uint64_t* out) {
  for (int64_t i = 0; i < values.length; ++i) {
    out[i] = SplitMix(arrow::bit_util::GetBit(values.buffers[1].data, values.offset + i) ? 1 : 0);
  }
}

// Decimals of up to 64 bits are integers; of wider ones only the words that sign extension would not give back count,
// so that the width of the type does not.
void HashWideDecimals(const ArraySpan& values, int words, uint64_t* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * words * 8;
  for (int64_t i = 0; i < values.length; ++i, in += words * 8) {
    int used = words;
    while (used > 1) {
      const auto below = LoadAt<int64_t>(in, used - 2);
      if (LoadAt<int64_t>(in, used - 1) != (below < 0 ? -1 : 0)) break;
      --used;
    }
    uint64_t hash = SplitMix(LoadAt<uint64_t>(in, 0));
    for (int word = 1; word < used; ++word) hash = MixHashes(hash, SplitMix(LoadAt<uint64_t>(in, word)));
    out[i] = hash;
  }
}

void HashMonthDayNanos(const ArraySpan& values, uint64_t* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * 16;
  for (int64_t i = 0; i < values.length; ++i) {
    out[i] = MixHashes(SplitMix(LoadAt<uint64_t>(in, 2 * i)), SplitMix(LoadAt<uint64_t>(in, 2 * i + 1)));
  }
}

template <typename Offset>
void HashBinaries(const ArraySpan& values, uint64_t* out) {
  const uint8_t* offsets = values.buffers[1].data + values.offset * static_cast<int64_t>(sizeof(Offset));
  const uint8_t* bytes = values.buffers[2].data;
  Offset start = LoadAt<Offset>(offsets, 0);
  for (int64_t i = 0; i < values.length; ++i) {
    const Offset end = LoadAt<Offset>(offsets, i + 1);
    out[i] = end == start ? HashBytes("", 0) : HashBytes(bytes + start, end - start);
    start = end;
  }
}

void HashFixedBinaries(const ArraySpan& values, int32_t width, uint64_t* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * width;
  for (int64_t i = 0; i < values.length; ++i) out[i] = HashBytes(in + i * width, width);
}

void HashViews(const ArraySpan& values, uint64_t* out) {
  const uint8_t* views = values.buffers[1].data + values.offset * arrow::BinaryViewType::kSize;
  const auto* buffers = values.GetVariadicBuffers().data();
  const bool may_have_nulls = values.MayHaveNulls();
  for (int64_t i = 0; i < values.length; ++i) {
    if (may_have_nulls && !values.IsValid(i)) continue;  // the view of a null may point anywhere
    const auto view = LoadAt<arrow::BinaryViewType::c_type>(views, i);
    const std::string_view bytes = arrow::util::FromBinaryView(view, buffers);
    out[i] = HashBytes(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
}

template <typename Index>
void GatherHashes(const ArraySpan& indices, const std::vector<uint64_t>& hashes, uint64_t* out) {
  const uint8_t* in = indices.buffers[1].data + indices.offset * static_cast<int64_t>(sizeof(Index));
  const bool may_have_nulls = indices.MayHaveNulls();
  for (int64_t i = 0; i < indices.length; ++i) {
    if (may_have_nulls && !indices.IsValid(i)) continue;  // the index of a null may be any number
    out[i] = hashes[static_cast<size_t>(LoadAt<Index>(in, i))];
  }
}

Status HashDictionary(const ArraySpan& values, const arrow::DictionaryType& type, uint64_t* out) {
  const ArraySpan& dictionary = values.dictionary();
  std::vector<uint64_t> hashes(static_cast<size_t>(dictionary.length));
  ARROW_RETURN_NOT_OK(HashSpan(dictionary, hashes.data()));
  switch (type.index_type()->byte_width()) {
    case 1:
      GatherHashes<uint8_t>(values, hashes, out);
      break;
    case 2:
      GatherHashes<uint16_t>(values, hashes, out);
      break;
    case 4:
      GatherHashes<uint32_t>(values, hashes, out);
      break;
    default:
      GatherHashes<uint64_t>(values, hashes, out);
  }
  return Status::OK();
}

Status HashFixedWidth(const ArraySpan& values, const arrow::DataType& type, uint64_t* out) {
  switch (type.id()) {
    case Type::INT8:
      HashNumbers<int8_t>(values, out);
      break;
    case Type::UINT8:
      HashNumbers<uint8_t>(values, out);
      break;
    case Type::INT16:
      HashNumbers<int16_t>(values, out);
      break;
    case Type::UINT16:
      HashNumbers<uint16_t>(values, out);
      break;
    case Type::UINT32:
      HashNumbers<uint32_t>(values, out);
      break;
    case Type::INT32:
    case Type::DATE32:
    case Type::TIME32:
    case Type::INTERVAL_MONTHS:
    case Type::DECIMAL32:
      HashNumbers<int32_t>(values, out);
      break;
    case Type::INT64:
    case Type::UINT64:
    case Type::DATE64:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DURATION:
    case Type::INTERVAL_DAY_TIME:  // days in the lower half, milliseconds in the upper
    case Type::DECIMAL64:
      HashNumbers<uint64_t>(values, out);
      break;
    case Type::FLOAT:
      HashNumbers<float>(values, out);
      break;
    case Type::DOUBLE:
      HashNumbers<double>(values, out);
      break;
    case Type::HALF_FLOAT:
      HashHalves(values, out);
      break;
    case Type::BOOL:
      HashBooleans(values, out);
      break;
    case Type::DECIMAL128:
      HashWideDecimals(values, 2, out);
      break;
    case Type::DECIMAL256:
      HashWideDecimals(values, 4, out);
      break;
    case Type::INTERVAL_MONTH_DAY_NANO:
      HashMonthDayNanos(values, out);
      break;
    case Type::FIXED_SIZE_BINARY:
      HashFixedBinaries(values, type.byte_width(), out);
      break;
    default:
      return MakeStatus(Code::kUsage, "Values of type " + type.ToString() +
                                          " have no hash; cast the column to a plain type before it is shuffled.");
  }
  return Status::OK();
}

Status HashAnyType(const ArraySpan& values, uint64_t* out) {
  const arrow::DataType& type = *values.type;
  switch (type.id()) {
    case Type::BINARY:
    case Type::STRING:
      HashBinaries<int32_t>(values, out);
      return Status::OK();
    case Type::LARGE_BINARY:
    case Type::LARGE_STRING:
      HashBinaries<int64_t>(values, out);
      return Status::OK();
    case Type::BINARY_VIEW:
    case Type::STRING_VIEW:
      HashViews(values, out);
      return Status::OK();
    case Type::DICTIONARY:
      return HashDictionary(values, static_cast<const arrow::DictionaryType&>(type), out);
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::FIXED_SIZE_LIST:
    case Type::LIST_VIEW:
    case Type::LARGE_LIST_VIEW:
    case Type::MAP:
    case Type::STRUCT:
      return HashNestedSpan(values, out);
    default:
      return HashFixedWidth(values, type, out);
  }
}

void PatchNulls(const ArraySpan& values, uint64_t* out) {
  if (!values.MayHaveNulls()) return;
  const uint8_t* bits = values.buffers[0].data;
  arrow::internal::BitBlockCounter blocks(bits, values.offset, values.length);
  for (int64_t row = 0; row < values.length;) {
    const auto block = blocks.NextWord();
    if (!block.AllSet()) {
      for (int64_t i = row; i < row + block.length; ++i) {
        out[i] = arrow::bit_util::GetBit(bits, values.offset + i) ? out[i] : kNullHash;
      }
    }
    row += block.length;
  }
}

}  // namespace

Status HashSpan(const ArraySpan& values, uint64_t* out) {
  const arrow::DataType& type = *values.type;
  if (type.id() == Type::EXTENSION) {
    ArraySpan storage = values;
    storage.type = &StorageOf(type);
    return HashSpan(storage, out);
  }
  if (type.id() == Type::NA) {
    std::fill_n(out, values.length, kNullHash);
    return Status::OK();
  }
  // An empty array may lack its buffers, but its type is checked all the same.
  if (values.length == 0 && type.id() != Type::SPARSE_UNION && type.id() != Type::DENSE_UNION &&
      type.id() != Type::RUN_END_ENCODED) {
    return Status::OK();
  }
  ARROW_RETURN_NOT_OK(HashAnyType(values, out));
  PatchNulls(values, out);
  return Status::OK();
}

bool HasDictionary(const arrow::DataType& any_type) {
  const arrow::DataType& type = StorageOf(any_type);
  if (type.id() == Type::DICTIONARY) return true;
  return std::any_of(type.fields().begin(), type.fields().end(),
                     [](const auto& field) { return HasDictionary(*field->type()); });
}

}  // namespace sabot::rows
