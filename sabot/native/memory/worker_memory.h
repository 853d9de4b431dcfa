// What the system says worker processes hold. Free of Arrow.
#pragma once

#include <cstdint>

namespace sabot::memory {

/// Private memory of the children of process `nursery` (what they share with it by fork is not theirs), in bytes; 0
/// where the system does not say. Reads a few small files for each child.
int64_t ChildrenPrivateBytes(int nursery);

}  // namespace sabot::memory
