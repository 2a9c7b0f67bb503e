// Preloaded into a process, moves its wall clock by the number of seconds in the file that WALL_CLOCK_SHIFT names.
// The file is read at each look at the clock, so that a test can let the clock jump. Monotonic clocks are left alone.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

static long shift_seconds(void) {
    const char *name = getenv("WALL_CLOCK_SHIFT");
    if (name == NULL) return 0;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char digits[24];
    ssize_t length = read(fd, digits, sizeof digits - 1);
    close(fd);
    digits[length > 0 ? length : 0] = '\0';
    return strtol(digits, NULL, 10);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, id, at);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += shift_seconds();
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}
