/* Preloaded into a process, it writes down, in their order and at the level of the C library, all changes and syncs
 * below one folder: what a disk is asked for.
 *
 *   RECORD_ROOT   the folder          RECORD_FILE   where the records go (appended)
 *
 * A record: kind (1 byte), length of path and of second path (4 bytes each), number (8: offset or size), length of
 * data (8), then the two paths and the data. tests/power/disk.py reads it.
 *   D mkdir  C create  W write  T truncate  R rename  U unlink  X rmdir  F fsync
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
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;

static int inside(const char *path) {
    const char *root = getenv("RECORD_ROOT");
    size_t n = root ? strlen(root) : 0;
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]) && !strstr(path, " (deleted)");
}

static void put(const void *data, size_t n) {
    const char *p = data;
    while (n) {
        ssize_t done = syscall(SYS_write, out, p, n);
        if (done < 0) abort();
        p += done, n -= (size_t)done;
    }
}

static void record(char kind, const char *path, const char *path2, uint64_t number, const void *data, uint64_t size) {
    int saved = errno;
    uint32_t lengths[2] = {(uint32_t)strlen(path), (uint32_t)strlen(path2)};
    if (out < 0)
        out = (int)syscall(SYS_openat, AT_FDCWD, getenv("RECORD_FILE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    put(&kind, 1), put(lengths, 8), put(&number, 8), put(&size, 8);
    put(path, lengths[0]), put(path2, lengths[1]), put(data, size);
    errno = saved;
}

/* The absolute path of `name` seen from `dir`; of the descriptor itself where name is NULL. */
static const char *where(int dir, const char *name, char *buffer) {
    char link[64];
    ssize_t n = 0;
    if (name && *name == '/') return strncpy(buffer, name, PATH_MAX - 1);
    if (dir == AT_FDCWD) {
        if (!getcwd(buffer, PATH_MAX)) return strcpy(buffer, "");
        n = (ssize_t)strlen(buffer);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        n = readlink(link, buffer, PATH_MAX - 1);
    }
    buffer[n < 0 ? 0 : n] = 0;
    if (name && n > 0) snprintf(buffer + n, (size_t)(PATH_MAX - n), "/%s", name);
    return buffer;
}

static int opened(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX] = "";
    if (!(flags & (O_CREAT | O_TRUNC)) || !inside(where(dir, name, path)))
        return (int)syscall(SYS_openat, dir, name, flags, mode);
    pthread_mutex_lock(&lock);
    int there = !faccessat(AT_FDCWD, path, F_OK, 0);
    int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && !there) record('C', path, "", 0, "", 0);
    if (fd >= 0 && there && (flags & O_TRUNC)) record('T', path, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                  \
    mode_t mode = 0;                       \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                      \
        va_start(rest, flags);             \
        mode = va_arg(rest, mode_t);       \
        va_end(rest);                      \
    }
int open(const char *name, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags, mode) return opened(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags, mode) return opened(dir, name, flags, mode); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* offset < 0: wherever the descriptor stood. */
static ssize_t written(int fd, const void *data, size_t n, off_t offset) {
    char path[PATH_MAX] = "";
    struct stat found;
    int mine = fd != out && !fstat(fd, &found) && S_ISREG(found.st_mode) && inside(where(fd, NULL, path));
    if (mine) pthread_mutex_lock(&lock);
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, n) : syscall(SYS_pwrite64, fd, data, n, offset);
    if (mine && done > 0) {
        off_t at = offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : offset;
        record('W', path, "", (uint64_t)at, data, (uint64_t)done);
    }
    if (mine) pthread_mutex_unlock(&lock);
    return done;
}
ssize_t write(int fd, const void *data, size_t n) { return written(fd, data, n, -1); }
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return written(fd, data, n, offset); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) { return written(fd, data, n, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (!parts[i].iov_len) continue;
        ssize_t done = written(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

#define CHANGE(call, kind, path, path2, number)         \
    pthread_mutex_lock(&lock);                          \
    int failed = (int)(call);                           \
    if (!failed) record(kind, path, path2, number, "", 0); \
    pthread_mutex_unlock(&lock);                        \
    return failed;

static int truncated(int fd, off_t size) {
    char path[PATH_MAX] = "";
    if (!inside(where(fd, NULL, path))) return (int)syscall(SYS_ftruncate, fd, size);
    CHANGE(syscall(SYS_ftruncate, fd, size), 'T', path, "", (uint64_t)size)
}
int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

int mkdirat(int dir, const char *name, mode_t mode) {
    char path[PATH_MAX] = "";
    if (!inside(where(dir, name, path))) return (int)syscall(SYS_mkdirat, dir, name, mode);
    CHANGE(syscall(SYS_mkdirat, dir, name, mode), 'D', path, "", 0)
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags) {
    char path[PATH_MAX] = "";
    if (!inside(where(dir, name, path))) return (int)syscall(SYS_unlinkat, dir, name, flags);
    CHANGE(syscall(SYS_unlinkat, dir, name, flags), flags & AT_REMOVEDIR ? 'X' : 'U', path, "", 0)
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) { return unlink(name) ? rmdir(name) : 0; }

int renameat(int dir, const char *name, int dir2, const char *name2) {
    char path[PATH_MAX] = "", path2[PATH_MAX] = "";
    if (!inside(where(dir, name, path))) return (int)syscall(SYS_renameat2, dir, name, dir2, name2, 0);
    where(dir2, name2, path2);
    CHANGE(syscall(SYS_renameat2, dir, name, dir2, name2, 0), 'R', path, path2, 0)
}
int rename(const char *name, const char *name2) { return renameat(AT_FDCWD, name, AT_FDCWD, name2); }

static int synced(int fd, long number) {
    char path[PATH_MAX] = "";
    if (!inside(where(fd, NULL, path))) return (int)syscall(number, fd);
    CHANGE(syscall(number, fd), 'F', path, "", 0)
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
