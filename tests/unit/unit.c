/*
 * unit - tests of what in kvmstat.c only computes, in TAP for prove(1)
 *
 * kvmstat.c is included, so that its static functions can be called.  What it
 * counts is compared to what KVM itself counted while the files in captures/
 * were recorded: trace-cmd files of version 6 (trace-cmd.dat.v6(5); trace-cmd
 * report shows them) from real hosts with Intel, AMD and arm64 processors, each
 * with every kvm event of a short run of a small guest.  captures/kvm-counts.tsv
 * has KVM's figures, a row a vCPU.  Everything else runs on sub-buffers and texts
 * that are made here.
 *
 * The tests are in the files beside this one, each of which is about one subject and
 * ends with a table of its tests.  They are parts of this one, and none of them uses
 * what another one has: that is here.
 *
 * usage: unit [NAME...]; a test's name, or a subject's with ".c"
 */

#define main kvmstat_main
#include "../../kvmstat.c"
#undef main

#include <sys/mman.h>

#define MAX_CPUS 8
#define PAGE 4096   /* bytes of a sub-buffer made here */
#define EVENT 64    /* bytes of an event made here */
#define TID 5000000 /* a thread's number that is larger than the kernel's largest */

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* How kvmstat takes a host, by the events that the host has. */
enum host {
    HARDWARE,    /* kvm_exit tells the vCPU, or, as on arm64, nothing does */
    BEFORE_5_10, /* x86: kvm_entry tells the vCPU, kvm_exit does not */
    SOFTWARE     /* kvm_userspace_exit instead of kvm_exit */
};

/* An event to be written to a sub-buffer. */
struct sent {
    enum event event;         /* which */
    int tid;                  /* of the thread that it is from */
    uint64_t values[NFIELDS]; /* of the fields that the event has on this host */
};

/* A test, which the command line can name. */
struct test {
    const char *name;       /* its function's, without test_ */
    void (*function)(void); /* calls ok() */
};

/* The writing side of reading.streams[]. */
struct writer {
    uint8_t page[PAGE]; /* the sub-buffer being written */
    size_t used;        /* bytes of events in it */
    uint64_t time;      /* the last one's stamp */
    bool missed;        /* events were lost just before it */
    size_t written;     /* bytes that the stream's file has already */
    uint64_t overrun;   /* events lost up to now */
};

static struct writer writers[MAX_CPUS];
static const char *captures = "tests/captures";
static int temporary = -1; /* directory that stands for the tracefs instance */
static char temporary_path[PATH_MAX];

/*
 * TAP
 */

static int ntests, nfailed;

/* Prints a line of comment, to stderr, where prove shows it. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "# ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

/* Reports whether the test that format describes passed; gives that. */
__attribute__((format(printf, 2, 3))) static bool ok(bool passed, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("%s %d - ", passed ? "ok" : "not ok", ++ntests);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    nfailed += !passed;
    return passed;
}

/* Tests that got is wanted; either may be NULL. */
static void is_text(const char *got, const char *wanted, const char *name)
{
    bool same = got == NULL || wanted == NULL ? got == wanted : strcmp(got, wanted) == 0;

    if (!ok(same, "%s", name)) {
        note("got:    %s", got == NULL ? "(none)" : got);
        note("wanted: %s", wanted == NULL ? "(none)" : wanted);
    }
}

/* Tests that the counters at got are those at wanted. */
static void is_counts(const uint64_t *got, const uint64_t *wanted, const char *name)
{
    if (ok(memcmp(got, wanted, NCOUNTERS * sizeof(*got)) == 0, "%s", name))
        return;
    for (int i = 0; i < NCOUNTERS; i++) {
        if (got[i] != wanted[i])
            note("%s: got %" PRIu64 ", wanted %" PRIu64, counter_columns[FIRST_COUNT + i].name,
                got[i], wanted[i]);
    }
}

static void remove_temporary(void);

/* Ends the tests: something that they need is not there. */
__attribute__((format(printf, 1, 2))) static _Noreturn void bail_out(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("Bail out! ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    remove_temporary();
    exit(1);
}

#define FIRST_CHANCE 88172645463325252u

static uint64_t last_chance = FIRST_CHANCE;

/* A number that looks random; the same sequence in every run of a test. */
static uint64_t chance(void)
{
    last_chance ^= last_chance << 13;
    last_chance ^= last_chance >> 7;
    last_chance ^= last_chance << 17;
    return last_chance;
}

/* A copy of size bytes in a block with room for no other byte, so that ASan sees a read behind. */
static uint8_t *boxed(const void *bytes, size_t size)
{
    return memcpy(resize(NULL, size == 0 ? 1 : size, 1), bytes, size);
}

/* The same of the first size characters of text, with a NUL behind. */
static char *boxed_text(const char *text, size_t size)
{
    char *copy = memcpy(resize(NULL, size + 1, 1), text, size);

    copy[size] = '\0';
    return copy;
}

/*
 * Runs body in a child; gives its status, or -1 if a signal ended it, and sets
 * said, of the given size, to what it wrote to stderr.
 */
static int run_child(void (*body)(void), char *said, size_t size)
{
    int err[2], status;
    pid_t child;

    if (pipe(err) != 0 || (child = fork()) < 0)
        bail_out("fork: %s", strerror(errno));
    if (child == 0) {
        dup2(err[1], STDERR_FILENO);
        body();
        exit(0);
    }
    close(err[1]);
    size_t n = 0;
    ssize_t r;
    while (n < size - 1 && (r = read(err[0], said + n, size - 1 - n)) > 0)
        n += (size_t)r;
    said[n] = '\0';
    close(err[0]);
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Tests that body ends kvmstat with status 1 and the given line on stderr. */
static void is_fatal(void (*body)(void), const char *line, const char *name)
{
    char said[4096];
    int status = run_child(body, said, sizeof(said));

    if (!ok(status == 1 && strcmp(said, line) == 0, "%s", name))
        note("status %d, stderr: %s", status, said);
}

/*
 * The state of kvmstat.c: a host with CPUs, and none.
 */

/* Gives the host n CPUs, whose buffers are empty files. */
static void make_streams(size_t n)
{
    options.read = NULL;
    source = &this_host;
    reading.chunk = reading.page.size;
    reading.nstreams = n;
    reading.streams = create(n * sizeof(*reading.streams));
    reading.heap = create(n * sizeof(*reading.heap));
    trace.polls = create((FIRST_STREAM + n) * sizeof(*trace.polls));
    for (size_t i = 0; i < n; i++) {
        int fd = memfd_create("cpu", MFD_CLOEXEC);
        if (fd < 0)
            bail_out("memfd_create: %s", strerror(errno));
        reading.streams[i] = (struct stream){.cpu = (int)i, .fd = fd};
        trace.polls[FIRST_STREAM + i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
}

/* Says in per_cpu/cpuN/stats how many events cpu has lost up to now. */
static void set_overrun(int cpu, uint64_t overrun)
{
    char path[64], text[128];

    mkdirat(temporary, "per_cpu", 0700);
    snprintf(path, sizeof(path), "per_cpu/cpu%d", cpu);
    mkdirat(temporary, path, 0700);
    snprintf(path, sizeof(path), "per_cpu/cpu%d/stats", cpu);
    int fd = openat(temporary, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int size = snprintf(text, sizeof(text),
        "entries: 0\noverrun: %" PRIu64 "\ncommit overrun: 0\nbytes: 0\n", overrun);
    if (fd < 0 || write(fd, text, (size_t)size) != size)
        bail_out("%s/%s: %s", temporary_path, path, strerror(errno));
    close(fd);
}

/* Makes the directory that add_lost() looks into. */
static void make_temporary(void)
{
    const char *parent = getenv("TMPDIR");

    snprintf(temporary_path, sizeof(temporary_path), "%s/kvmstat-unit.XXXXXX",
        parent == NULL ? "/tmp" : parent);
    if (mkdtemp(temporary_path) == NULL)
        bail_out("%s: %s", temporary_path, strerror(errno));
    temporary = trace.dir = open(temporary_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Removes it, if it is there. */
static void remove_temporary(void)
{
    char path[64];

    if (temporary < 0)
        return;
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        snprintf(path, sizeof(path), "per_cpu/cpu%d/stats", cpu);
        unlinkat(temporary, path, 0);
        snprintf(path, sizeof(path), "per_cpu/cpu%d", cpu);
        unlinkat(temporary, path, AT_REMOVEDIR);
    }
    unlinkat(temporary, "per_cpu", AT_REMOVEDIR);
    close(temporary);
    if (rmdir(temporary_path) != 0)
        note("%s: %s", temporary_path, strerror(errno));
}

/* Forgets the CPUs. */
static void clear_streams(void)
{
    for (size_t i = 0; i < reading.nstreams; i++) {
        if (reading.streams[i].fd != input.fd)
            close(reading.streams[i].fd);
        free(reading.streams[i].pages);
    }
    free(reading.streams);
    free(reading.heap);
    free(trace.polls);
    reading.streams = NULL;
    reading.heap = NULL;
    trace.polls = NULL;
    reading.nstreams = 0;
}

/* The directory of procfs. */
static int procfs;

/* Starts an observer that takes the directory dir for procfs, in place of the one that there is. */
static void start_observer(int dir)
{
    static int seen = -1; /* the directory of the one that there is */
    int ends[2], life[2];

    if (dir == seen)
        return;
    seen = dir;
    close(observer.fd);
    close(trace.janitor_pipe); /* which ends it */
    observer.looking = mmap(
        NULL, sizeof(*observer.looking), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (observer.looking == MAP_FAILED || pipe2(life, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        bail_out("an observer: %s", strerror(errno));
    fflush(stdout);
    if (fork() == 0) {
        signal(SIGCHLD, SIG_IGN);
        close(ends[0]);
        close(life[1]);
        view.proc = dir;
        keep_observer(life[0], ends[1]);
        _exit(0);
    }
    close(ends[1]);
    close(life[0]);
    trace.janitor_pipe = life[1];
    observer.fd = ends[0];
    set_patience();
}

/* Forgets guests and their threads. */
static void clear_world(void)
{
    for (size_t i = 0; i < world.space; i++)
        free(world.threads[i]);
    free(world.threads);
    for (size_t i = 0; i < world.nguests; i++)
        free_guest(world.guests[i]);
    free(world.guests);
    memset(&world, 0, sizeof(world));
    world.odd = 1;
    view.proc = procfs;
    view.debugfs = view.uevents = -1;
    start_observer(procfs);
}

/* Forgets the host, its guests and its events. */
static void clear(void)
{
    clear_streams();
    clear_world();
    if (input.header != NULL)
        fclose(input.header);
    free(input.name);
    free(input.commands);
    free(input.owners);
    memset(&input, 0, sizeof(input));
    input.fd = -1;
    input.until = UINT64_MAX;
    for (int i = 0; i < NEVENTS; i++) {
        events[i].wanted = false;
        events[i].id = 0;
        memset(events[i].fields, 0, sizeof(events[i].fields));
    }
    memset(event_of_id, 0, sizeof(event_of_id));
    memset(writers, 0, sizeof(writers));
    options.no_header = options.names = options.some = false;
    options.shares = options.no_zeros = options.by_time = options.json = false;
    options.sums = 0;
    options.order = NULL;
    options.rows = 0;
    options.stamp = 0;
    options.decimals = 0;
    options.read = NULL;
    source = &this_host;
    options.table = USUAL;
}

/* Makes the thread tid of process pid known, which runs vCPU id, or one that its events tell. */
static void add_thread(int tid, int pid, long id)
{
    struct thread *t = thread_of(tid, guest_of(pid, 0));

    t->vcpu = id == UNKNOWN_VCPU ? NULL : vcpu_of(t->guest, id);
    t->is_new = world.any_new = false;
}

/* A vCPU that is there, of process pid. */
static struct vcpu *add_vcpu(int pid, long id)
{
    struct guest *g = guest_of(pid, 0);
    struct vcpu *v = vcpu_of(g, id);

    g->gone = 0;
    g->read_at = UINT64_MAX; /* after all events */
    v->present = id != UNKNOWN_VCPU;
    return v;
}

/* The counts of a vCPU of process pid; all 0 if there is no such row. */
static const uint64_t *counts_of(int pid, long id)
{
    static const uint64_t none[NCOUNTERS];
    const struct guest *g = known_guest(pid);

    for (size_t j = 0; g != NULL && j < g->nvcpus; j++) {
        if (g->vcpus[j]->id == id)
            return g->vcpus[j]->tally.counts;
    }
    return none;
}

/*
 * Recordings.
 */

/* Replaces the text from by to, of the same length, at or behind start in size bytes. */
static char *replace(char *start, size_t size, const char *from, const char *to)
{
    char *at = memmem(start, size, from, strlen(from));

    if (at == NULL)
        bail_out("a recording has no \"%s\"", from);
    return memcpy(at, to, strlen(to));
}

/* Opens a copy of the recording at path, as such a host would have made it. */
static void open_copy(const char *path, enum host host)
{
    static char copy[64];
    struct stat st;
    int fd = memfd_create("recording", MFD_CLOEXEC);

    if (fd < 0 || stat(path, &st) != 0)
        bail_out("%s: %s", path, strerror(errno));
    size_t size = (size_t)st.st_size;
    char *bytes = resize(NULL, size + 1, 1), *end = bytes + size;
    if (read_file(AT_FDCWD, path, bytes, size + 1) != (ssize_t)size)
        bail_out("%s: cannot be read", path);
    if (host == BEFORE_5_10) {
        char *exit = replace(bytes, size, "name: kvm_exit\n", "name: kvm_exit\n");
        replace(exit, (size_t)(end - exit), " vcpu_id;", " no_such;");
    }
    if (host == SOFTWARE)
        replace(bytes, size, "name: kvm_exit\n", "name: not_exit\n");
    if (!write_all(fd, bytes, size))
        bail_out("%s: %s", path, strerror(errno));
    free(bytes);
    snprintf(copy, sizeof(copy), "/proc/self/fd/%d", fd);
    options.read = copy;
    source = &recorded_host;
    open_input();
    read_header();
    close(fd);
}

/* Opens a file of captures, as it would be on such a host. */
static void load_capture(const char *name, enum host host)
{
    char path[PATH_MAX];

    clear();
    snprintf(path, sizeof(path), "%s/%s", captures, name);
    open_copy(path, host);
}

/* Makes a live host of a recording's: the same sub-buffers, from each CPU's buffer. */
static void make_live(void)
{
    struct stream *recorded = reading.streams;
    size_t n = reading.nstreams;

    for (size_t i = 0; i < input.nowners; i++)
        recall_thread(input.owners[i].tid, 0); /* as if they had been seen before */
    free(reading.heap);
    make_streams(n);
    for (size_t i = 0; i < n; i++) {
        off_t at = (off_t)recorded[i].runs->at;
        reading.streams[i].cpu = recorded[i].cpu;
        if (sendfile(reading.streams[i].fd, input.fd, &at, (size_t)recorded[i].runs->size) !=
            (ssize_t)recorded[i].runs->size)
            bail_out("sendfile: %s", strerror(errno));
        lseek(reading.streams[i].fd, 0, SEEK_SET);
    }
    free(recorded);
}

/* Makes a live host with the events of that which a capture was recorded on, and n idle CPUs. */
static void load_formats(const char *name, enum host host, size_t n)
{
    load_capture(name, host);
    clear_streams();
    clear_world();
    make_streams(n);
}

/* The same with x86 events. */
static void make_host(enum host host, size_t n)
{
    load_formats("vmx-6.1-touch.dat", host, n);
}

/*
 * Writing sub-buffers.
 */

/* A sub-buffer's header: time stamp and commit word, both of 8 bytes. */
static const struct page_layout layout64 = {
    .time = {0, 8}, .commit = {8, 8}, .data = 16, .size = PAGE};

/* The same of a 32-bit kernel, whose commit word has 4 bytes. */
static const struct page_layout layout32 = {
    .time = {0, 8}, .commit = {8, 4}, .data = 12, .size = PAGE};

/* Writes the bytes of e at record. */
static void encode(const struct sent *e, uint8_t record[EVENT])
{
    const struct event_type *type = &events[e->event];
    uint16_t id = (uint16_t)events[e->event].id;
    uint64_t values[NFIELDS];

    struct birth *b = &world.births[(unsigned)e->tid % BIRTHS];

    if (b->tid == 0) /* unless it is told otherwise, a thread is a process */
        *b = (struct birth){.tid = e->tid, .pid = e->tid};
    memset(record, 0, EVENT);
    memcpy(record, &id, sizeof(id));
    memcpy(values, e->values, sizeof(values));
    values[COMMON_PID] = (uint64_t)e->tid;
    for (int i = 0; i < SYMBOL; i++) /* which is one of the others */
        memcpy(record + type->fields[i].offset, &values[i], type->fields[i].size);
}

/* Ends the sub-buffer that cpu is writing, so that it can be read. */
static void end_page(int cpu)
{
    struct writer *w = &writers[cpu];
    /* Sign-extended, as it was seen. */
    uint64_t commit = w->used | (w->missed ? 0xffffffff80000000u : 0);

    if (w->used == 0)
        return;
    memcpy(w->page + reading.page.commit.offset, &commit, 8);
    if (pwrite(reading.streams[cpu].fd, w->page, PAGE, (off_t)w->written) != PAGE)
        bail_out("writing a sub-buffer: %s", strerror(errno));
    w->written += PAGE;
    w->used = 0;
    w->missed = false;
}

/* Writes e to the buffer of cpu, stamped time, which is not before its last event's. */
static void put(int cpu, uint64_t time, const struct sent *e)
{
    struct writer *w = &writers[cpu];
    uint32_t header[3];
    size_t size = 4;

    if (w->used + sizeof(header) + EVENT > PAGE - reading.page.data)
        end_page(cpu);
    if (w->used == 0) {
        memcpy(w->page + reading.page.time.offset, &time, 8);
        w->time = time;
    }
    uint64_t delta = time - w->time;
    header[0] = (uint32_t)(delta << 5) | EVENT / 4;
    if (delta >> TIME_SHIFT != 0) {
        header[0] = (uint32_t)(delta << 5) | TYPE_TIME_EXTEND;
        header[1] = (uint32_t)(delta >> TIME_SHIFT);
        header[2] = EVENT / 4;
        size = 12;
    }
    uint8_t *at = w->page + reading.page.data + w->used;
    memcpy(at, header, size);
    encode(e, at + size);
    w->used += size + EVENT;
    w->time = time;
}

/* Loses n events of cpu before its next one. */
static void lose(int cpu, uint64_t n)
{
    struct writer *w = &writers[cpu];

    end_page(cpu);
    w->missed = true;
    set_overrun(cpu, w->overrun += n);
}

/* Ends the sub-buffers of all CPUs and counts the events stamped before until. */
static void read_until(uint64_t until)
{
    for (int cpu = 0; cpu < (int)reading.nstreams; cpu++)
        end_page(cpu);
    drain_buffers(until);
}

/* kvm_exit of tid on VMX. */
static struct sent vmx_exit(int tid, uint64_t vcpu, uint64_t reason)
{
    return (struct sent){
        KVM_EXIT, tid, {[VCPU_ID] = vcpu, [EXIT_REASON] = reason, [ISA] = 1, [INFO1] = UINT64_MAX}};
}

/* Counts all that the streams have. */
static void count_all(void)
{
    if (source == &recorded_host)
        drain(UINT64_MAX);
    else
        drain_buffers(UINT64_MAX);
    settle_exits(UINT64_MAX);
    find_all_vcpus();
}

/* How many events all CPUs have lost. */
static uint64_t lost(void)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < reading.nstreams; i++)
        sum += reading.streams[i].lost;
    return sum;
}

/* Starts the next interval, as report() does. */
static void end_interval(void)
{
    forget_threads(UINT64_MAX);
    forget_guests(UINT64_MAX);
    clear_counts();
}

/*
 * The tests.
 */

#include "captures.c"
#include "counting.c"
#include "formats.c"
#include "keys.c"
#include "names.c"
#include "numbers.c"
#include "observer.c"
#include "output.c"
#include "reasons.c"
#include "shares.c"
#include "subbufs.c"
#include "threads.c"

#define TESTS(name) name##_tests, SIZE(name##_tests)

static const struct subject {
    const char *file;         /* its name */
    const struct test *tests; /* in it */
    size_t ntests;            /* number of tests[] */
} subjects[] = {
    {"captures.c", TESTS(captures)},
    {"counting.c", TESTS(counting)},
    {"keys.c", TESTS(keys)},
    {"reasons.c", TESTS(reasons)},
    {"threads.c", TESTS(threads)},
    {"shares.c", TESTS(shares)},
    {"subbufs.c", TESTS(subbufs)},
    {"formats.c", TESTS(formats)},
    {"names.c", TESTS(names)},
    {"numbers.c", TESTS(numbers)},
    {"observer.c", TESTS(observer)},
    {"output.c", TESTS(output)},
};

/* Runs the test from where every test starts: alone, it does what it does among the others. */
static void run_test(const struct test *test)
{
    int before = nfailed;

    clear();
    last_chance = FIRST_CHANCE;
    test->function();
    if (nfailed != before)
        note("to run this test alone: unit %s", test->name);
}

/* Runs the tests of that name, or all if it is NULL; gives how many there are. */
static int run_named(const char *name)
{
    int n = 0;

    for (size_t i = 0; i < SIZE(subjects); i++) {
        const struct subject *s = &subjects[i];
        for (size_t j = 0; j < s->ntests; j++) {
            const struct test *test = &s->tests[j];
            if (name == NULL || strcmp(name, s->file) == 0 || strcmp(name, test->name) == 0) {
                run_test(test);
                n++;
            }
        }
    }
    return n;
}

/* Says which names there are. */
static void print_names(void)
{
    fputs("unit: no test has this name; these are there:\n", stderr);
    for (size_t i = 0; i < SIZE(subjects); i++) {
        fprintf(stderr, "%s:", subjects[i].file);
        for (size_t j = 0; j < subjects[i].ntests; j++)
            fprintf(stderr, " %s", subjects[i].tests[j].name);
        fputs("\n", stderr);
    }
}

int main(int argc, char **argv)
{
    int n = 0;

    if (access(captures, F_OK) != 0) /* run from tests/, or from here */
        captures = access("captures", F_OK) == 0 ? "captures" : "../captures";
    setvbuf(stdout, NULL, _IOLBF, 0); /* so that a child has nothing to print again */
    make_temporary();
    procfs = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (argc == 1)
        n = run_named(NULL);
    for (int i = 1; i < argc; i++) {
        if ((n = run_named(argv[i])) == 0)
            break;
    }
    clear();
    remove_temporary();
    if (n == 0) {
        print_names();
        return 1;
    }
    printf("1..%d\n", ntests);
    return nfailed != 0;
}
