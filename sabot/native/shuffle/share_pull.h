// The reader's side of a share stream: checksums verified, and content sums computed anew as the senders computed them.
#pragma once

#include <arrow/flight/client.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "sabot/native/shuffle/pulled.h"

namespace sabot::shuffle {

/// What `reader` gives, to its last mark; the content sum is bound to `key_columns`, as that of chunks is. kIntegrity
/// where rows were changed, dropped or doubled on the way.
arrow::Result<std::shared_ptr<Pulled>> ReadShare(arrow::flight::FlightStreamReader* reader, const std::string& address,
                                                 const std::vector<int>& key_columns);

}  // namespace sabot::shuffle
