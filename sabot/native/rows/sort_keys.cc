#include "sabot/native/rows/sort_keys.h"

#include <arrow/util/binary_view_util.h>
#include <arrow/util/bit_util.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string_view>
#include <type_traits>
#include <vector>

#include "sabot/native/rows/hash_values.h"
#include "sabot/native/rows/storage.h"
#include "sabot/native/status.h"

namespace sabot::rows {
namespace {

using arrow::ArraySpan;
using arrow::Type;

constexpr uint64_t kSignBit = uint64_t{1} << 63;

/// What stands where: with nulls last 0 values, 1 NaN, 2 nulls; with nulls first 0 nulls, 1 NaN, 2 values.
constexpr uint8_t kNanClass = 1;
constexpr uint8_t ValueClass(SortOrder order) { return order.nulls_first ? 2 : 0; }
constexpr uint8_t NullClass(SortOrder order) { return order.nulls_first ? 0 : 2; }

NumberKey KeyOf(uint8_t value_class, uint64_t bits) { return (NumberKey{value_class} << 64) | bits; }

NumberKey DoubleKey(double value, SortOrder order) {
  if (std::isnan(value)) return KeyOf(kNanClass, 0);
  uint64_t bits = std::bit_cast<uint64_t>(value == 0 ? 0.0 : value);  // -0.0 equals 0.0
  bits = (bits & kSignBit) != 0 ? ~bits : bits | kSignBit;
  return KeyOf(ValueClass(order), order.descending ? ~bits : bits);
}

template <typename T>
NumberKey NumberKeyOf(T value, SortOrder order) {
  if constexpr (std::is_floating_point_v<T>) {
    return DoubleKey(static_cast<double>(value), order);
  } else {
    uint64_t bits = static_cast<uint64_t>(value);
    if constexpr (std::is_signed_v<T>) bits ^= kSignBit;
    return KeyOf(ValueClass(order), order.descending ? ~bits : bits);
  }
}

template <typename T>
void WriteKeys(const ArraySpan& values, SortOrder order, NumberKey* out) {
  const uint8_t* in = values.buffers[1].data + values.offset * static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < values.length; ++i) out[i] = NumberKeyOf(LoadAt<T>(in, i), order);
}

void WriteBooleanKeys(const ArraySpan& values, SortOrder order, NumberKey* out) {
  for (int64_t i = 0; i < values.length; ++i) {
    out[i] = NumberKeyOf<uint64_t>(arrow::bit_util::GetBit(values.buffers[1].data, values.offset + i) ? 1 : 0, order);
  }
}

/// Appends bytes of any length so that a shorter text comes before what it begins, and the next column's bytes do not
/// take part in the comparison: 0 becomes 0 255, the end 0 0.
void AppendText(std::string_view text, bool descending, std::string* key) {
  const char flip = descending ? '\xFF' : '\0';
  for (const char byte : text) {
    key->push_back(static_cast<char>(byte ^ flip));
    if (byte == '\0') key->push_back(static_cast<char>('\xFF' ^ flip));
  }
  key->append(2, flip);
}

/// Appends a little-endian number of any width, two's complement, from its highest byte on.
void AppendWideNumber(const uint8_t* value, int32_t width, bool descending, std::string* key) {
  const uint8_t flip = descending ? 0xFF : 0;
  for (int32_t i = width; i-- > 0;) {
    const uint8_t sign = i == width - 1 ? 0x80 : 0;
    key->push_back(static_cast<char>(value[i] ^ sign ^ flip));
  }
}

/// Calls `append` with the row's number and key where there is a value; marks every row as value or null.
template <typename Append>
void AppendEach(const ArraySpan& values, SortOrder order, std::string* keys, Append append) {
  const bool may_have_nulls = values.MayHaveNulls();
  for (int64_t i = 0; i < values.length; ++i) {
    const bool is_null = may_have_nulls && !values.IsValid(i);
    keys[i].push_back(static_cast<char>(is_null ? NullClass(order) : ValueClass(order)));
    if (!is_null) append(i, &keys[i]);
  }
}

template <typename Offset>
void AppendTexts(const ArraySpan& values, SortOrder order, std::string* keys) {
  const uint8_t* offsets = values.buffers[1].data + values.offset * static_cast<int64_t>(sizeof(Offset));
  const char* bytes = reinterpret_cast<const char*>(values.buffers[2].data);
  AppendEach(values, order, keys, [&](int64_t row, std::string* key) {
    const auto start = LoadAt<Offset>(offsets, row), end = LoadAt<Offset>(offsets, row + 1);
    AppendText(end == start ? std::string_view() : std::string_view(bytes + start, static_cast<size_t>(end - start)),
               order.descending, key);
  });
}

void AppendViews(const ArraySpan& values, SortOrder order, std::string* keys) {
  const uint8_t* views = values.buffers[1].data + values.offset * arrow::BinaryViewType::kSize;
  const auto* buffers = values.GetVariadicBuffers().data();
  AppendEach(values, order, keys, [&](int64_t row, std::string* key) {
    const auto view = LoadAt<arrow::BinaryViewType::c_type>(views, row);
    AppendText(arrow::util::FromBinaryView(view, buffers), order.descending, key);
  });
}

void AppendNumbers(const ArraySpan& values, SortOrder order, std::string* keys) {
  std::vector<NumberKey> numbers(static_cast<size_t>(values.length));
  WriteNumberKeys(values, order, numbers.data());
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (int shift = 64; shift >= 0; shift -= 8) keys[i].push_back(static_cast<char>(numbers[i] >> shift));
  }
}

/// Types whose values are put down as bytes.
bool IsTextType(Type::type id) {
  switch (id) {
    case Type::STRING:
    case Type::BINARY:
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
    case Type::FIXED_SIZE_BINARY:
    case Type::DECIMAL128:
    case Type::DECIMAL256:
      return true;
    default:
      return false;
  }
}

void WriteValues(const ArraySpan& values, SortOrder order, NumberKey* out) {
  switch (StorageOf(*values.type).id()) {
    case Type::BOOL:
      return WriteBooleanKeys(values, order, out);
    case Type::INT8:
      return WriteKeys<int8_t>(values, order, out);
    case Type::INT16:
      return WriteKeys<int16_t>(values, order, out);
    case Type::INT32:
    case Type::DATE32:
    case Type::TIME32:
    case Type::DECIMAL32:
      return WriteKeys<int32_t>(values, order, out);
    case Type::UINT8:
      return WriteKeys<uint8_t>(values, order, out);
    case Type::UINT16:
      return WriteKeys<uint16_t>(values, order, out);
    case Type::UINT32:
      return WriteKeys<uint32_t>(values, order, out);
    case Type::UINT64:
      return WriteKeys<uint64_t>(values, order, out);
    case Type::FLOAT:
      return WriteKeys<float>(values, order, out);
    case Type::DOUBLE:
      return WriteKeys<double>(values, order, out);
    case Type::NA:
      std::fill_n(out, values.length, KeyOf(NullClass(order), 0));
      return;
    default:  // what IsNumberType lets in besides: 64 bits, signed
      return WriteKeys<int64_t>(values, order, out);
  }
}

}  // namespace

bool IsNumberType(const arrow::DataType& type) {
  switch (StorageOf(type).id()) {
    case Type::NA:
    case Type::BOOL:
    case Type::INT8:
    case Type::INT16:
    case Type::INT32:
    case Type::INT64:
    case Type::UINT8:
    case Type::UINT16:
    case Type::UINT32:
    case Type::UINT64:
    case Type::FLOAT:
    case Type::DOUBLE:
    case Type::DATE32:
    case Type::DATE64:
    case Type::TIME32:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DURATION:
    case Type::DECIMAL32:
    case Type::DECIMAL64:
      return true;
    default:
      return false;
  }
}

arrow::Status CheckSortType(const arrow::DataType& type, const std::string& name) {
  if (IsNumberType(type) || IsTextType(StorageOf(type).id())) return arrow::Status::OK();
  return MakeStatus(Code::kUsage, "Column " + name + " cannot be a sort key: values of type " + type.ToString() +
                                      " have no order. Sort by another column, or cast it.");
}

void WriteNumberKeys(const ArraySpan& values, SortOrder order, NumberKey* out) {
  WriteValues(values, order, out);
  if (!values.MayHaveNulls()) return;
  for (int64_t i = 0; i < values.length; ++i) {
    if (!values.IsValid(i)) out[i] = KeyOf(NullClass(order), 0);
  }
}

void AppendKeyBytes(const ArraySpan& values, SortOrder order, std::string* keys) {
  const arrow::DataType& type = StorageOf(*values.type);
  switch (type.id()) {
    case Type::STRING:
    case Type::BINARY:
      return AppendTexts<int32_t>(values, order, keys);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY:
      return AppendTexts<int64_t>(values, order, keys);
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW:
      return AppendViews(values, order, keys);
    case Type::FIXED_SIZE_BINARY:
    case Type::DECIMAL128:
    case Type::DECIMAL256: {
      const int32_t width = type.byte_width();
      const uint8_t* in = values.buffers[1].data + values.offset * width;
      const bool is_text = type.id() == Type::FIXED_SIZE_BINARY;
      return AppendEach(values, order, keys, [&](int64_t row, std::string* key) {
        const uint8_t* value = in + row * width;
        if (!is_text) return AppendWideNumber(value, width, order.descending, key);
        AppendText({reinterpret_cast<const char*>(value), static_cast<size_t>(width)}, order.descending, key);
      });
    }
    default:
      return AppendNumbers(values, order, keys);
  }
}

}  // namespace sabot::rows
