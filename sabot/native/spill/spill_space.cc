#include "sabot/native/spill/spill_space.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "sabot/native/status.h"

namespace sabot::spill {
namespace {

constexpr const char kPrefix[] = "sabot-spill-";

std::string NameOf(uint64_t incarnation) {
  char text[sizeof kPrefix + 16];
  (void)std::snprintf(text, sizeof text, "%s%016llx", kPrefix, static_cast<unsigned long long>(incarnation));
  return text;
}

arrow::Status CannotUse(const std::string& folder, int error) {
  return MakeStatus(Code::kUsage, "The spill folder " + folder + " cannot be used: " + std::strerror(error) +
                                      ". Name folders of a local disk that this user may write in spill.dirs.");
}

arrow::Status CannotWrite(const std::string& path, int64_t bytes, int error) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return MakeStatus(Code::kLimit, "Rows beyond memory.bytes_max could not be written to disk: " +
                                      std::string(std::strerror(error)) + " (" + std::to_string(bytes) +
                                      " bytes). Free room there, add a folder to spill.dirs, or raise "
                                      "memory.bytes_max (limit=spill.dirs, folder=" +
                                      folder + ")");
}

/// The descriptor of `folder`, locked; -1 with errno where another holds it or it cannot be opened.
int LockFolder(const std::string& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return -1;
  if (flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

/// Whether the folder's name still leads to what is open: another agent may have removed it before it was locked.
bool IsStillThere(const std::string& folder, int descriptor) {
  struct stat named {};
  struct stat opened {};
  return stat(folder.c_str(), &named) == 0 && fstat(descriptor, &opened) == 0 && named.st_ino == opened.st_ino &&
         named.st_dev == opened.st_dev;
}

}  // namespace

SpillFile::SpillFile(std::shared_ptr<SpillSpace> space, std::string path, int descriptor)
    : space_(std::move(space)), path_(std::move(path)), descriptor_(descriptor) {}

SpillFile::~SpillFile() {
  Unlink();
  close(descriptor_);
  space_->Return(size_);
}

void SpillFile::Unlink() {
  if (!unlinked_.exchange(true, std::memory_order_relaxed)) (void)unlink(path_.c_str());
}

arrow::Result<int64_t> SpillFile::Append(const arrow::Buffer& bytes) {
  ARROW_RETURN_NOT_OK(space_->Reserve(bytes.size()));
  int64_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count =
        pwrite(descriptor_, bytes.data() + written, static_cast<size_t>(bytes.size() - written), size_ + written);
    if (count > 0) {
      written += count;
    } else if (count == 0 || errno != EINTR) {
      const int error = count == 0 ? ENOSPC : errno;
      space_->Return(bytes.size());
      CutTo(size_);
      return CannotWrite(path_, bytes.size(), error);
    }
  }
  return std::exchange(size_, size_ + bytes.size());
}

void SpillFile::CutTo(int64_t size) {
  (void)ftruncate(descriptor_, size);
  space_->Return(size_ - size);
  size_ = size;
}

arrow::Result<std::shared_ptr<arrow::Buffer>> SpillFile::Read(int64_t offset, int64_t bytes,
                                                              arrow::MemoryPool* pool) const {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> buffer, arrow::AllocateBuffer(bytes, pool));
  int64_t done = 0;
  while (done < bytes) {
    const ssize_t count =
        pread(descriptor_, buffer->mutable_data() + done, static_cast<size_t>(bytes - done), offset + done);
    if (count > 0) {
      done += count;
    } else if (count == 0 || errno != EINTR) {
      const std::string why = count == 0 ? "the file is too short" : std::strerror(errno);
      return MakeStatus(Code::kIntegrity, "Rows cannot be read back from " + path_ + ": " + why);
    }
  }
  return buffer;
}

arrow::Result<std::shared_ptr<SpillSpace>> SpillSpace::Make(Options options) {
  if (options.folders.empty()) return MakeStatus(Code::kUsage, "There is no spill folder. Name one in spill.dirs.");
  const std::vector<std::string> parents = options.folders;
  std::shared_ptr<SpillSpace> space(new SpillSpace(std::move(options)));
  for (const std::string& parent : parents) ARROW_RETURN_NOT_OK(space->Open(parent));
  return space;
}

arrow::Status SpillSpace::Open(const std::string& parent) {
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) return CannotUse(parent, error.value());
  RemoveStale(parent);
  // The index tells folders apart where one parent is named twice, as for two halves of one disk.
  const std::string path = parent + "/" + NameOf(options_.incarnation) + "-" + std::to_string(folders_.size());
  for (int tries = 0; tries < 100; ++tries) {
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return CannotUse(parent, errno);
    const int lock = LockFolder(path);
    if (lock < 0 && errno != ENOENT && errno != EWOULDBLOCK) return CannotUse(parent, errno);
    if (lock < 0) continue;  // a starting agent took it for stale
    if (IsStillThere(path, lock)) {
      folders_.push_back({parent, path, lock});
      return arrow::Status::OK();
    }
    close(lock);
  }
  return CannotUse(path, EBUSY);
}

void SpillSpace::RemoveStale(const std::string& parent) {
  std::error_code error;  // ends the loop: what cannot be listed is left to the next agent
  std::filesystem::directory_iterator entry(parent, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(kPrefix)) continue;
    const int lock = LockFolder(entry->path().string());
    if (lock < 0) continue;   // its agent lives
    std::error_code ignored;  // of another user, or gone already
    std::filesystem::remove_all(entry->path(), ignored);
    close(lock);
  }
}

void SpillSpace::RemoveFolders() {
  {
    std::lock_guard lock(closing_);
    if (std::exchange(removed_, true)) return;
  }
  for (const Folder& folder : folders_) {
    std::error_code ignored;
    std::filesystem::remove_all(folder.path, ignored);
    close(folder.lock);
  }
}

arrow::Result<std::shared_ptr<SpillFile>> SpillSpace::NewFile(size_t index) {
  const uint64_t number = next_file_.fetch_add(1, std::memory_order_relaxed);
  std::string path = folders_[index].path + "/" + std::to_string(number) + ".arrow";
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return CannotWrite(path, 0, errno);
  return std::make_shared<SpillFile>(shared_from_this(), std::move(path), descriptor);
}

arrow::Status SpillSpace::Reserve(int64_t bytes) {
  const int64_t before = bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (options_.bytes_max > 0 && before + bytes > options_.bytes_max) {
    Return(bytes);
    return MakeStatus(Code::kLimit,
                      "Rows beyond memory.bytes_max would take more of the disk than spill.bytes_max, " +
                          std::to_string(options_.bytes_max) +
                          " bytes, allows. Raise it, or memory.bytes_max (limit=spill.bytes_max, folder=" +
                          folders_.front().path + ")");
  }
  bytes_written_.fetch_add(bytes, std::memory_order_relaxed);
  return arrow::Status::OK();
}

arrow::Result<std::shared_ptr<SpillFile>> SpillGroup::FileIn(size_t folder) {
  std::lock_guard lock(mutex_);
  if (ended_) return MakeStatus(Code::kCancelled, "The shuffle was ended while it was written to disk.");
  if (files_[folder] == nullptr) {
    ARROW_ASSIGN_OR_RAISE(files_[folder], space_->NewFile(folder));
  }
  return files_[folder];
}

void SpillGroup::Unlink() {
  std::vector<std::shared_ptr<SpillFile>> files(files_.size());
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    files.swap(files_);
  }
  for (const auto& file : files) {
    if (file != nullptr) file->Unlink();
  }
}

}  // namespace sabot::spill
