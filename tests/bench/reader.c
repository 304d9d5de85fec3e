/*
 * reader - the least that a reader of trace events can do
 *
 * Reads the sub-buffers of every CPU of one tracefs instance and counts their
 * events by type: no stamps, no order, no processes, no fields.  What this costs
 * nobody who reads trace_pipe_raw can save; tests/bench/table sets kvmstat against it.
 * On SIGTERM the counts go to stdout, a type and its count a line.
 */

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NAP 20000000L           /* nanoseconds between two looks: kvmstat's, on a busy host */
#define COMMIT 8u               /* offset of the commit word, behind the time stamp */
#define DATA (8 + sizeof(long)) /* offset of the events, behind the commit word */
#define COMMIT_LENGTH 0xfffffu  /* commit: bytes of data */

static volatile sig_atomic_t over;
static uint64_t counts[UINT16_MAX + 1]; /* by common_type */

static void on_signal(int sig)
{
    over = sig;
}

/* The number of four bytes at p. */
static uint32_t word(const uint8_t *p)
{
    uint32_t u;

    memcpy(&u, p, sizeof(u));
    return u;
}

/* Counts the events of the sub-buffer in the size bytes at p. */
static void count_events(const uint8_t *p, size_t size)
{
    /* In its low half, whatever the size of the whole: the hosts are little-endian. */
    size_t length = word(p + COMMIT) & COMMIT_LENGTH;
    const uint8_t *end = p + DATA + length;
    uint16_t type;

    if (size < DATA || length > size - DATA)
        errx(1, "a sub-buffer that is larger than it can be");
    for (p += DATA; end - p >= 8;) {
        uint32_t header = word(p), kind = header & 31;
        size_t skip = 4; /* to the event's fields */
        size_t left = (size_t)(end - p);

        if (kind == 29 && header >> 5 == 0)
            break; /* the rest is empty */
        if (kind == 0)
            skip = 8;
        size_t bytes = kind == 0 || kind == 29 ? 4 + word(p + 4) : kind < 29 ? 4 + kind * 4 : 8;
        if (bytes < skip || bytes > left)
            errx(1, "a sub-buffer that makes no sense");
        if (kind < 29 && bytes >= skip + sizeof(type)) {
            memcpy(&type, p + skip, sizeof(type));
            counts[type]++;
        }
        p += bytes;
    }
}

int main(int argc, char **argv)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    const struct timespec nap = {.tv_nsec = NAP};
    struct sigaction action = {.sa_handler = on_signal};
    char pattern[4096];
    glob_t pipes;

    if (argc == 3 && *argv[2] != '\0')
        page_size = strtoul(argv[2], NULL, 10);
    if (argc < 2 || argc > 3) {
        fputs("usage: reader instance [bytes of a sub-buffer]\n", stderr);
        return 2;
    }
    uint8_t *page = malloc(page_size);
    snprintf(pattern, sizeof(pattern), "%s/per_cpu/cpu*/trace_pipe_raw", argv[1]);
    if (page == NULL || glob(pattern, 0, NULL, &pipes) != 0)
        errx(1, "%s: no buffers", argv[1]);
    int *fds = calloc(pipes.gl_pathc, sizeof(int));
    if (fds == NULL)
        err(1, NULL);
    for (size_t i = 0; i < pipes.gl_pathc; i++) {
        fds[i] = open(pipes.gl_pathv[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fds[i] < 0)
            err(1, "%s", pipes.gl_pathv[i]);
    }
    sigaction(SIGTERM, &action, NULL);
    fputs("reading\n", stderr);
    while (over == 0) {
        nanosleep(&nap, NULL);
        for (size_t i = 0; i < pipes.gl_pathc; i++) {
            ssize_t size;
            while ((size = read(fds[i], page, page_size)) > 0)
                count_events(page, (size_t)size);
            if (size < 0 && errno != EAGAIN && errno != EINTR)
                err(1, "%s", pipes.gl_pathv[i]);
        }
    }
    for (size_t i = 0; i <= UINT16_MAX; i++) {
        if (counts[i] != 0)
            printf("%zu\t%" PRIu64 "\n", i, counts[i]);
    }
    return 0;
}
