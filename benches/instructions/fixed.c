/* What the system hands a process that differs from run to run: the time and chance.
 *
 * Linked into the counted binary only, in front of libc's own, so that two runs do exactly the same:
 * hash maps are seeded alike, and a clock that moves ten microseconds each time it is asked gives
 * every run the same durations. Nothing that is shipped contains it.
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
    /* Each thread its own: the order in which two ask is the scheduler's. */
    static __thread long microseconds;
    (void)clock;
    microseconds += 10;
    now->tv_sec = BEGIN + microseconds / 1000000;
    now->tv_nsec = microseconds % 1000000 * 1000;
    return 0;
}
