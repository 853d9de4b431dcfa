#include "sabot/native/rows/routing.h"

#include <arrow/array.h>
#include <arrow/memory_pool.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "sabot/native/rows/placing.h"
#include "sabot/native/rows/row_hasher.h"

namespace sabot::rows {
namespace {

constexpr int64_t kBlockRows = 1024;  // the hashes of a block stay in the first-level cache

using Batches = std::vector<std::shared_ptr<arrow::RecordBatch>>;

/// Partitions in the order of the output: by owner, then by number; a partition's place in it is its rank.
struct Ranking {
  std::vector<int32_t> partition_of;  // rank -> partition
  std::vector<uint32_t> rank_of;      // partition -> rank
};

Ranking RankPartitions(const ScatterOptions& options) {
  Ranking ranking;
  ranking.partition_of.resize(static_cast<size_t>(options.num_partitions));
  std::iota(ranking.partition_of.begin(), ranking.partition_of.end(), 0);
  std::stable_sort(ranking.partition_of.begin(), ranking.partition_of.end(), [&](int32_t left, int32_t right) {
    return options.owner_of[static_cast<size_t>(left)] < options.owner_of[static_cast<size_t>(right)];
  });
  ranking.rank_of.resize(ranking.partition_of.size());
  for (size_t rank = 0; rank < ranking.partition_of.size(); ++rank) {
    ranking.rank_of[static_cast<size_t>(ranking.partition_of[rank])] = static_cast<uint32_t>(rank);
  }
  return ranking;
}

/// First half: the rank and the mix of every row, and how many rows each rank has.
arrow::Status RankRows(const Batches& batches, const ScatterOptions& options, const Ranking& ranking,
                       std::span<uint32_t> ranks, std::span<uint64_t> mixes, std::vector<int64_t>* counts) {
  uint64_t key_hashes[kBlockRows];
  int32_t partitions[kBlockRows];
  size_t row = 0;
  Placing placing(options);
  for (const auto& batch : batches) {
    RowHasher hasher(*batch, options.key_columns, options.content_sums ? options.sum_column : RowHasher::kNoSum);
    for (int64_t first = 0; first < batch->num_rows(); first += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, batch->num_rows() - first);
      ARROW_RETURN_NOT_OK(hasher.Hash(first, rows, key_hashes, mixes.data() + row));
      ARROW_RETURN_NOT_OK(placing.Place(*batch, first, rows, key_hashes, partitions));
      for (int64_t i = 0; i < rows; ++i, ++row) {
        const uint32_t rank = ranking.rank_of[static_cast<size_t>(partitions[i])];
        ranks[row] = rank;
        ++(*counts)[rank];
      }
    }
  }
  return arrow::Status::OK();
}

/// Cuts every owner's rows into chunks of nearly equal size, and lists what each holds of which partition.
std::vector<Cut> CutChunks(const ScatterOptions& options, const Ranking& ranking, const std::vector<int64_t>& counts,
                           int64_t chunk_rows_max) {
  std::vector<Cut> cuts;
  int64_t owner_start = 0;
  for (size_t rank = 0; rank < counts.size();) {
    const int32_t owner = options.owner_of[static_cast<size_t>(ranking.partition_of[rank])];
    size_t end_rank = rank;
    int64_t owner_rows = 0;
    while (end_rank < counts.size() && options.owner_of[static_cast<size_t>(ranking.partition_of[end_rank])] == owner) {
      owner_rows += counts[end_rank++];
    }
    const int64_t chunks = (owner_rows + chunk_rows_max - 1) / chunk_rows_max;
    int64_t taken = 0;  // of the rows of `rank`
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t start = owner_rows / chunks * chunk + std::min(chunk, owner_rows % chunks);
      const int64_t rows = owner_rows / chunks + (chunk < owner_rows % chunks ? 1 : 0);
      Cut cut{owner, owner_start + start, rows, {}};
      for (int64_t missing = rows; missing > 0;) {
        const int64_t here = std::min(missing, counts[rank] - taken);
        if (here > 0) cut.extents.push_back({ranking.partition_of[rank], here, 0});
        missing -= here;
        taken += here;
        if (taken == counts[rank] && missing > 0) {
          ++rank;
          taken = 0;
        }
      }
      cuts.push_back(std::move(cut));
    }
    owner_start += owner_rows;
    rank = end_rank;
  }
  return cuts;
}

/// Where the next row of a rank goes, and the extent that it will belong to.
struct Cursor {
  uint32_t next = 0;
  uint32_t end = 0;
  size_t extent = 0;  // into the list of all extents
};

/// Second half: replaces each row's rank by its destination, and adds its mix to its extent.
void PlaceRows(const Ranking& ranking, std::span<uint32_t> rows, std::span<const uint64_t> mixes,
               std::vector<Cut>* cuts) {
  struct Place {
    uint32_t end;
    uint64_t sum;
    Extent* extent;
  };
  std::vector<Place> places;
  std::vector<Cursor> cursors(ranking.partition_of.size());
  std::vector<bool> seen(cursors.size());
  // The extents of one partition are neighbours in this list, so a cursor at its extent's end goes on to the next one.
  uint32_t end = 0;
  for (Cut& cut : *cuts) {
    for (Extent& extent : cut.extents) {
      const size_t rank = ranking.rank_of[static_cast<size_t>(extent.partition)];
      const uint32_t start = end;
      end += static_cast<uint32_t>(extent.rows);
      if (!seen[rank]) {
        seen[rank] = true;
        cursors[rank] = {start, end, places.size()};
      }
      places.push_back({end, 0, &extent});
    }
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    Cursor& cursor = cursors[rows[i]];
    if (cursor.next == cursor.end) cursor.end = places[++cursor.extent].end;
    places[cursor.extent].sum += mixes[i];
    rows[i] = cursor.next++;
  }
  for (const Place& place : places) place.extent->content_sum = place.sum;
}

}  // namespace

arrow::Result<Routing> RouteRows(const Batches& batches, const ScatterOptions& options, int64_t chunk_rows_max) {
  Routing routing;
  routing.pool = options.pool;
  for (const auto& batch : batches) routing.rows += batch->num_rows();
  const auto rows = static_cast<size_t>(routing.rows);
  ARROW_ASSIGN_OR_RAISE(std::unique_ptr<arrow::Buffer> rank_buffer,
                        arrow::AllocateBuffer(routing.rows * static_cast<int64_t>(sizeof(uint32_t)), options.pool));
  ARROW_ASSIGN_OR_RAISE(const auto mix_buffer,
                        arrow::AllocateBuffer(routing.rows * static_cast<int64_t>(sizeof(uint64_t)), options.pool));
  const std::span<uint32_t> ranks(reinterpret_cast<uint32_t*>(rank_buffer->mutable_data()), rows);
  const std::span<uint64_t> mixes(reinterpret_cast<uint64_t*>(mix_buffer->mutable_data()), rows);

  const Ranking ranking = RankPartitions(options);
  std::vector<int64_t> counts(ranking.partition_of.size());
  ARROW_RETURN_NOT_OK(RankRows(batches, options, ranking, ranks, mixes, &counts));
  routing.cuts = CutChunks(options, ranking, counts, chunk_rows_max);
  PlaceRows(ranking, ranks, mixes, &routing.cuts);
  routing.destinations = std::move(rank_buffer);
  return routing;
}

}  // namespace sabot::rows
