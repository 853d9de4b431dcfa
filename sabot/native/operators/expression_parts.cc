#include "sabot/native/operators/expression_parts.h"

#include <arrow/scalar.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <set>
#include <utility>

namespace sabot::operators {
namespace {

namespace cp = arrow::compute;

const std::set<std::string>& FunctionsThatAlwaysAnswer() {
  static const std::set<std::string> names = {
      "equal",    "not_equal", "less",    "less_equal",  "greater",   "greater_equal",   "and",
      "or",       "xor",       "and_not", "and_kleene",  "or_kleene", "and_not_kleene",  "invert",
      "is_null",  "is_valid",  "is_nan",  "is_finite",   "is_inf",    "is_in",           "true_unless_null",
      "coalesce", "if_else",   "between", "starts_with", "ends_with", "match_substring", "binary_length"};
  return names;
}

void Gather(const cp::Expression& expression, std::vector<cp::Expression>* found) {
  const auto* call = expression.call();
  if (call != nullptr && (call->function_name == "and_kleene" || call->function_name == "and")) {
    for (const auto& argument : call->arguments) Gather(argument, found);
  } else {
    found->push_back(expression);
  }
}

/// The name of a column of the schema, also where a field within it is meant; null where it has none.
const std::string* ColumnOf(const arrow::FieldRef& ref) {
  if (const auto* name = ref.name()) return name;
  const auto* nested = ref.nested_refs();
  return nested == nullptr || nested->empty() ? nullptr : nested->front().name();
}

bool GatherNames(const cp::Expression& expression, std::vector<std::string>* names) {
  if (const auto* ref = expression.field_ref()) {
    const auto* name = ColumnOf(*ref);
    if (name == nullptr) return false;
    if (std::find(names->begin(), names->end(), *name) == names->end()) names->push_back(*name);
    return true;
  }
  const auto* call = expression.call();
  return call == nullptr || std::all_of(call->arguments.begin(), call->arguments.end(),
                                        [&](const auto& argument) { return GatherNames(argument, names); });
}

arrow::Result<cp::Expression> RenamedRef(const arrow::FieldRef& ref, const std::map<std::string, std::string>& names) {
  const auto* name = ColumnOf(ref);
  const auto found = name == nullptr ? names.end() : names.find(*name);
  if (found == names.end()) return arrow::Status::KeyError("there is no new name for ", ref.ToString());
  if (ref.IsName()) return cp::field_ref(arrow::FieldRef(found->second));
  std::vector<arrow::FieldRef> path = *ref.nested_refs();
  path.front() = arrow::FieldRef(found->second);
  return cp::field_ref(arrow::FieldRef(std::move(path)));
}

int DigitsMax(arrow::Type::type id) {
  switch (id) {
    case arrow::Type::INT8:
    case arrow::Type::UINT8:
      return 3;
    case arrow::Type::INT16:
    case arrow::Type::UINT16:
      return 5;
    case arrow::Type::INT32:
    case arrow::Type::UINT32:
      return 10;
    case arrow::Type::INT64:
      return 19;
    default:
      return 20;
  }
}

bool FitsDecimal(const arrow::DataType& from, const arrow::DecimalType& to) {
  const int whole_digits = to.precision() - to.scale();
  if (arrow::is_integer(from.id())) return whole_digits >= DigitsMax(from.id());
  if (!arrow::is_decimal(from.id())) return false;
  const auto& decimal = static_cast<const arrow::DecimalType&>(from);
  return to.scale() >= decimal.scale() && whole_digits >= decimal.precision() - decimal.scale();
}

bool FitsInteger(const arrow::DataType& from, const arrow::DataType& to) {
  if (!arrow::is_integer(from.id())) return false;
  const int from_bits = arrow::bit_width(from.id()), to_bits = arrow::bit_width(to.id());
  const bool from_signed = arrow::is_signed_integer(from.id()), to_signed = arrow::is_signed_integer(to.id());
  return from_signed == to_signed ? to_bits >= from_bits : to_signed && to_bits > from_bits;
}

bool FitsFloat(const arrow::DataType& from, const arrow::DataType& to) {
  const int exact_bits = to.id() == arrow::Type::DOUBLE ? 53 : to.id() == arrow::Type::FLOAT ? 24 : 0;
  if (arrow::is_integer(from.id())) return arrow::bit_width(from.id()) <= exact_bits;
  return arrow::is_floating(from.id()) && arrow::bit_width(to.id()) >= arrow::bit_width(from.id());
}

/// Whether a cast gives a value for every value.
bool Fits(const arrow::DataType& from, const arrow::DataType& to) {
  if (from.Equals(to) || from.id() == arrow::Type::NA) return true;
  if (from.id() == arrow::Type::DICTIONARY) {
    return Fits(*static_cast<const arrow::DictionaryType&>(from).value_type(), to);
  }
  if (arrow::is_integer(to.id())) return FitsInteger(from, to);
  if (arrow::is_floating(to.id())) return FitsFloat(from, to);
  if (arrow::is_decimal(to.id())) return FitsDecimal(from, static_cast<const arrow::DecimalType&>(to));
  if (from.id() == arrow::Type::STRING) return to.id() == arrow::Type::LARGE_STRING;
  return from.id() == arrow::Type::BINARY && to.id() == arrow::Type::LARGE_BINARY;
}

bool BoundAnswers(const cp::Expression& expression) {
  const auto* call = expression.call();
  if (call == nullptr) return true;
  if (call->function_name == "cast") {
    const auto& from = call->arguments.front();
    // A value of the plan's own has been cast when it was bound, or fails in the same way wherever the filter stands.
    if (from.literal() == nullptr && !Fits(*from.type(), *expression.type())) return false;
  } else if (!FunctionsThatAlwaysAnswer().contains(call->function_name)) {
    return false;
  }
  return std::all_of(call->arguments.begin(), call->arguments.end(), BoundAnswers);
}

}  // namespace

std::vector<cp::Expression> Conjuncts(const cp::Expression& expression) {
  std::vector<cp::Expression> found;
  Gather(expression, &found);
  return found;
}

std::optional<std::vector<std::string>> NamedColumns(const cp::Expression& expression) {
  std::vector<std::string> names;
  if (!GatherNames(expression, &names)) return std::nullopt;
  return names;
}

arrow::Result<cp::Expression> Renamed(const cp::Expression& expression,
                                      const std::map<std::string, std::string>& names) {
  if (const auto* ref = expression.field_ref()) return RenamedRef(*ref, names);
  const auto* call = expression.call();
  if (call == nullptr) return expression;
  std::vector<cp::Expression> arguments;
  arguments.reserve(call->arguments.size());
  for (const auto& argument : call->arguments) {
    ARROW_ASSIGN_OR_RAISE(auto renamed, Renamed(argument, names));
    arguments.push_back(std::move(renamed));
  }
  return cp::call(call->function_name, std::move(arguments), call->options);
}

arrow::Result<bool> AlwaysAnswers(const cp::Expression& expression, const arrow::Schema& schema) {
  ARROW_ASSIGN_OR_RAISE(auto bound, expression.Bind(schema));
  return BoundAnswers(bound);
}

}  // namespace sabot::operators
