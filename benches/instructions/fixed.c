/* Fixed values for what the system gives a process that differs from run to run: time and random bytes.
 *
 * Linked into the counted binary only, before libc's own functions, so that two runs do exactly the same:
 * hash maps have the same seed, and a clock that advances ten microseconds at each call gives every run
 * the same durations. No release contains it.
 */

#include <string.h>
#include <sys/types.h>
#include <time.h>

/* Later than any deadline that the kernel could compare with its own clock. */
static const time_t BEGIN = 1800000000;

ssize_t getrandom(void *into, size_t length, unsigned int flags) {
    (void)flags;
    memset(into, 0x5a, length);
    return (ssize_t)length;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    /* One clock per thread, because the scheduler decides the order of calls of two threads. */
    static __thread long microseconds;
    (void)clock;
    microseconds += 10;
    now->tv_sec = BEGIN + microseconds / 1000000;
    now->tv_nsec = microseconds % 1000000 * 1000;
    return 0;
}
