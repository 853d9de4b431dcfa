// Where an agent's rows go on disk: a folder of its own in each of the spill folders, and in it at most one file for
// each shuffle or published name. A folder is locked while its agent lives, so that the next agent to start removes
// what a killed one has left. Thread-safe.
#pragma once

#include <arrow/buffer.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sabot::spill {

class SpillSpace;

/// One file, written at its end by one thread and read by any. It is gone from its folder with Unlink, and its bytes
/// come back when the last reader lets go.
class SpillFile {
 public:
  SpillFile(std::shared_ptr<SpillSpace> space, std::string path, int descriptor);
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;
  ~SpillFile();

  /// Appends all of `bytes`, and gives where they start; kLimit naming the folder, and nothing kept, where the disk or
  /// spill.bytes_max is full.
  arrow::Result<int64_t> Append(const arrow::Buffer& bytes);
  /// Forgets what lies beyond `size`: what a run that failed has written.
  void CutTo(int64_t size);
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t offset, int64_t bytes, arrow::MemoryPool* pool) const;
  void Unlink();
  int64_t size() const { return size_; }  // the writer's own
  const std::string& path() const { return path_; }
  const SpillSpace& space() const { return *space_; }

 private:
  const std::shared_ptr<SpillSpace> space_;  // shared with the agent: folders go after their last file
  const std::string path_;
  const int descriptor_;
  int64_t size_ = 0;
  std::atomic<bool> unlinked_{false};  // relaxed: it guards nothing but a second unlink
};

class SpillSpace : public std::enable_shared_from_this<SpillSpace> {
 public:
  struct Options {
    std::vector<std::string> folders;
    int64_t bytes_max = 0;  // 0: what the disks have
    uint64_t incarnation = 0;
    bool verify_loads = true;  // a guard: tests switch it off to see it needed
  };

  /// Makes the folders and removes those of agents that are dead. kUsage naming a folder that cannot be used.
  static arrow::Result<std::shared_ptr<SpillSpace>> Make(Options options);
  ~SpillSpace() { RemoveFolders(); }
  /// Ends it: the folders go with all that is in them, though who has a file open may still read it.
  void RemoveFolders();

  size_t folder_count() const { return folders_.size(); }
  /// A new file in folder number `index`.
  arrow::Result<std::shared_ptr<SpillFile>> NewFile(size_t index);
  /// The number of the folder whose turn it is.
  size_t NextFolder() { return next_folder_.fetch_add(1, std::memory_order_relaxed) % folders_.size(); }

  /// kLimit where spill.bytes_max would be passed.
  arrow::Status Reserve(int64_t bytes);
  void Return(int64_t bytes) { bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  int64_t bytes_written() const { return bytes_written_.load(std::memory_order_relaxed); }
  bool verify_loads() const { return options_.verify_loads; }

 private:
  struct Folder {
    std::string parent;
    std::string path;
    int lock = -1;  // its descriptor, under flock
  };

  explicit SpillSpace(Options options) : options_(std::move(options)) {}
  arrow::Status Open(const std::string& parent);
  static void RemoveStale(const std::string& parent);

  const Options options_;
  std::vector<Folder> folders_;  // as Make has filled it, but for the locks
  std::mutex closing_;           // guards removed_; a leaf
  bool removed_ = false;
  // Counters alone: relaxed.
  std::atomic<size_t> next_folder_{0};
  std::atomic<uint64_t> next_file_{0};
  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> bytes_written_{0};
};

/// The files of one shuffle or published name: one in each folder, made when it is written to. Written by one thread.
class SpillGroup {
 public:
  explicit SpillGroup(std::shared_ptr<SpillSpace> space) : space_(std::move(space)), files_(space_->folder_count()) {}
  ~SpillGroup() { Unlink(); }

  arrow::Result<std::shared_ptr<SpillFile>> FileIn(size_t folder);
  /// Takes the files out of their folders; who reads them still may, who would write finds an error.
  void Unlink();
  SpillSpace& space() const { return *space_; }

 private:
  const std::shared_ptr<SpillSpace> space_;
  std::mutex mutex_;  // guards the two below; a leaf
  std::vector<std::shared_ptr<SpillFile>> files_;
  bool ended_ = false;
};

}  // namespace sabot::spill
