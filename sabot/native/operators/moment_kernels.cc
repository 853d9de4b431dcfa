#include "sabot/native/operators/moment_kernels.h"

#include <arrow/array/util.h>
#include <arrow/buffer_builder.h>
#include <arrow/compute/function.h>
#include <arrow/compute/kernel.h>
#include <arrow/compute/registry.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/bit_util.h>

#include <array>
#include <string>
#include <utility>

#include "sabot/native/operators/moments.h"

namespace sabot::operators {

namespace {

namespace cp = arrow::compute;

template <int Powers>
std::shared_ptr<arrow::DataType> StructOf() {
  arrow::FieldVector fields{arrow::field("count", arrow::int64()), arrow::field("about", arrow::float64())};
  for (int power = 1; power <= Powers; ++power) {
    fields.push_back(arrow::field("sum_" + std::to_string(power), arrow::float64()));
  }
  return arrow::struct_(std::move(fields));
}

/// The moments of each group; without keys of one.
template <int Powers>
struct State final : cp::KernelState {
  explicit State(arrow::MemoryPool* pool) : groups(pool) {}

  arrow::TypedBufferBuilder<Moments<Powers>> groups;
};

template <int Powers>
State<Powers>& StateOf(cp::KernelContext* context) {
  return *static_cast<State<Powers>*>(context->state());
}

template <int Powers>
arrow::Result<std::unique_ptr<cp::KernelState>> Init(cp::KernelContext* context, const cp::KernelInitArgs&) {
  return std::make_unique<State<Powers>>(context->memory_pool());
}

template <int Powers>
arrow::Result<std::unique_ptr<cp::KernelState>> InitOne(cp::KernelContext* context, const cp::KernelInitArgs&) {
  auto state = std::make_unique<State<Powers>>(context->memory_pool());
  ARROW_RETURN_NOT_OK(state->groups.Append(1, Moments<Powers>{}));
  return state;
}

/// Calls `take` with the row and its value for each that is not null.
template <typename Take>
arrow::Status ForEach(const arrow::ArraySpan& values, const Take& take) {
  const auto* given = values.GetValues<double>(1);
  const uint8_t* valid = values.GetNullCount() == 0 ? nullptr : values.buffers[0].data;
  for (int64_t row = 0; row < values.length; ++row) {
    if (valid == nullptr || arrow::bit_util::GetBit(valid, values.offset + row)) take(row, given[row]);
  }
  return arrow::Status::OK();
}

/// Calls `take` with the row and its moments for each.
template <int Powers, typename Take>
arrow::Status ForEachStruct(const arrow::ArraySpan& values, const Take& take) {
  // The rows are the parent's, whose place in its columns is the parent's own.
  const auto* counts = values.child_data[0].GetValues<int64_t>(1) + values.offset;
  std::array<const double*, Powers + 1> columns;
  for (int i = 0; i <= Powers; ++i) columns[i] = values.child_data[i + 1].GetValues<double>(1) + values.offset;
  for (int64_t row = 0; row < values.length; ++row) {
    if (values.IsNull(row)) continue;
    Moments<Powers> moments{counts[row], columns[0][row], {}};
    for (int i = 0; i < Powers; ++i) moments.sums[i] = columns[i + 1][row];
    take(row, moments);
  }
  return arrow::Status::OK();
}

arrow::Result<const arrow::ArraySpan*> ArrayOf(const cp::ExecSpan& batch) {
  if (batch[0].is_array()) return &batch[0].array;
  return arrow::Status::NotImplemented("moments of a value that is the same in all rows");
}

template <int Powers>
arrow::Status AddToGroups(cp::KernelContext* context, const cp::ExecSpan& batch) {
  ARROW_ASSIGN_OR_RAISE(const auto* values, ArrayOf(batch));
  const auto* numbers = batch[1].array.GetValues<uint32_t>(1);
  auto* groups = StateOf<Powers>(context).groups.mutable_data();
  return ForEach(*values, [&](int64_t row, double value) { groups[numbers[row]].Add(value); });
}

template <int Powers>
arrow::Status MergeIntoGroups(cp::KernelContext* context, const cp::ExecSpan& batch) {
  ARROW_ASSIGN_OR_RAISE(const auto* values, ArrayOf(batch));
  const auto* numbers = batch[1].array.GetValues<uint32_t>(1);
  auto* groups = StateOf<Powers>(context).groups.mutable_data();
  return ForEachStruct<Powers>(
      *values, [&](int64_t row, const Moments<Powers>& moments) { groups[numbers[row]].Merge(moments); });
}

template <int Powers>
arrow::Status AddToOne(cp::KernelContext* context, const cp::ExecSpan& batch) {
  ARROW_ASSIGN_OR_RAISE(const auto* values, ArrayOf(batch));
  auto& all = *StateOf<Powers>(context).groups.mutable_data();
  return ForEach(*values, [&](int64_t, double value) { all.Add(value); });
}

template <int Powers>
arrow::Status MergeIntoOne(cp::KernelContext* context, const cp::ExecSpan& batch) {
  ARROW_ASSIGN_OR_RAISE(const auto* values, ArrayOf(batch));
  auto& all = *StateOf<Powers>(context).groups.mutable_data();
  return ForEachStruct<Powers>(*values, [&](int64_t, const Moments<Powers>& moments) { all.Merge(moments); });
}

template <int Powers>
arrow::Status Resize(cp::KernelContext* context, int64_t groups) {
  auto& known = StateOf<Powers>(context).groups;
  return groups > known.length() ? known.Append(groups - known.length(), Moments<Powers>{}) : arrow::Status::OK();
}

template <int Powers>
arrow::Status MergeStates(cp::KernelContext* context, cp::KernelState&& other, const arrow::ArrayData& numbers) {
  const auto& others = static_cast<State<Powers>&>(other).groups;
  auto* groups = StateOf<Powers>(context).groups.mutable_data();
  const auto* number = numbers.GetValues<uint32_t>(1);
  for (int64_t i = 0; i < others.length(); ++i) groups[number[i]].Merge(others.data()[i]);
  return arrow::Status::OK();
}

template <int Powers>
arrow::Status MergeOnes(cp::KernelContext*, cp::KernelState&& from, cp::KernelState* into) {
  static_cast<State<Powers>*>(into)->groups.mutable_data()->Merge(*static_cast<State<Powers>&>(from).groups.data());
  return arrow::Status::OK();
}

template <int Powers>
arrow::Result<std::shared_ptr<arrow::ArrayData>> StructsOf(cp::KernelContext* context) {
  auto& groups = StateOf<Powers>(context).groups;
  const int64_t length = groups.length();
  const std::shared_ptr<arrow::DataType> type = StructOf<Powers>();
  std::vector<std::shared_ptr<arrow::ArrayData>> columns;
  for (const auto& field : type->fields()) {
    ARROW_ASSIGN_OR_RAISE(auto buffer, arrow::AllocateBuffer(length * 8, context->memory_pool()));
    columns.push_back(arrow::ArrayData::Make(field->type(), length, {nullptr, std::move(buffer)}, 0));
  }
  auto* counts = columns[0]->GetMutableValues<int64_t>(1);
  std::array<double*, Powers + 1> numbers;
  for (int i = 0; i <= Powers; ++i) numbers[i] = columns[i + 1]->GetMutableValues<double>(1);
  for (int64_t i = 0; i < length; ++i) {
    auto& moments = groups.mutable_data()[i];
    if (moments.count != 0) moments.Recentre();
    counts[i] = moments.count;
    numbers[0][i] = moments.about;
    for (int power = 0; power < Powers; ++power) numbers[power + 1][i] = moments.sums[power];
  }
  return arrow::ArrayData::Make(type, length, {nullptr}, std::move(columns), 0);
}

template <int Powers>
arrow::Status FinishGroups(cp::KernelContext* context, arrow::Datum* out) {
  ARROW_ASSIGN_OR_RAISE(auto structs, StructsOf<Powers>(context));
  *out = arrow::Datum(std::move(structs));
  return arrow::Status::OK();
}

template <int Powers>
arrow::Status FinishOne(cp::KernelContext* context, arrow::Datum* out) {
  ARROW_ASSIGN_OR_RAISE(auto structs, StructsOf<Powers>(context));
  ARROW_ASSIGN_OR_RAISE(auto scalar, arrow::MakeArray(std::move(structs))->GetScalar(0));
  *out = arrow::Datum(std::move(scalar));
  return arrow::Status::OK();
}

template <int Powers>
arrow::Status Register(cp::FunctionRegistry* registry) {
  const std::string name = "sabot_moments_" + std::to_string(Powers);
  const std::shared_ptr<arrow::DataType> made = StructOf<Powers>();
  const auto takes = [](const std::shared_ptr<arrow::DataType>& type, const bool grouped) {
    return grouped ? std::vector<cp::InputType>{type, arrow::uint32()} : std::vector<cp::InputType>{type};
  };
  const std::string what = "Sabot's own: sums of powers of the distances from the mean, to be put together";

  auto one =
      std::make_shared<cp::ScalarAggregateFunction>(name, cp::Arity::Unary(), cp::FunctionDoc(what, "", {"values"}));
  const auto one_of = [&](const std::shared_ptr<arrow::DataType>& type, cp::ScalarAggregateConsume consume) {
    return cp::ScalarAggregateKernel(takes(type, false), made, InitOne<Powers>, consume, MergeOnes<Powers>,
                                     FinishOne<Powers>, /*ordered=*/false);
  };
  ARROW_RETURN_NOT_OK(one->AddKernel(one_of(arrow::float64(), AddToOne<Powers>)));
  ARROW_RETURN_NOT_OK(one->AddKernel(one_of(made, MergeIntoOne<Powers>)));
  ARROW_RETURN_NOT_OK(registry->AddFunction(std::move(one), /*allow_overwrite=*/true));

  auto grouped = std::make_shared<cp::HashAggregateFunction>("hash_" + name, cp::Arity::Binary(),
                                                             cp::FunctionDoc(what, "", {"values", "groups"}));
  const auto groups_of = [&](const std::shared_ptr<arrow::DataType>& type, cp::HashAggregateConsume consume) {
    return cp::HashAggregateKernel(takes(type, true), made, Init<Powers>, consume, Resize<Powers>, MergeStates<Powers>,
                                   FinishGroups<Powers>, /*ordered=*/false);
  };
  ARROW_RETURN_NOT_OK(grouped->AddKernel(groups_of(arrow::float64(), AddToGroups<Powers>)));
  ARROW_RETURN_NOT_OK(grouped->AddKernel(groups_of(made, MergeIntoGroups<Powers>)));
  return registry->AddFunction(std::move(grouped), /*allow_overwrite=*/true);
}

}  // namespace

arrow::Status RegisterMoments() {
  cp::FunctionRegistry* registry = cp::GetFunctionRegistry();
  ARROW_RETURN_NOT_OK(Register<2>(registry));
  return Register<4>(registry);
}

}  // namespace sabot::operators
