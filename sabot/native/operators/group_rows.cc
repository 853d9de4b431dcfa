#include "sabot/native/operators/group_rows.h"

#include <arrow/array/util.h>
#include <arrow/record_batch.h>

#include "sabot/native/operators/group_folds.h"
#include "sabot/native/operators/key_numbers.h"

namespace sabot::operators {

namespace {

constexpr int64_t kPieceRows = 16384;  // whose numbers stay in the cache while all aggregates go over them

}  // namespace

arrow::Result<std::shared_ptr<arrow::Table>> GroupRows(const std::shared_ptr<arrow::Table>& table, int key,
                                                       const std::vector<GroupAggregate>& aggregates,
                                                       arrow::MemoryPool* pool) {
  const std::shared_ptr<arrow::Schema>& schema = table->schema();
  const auto keys = KeyNumbers::Make(schema->field(key)->type(), pool);
  if (keys == nullptr) return nullptr;
  std::vector<std::unique_ptr<GroupFold>> folds;
  for (const GroupAggregate& aggregate : aggregates) {
    const auto* type = aggregate.column < 0 ? nullptr : schema->field(aggregate.column)->type().get();
    folds.push_back(GroupFold::Make(aggregate.function, type, pool));
    if (folds.back() == nullptr) return nullptr;
  }

  std::vector<uint32_t> numbers(kPieceRows);
  arrow::TableBatchReader pieces(table);
  pieces.set_chunksize(kPieceRows);
  while (true) {
    std::shared_ptr<arrow::RecordBatch> piece;
    ARROW_RETURN_NOT_OK(pieces.ReadNext(&piece));
    if (piece == nullptr) break;
    ARROW_RETURN_NOT_OK(keys->Number(*piece->column_data(key), numbers.data()));
    for (size_t i = 0; i < folds.size(); ++i) {
      const int column = aggregates[i].column;
      ARROW_RETURN_NOT_OK(folds[i]->Grow(keys->count()));
      const auto* values = column < 0 ? nullptr : piece->column_data(column).get();
      ARROW_RETURN_NOT_OK(folds[i]->Add(values, numbers.data(), piece->num_rows()));
    }
  }

  ARROW_ASSIGN_OR_RAISE(auto found, keys->Finish());
  const int64_t groups = found->length;
  arrow::FieldVector fields{schema->field(key)};
  arrow::ArrayVector columns{arrow::MakeArray(std::move(found))};
  for (size_t i = 0; i < folds.size(); ++i) {
    ARROW_ASSIGN_OR_RAISE(auto values, folds[i]->Finish());
    fields.push_back(arrow::field(aggregates[i].name, values->type));
    columns.push_back(arrow::MakeArray(std::move(values)));
  }
  return arrow::Table::Make(arrow::schema(std::move(fields)), std::move(columns), groups);
}

}  // namespace sabot::operators
