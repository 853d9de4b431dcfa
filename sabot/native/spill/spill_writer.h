// The thread that makes room: while the ledger says that bytes are to be freed, it takes the coldest rows from its
// sources, writes them to disk and lets the sources swap them for what they can be loaded from. It runs in no slot and
// holds no lock while it writes.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "sabot/native/memory/ledger.h"
#include "sabot/native/spill/spilled_run.h"

namespace sabot::spill {

/// Rows on their way to disk, with what is to be done afterwards; either end is called on the writer's thread.
class SpillJob {
 public:
  virtual ~SpillJob() = default;
  virtual SpilledRun::Content TakeContent() = 0;
  virtual SpillGroup& group() = 0;
  /// The rows are in `run`: swap them, and let go of the memory.
  virtual void Written(std::shared_ptr<const SpilledRun> run) = 0;
  /// They could not be written: kLimit where no folder has room.
  virtual void Failed(const arrow::Status& status) = 0;
};

/// Who keeps rows that may be written to disk. Its methods are called on the writer's thread.
class SpillSource {
 public:
  virtual ~SpillSource() = default;
  /// Room is asked for anew: what no folder had room for may be tried again.
  virtual void BeginRound() {}
  /// Its coldest rows, about `bytes` of them; null where it has none to give.
  virtual std::unique_ptr<SpillJob> TakeColdest(int64_t bytes, const std::shared_ptr<SpillSpace>& space) = 0;
};

class SpillWriter {
 public:
  SpillWriter(std::shared_ptr<memory::Ledger> ledger, std::shared_ptr<SpillSpace> space);
  SpillWriter(const SpillWriter&) = delete;
  SpillWriter& operator=(const SpillWriter&) = delete;
  ~SpillWriter() { Stop(); }

  /// Sources are asked in the order in which they came.
  void AddSource(std::weak_ptr<SpillSource> source);
  /// Look again: bytes may be to be freed. Never blocks for longer than it takes to set a flag.
  void Wake();
  /// Waits until the writer has done all that it was woken for; false after `seconds`.
  bool WaitIdle(double seconds);
  /// Ends the thread, after the segment that it is writing; repeats do nothing.
  void Stop();

 private:
  void Loop();
  /// Until it is woken; false where it is to stop.
  bool WaitForWork();
  std::vector<std::shared_ptr<SpillSource>> Sources();
  /// False where no source had anything to give.
  bool SpillOnce();

  const std::shared_ptr<memory::Ledger> ledger_;  // shared with what stands on its accounts
  const std::shared_ptr<SpillSpace> space_;       // shared with its files
  int64_t listener_ = 0;
  std::mutex mutex_;  // guards all below but the thread; a leaf
  std::condition_variable changed_;
  bool woken_ = false;
  bool busy_ = false;
  bool stopping_ = false;
  std::vector<std::weak_ptr<SpillSource>> sources_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace sabot::spill
