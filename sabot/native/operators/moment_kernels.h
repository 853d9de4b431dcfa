// Aggregate functions of Arrow's registry by which variances are computed in two halves.
#pragma once

#include <arrow/status.h>

namespace sabot::operators {

/// Registers `sabot_moments_2` and `sabot_moments_4`, with `hash_` in front for groups. Of float64 they make a struct
/// of Moments: count, about, and a sum for each power; of such structs one of them all. Nulls are skipped, and of no
/// value the count is 0. Once a process; again is harmless.
arrow::Status RegisterMoments();

}  // namespace sabot::operators
