/* The machine around a gateway, as the proof of money wants it: its wall clock shifted, its disk failing.
 *
 * Loaded in front of libc into the gateway's process only. What it does is read, on every call, from a
 * small file that the proof maps and writes: nanoseconds to add to the wall clock; an error number; and
 * which calls on the database's files meet it. Nothing that is shipped contains it.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, OPENS = 4 };

struct control {
    int64_t shift_ns;
    int64_t error;
    int64_t calls;
};

static const struct control STILL;
static const volatile struct control *control = &STILL;
/* Descriptors of the database, its log and its index; SQLite closes each once. */
static volatile char ours[4096];

#define REAL(name) ((__typeof__(&name))next(#name))

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("TIERWAY_PROOF_CONTROL");
    int file = path ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

/* The error that `call` meets, 0 for none. */
static int refused(int call) {
    int error = (int)control->error;
    return error && (control->calls & call) ? error : 0;
}

static int is_ours(int file) {
    return file >= 0 && file < (int)sizeof ours && ours[file];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int done = real(clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + control->shift_ns;
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *into) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (into) *into = now.tv_sec;
    return now.tv_sec;
}

static int opened(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
    int database = path && strstr(path, "tierway.db") && !strstr(path, ".lock");
    int error = database && (flags & O_ACCMODE) != O_RDONLY ? refused(OPENS) : 0;
    if (error) {
        errno = error;
        return -1;
    }
    int file = real(path, flags, mode);
    if (file >= 0 && file < (int)sizeof ours) ours[file] = (char)database;
    return file;
}

#define OPEN(name)                                            \
    int name(const char *path, int flags, ...) {              \
        va_list more;                                         \
        va_start(more, flags);                                \
        mode_t mode = va_arg(more, mode_t);                   \
        va_end(more);                                         \
        return opened(path, flags, mode, REAL(name));         \
    }
OPEN(open)
OPEN(open64)

#define MEETS(call, type, name, declared, passed)             \
    type name declared {                                      \
        int error = is_ours(file) ? refused(call) : 0;        \
        if (error) {                                          \
            errno = error;                                    \
            return -1;                                        \
        }                                                     \
        return REAL(name) passed;                             \
    }
MEETS(WRITES, ssize_t, write, (int file, const void *from, size_t length), (file, from, length))
MEETS(WRITES, ssize_t, pwrite, (int file, const void *from, size_t length, off_t at), (file, from, length, at))
MEETS(WRITES, ssize_t, pwrite64, (int file, const void *from, size_t length, off64_t at), (file, from, length, at))
MEETS(WRITES, int, ftruncate, (int file, off_t length), (file, length))
MEETS(WRITES, int, ftruncate64, (int file, off64_t length), (file, length))
MEETS(SYNCS, int, fsync, (int file), (file))
MEETS(SYNCS, int, fdatasync, (int file), (file))
