/* Records what a process does to the files below one directory, for tests of power cuts.
 *
 * It is loaded with LD_PRELOAD. Each call that changes or syncs something below POWER_ROOT becomes
 * a record in POWER_LOG, with its data, if it succeeds. Calls and records are made under one mutex,
 * so their order is the same. Data written to the file POWER_MARKS becomes a record too.
 *
 * What is mapped into memory is not recorded: SQLite only maps `-shm`, which does not outlive a
 * cut. 64-bit Linux with glibc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    WRITE = 1,
    RESIZE,
    SYNC_FILE,
    SYNC_DIRECTORY,
    OPEN_EXISTING,
    CREATE,
    MAKE_DIRECTORY,
    REMOVE,
    REMOVE_DIRECTORY,
    RENAME,
    MARK,
    UNKNOWN, /* a change that the reader of the log does not model */
};

/* The start of a record. Both paths and the data follow. */
struct header {
    uint32_t kind;
    uint32_t path_length;
    uint32_t target_length;
    uint32_t data_length;
    uint64_t inode;
    uint64_t offset; /* of a write, or the new size */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static const char *root;
static size_t root_length;
static const char *marks;

__attribute__((constructor)) static void start(void)
{
    const char *log = getenv("POWER_LOG");
    root = getenv("POWER_ROOT");
    marks = getenv("POWER_MARKS");
    if (!log || !root || !marks)
        return;
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CLOEXEC, 0);
    if (log_fd < 0)
        abort();
}

static int is_recorded(const char *path)
{
    size_t length = strlen(path);
    if (log_fd < 0 || strncmp(path, root, root_length) != 0)
        return 0;
    if (path[root_length] != '/' && path[root_length] != 0)
        return 0;
    return length < 4 || strcmp(path + length - 4, "-shm") != 0;
}

/* Finds the path of a descriptor. Returns 0 if it is not recorded. */
static int find_path(int fd, char path[PATH_MAX])
{
    static const char deleted[] = " (deleted)";
    const size_t suffix = sizeof deleted - 1;
    char link[32];
    int error = errno;
    ssize_t length;
    if (log_fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    errno = error;
    if (length < 0)
        return 0;
    path[length] = 0;
    if ((size_t)length > suffix && strcmp(path + length - suffix, deleted) == 0)
        path[length - suffix] = 0;
    return is_recorded(path) || strcmp(path, marks) == 0;
}

/* Resolves a path from a directory's descriptor. Returns 0 if it is not recorded. */
static int resolve(int directory, const char *path, char full[PATH_MAX])
{
    char base[PATH_MAX] = "";
    int error = errno;
    if (log_fd < 0)
        return 0;
    if (path[0] != '/') {
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base))
                base[0] = 0;
        } else {
            find_path(directory, base);
        }
        errno = error;
    }
    if (snprintf(full, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", path) >= PATH_MAX)
        return 0;
    return is_recorded(full);
}

/* Writes a record. The mutex is held. */
static void record(enum kind kind, const char *path, const char *target, uint64_t inode,
                   uint64_t offset, const struct iovec *data, int parts, size_t length)
{
    struct header header = {kind, strlen(path), strlen(target), length, inode, offset};
    struct iovec all[3 + 16] = {
        {&header, sizeof header},
        {(void *)path, header.path_length},
        {(void *)target, header.target_length},
    };
    size_t total = sizeof header + header.path_length + header.target_length + length;
    size_t left = length;
    int error = errno, count = 3;
    if (parts > 16)
        abort();
    for (int i = 0; i < parts && left > 0; i++) {
        size_t part = data[i].iov_len < left ? data[i].iov_len : left;
        all[count].iov_base = data[i].iov_base;
        all[count++].iov_len = part;
        left -= part;
    }
    /* A log with a gap proves nothing. */
    if (syscall(SYS_writev, log_fd, all, count) != (long)total)
        abort();
    errno = error;
}

static uint64_t inode_of(int fd)
{
    struct stat found;
    if (fstat(fd, &found) != 0)
        abort();
    return found.st_ino;
}

/* An offset of -1 is the position of the descriptor. */
static ssize_t recorded_write(int fd, const struct iovec *data, int parts, off_t offset)
{
    char path[PATH_MAX];
    ssize_t written;
    int is_found = find_path(fd, path);
    if (is_found)
        pthread_mutex_lock(&mutex);
    off_t at = offset;
    if (is_found && offset < 0) {
        int is_appended = fcntl(fd, F_GETFL) & O_APPEND;
        at = lseek(fd, 0, is_appended ? SEEK_END : SEEK_CUR);
    }
    if (offset < 0)
        written = syscall(SYS_writev, fd, data, parts);
    else
        written = syscall(SYS_pwritev, fd, data, parts, offset, 0);
    if (is_found) {
        enum kind kind = strcmp(path, marks) == 0 ? MARK : WRITE;
        if (written > 0)
            record(kind, path, "", inode_of(fd), at, data, parts, written);
        pthread_mutex_unlock(&mutex);
    }
    return written;
}

ssize_t write(int fd, const void *data, size_t length)
{
    struct iovec part = {(void *)data, length};
    return recorded_write(fd, &part, 1, -1);
}

ssize_t writev(int fd, const struct iovec *data, int parts)
{
    return recorded_write(fd, data, parts, -1);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    struct iovec part = {(void *)data, length};
    return recorded_write(fd, &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, offset);
}

ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t offset)
{
    return recorded_write(fd, data, parts, offset);
}

ssize_t pwritev64(int fd, const struct iovec *data, int parts, off64_t offset)
{
    return recorded_write(fd, data, parts, offset);
}

/* Both fail as on an old kernel, so that the caller copies with writes, which are recorded. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length,
                        unsigned flags)
{
    char path[PATH_MAX];
    if (find_path(out, path)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t length)
{
    char path[PATH_MAX];
    if (find_path(out, path)) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, at, length);
}

ssize_t sendfile(int out, int in, off_t *at, size_t length)
{
    return sendfile64(out, in, at, length);
}

int ftruncate(int fd, off_t length)
{
    char path[PATH_MAX];
    if (!find_path(fd, path))
        return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&mutex);
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0)
        record(RESIZE, path, "", inode_of(fd), length, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

int truncate(const char *path, off_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = ftruncate(fd, length), error = errno;
    close(fd);
    errno = error;
    return result;
}

int truncate64(const char *path, off64_t length)
{
    return truncate(path, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    char path[PATH_MAX];
    struct stat before;
    if (!find_path(fd, path))
        return syscall(SYS_fallocate, fd, mode, offset, length);
    pthread_mutex_lock(&mutex);
    int result = fstat(fd, &before);
    if (result == 0)
        result = syscall(SYS_fallocate, fd, mode, offset, length);
    if (result == 0 && mode != 0)
        record(UNKNOWN, path, "fallocate", before.st_ino, 0, NULL, 0, 0);
    else if (result == 0 && before.st_size < offset + length)
        record(RESIZE, path, "", before.st_ino, offset + length, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return fallocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return posix_fallocate(fd, offset, length);
}

static int recorded_sync(int fd, long call)
{
    char path[PATH_MAX];
    struct stat found;
    if (!find_path(fd, path))
        return syscall(call, fd);
    pthread_mutex_lock(&mutex);
    int result = syscall(call, fd);
    if (result == 0 && fstat(fd, &found) == 0)
        record(S_ISDIR(found.st_mode) ? SYNC_DIRECTORY : SYNC_FILE, path, "", found.st_ino, 0,
               NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int fsync(int fd)
{
    return recorded_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return recorded_sync(fd, SYS_fdatasync);
}

static int recorded_open(int directory, const char *path, int flags, mode_t mode)
{
    char full[PATH_MAX];
    struct stat before, after;
    if (!(flags & (O_CREAT | O_TRUNC)) || !resolve(directory, path, full))
        return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&mutex);
    int error = errno;
    int has_existed = fstatat(directory, path, &before, 0) == 0;
    errno = error;
    int fd = syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && fstat(fd, &after) == 0) {
        if (flags & O_CREAT)
            record(has_existed ? OPEN_EXISTING : CREATE, full, "", after.st_ino, 0, NULL, 0, 0);
        if (has_existed && (flags & O_TRUNC))
            record(RESIZE, full, "", after.st_ino, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

#define READ_MODE(flags, mode)                                                                     \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode = va_arg(arguments, mode_t);                                                          \
        va_end(arguments);                                                                         \
    }

int open(const char *path, int flags, ...)
{
    READ_MODE(flags, mode)
    return recorded_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    READ_MODE(flags, mode)
    return recorded_open(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    READ_MODE(flags, mode)
    return recorded_open(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    READ_MODE(flags, mode)
    return recorded_open(directory, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return recorded_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return creat(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    char full[PATH_MAX];
    int is_found = resolve(directory, path, full);
    if (is_found)
        pthread_mutex_lock(&mutex);
    int result = syscall(SYS_mkdirat, directory, path, mode);
    if (is_found) {
        if (result == 0)
            record(MAKE_DIRECTORY, full, "", 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&mutex);
    }
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

int unlinkat(int directory, const char *path, int flags)
{
    char full[PATH_MAX];
    int is_found = resolve(directory, path, full);
    if (is_found)
        pthread_mutex_lock(&mutex);
    int result = syscall(SYS_unlinkat, directory, path, flags);
    if (is_found) {
        enum kind kind = flags & AT_REMOVEDIR ? REMOVE_DIRECTORY : REMOVE;
        if (result == 0)
            record(kind, full, "", 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&mutex);
    }
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to,
              unsigned flags)
{
    char full_from[PATH_MAX] = "", full_to[PATH_MAX] = "";
    int is_found = resolve(from_directory, from, full_from);
    is_found |= resolve(to_directory, to, full_to);
    if (is_found)
        pthread_mutex_lock(&mutex);
    int result = syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    if (is_found) {
        if (result == 0)
            record(flags ? UNKNOWN : RENAME, full_from, full_to, 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&mutex);
    }
    return result;
}

int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    return renameat2(from_directory, from, to_directory, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags)
{
    char full[PATH_MAX];
    int is_found = resolve(to_directory, to, full);
    if (is_found)
        pthread_mutex_lock(&mutex);
    int result = syscall(SYS_linkat, from_directory, from, to_directory, to, flags);
    if (is_found) {
        if (result == 0)
            record(UNKNOWN, full, "link", 0, 0, NULL, 0, 0);
        pthread_mutex_unlock(&mutex);
    }
    return result;
}

int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}
