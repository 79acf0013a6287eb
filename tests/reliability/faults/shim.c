/* A disk that fails on command, and a record of what was asked of it.
 *
 * Loaded with LD_PRELOAD it stands before the C library's file calls. Files below one folder are its business, all but
 * SQLite's -shm, which is shared memory and never synced. For these it
 *
 *   - counts reads, writes, syncs, truncations, openings and deletions, and lets the one that its control file names
 *     fail, and if asked all after it;
 *   - writes what succeeded into a journal, in one order for all threads, if it is given one. What is appended to the
 *     file of acknowledgements goes there too: so the journal tells what was on the disk when a caller was answered.
 *
 * MEMSTORE_FAULT_FOLDER   the folder, an absolute path without links
 * MEMSTORE_FAULT_CONTROL  the control file: `struct control`, mapped by whoever drives this (shim.py)
 * MEMSTORE_FAULT_JOURNAL  the journal, if one is to be written (read by journal.py)
 * MEMSTORE_FAULT_MARKS    the file of acknowledgements
 *
 * One lock is held over each call and its record. It makes the file calls of a process one row, which no program that
 * is right can tell from what it had.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ = 1, WRITE = 2, SYNC = 4, TRUNCATE = 8, OPEN = 16, UNLINK = 32 };
enum { FAIL = 0, TORN = 1, SHORT = 2 };  /* nothing is done; half is written and an error told; half, and so told */

struct control {
    uint64_t kinds;   /* which calls may fail, a sum of the first enum; 0 lets every call through, uncounted */
    uint64_t seen;    /* of these, how many there were */
    uint64_t at;      /* the number, from 0, of the one that fails */
    uint64_t sticky;  /* 1: all after it fail too */
    uint64_t error;   /* errno */
    uint64_t how;     /* of a write: the second enum */
    uint64_t armed;   /* 0: count, and let none fail */
    uint64_t fired;   /* how many failed */
    uint64_t tally[6];  /* calls of each kind, whether they may fail or not */
};

enum { MAX_FD = 4096, MAX_FILES = 1024 };
enum role { FOREIGN, FILE_, FOLDER, MARKS };

static struct control idle, *control = &idle;
static const char *folder, *marks;
static int journal = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { enum role role; uint32_t id; } fds[MAX_FD];
static struct { char *path; uint32_t id; } files[MAX_FILES];  /* by the name they have now */
static uint32_t made;

#define REAL(type, name, ...) static type (*real_##name)(__VA_ARGS__)
REAL(int, open64, const char *, int, ...);
REAL(int, close, int);
REAL(ssize_t, read, int, void *, size_t);
REAL(ssize_t, pread64, int, void *, size_t, off64_t);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, ftruncate64, int, off64_t);
REAL(int, unlink, const char *);
REAL(int, rename, const char *, const char *);
#define FIND(name) if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
    FIND(open64); FIND(close); FIND(read); FIND(pread64); FIND(write); FIND(pwrite64);
    FIND(fsync); FIND(fdatasync); FIND(ftruncate64); FIND(unlink); FIND(rename);
    const char *name = getenv("MEMSTORE_FAULT_CONTROL");
    folder = getenv("MEMSTORE_FAULT_FOLDER");
    marks = getenv("MEMSTORE_FAULT_MARKS");
    if (name && folder) {
        int fd = real_open64(name, O_RDWR | O_CLOEXEC);
        void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) { perror("the shim's control file"); abort(); }
        control = at;
        real_close(fd);
    }
    name = getenv("MEMSTORE_FAULT_JOURNAL");
    if (name && folder) {
        journal = real_open64(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (journal < 0) { perror("the shim's journal"); abort(); }
    }
}

/* -- which files are ours */

static int below(const char *path) {
    size_t n = folder ? strlen(folder) : 0;
    if (!n || strncmp(path, folder, n) || (path[n] && path[n] != '/')) return 0;
    size_t length = strlen(path);
    return length < 4 || strcmp(path + length - 4, "-shm");
}

static int slot(const char *path) {
    for (int i = 0; i < MAX_FILES; i++)
        if (files[i].path && !strcmp(files[i].path, path)) return i;
    return -1;
}

static void forget(const char *path) {
    int at = slot(path);
    if (at >= 0) { free(files[at].path); files[at].path = NULL; }
}

static void name(const char *path, uint32_t id) {
    if (journal < 0) return;  /* names are for the journal */
    forget(path);
    for (int i = 0; i < MAX_FILES; i++)
        if (!files[i].path) { files[i].path = strdup(path); files[i].id = id; return; }
    fputs("the shim knows no more files\n", stderr);
    abort();
}

static enum role role(int fd) { return fd >= 0 && fd < MAX_FD ? fds[fd].role : FOREIGN; }

/* -- the journal: a letter, the file's number, an offset, and bytes */

static void record(char what, uint32_t id, uint64_t offset, const void *bytes, uint64_t length) {
    if (journal < 0) return;
    struct { uint32_t what, id; uint64_t offset, length; } head = {(uint32_t)what, id, offset, length};
    int whole = real_write(journal, &head, sizeof head) == (ssize_t)sizeof head;
    for (uint64_t done = 0; whole && done < length;) {
        ssize_t n = real_write(journal, (const char *)bytes + done, length - done);
        whole = n > 0;
        done += n > 0 ? (uint64_t)n : 0;
    }
    if (!whole) { perror("the shim's journal"); abort(); }
}

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0) return fd;
    if (fd >= MAX_FD) { fputs("the shim knows no such descriptor\n", stderr); abort(); }
    fds[fd].role = FOREIGN;
    if (marks && !strcmp(path, marks)) {
        fds[fd].role = MARKS;
    } else if (below(path)) {
        struct stat64 of;
        if (fstat64(fd, &of) || S_ISDIR(of.st_mode)) {
            fds[fd].role = FOLDER;
            return fd;
        }
        int at = slot(path);
        fds[fd].role = FILE_;
        if (at >= 0 && existed) {
            fds[fd].id = files[at].id;
        } else {
            fds[fd].id = ++made;
            name(path, made);
            record(existed ? 'o' : 'c', made, 0, path, strlen(path));
        }
        if (flags & O_TRUNC && existed) record('t', fds[fd].id, 0, NULL, 0);
    }
    return fd;
}

/* -- what fails */

static int due(uint64_t kind) {
    if (!control->kinds) return 0;
    control->tally[__builtin_ctzll(kind)]++;
    if (!(control->kinds & kind)) return 0;
    uint64_t n = control->seen++;
    if (!control->armed || n < control->at || (n > control->at && !control->sticky)) return 0;
    control->fired++;
    return 1;
}

static int fails(int fd, uint64_t kind) { return role(fd) == FILE_ && due(kind); }

static ssize_t put(int fd, const void *bytes, size_t length, off64_t offset, int placed) {
    int bad = fails(fd, WRITE);
    if (bad && control->how == FAIL) { errno = (int)control->error; return -1; }
    if (bad && length > 1) length /= 2;
    if (role(fd) == FILE_ && !placed) offset = lseek64(fd, 0, SEEK_CUR);
    ssize_t n = placed ? real_pwrite64(fd, bytes, length, offset) : real_write(fd, bytes, length);
    if (n > 0 && role(fd) == FILE_) record('w', fds[fd].id, (uint64_t)offset, bytes, (uint64_t)n);
    if (n > 0 && role(fd) == MARKS) record('m', 0, 0, bytes, (uint64_t)n);
    if (bad && control->how == TORN) { errno = (int)control->error; return -1; }
    return n;
}

static int synced(int fd, int (*sync)(int)) {
    if (fails(fd, SYNC)) { errno = (int)control->error; return -1; }
    int bad = sync(fd);
    if (!bad && role(fd) == FILE_) record('s', fds[fd].id, 0, NULL, 0);
    if (!bad && role(fd) == FOLDER) record('d', 0, 0, NULL, 0);
    return bad;
}

/* -- the calls themselves */

#define OURS(call) do { pthread_mutex_lock(&lock); call; int kept = errno; pthread_mutex_unlock(&lock); errno = kept; } while (0)

static int opening(const char *path, int flags, mode_t mode) {
    int fd;
    FIND(open64);
    if (!folder || path[0] != '/') return real_open64(path, flags, mode);
    OURS(
        int existed = !access(path, F_OK);
        if (below(path) && strcmp(path, folder) && due(OPEN)) { errno = (int)control->error; fd = -1; }
        else fd = opened(real_open64(path, flags, mode), path, flags, existed));
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; va_start(rest, flags); mode = (mode_t)va_arg(rest, int); va_end(rest); }

int open64(const char *path, int flags, ...) { MODE(flags) return opening(path, flags, mode); }
int open(const char *path, int flags, ...) { MODE(flags) return opening(path, flags, mode); }

int close(int fd) {
    int bad;
    FIND(close);
    OURS(if (fd >= 0 && fd < MAX_FD) fds[fd].role = FOREIGN; bad = real_close(fd));
    return bad;
}

ssize_t read(int fd, void *bytes, size_t length) {
    FIND(read);
    if (role(fd) != FILE_) return real_read(fd, bytes, length);
    int bad;
    OURS(bad = fails(fd, READ));
    if (bad) { errno = (int)control->error; return -1; }
    return real_read(fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
    FIND(pread64);
    if (role(fd) != FILE_) return real_pread64(fd, bytes, length, offset);
    int bad;
    OURS(bad = fails(fd, READ));
    if (bad) { errno = (int)control->error; return -1; }
    return real_pread64(fd, bytes, length, offset);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return pread64(fd, bytes, length, offset); }

ssize_t write(int fd, const void *bytes, size_t length) {
    ssize_t n;
    FIND(write);
    if (role(fd) == FOREIGN) return real_write(fd, bytes, length);
    OURS(n = put(fd, bytes, length, 0, 0));
    return n;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    ssize_t n;
    FIND(pwrite64);
    if (role(fd) == FOREIGN) return real_pwrite64(fd, bytes, length, offset);
    OURS(n = put(fd, bytes, length, offset, 1));
    return n;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

int fsync(int fd) { int bad; FIND(fsync); OURS(bad = synced(fd, real_fsync)); return bad; }
int fdatasync(int fd) { int bad; FIND(fdatasync); OURS(bad = synced(fd, real_fdatasync)); return bad; }

int ftruncate64(int fd, off64_t length) {
    int bad;
    FIND(ftruncate64);
    OURS(
        if (fails(fd, TRUNCATE)) { errno = (int)control->error; bad = -1; }
        else {
            bad = real_ftruncate64(fd, length);
            if (!bad && role(fd) == FILE_) record('t', fds[fd].id, (uint64_t)length, NULL, 0);
        });
    return bad;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *path) {
    int bad;
    FIND(unlink);
    OURS(
        if (below(path) && due(UNLINK)) { errno = (int)control->error; bad = -1; }
        else bad = real_unlink(path);
        if (!bad && below(path)) { forget(path); record('u', 0, 0, path, strlen(path)); });
    return bad;
}

int unlinkat(int at, const char *path, int flags) {
    static int (*real_unlinkat)(int, const char *, int);
    FIND(unlinkat);
    return at == AT_FDCWD && !flags ? unlink(path) : real_unlinkat(at, path, flags);
}

int rename(const char *from, const char *to) {
    int bad;
    FIND(rename);
    OURS(
        bad = real_rename(from, to);
        if (!bad && below(from)) {
            int at = slot(from);
            uint32_t id = at < 0 ? 0 : files[at].id;
            forget(from);
            name(to, id);
            record('u', 0, 0, from, strlen(from));
            record('r', id, 0, to, strlen(to));
        });
    return bad;
}
