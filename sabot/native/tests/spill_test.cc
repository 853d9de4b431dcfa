#include <arrow/api.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <set>
#include <thread>

#include "sabot/native/rows/checksum.h"
#include "sabot/native/shuffle/chunk_store.h"
#include "sabot/native/spill/kept_rows.h"
#include "sabot/native/spill/row_block.h"
#include "sabot/native/spill/spill_writer.h"
#include "sabot/native/tests/rows_arrays.h"

namespace sabot::spill {
namespace {

namespace fs = std::filesystem;
using rows::BatchPtr;
using rows::ExpectCode;
using rows::FromJson;
using rows::MakeBatch;
using rows::Moved;

/// Folders of its own, gone with the test.
class Spill : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "sabot-test-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(root_); }

  std::shared_ptr<SpillSpace> MakeSpace(uint64_t incarnation = 1, int64_t bytes_max = 0) {
    return SpillSpace::Make({.folders = {root_.string()}, .bytes_max = bytes_max, .incarnation = incarnation})
        .ValueOrDie();
  }
  size_t FileCount() const {
    size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(root_)) files += entry.is_regular_file() ? 1 : 0;
    return files;
  }

  fs::path root_;
};

BatchPtr EveryKind() {
  const auto strings = R"(["a", null, "ccc", "", "a text of more than twelve bytes"])";
  const auto dictionary = arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int8(), arrow::utf8()),
                                                             FromJson(arrow::int8(), "[0, 1, null, 1, 0]"),
                                                             FromJson(arrow::utf8(), R"(["x", "y"])"));
  return MakeBatch({
      {"int", FromJson(arrow::int64(), "[1, null, 3, 4, 5]")},
      {"whole", FromJson(arrow::int32(), "[1, 2, 3, 4, 5]")},
      {"bool", FromJson(arrow::boolean(), "[true, null, false, true, true]")},
      {"text", FromJson(arrow::utf8(), strings)},
      {"large", FromJson(arrow::large_utf8(), strings)},
      {"view", FromJson(arrow::utf8_view(), strings)},
      {"fixed", FromJson(arrow::fixed_size_binary(3), R"(["abc", null, "def", "ghi", "jkl"])")},
      {"decimal", FromJson(arrow::decimal128(9, 2), R"(["1.23", null, "4.50", "0.01", "9.99"])")},
      {"null", FromJson(arrow::null(), "[null, null, null, null, null]")},
      {"list", FromJson(arrow::list(arrow::int16()), "[[1], null, [2, 3], [], [4]]")},
      {"struct",
       FromJson(arrow::struct_({arrow::field("a", arrow::int8()), arrow::field("b", arrow::utf8())}),
                R"([{"a": 1, "b": "x"}, null, {"a": null, "b": "y"}, {"a": 2, "b": null}, {"a": 3, "b": ""}])")},
      {"dictionary", dictionary.ValueOrDie()},
  });
}

BatchPtr Wide(int64_t rows) {
  arrow::Int64Builder builder;
  for (int64_t i = 0; i < rows; ++i) EXPECT_TRUE(builder.Append(i * 0x9E3779B97F4A7C15ll).ok());
  return MakeBatch({{"number", builder.Finish().ValueOrDie()}});
}

std::set<const arrow::Buffer*> RootsOf(const arrow::RecordBatch& batch) {
  std::set<const arrow::Buffer*> roots;
  std::vector<const arrow::ArrayData*> left;
  for (int i = 0; i < batch.num_columns(); ++i) left.push_back(batch.column_data(i).get());
  while (!left.empty()) {
    const arrow::ArrayData* data = left.back();
    left.pop_back();
    for (const auto& buffer : data->buffers) {
      if (buffer == nullptr) continue;
      const arrow::Buffer* root = buffer.get();
      while (root->parent() != nullptr) root = root->parent().get();
      roots.insert(root);
    }
    for (const auto& child : data->child_data) left.push_back(child.get());
    if (data->dictionary != nullptr) left.push_back(data->dictionary.get());
  }
  return roots;
}

TEST(RowBlock, CopyOfASliceHasItsRowsInOneBlockWhateverTheType) {
  const BatchPtr batch = EveryKind();
  std::vector<std::pair<std::string, rows::ArrayPtr>> columns;
  for (int i = 0; i < batch->num_columns(); ++i) {
    if (batch->column_name(i) == "dictionary") continue;  // concatenated, it would be another dictionary
    columns.emplace_back(batch->column_name(i), Moved(batch->column(i)));
  }
  for (const BatchPtr& given : {batch, batch->Slice(1, 3), batch->Slice(2, 0), MakeBatch(columns)}) {
    for (const auto& copy : {CopyRows(*given, {}), CopyBuffers(*given, {})}) {
      ASSERT_TRUE(copy.ok()) << copy.status();
      ASSERT_TRUE((*copy)->ValidateFull().ok());
      EXPECT_TRUE((*copy)->Equals(*given)) << (*copy)->ToString();
      EXPECT_EQ(RootsOf(**copy).size(), 1u);
    }
  }
}

TEST(RowBlock, CopyHoldsItsOwnRowsOnlyAndStandsOnItsAccountUntilItGoes) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1 << 30});
  const BatchPtr large = Wide(100'000);
  BatchPtr copy = CopyRows(*large->Slice(500, 10), {.ledger = ledger}).ValueOrDie();
  EXPECT_EQ(ledger->snapshot().store, shuffle::RetainedBytes(*copy));
  EXPECT_EQ(shuffle::RetainedBytes(*copy), 128);
  auto column = copy->column(0);
  copy.reset();
  EXPECT_EQ(ledger->snapshot().store, 128) << "a reader has it still";
  column.reset();
  EXPECT_EQ(ledger->snapshot().store, 0);
}

TEST(RowBlock, BuffersThatOverlapAreNotUnfolded) {
  const std::shared_ptr<arrow::Buffer> body = arrow::AllocateBuffer(1 << 20).ValueOrDie();
  std::vector<std::pair<std::string, rows::ArrayPtr>> columns;
  for (int i = 0; i < 8; ++i) {
    columns.emplace_back("c", arrow::MakeArray(arrow::ArrayData::Make(
                                  arrow::uint8(), 1 << 20, {nullptr, arrow::SliceBuffer(body, 0, 1 << 20)}, 0)));
  }
  ExpectCode(CopyBuffers(*MakeBatch(std::move(columns)), {}).status(), Code::kIntegrity, "overlap");
}

SpilledRun::Content ContentOf(const BatchPtr& batch, std::vector<std::pair<uint32_t, BatchPtr>> pieces) {
  SpilledRun::Content content{.name = "s", .agent = "here", .schema = batch->schema(), .chunks = {}, .pieces = {}};
  for (auto& [partition, rows] : pieces) {
    content.pieces.push_back({partition, static_cast<uint32_t>(content.chunks.size()), std::move(rows)});
    content.chunks.push_back({static_cast<uint32_t>(content.chunks.size()) + 10, 0, 7, true});
  }
  return content;
}

TEST_F(Spill, PiecesComeBackByPartitionWithTheirChunks) {
  SpillGroup group(MakeSpace());
  const BatchPtr batch = EveryKind();
  const auto content =
      ContentOf(batch, {{2, batch->Slice(0, 2)}, {1, batch->Slice(2, 1)}, {2, batch->Slice(3, 2)}, {1, batch}});
  const auto run = SpilledRun::Write(content, &group).ValueOrDie();
  const auto [none, end_of_none] = run->SegmentsOf(3);
  EXPECT_EQ(none, end_of_none);
  std::vector<BatchPtr> read;
  std::vector<uint32_t> tasks;
  for (const uint32_t partition : {1u, 2u}) {
    const auto [first, end] = run->SegmentsOf(partition);
    for (uint32_t segment = first; segment < end; ++segment) {
      for (auto& piece : run->Load(segment, arrow::default_memory_pool()).ValueOrDie()) {
        EXPECT_TRUE(piece.rows->ValidateFull().ok());
        EXPECT_TRUE(piece.chunk.from_network);
        EXPECT_EQ(piece.chunk.sequence, 7u);
        tasks.push_back(piece.chunk.task);
        read.push_back(piece.rows);
      }
    }
  }
  EXPECT_EQ(tasks, (std::vector<uint32_t>{11, 13, 10, 12}));
  EXPECT_TRUE(read[0]->Equals(*batch->Slice(2, 1)));
  EXPECT_TRUE(read[1]->Equals(*batch));
  EXPECT_TRUE(read[2]->Equals(*batch->Slice(0, 2)));
  EXPECT_TRUE(read[3]->Equals(*batch->Slice(3, 2)));
}

TEST_F(Spill, IndexOfTenThousandPartitionsIsBelowAHundredthOfTheBytes) {
  SpillGroup group(MakeSpace());
  const BatchPtr rows = Wide(400);  // 3.2 KB, as 32 MiB scattered to 10,000 partitions make them
  std::vector<std::pair<uint32_t, BatchPtr>> pieces;
  for (uint32_t chunk = 0; chunk < 4; ++chunk) {
    for (uint32_t partition = 0; partition < 10'000; partition += 2) pieces.emplace_back(partition, rows);
  }
  SpilledRun::Content content{
      .name = "s", .agent = "", .schema = rows->schema(), .chunks = {{}, {}, {}, {}}, .pieces = {}};
  for (size_t i = 0; i < pieces.size(); ++i) {
    content.pieces.push_back({pieces[i].first, static_cast<uint32_t>(i / 5000), pieces[i].second});
  }
  const auto run = SpilledRun::Write(std::move(content), &group).ValueOrDie();
  EXPECT_EQ(run->segment_count(), 5000u);
  EXPECT_LT(run->index_bytes() * 100, 20'000 * 3200);
}

TEST_F(Spill, ValuesThatViewsPointIntoAreWrittenOnceHoweverManyPartitionsShareThem) {
  arrow::StringViewBuilder builder;
  for (int64_t i = 0; i < 1000; ++i) {
    std::string text;
    for (uint64_t part = 1; part <= 20; ++part)
      text += std::to_string((static_cast<uint64_t>(i) + part) * 0x9E3779B97F4A7C15ull * part);
    ASSERT_TRUE(builder.Append(text).ok());
  }
  const rows::ArrayPtr views = builder.Finish().ValueOrDie();
  const auto nested = arrow::StructArray::Make({views}, std::vector<std::string>{"inner"}).ValueOrDie();
  SpillGroup group(MakeSpace());
  for (const BatchPtr& batch : {MakeBatch({{"text", views}}), MakeBatch({{"nested", nested}})}) {
    std::vector<std::pair<uint32_t, BatchPtr>> pieces;
    for (uint32_t i = 0; i < 100; ++i) pieces.emplace_back(i, batch->Slice(i * 10, 10));
    const auto run = SpilledRun::Write(ContentOf(batch, pieces), &group).ValueOrDie();
    EXPECT_LT(run->bytes(), 1'000'000) << "400 KB of digits";
    const auto loaded = run->Load(50, arrow::default_memory_pool()).ValueOrDie();
    EXPECT_TRUE(loaded.front().rows->Equals(*batch->Slice(500, 10)));
  }
}

TEST_F(Spill, FullSpaceLeavesNothingOfARunAndNamesItsKey) {
  SpillGroup group(MakeSpace(1, 1 << 20));
  const BatchPtr batch = Wide(100'000);
  const auto first = SpilledRun::Write(ContentOf(batch, {{0, batch->Slice(0, 1000)}}), &group).ValueOrDie();
  const int64_t before = group.space().bytes();
  const auto refused = SpilledRun::Write(ContentOf(batch, {{0, batch->Slice(0, 50'000)}, {1, batch}}), &group).status();
  ExpectCode(refused, Code::kLimit, "spill.bytes_max");
  EXPECT_EQ(group.space().bytes(), before);
  EXPECT_TRUE(first->Load(0, arrow::default_memory_pool()).ok());
}

TEST_F(Spill, SpaceComesBackWhenTheLastReaderLetsGo) {
  const auto space = MakeSpace();
  auto group = std::make_unique<SpillGroup>(space);
  const BatchPtr batch = Wide(1000);
  auto run = SpilledRun::Write(ContentOf(batch, {{0, batch}}), group.get()).ValueOrDie();
  EXPECT_EQ(FileCount(), 1u);
  group.reset();
  EXPECT_EQ(FileCount(), 0u);
  EXPECT_TRUE(run->Load(0, arrow::default_memory_pool()).ok());
  EXPECT_GT(space->bytes(), 0);
  run.reset();
  EXPECT_EQ(space->bytes(), 0);
}

TEST_F(Spill, FoldersOfTheDeadAreRemovedAndThoseOfTheLivingStay) {
  const fs::path dead = root_ / "sabot-spill-00000000000000aa-0";
  fs::create_directory(dead);
  std::ofstream(dead / "0.arrow") << "left";
  fs::create_directory(root_ / "sabot-spill-of-someone");
  fs::create_directory(root_ / "other");
  const auto living = MakeSpace(2);
  EXPECT_FALSE(fs::exists(dead));
  EXPECT_TRUE(fs::exists(root_ / "other"));
  {
    const auto second = MakeSpace(3);
    EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 3);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 2);
}

TEST_F(Spill, KeptRowsAreTheSameBeforeWhileAndAfterTheyAreSwapped) {
  SpillGroup group(MakeSpace());
  const BatchPtr batch = Wide(1000);
  KeptRows kept(batch);
  const auto run = SpilledRun::Write(ContentOf(batch, {{0, batch}}), &group).ValueOrDie();
  std::atomic<bool> swapped{false};
  std::jthread reader([&] {
    for (bool last = false; !last;) {
      last = swapped.load();
      EXPECT_TRUE(kept.Load(arrow::default_memory_pool()).ValueOrDie()->Equals(*batch));
    }
  });
  kept.Swap(run, 0);
  swapped.store(true);
  reader.join();
  EXPECT_EQ(kept.in_memory(), nullptr);
}

/// Gives its blocks one by one, and says when it was asked.
class OneByOne : public SpillSource, public std::enable_shared_from_this<OneByOne> {
 public:
  explicit OneByOne(std::vector<BatchPtr> batches) : batches_(std::move(batches)) {}

  class Job : public SpillJob {
   public:
    Job(std::shared_ptr<OneByOne> source, std::shared_ptr<SpillGroup> group)
        : source_(std::move(source)), group_(std::move(group)) {}
    SpilledRun::Content TakeContent() override {
      return ContentOf(source_->batches_.back(), {{0, source_->batches_.back()}});
    }
    SpillGroup& group() override { return *group_; }
    void Written(std::shared_ptr<const SpilledRun> run) override {
      source_->runs.push_back(std::move(run));
      source_->batches_.pop_back();
    }
    void Failed(const arrow::Status& status) override {
      source_->failures.push_back(status);
      source_->batches_.pop_back();
    }

   private:
    const std::shared_ptr<OneByOne> source_;
    const std::shared_ptr<SpillGroup> group_;
  };

  std::unique_ptr<SpillJob> TakeColdest(int64_t, const std::shared_ptr<SpillSpace>& space) override {
    if (batches_.empty()) return nullptr;
    if (freeing && freeing()) ++seen_freeing;
    if (group_ == nullptr) group_ = std::make_shared<SpillGroup>(space);
    return std::make_unique<Job>(shared_from_this(), group_);
  }

  std::vector<std::shared_ptr<const SpilledRun>> runs;  // the writer's thread's until it is idle, as failures
  std::vector<arrow::Status> failures;
  std::function<bool()> freeing;
  int seen_freeing = 0;

 private:
  std::vector<BatchPtr> batches_;
  std::shared_ptr<SpillGroup> group_;
};

TEST_F(Spill, WriterStartsAboveTheHighMarkAndStopsBelowTheLowOne) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1'000'000});
  std::vector<BatchPtr> blocks;
  for (int i = 0; i < 9; ++i) blocks.push_back(CopyRows(*Wide(12'500), {.ledger = ledger}).ValueOrDie());  // 100 KB
  SpillWriter writer(ledger, MakeSpace());
  const auto source = std::make_shared<OneByOne>(std::move(blocks));
  writer.AddSource(source);
  writer.Wake();
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_TRUE(ledger->below_low_water());
  EXPECT_EQ(source->runs.size(), 4u);
  EXPECT_TRUE(source->failures.empty());
  writer.Wake();
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_EQ(source->runs.size(), 4u);
}

TEST_F(Spill, WriterIsSaidToFreeUntilItHasComeToAnEndEvenWhereNothingWasFreed) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1'000'000});
  std::vector<BatchPtr> blocks;
  for (int i = 0; i < 9; ++i) blocks.push_back(CopyRows(*Wide(12'500), {.ledger = ledger}).ValueOrDie());
  std::atomic<int> told = 0, told_while_freeing = 0;
  ledger->AddListener(memory::Event::kFreed, [&] { ++(ledger->freeing() ? told_while_freeing : told); });
  SpillWriter writer(ledger, MakeSpace());
  const auto source = std::make_shared<OneByOne>(std::move(blocks));
  source->freeing = [&] { return ledger->freeing(); };
  writer.AddSource(source);
  EXPECT_FALSE(ledger->freeing());
  writer.Wake();
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_EQ(source->seen_freeing, 4);
  EXPECT_FALSE(ledger->freeing());
  EXPECT_EQ(told, 1) << "the end";
  EXPECT_EQ(told_while_freeing, 1) << "the low-water mark";
}

TEST_F(Spill, ReservationThatIsTriedAgainWheneverMemoryWasFreedDoesNotKeepTheWriterBusy) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1'000'000});
  SpillWriter writer(ledger, MakeSpace());
  ledger->Reserve(memory::Promise::kTasks, 900'000);  // of a task that runs: nothing can be spilled
  std::atomic<int> tries = 0;
  ledger->AddListener(memory::Event::kFreed, [&] {
    if (++tries < 1'000) ledger->TryReserve(memory::Promise::kCredits, 100'000);
  });
  EXPECT_FALSE(ledger->TryReserve(memory::Promise::kCredits, 100'000));
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_EQ(tries, 0) << "nothing was freed";
  ledger->Unreserve(memory::Promise::kTasks, 900'000);
  EXPECT_EQ(tries, 1);
}

TEST_F(Spill, WhoWaitsForTheWritersEndIsToldOfItEvenWhereNothingWasFreed) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1'000'000});
  std::atomic<int> told = 0;
  ledger->AddListener(memory::Event::kFreed, [&] { ++told; });
  ledger->SetFreeing(true);
  EXPECT_TRUE(ledger->freeing());
  SpillWriter writer(ledger, MakeSpace());
  writer.Wake();
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_FALSE(ledger->freeing());
  EXPECT_EQ(told, 1);
}

TEST_F(Spill, WriterGoesOnWithTheNextAfterAFailure) {
  const auto ledger = std::make_shared<memory::Ledger>(memory::Ledger::Options{.bytes_max = 1'000'000});
  std::vector<BatchPtr> blocks;
  for (int i = 0; i < 9; ++i) blocks.push_back(CopyRows(*Wide(12'500), {.ledger = ledger}).ValueOrDie());
  SpillWriter writer(ledger, MakeSpace(1, 1000));
  const auto source = std::make_shared<OneByOne>(std::move(blocks));
  writer.AddSource(source);
  writer.Wake();
  ASSERT_TRUE(writer.WaitIdle(30));
  EXPECT_EQ(source->failures.size(), 4u);
  EXPECT_TRUE(ledger->below_low_water());
  EXPECT_EQ(FileCount(), 1u);
}

}  // namespace
}  // namespace sabot::spill
