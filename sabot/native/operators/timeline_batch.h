// The slots' timeline as Arrow rows.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/result.h>

#include <memory>

#include "sabot/native/slots/logbook.h"

namespace sabot::operators {

/// One row per morsel, by start. Times are the system clock's, as it stands now. A job or operator that the logbook has
/// forgotten, or never knew, is null; so are partition, rows and bytes of what is no piece of a batch.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> TimelineBatch(const slots::Timeline& timeline);

}  // namespace sabot::operators
