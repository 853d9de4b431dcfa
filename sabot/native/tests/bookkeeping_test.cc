#include "sabot/native/shuffle/bookkeeping.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace sabot::shuffle {
namespace {

Bookkeeping MakeBook(int32_t sender_count = 0) {
  Bookkeeping::Options options;
  options.shuffle_id = "s";
  options.agent = "here";
  options.num_partitions = 4;
  options.sender_count = sender_count;
  return Bookkeeping(options);
}

ChunkHeader Chunk(uint32_t task, uint32_t sequence, std::vector<rows::Extent> extents) {
  ChunkHeader header;
  header.shuffle_id = "s";
  header.incarnation = 1;
  header.task = task;
  header.sequence = sequence;
  header.checksum = task * 1000 + sequence;
  header.extents = std::move(extents);
  return header;
}

int64_t RowsOf(const ChunkHeader& header) {
  int64_t row_count = 0;
  for (const rows::Extent& extent : header.extents) row_count += extent.rows;
  return row_count;
}

ChunkHeader ManifestOf(const std::vector<ChunkHeader>& chunks, uint32_t task) {
  ChunkHeader manifest = Chunk(task, static_cast<uint32_t>(chunks.size()), {});
  manifest.kind = MessageKind::kManifest;
  manifest.checksum = 0;
  std::map<int32_t, PartitionSum> sums;
  for (const ChunkHeader& chunk : chunks) {
    manifest.checksum += ChunkMark(chunk.sequence, chunk.checksum);
    for (const rows::Extent& extent : chunk.extents) sums[extent.partition].Add(extent.rows, extent.content_sum);
  }
  for (const auto& [partition, sum] : sums) manifest.extents.push_back({partition, sum.rows, sum.content_sum});
  return manifest;
}

// One model for all orders: chunks come shuffled and repeated; the manifest is confirmed exactly when all are in.
TEST(Bookkeeping, ConfirmsExactlyWhenEveryChunkIsInWhateverTheOrder) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    std::vector<ChunkHeader> chunks;
    PartitionSum expected;
    for (uint32_t sequence = 0; sequence < 1 + random() % 6; ++sequence) {
      const rows::Extent extent{static_cast<int32_t>(random() % 4), static_cast<int64_t>(random() % 10), random()};
      if (extent.partition == 2) expected.Add(extent.rows, extent.content_sum);
      chunks.push_back(Chunk(0, sequence, {extent}));
    }
    const ChunkHeader manifest = ManifestOf(chunks, 0);
    std::vector<size_t> arrivals;
    for (size_t i = 0; i < chunks.size(); ++i) arrivals.insert(arrivals.end(), 1 + random() % 2, i);
    std::shuffle(arrivals.begin(), arrivals.end(), random);

    Bookkeeping book = MakeBook();
    std::map<size_t, int> seen;
    for (const size_t i : arrivals) {
      if (seen.size() < chunks.size()) {
        EXPECT_EQ(CodeOf(book.OfferManifest(manifest).status), Code::kPeerLost);
      }
      const Verdict verdict = book.OfferChunk(chunks[i], RowsOf(chunks[i])).verdict;
      EXPECT_EQ(verdict, seen[i]++ == 0 ? Verdict::kStore : Verdict::kRepeated);
    }
    EXPECT_EQ(book.OfferManifest(manifest).verdict, Verdict::kStore);
    EXPECT_EQ(book.OfferManifest(manifest).verdict, Verdict::kRepeated);
    EXPECT_EQ(*book.Promised(2, {{0, 0}}), expected);
  }
}

TEST(Bookkeeping, ManifestOfOtherChunksIsCorruptNotMissing) {
  Bookkeeping book = MakeBook();
  const ChunkHeader chunk = Chunk(0, 0, {{1, 5, 77}});
  ASSERT_EQ(book.OfferChunk(chunk, 5).verdict, Verdict::kStore);
  ChunkHeader other = chunk;
  other.checksum ^= 1;
  EXPECT_EQ(CodeOf(book.OfferManifest(ManifestOf({other}, 0)).status), Code::kIntegrity);
  ChunkHeader fewer = chunk;
  fewer.extents = {{1, 4, 77}};
  EXPECT_EQ(CodeOf(book.OfferManifest(ManifestOf({fewer}, 0)).status), Code::kIntegrity);
  ChunkHeader elsewhere = chunk;
  elsewhere.extents = {{1, 5, 77}, {3, 1, 0}};
  EXPECT_EQ(CodeOf(book.OfferManifest(ManifestOf({elsewhere}, 0)).status), Code::kIntegrity);
}

TEST(Bookkeeping, SumsAddSoThatTwoEqualErrorsDoNotCancel) {
  PartitionSum sum;
  sum.Add(1, 42);
  sum.Add(1, 42);
  EXPECT_NE(sum.content_sum, 0u);
}

TEST(Bookkeeping, PlainWritersAreReadButNotWaitedFor) {
  Bookkeeping book = MakeBook(/*sender_count=*/1);
  EXPECT_EQ(book.OfferManifest(ManifestOf({}, kFirstPlainTask)).verdict, Verdict::kStore);
  EXPECT_FALSE(book.SendersFinished());
  EXPECT_EQ(book.OfferManifest(ManifestOf({}, 0)).verdict, Verdict::kStore);
  EXPECT_TRUE(book.SendersFinished());
  EXPECT_EQ(book.ConfirmedAttempts().size(), 2u);
}

TEST(Bookkeeping, SecondAttemptOfATaskDoesNotStandForAnotherTask) {
  Bookkeeping book = MakeBook(/*sender_count=*/2);
  EXPECT_EQ(book.OfferManifest(ManifestOf({}, 0)).verdict, Verdict::kStore);
  ChunkHeader again = ManifestOf({}, 0);
  again.attempt = 1;
  EXPECT_EQ(CodeOf(book.OfferManifest(again).status), Code::kPeerRefused);
  EXPECT_FALSE(book.SendersFinished());
}

TEST(Bookkeeping, TaskBeyondTheSendersDoesNotStandForOne) {
  Bookkeeping book = MakeBook(/*sender_count=*/2);
  EXPECT_EQ(book.OfferManifest(ManifestOf({}, 0)).verdict, Verdict::kStore);
  EXPECT_EQ(CodeOf(book.OfferManifest(ManifestOf({}, 2)).status), Code::kPeerRefused);
  EXPECT_FALSE(book.SendersFinished());
}

TEST(Bookkeeping, RowCountsThatWrapRoundAreRefused) {
  Bookkeeping book = MakeBook();
  const ChunkHeader chunk = Chunk(0, 0, {{0, INT64_MAX, 0}, {1, INT64_MAX, 0}, {2, 5, 0}});
  EXPECT_EQ(CodeOf(book.OfferChunk(chunk, 3).status), Code::kIntegrity);
  ChunkHeader manifest = ManifestOf({}, 0);
  manifest.extents = {{0, INT64_MAX, 0}, {0, INT64_MAX, 0}};
  EXPECT_EQ(CodeOf(book.OfferManifest(manifest).status), Code::kIntegrity);
}

ChunkHeader InEpoch(ChunkHeader header, uint32_t epoch, uint32_t attempt = 0) {
  header.epoch = epoch;
  header.attempt = attempt;
  return header;
}

TEST(Bookkeeping, OnlyTheEpochOfNowIsTakenAndWhatWasConfirmedBeforeStaysReadable) {
  Bookkeeping book = MakeBook();
  const ChunkHeader early = Chunk(0, 0, {{2, 5, 7}});
  ASSERT_EQ(book.OfferChunk(early, 5).verdict, Verdict::kStore);
  ASSERT_EQ(book.OfferManifest(ManifestOf({early}, 0)).verdict, Verdict::kStore);
  const ChunkHeader late = Chunk(1, 0, {{2, 3, 4}});
  EXPECT_EQ(CodeOf(book.OfferChunk(InEpoch(late, 1, 1), 3).status), Code::kPeerRefused) << "of an epoch to come";
  book.Reown({.epoch = 1, .owner_of = {0, 0, 0, 0}, .given_up = {}});
  EXPECT_EQ(CodeOf(book.OfferChunk(late, 3).status), Code::kPeerRefused) << "of an epoch that is over";
  EXPECT_EQ(CodeOf(book.OfferManifest(ManifestOf({late}, 1)).status), Code::kPeerRefused);
  ASSERT_EQ(book.OfferChunk(InEpoch(late, 1, 1), 3).verdict, Verdict::kStore);
  ASSERT_EQ(book.OfferManifest(InEpoch(ManifestOf({late}, 1), 1, 1)).verdict, Verdict::kStore);
  const auto promised = book.Promised(2, {{0, 0}, {1, 1}});
  ASSERT_TRUE(promised.ok());
  EXPECT_EQ(*promised, (PartitionSum{8, 11}));
}

TEST(Bookkeeping, NewOwnerTakesWhatItWasGivenAndAnOvertakenTableChangesNothing) {
  Bookkeeping::Options options;
  options.num_partitions = 4;
  options.owner_count = 2;
  Bookkeeping book(options);
  EXPECT_FALSE(book.Owns(3));
  EXPECT_EQ(CodeOf(book.OfferChunk(Chunk(0, 0, {{3, 1, 1}}), 1).status), Code::kPeerRefused);
  book.Reown({.epoch = 2, .owner_of = {0, 0, 0, 0}, .given_up = {}});
  EXPECT_TRUE(book.Owns(3));
  EXPECT_EQ(book.OfferChunk(InEpoch(Chunk(0, 0, {{3, 1, 1}}), 2, 1), 1).verdict, Verdict::kStore);
  book.Reown({.epoch = 1, .owner_of = {1, 1, 1, 1}, .given_up = {}});
  EXPECT_TRUE(book.Owns(3)) << "an overtaken table was taken";
  book.Reown({.epoch = 2, .owner_of = {1, 1, 1, 1}, .given_up = {}});
  EXPECT_TRUE(book.Owns(3)) << "a repeat changed the table of its epoch";
}

TEST(Bookkeeping, NothingIsTakenFromAnIncarnationThatWasGivenUpWhateverItsEpoch) {
  for (const bool guarded : {true, false}) {
    Bookkeeping::Options options;
    options.num_partitions = 4;
    options.check_epochs = guarded;
    Bookkeeping book(options);
    book.Reown({.epoch = 1, .owner_of = {0, 0, 0, 0}, .given_up = {7, 1}});
    const Judgement judged = book.OfferChunk(InEpoch(Chunk(0, 0, {{3, 1, 1}}), 1), 1);
    EXPECT_EQ(CodeOf(judged.status) == Code::kPeerRefused, guarded);
  }
}

TEST(ChunkHeader, ComesBackAsItWasEncoded) {
  ChunkHeader header = Chunk(3, 4, {{1, 5, 77}, {2, 0, 0}});
  header.layout = {.by_hash = true, .key_columns = {0, 9}};
  header.epoch = 5;
  header.attempt = 6;
  const auto decoded = DecodeHeader(EncodeHeader(header));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(EncodeHeader(*decoded), EncodeHeader(header));
}

TEST(ChunkHeader, EveryPrefixIsRefused) {
  const std::string bytes = EncodeHeader(Chunk(3, 4, {{1, 5, 77}}));
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(CodeOf(DecodeHeader(bytes.substr(0, length)).status()), Code::kPeerRefused) << length;
  }
  EXPECT_FALSE(DecodeHeader(bytes + "x").ok());
}

TEST(ChunkHeader, RandomBytesNeverCrashTheDecoders) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = EncodeHeader(Chunk(3, 4, {{1, 5, 77}, {0, 1, 2}}));
    for (uint32_t flips = random() % 8; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    (void)DecodeHeader(bytes);
    (void)DecodeAck(bytes);
    (void)DecodeEnd(bytes);
    (void)DecodeReadMark(bytes);
  }
}

}  // namespace
}  // namespace sabot::shuffle
