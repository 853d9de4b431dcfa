// What an expression is made of, which pyarrow does not show: for moving filters through a plan.
#pragma once

#include <arrow/compute/expression.h>
#include <arrow/result.h>
#include <arrow/type.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sabot::operators {

/// The conditions of which a filter by `expression` asks all, in their order; the expression itself if it is one.
std::vector<arrow::compute::Expression> Conjuncts(const arrow::compute::Expression& expression);

/// The columns it names, each once; none where it means one otherwise than by name, by position say.
std::optional<std::vector<std::string>> NamedColumns(const arrow::compute::Expression& expression);

/// With each column under its name in `names`, which has all that it names.
arrow::Result<arrow::compute::Expression> Renamed(const arrow::compute::Expression& expression,
                                                  const std::map<std::string, std::string>& names);

/// Whether it gives a value for any row of `schema`, the same whenever it is asked, and never an error: casts that may
/// not fit, checked arithmetic and functions that are not known here do not.
arrow::Result<bool> AlwaysAnswers(const arrow::compute::Expression& expression, const arrow::Schema& schema);

}  // namespace sabot::operators
