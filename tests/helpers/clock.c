/*
 * clock - a wall clock that is set back and forth, for LD_PRELOAD
 *
 * Every 0.3 s, CLOCK_REALTIME is an hour late, right, or an hour early.
 */

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *t)
{
    struct timespec monotonic;
    long result = syscall(SYS_clock_gettime, clock, t);

    if (clock == CLOCK_REALTIME && syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &monotonic) == 0)
        t->tv_sec += ((monotonic.tv_sec * 10 + monotonic.tv_nsec / 100000000) / 3 % 3 - 1) * 3600;
    return (int)result;
}
