/* Steps the time of day of the processes that preload it, while they run, and of nobody else.
 *
 * SOAK_CLOCK names a file that holds a whole number of seconds (64 bits, the machine's own order); whoever writes it
 * steps the clock of all of them at once. What is measured (CLOCK_MONOTONIC and the others) stays as it is. A wait
 * until a time of day is the kernel's and sees no step; CPython waits by the monotonic clock.
 *
 * Debian's libfaketime 0.9.10 cannot do it: below it every time.sleep of CPython 3.11 fails (clock_nanosleep, EINVAL).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile int64_t *step;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (page == MAP_FAILED || !real)
        abort();
    step = page;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    if (!real) /* another library's constructor runs before ours */
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, at);
    if (!failed && step && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += *step;
    return failed;
}

int gettimeofday(struct timeval *at, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
