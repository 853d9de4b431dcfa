#include "sabot/native/operators/timeline_batch.h"

#include <arrow/builder.h>
#include <arrow/type.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace sabot::operators {
namespace {

using Names = std::unordered_map<uint32_t, const std::string*>;

Names BySerial(const std::vector<slots::NameTable::Entry>& entries) {
  Names names;
  for (const auto& entry : entries) names.emplace(entry.serial, &entry.name);
  return names;
}

/// What to add to the steady clock to get the system's.
int64_t SystemMinusSteadyNs() {
  const auto system = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::nanoseconds(system).count() -
         std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

arrow::Status AppendName(arrow::StringBuilder* builder, const Names& names, uint32_t serial) {
  const auto found = names.find(serial);
  return found == names.end() ? builder->AppendNull() : builder->Append(*found->second);
}

arrow::Status AppendUnlessNegative(arrow::Int64Builder* builder, int64_t value) {
  return value < 0 ? builder->AppendNull() : builder->Append(value);
}

std::shared_ptr<arrow::Schema> TimelineSchema() {
  const auto time = arrow::timestamp(arrow::TimeUnit::MICRO, "UTC");
  return arrow::schema({arrow::field("slot", arrow::int32()), arrow::field("job", arrow::utf8()),
                        arrow::field("operator", arrow::utf8()), arrow::field("source", arrow::utf8()),
                        arrow::field("partition", arrow::int64()), arrow::field("start", time),
                        arrow::field("end", time), arrow::field("rows", arrow::int64()),
                        arrow::field("bytes", arrow::int64()), arrow::field("stolen", arrow::boolean()),
                        arrow::field("gil_wait", arrow::duration(arrow::TimeUnit::MICRO))});
}

}  // namespace

arrow::Result<std::shared_ptr<arrow::RecordBatch>> TimelineBatch(const slots::Timeline& timeline) {
  const auto schema = TimelineSchema();
  const Names jobs = BySerial(timeline.jobs);
  const Names operators = BySerial(timeline.operators);
  const int64_t shift_ns = SystemMinusSteadyNs();
  arrow::MemoryPool* pool = arrow::default_memory_pool();
  arrow::Int32Builder slot;
  arrow::StringBuilder job, operator_name, source;
  arrow::Int64Builder partition, rows, bytes;
  arrow::TimestampBuilder start(schema->field(5)->type(), pool), end(schema->field(6)->type(), pool);
  arrow::BooleanBuilder stolen;
  arrow::DurationBuilder gil_wait(schema->field(10)->type(), pool);
  for (const auto& [slot_id, entry] : timeline.entries) {
    ARROW_RETURN_NOT_OK(slot.Append(slot_id));
    ARROW_RETURN_NOT_OK(AppendName(&job, jobs, entry.job));
    ARROW_RETURN_NOT_OK(AppendName(&operator_name, operators, entry.operator_serial));
    ARROW_RETURN_NOT_OK(source.Append(entry.network ? "network" : "local"));
    ARROW_RETURN_NOT_OK(AppendUnlessNegative(&partition, entry.partition));
    ARROW_RETURN_NOT_OK(start.Append((entry.start_ns + shift_ns) / 1000));
    ARROW_RETURN_NOT_OK(end.Append((entry.end_ns + shift_ns) / 1000));
    ARROW_RETURN_NOT_OK(AppendUnlessNegative(&rows, entry.rows));
    ARROW_RETURN_NOT_OK(AppendUnlessNegative(&bytes, entry.bytes));
    ARROW_RETURN_NOT_OK(stolen.Append(entry.stolen));
    ARROW_RETURN_NOT_OK(gil_wait.Append(entry.gil_wait_ns / 1000));
  }
  arrow::ArrayVector columns;
  arrow::ArrayBuilder* builders[] = {&slot, &job,  &operator_name, &source, &partition, &start,
                                     &end,  &rows, &bytes,         &stolen, &gil_wait};
  for (arrow::ArrayBuilder* builder : builders) {
    ARROW_ASSIGN_OR_RAISE(auto column, builder->Finish());
    columns.push_back(std::move(column));
  }
  return arrow::RecordBatch::Make(schema, static_cast<int64_t>(timeline.entries.size()), std::move(columns));
}

}  // namespace sabot::operators
