// Steps that evaluate expressions, bound once per schema.
#include <arrow/array/concatenate.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/exec.h>
#include <arrow/compute/initialize.h>
#include <arrow/scalar.h>
#include <arrow/type.h>

#include <mutex>
#include <utility>

#include "sabot/native/operators/step.h"

namespace sabot::operators {
namespace {

namespace cp = arrow::compute;

enum class Meaning { kFilter, kProject, kFilterOrColumn };

/// The expressions of one step, bound to one schema.
struct Bound {
  std::shared_ptr<arrow::Schema> input;
  std::vector<cp::Expression> expressions;
  bool filters = false;
  std::shared_ptr<arrow::Schema> output;  // null where it filters
};

cp::ExecContext SlotContext(arrow::MemoryPool* memory) {
  cp::ExecContext context(memory);
  context.set_use_threads(false);  // the slot is the thread
  return context;
}

class ExpressionStep final : public Step {
 public:
  ExpressionStep(Meaning meaning, std::vector<std::string> names, std::vector<cp::Expression> expressions,
                 arrow::MemoryPool* memory)
      : meaning_(meaning), names_(std::move(names)), expressions_(std::move(expressions)), memory_(memory) {}

  arrow::Result<Rows> Run(const Rows& rows, const Place& place) const override {
    ARROW_ASSIGN_OR_RAISE(auto bound, BoundTo(rows->schema()));
    cp::ExecContext context = SlotContext(memory_);
    return bound->filters ? Filter(*bound, rows, &context) : Project(*bound, rows, &context);
  }

 private:
  arrow::Result<std::shared_ptr<const Bound>> BoundTo(const std::shared_ptr<arrow::Schema>& schema) const {
    {
      std::lock_guard lock(mutex_);
      if (bound_ && (bound_->input == schema || bound_->input->Equals(*schema))) return bound_;
    }
    ARROW_ASSIGN_OR_RAISE(auto bound, Bind(schema));
    std::lock_guard lock(mutex_);
    bound_ = bound;
    return bound;
  }

  arrow::Result<std::shared_ptr<const Bound>> Bind(const std::shared_ptr<arrow::Schema>& schema) const {
    ARROW_RETURN_NOT_OK(cp::Initialize());  // registers the kernels of libarrow_compute; repeats do nothing
    auto bound = std::make_shared<Bound>();
    bound->input = schema;
    cp::ExecContext context = SlotContext(memory_);
    arrow::FieldVector fields;
    for (size_t i = 0; i < expressions_.size(); ++i) {
      ARROW_ASSIGN_OR_RAISE(auto expression, expressions_[i].Bind(*schema, &context));
      if (!expression.IsScalarExpression()) {
        return arrow::Status::Invalid("the expression ", expressions_[i].ToString(),
                                      " does not work row by row; use group_by and aggregate instead");
      }
      const bool boolean = expression.type()->id() == arrow::Type::BOOL;
      if (meaning_ == Meaning::kFilter && !boolean) {
        return arrow::Status::TypeError("a filter must be boolean, but ", expressions_[i].ToString(), " is ",
                                        expression.type()->ToString(), "; compare it with something");
      }
      bound->filters = meaning_ == Meaning::kFilter || (meaning_ == Meaning::kFilterOrColumn && boolean);
      if (!bound->filters) fields.push_back(arrow::field(names_[i], expression.type()->GetSharedPtr()));
      bound->expressions.push_back(std::move(expression));
    }
    if (!bound->filters) bound->output = arrow::schema(std::move(fields));
    return bound;
  }

  static arrow::Result<Rows> Filter(const Bound& bound, const Rows& rows, cp::ExecContext* context) {
    ARROW_ASSIGN_OR_RAISE(arrow::Datum keep,
                          cp::ExecuteScalarExpression(bound.expressions[0], cp::ExecBatch(*rows), context));
    if (keep.is_scalar()) {
      const auto& scalar = keep.scalar_as<arrow::BooleanScalar>();
      return scalar.is_valid && scalar.value ? rows : rows->Slice(0, 0);
    }
    const cp::FilterOptions options(cp::FilterOptions::DROP);
    ARROW_ASSIGN_OR_RAISE(arrow::Datum kept, cp::Filter(arrow::Datum(rows), keep, options, context));
    return kept.record_batch();
  }

  static arrow::Result<Rows> Project(const Bound& bound, const Rows& rows, cp::ExecContext* context) {
    const cp::ExecBatch input(*rows);
    arrow::ArrayVector columns;
    for (const cp::Expression& expression : bound.expressions) {
      ARROW_ASSIGN_OR_RAISE(arrow::Datum value, cp::ExecuteScalarExpression(expression, input, context));
      ARROW_ASSIGN_OR_RAISE(auto column, AsColumn(value, rows->num_rows(), context->memory_pool()));
      columns.push_back(std::move(column));
    }
    return arrow::RecordBatch::Make(bound.output, rows->num_rows(), std::move(columns));
  }

  static arrow::Result<std::shared_ptr<arrow::Array>> AsColumn(const arrow::Datum& value, int64_t rows,
                                                               arrow::MemoryPool* pool) {
    if (value.is_scalar()) return arrow::MakeArrayFromScalar(*value.scalar(), rows, pool);
    if (value.is_chunked_array()) return arrow::Concatenate(value.chunks(), pool);
    return value.make_array();
  }

  const Meaning meaning_;
  const std::vector<std::string> names_;
  const std::vector<cp::Expression> expressions_;
  arrow::MemoryPool* const memory_;
  mutable std::mutex mutex_;                    // held for a comparison and a copy, never while binding
  mutable std::shared_ptr<const Bound> bound_;  // guarded by mutex_; the schema met last
};

}  // namespace

std::unique_ptr<Step> MakeFilter(cp::Expression expression, arrow::MemoryPool* memory) {
  return std::make_unique<ExpressionStep>(Meaning::kFilter, std::vector<std::string>{},
                                          std::vector{std::move(expression)}, memory);
}

std::unique_ptr<Step> MakeProject(std::vector<std::string> names, std::vector<cp::Expression> expressions,
                                  arrow::MemoryPool* memory) {
  return std::make_unique<ExpressionStep>(Meaning::kProject, std::move(names), std::move(expressions), memory);
}

std::unique_ptr<Step> MakeFilterOrColumn(cp::Expression expression, std::string name, arrow::MemoryPool* memory) {
  return std::make_unique<ExpressionStep>(Meaning::kFilterOrColumn, std::vector{std::move(name)},
                                          std::vector{std::move(expression)}, memory);
}

}  // namespace sabot::operators
