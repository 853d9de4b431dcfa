// Full validation of rows that came from elsewhere, at the cost of a look at their bytes.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/status.h>

namespace sabot::rows {

/// What `batch.ValidateFull()` says. Texts are looked at as one run of bytes, and value by value only where that is not
/// enough to call them valid.
arrow::Status ValidateRows(const arrow::RecordBatch& batch);

}  // namespace sabot::rows
