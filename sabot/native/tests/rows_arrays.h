// Arrays and batches for the tests of the rows: from JSON, moved by a slice, sent through IPC.
#pragma once

#include <arrow/api.h>
#include <arrow/io/memory.h>
#include <arrow/ipc/reader.h>
#include <arrow/ipc/writer.h>
#include <arrow/json/from_string.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sabot/native/status.h"

namespace sabot::rows {

// AddressSanitizer knows the bounds of what malloc gives, not of what Arrow's own allocators do.
inline const int kSystemPool = setenv("ARROW_DEFAULT_MEMORY_POOL", "system", 1);

using ArrayPtr = std::shared_ptr<arrow::Array>;
using BatchPtr = std::shared_ptr<arrow::RecordBatch>;

inline ArrayPtr FromJson(const std::shared_ptr<arrow::DataType>& type, const std::string& json) {
  return arrow::json::ArrayFromJSONString(type, json).ValueOrDie();
}

/// The values of `array` as a slice in the middle of a longer array of the same values.
inline ArrayPtr Moved(const ArrayPtr& array) {
  return arrow::Concatenate({array, array, array}).ValueOrDie()->Slice(array->length(), array->length());
}

inline BatchPtr MakeBatch(std::vector<std::pair<std::string, ArrayPtr>> columns) {
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (auto& [name, array] : columns) {
    fields.push_back(arrow::field(name, array->type()));
    arrays.push_back(std::move(array));
  }
  const int64_t rows = arrays.empty() ? 0 : arrays.front()->length();
  return arrow::RecordBatch::Make(arrow::schema(std::move(fields)), rows, std::move(arrays));
}

inline BatchPtr IpcCopy(const BatchPtr& batch) {
  auto sink = arrow::io::BufferOutputStream::Create().ValueOrDie();
  auto writer = arrow::ipc::MakeStreamWriter(sink, batch->schema()).ValueOrDie();
  EXPECT_TRUE(writer->WriteRecordBatch(*batch).ok());
  EXPECT_TRUE(writer->Close().ok());
  auto source = std::make_shared<arrow::io::BufferReader>(sink->Finish().ValueOrDie());
  return arrow::ipc::RecordBatchStreamReader::Open(source).ValueOrDie()->Next().ValueOrDie();
}

inline void ExpectCode(const arrow::Status& status, Code code, const std::string& part) {
  EXPECT_EQ(CodeOf(status), code) << status.ToString();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.ToString();
}

/// One column of every kind of type that rows can have, with nulls, four rows each.
inline std::vector<ArrayPtr> OneOfEach() {
  using namespace arrow;  // NOLINT: a table of type factories
  return {
      FromJson(null(), "[null, null, null, null]"),
      FromJson(boolean(), "[true, null, false, true]"),
      FromJson(int8(), "[1, null, -3, 4]"),
      FromJson(uint16(), "[1, null, 3, 4]"),
      FromJson(float32(), "[0.5, null, -0.0, 3]"),
      FromJson(float64(), "[0.5, null, -0.0, 3]"),
      FromJson(timestamp(TimeUnit::MICRO), "[1, null, 3, 4]"),
      FromJson(decimal128(20, 2), R"(["1.23", null, "-5.00", "123456789012345678.00"])"),
      FromJson(decimal256(60, 0), R"(["1", null, "-5", "123456789012345678901234567890"])"),
      FromJson(month_day_nano_interval(), "[[1, 2, 3], null, [0, 0, 0], [-1, -1, -1]]"),
      FromJson(fixed_size_binary(3), R"(["abc", null, "def", "ghi"])"),
      FromJson(utf8(), R"(["a", null, "", "a value of more than thirty-two bytes"])"),
      FromJson(large_binary(), R"(["a", null, "", "a value of more than thirty-two bytes"])"),
      FromJson(utf8_view(), R"(["a", null, "more than twelve bytes", "a value of more than thirty-two bytes"])"),
      FromJson(list(int32()), "[[1, null], null, [], [2, 3, 4]]"),
      FromJson(large_list(utf8()), R"([["a", null], null, [], ["b"]])"),
      FromJson(list_view(int32()), "[[1, null], null, [], [2, 3, 4]]"),
      FromJson(large_list_view(utf8_view()), R"([["more than twelve bytes", null], null, [], ["b"]])"),
      FromJson(fixed_size_list(boolean(), 2), "[[true, null], null, [false, false], [true, true]]"),
      FromJson(map(utf8(), int64()), R"([[["a", 1]], null, [], [["b", null], ["c", 3]]])"),
      FromJson(struct_({field("a", int64()), field("b", list(utf8()))}),
               R"([{"a": 1, "b": ["x"]}, null, {"a": null, "b": null}, {"a": 4, "b": []}])"),
  };
}

}  // namespace sabot::rows
