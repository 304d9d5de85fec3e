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
 * usage: unit [captures]
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

/* Prints a line of comment. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("# ");
    vprintf(format, args);
    printf("\n");
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

/* A number that looks random; the same sequence in every run. */
static uint64_t chance(void)
{
    static uint64_t x = 88172645463325252u;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
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
    reading.chunk = reading.page.size;
    reading.nstreams = n;
    reading.streams = create(n * sizeof(*reading.streams));
    reading.heap = create(n * sizeof(*reading.heap));
    trace.polls = create((FIRST_STREAM + n) * sizeof(*trace.polls));
    for (size_t i = 0; i < n; i++) {
        int fd = memfd_create("cpu", MFD_CLOEXEC);
        if (fd < 0)
            bail_out("memfd_create: %s", strerror(errno));
        reading.streams[i] = (struct stream){.cpu = (int)i, .fd = fd, .saved = -1};
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
    world.proc = procfs;
    world.debugfs = world.uevents = -1;
}

/* Forgets the host, its guests and its events. */
static void clear(void)
{
    clear_streams();
    clear_world();
    close(input.fd);
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
    options.no_header = options.names = false;
    options.stamp = 0;
    options.decimals = 0;
    options.read = NULL;
    options.table = USUAL;
}

/* Makes the thread tid of process pid known, which runs vCPU id, or one that its events tell. */
static void add_thread(int tid, int pid, long id)
{
    struct thread *t = thread_of(tid, pid, 0);

    t->vcpu = id == UNKNOWN_VCPU ? NULL : vcpu_of(t->guest, id);
    t->fresh = world.fresh = false;
}

/* A vCPU that is there, of process pid. */
static struct vcpu *add_vcpu(int pid, long id)
{
    struct guest *g = guest_of(pid, 0);
    struct vcpu *v = vcpu_of(g, id);

    g->gone = 0;
    v->here = id != UNKNOWN_VCPU;
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
        recall_thread(input.owners[i].tid); /* as if they had been seen before */
    free(reading.heap);
    make_streams(n);
    for (size_t i = 0; i < n; i++) {
        off_t at = (off_t)recorded[i].at;
        reading.streams[i].cpu = recorded[i].cpu;
        if (sendfile(reading.streams[i].fd, input.fd, &at, (size_t)recorded[i].left) !=
            (ssize_t)recorded[i].left)
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

/* Writes the bytes of e at record. */
static void encode(const struct sent *e, uint8_t record[EVENT])
{
    const struct event_type *type = &events[e->event];
    uint16_t id = (uint16_t)events[e->event].id;
    uint64_t values[NFIELDS];

    struct birth *b = &world.births[(unsigned)e->tid % BIRTHS];

    if (b->tid == 0) /* unless it is told otherwise, a thread is a process */
        *b = (struct birth){e->tid, e->tid};
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
    drain(until);
}

/* kvm_exit of tid on VMX. */
static struct sent vmx_exit(int tid, uint64_t vcpu, uint64_t reason)
{
    return (struct sent){
        KVM_EXIT, tid, {[VCPU_ID] = vcpu, [EXIT_REASON] = reason, [ISA] = 1, [INFO1] = UINT64_MAX}};
}

/*
 * Real recordings against KVM's own counts.
 */

/* The cells in which kvmstat shows another number than KVM's, and is right to. */
static const struct difference {
    const char *file;     /* the recording */
    long vcpu;            /* the vCPU's number */
    enum counter counter; /* the column */
    uint64_t got;         /* what kvmstat counts */
    const char *reason;   /* why KVM's number is another one */
} differences[] = {
    /* 34 of the exits for MMIO go to the local APIC, which KVM answers itself. */
    {"svm-6.1-mix2irq.dat", 0, MMIOX, 184, "mmio_exits leaves out what stays in the kernel"},
    {"svm-6.1-mix2irq.dat", 1, MMIOX, 184, "mmio_exits leaves out what stays in the kernel"},
    {"vmx-6.1-mix2irq.dat", 0, MMIOX, 184, "mmio_exits leaves out what stays in the kernel"},
    {"vmx-6.1-mix2irq.dat", 1, MMIOX, 184, "mmio_exits leaves out what stays in the kernel"},
    /* All 100 are answered by an ioeventfd. */
    {"svm-6.1-evfd.dat", 0, MMIOX, 100, "mmio_exits leaves out what stays in the kernel"},
    {"svm-6.1-nonpt.dat", 0, EPTV, 0, "shadow paging: there is no nested page table"},
    /* What is left of 15,721 events more. */
    {"svm-6.1-overrun.dat", 0, EXITS, 37, "the recording lost events"},
    {"svm-6.1-overrun.dat", 0, IRQX, 0, "the recording lost events"},
    {"svm-6.1-overrun.dat", 0, IOX, 37, "the recording lost events"},
    {"svm-6.1-overrun.dat", 0, EPTV, 0, "the recording lost events"},
};

/* A row of kvm-counts.tsv. */
struct kvm_row {
    char file[64];              /* the recording */
    int pid;                    /* the process */
    long vcpu;                  /* the vCPU's number */
    uint64_t counts[NCOUNTERS]; /* KVM's counts; UINT64_MAX where it has none */
};

/* Reads the next row of f; false at the end. */
static bool read_row(FILE *f, struct kvm_row *row)
{
    char text[1024], *rest = NULL, *cell;

    if (fgets(text, sizeof(text), f) == NULL)
        return false;
    snprintf(row->file, sizeof(row->file), "%s", strtok_r(text, "\t", &rest));
    row->pid = parse_int(strtok_r(NULL, "\t", &rest));
    row->vcpu = parse_int(strtok_r(NULL, "\t", &rest));
    strtok_r(NULL, "\t", &rest); /* the thread: the recording has it, too */
    for (int i = 0; i < NCOUNTERS; i++) {
        if ((cell = strtok_r(NULL, "\t", &rest)) == NULL)
            bail_out("kvm-counts.tsv: a row is too short");
        row->counts[i] = strcmp(cell, "-") == 0 ? UINT64_MAX : (uint64_t)parse_int(cell);
    }
    return true;
}

/* Opens kvm-counts.tsv; what is read next is its first row. */
static FILE *open_rows(void)
{
    static const char header[] =
        "file\tpid\tvcpu\ttid\texits\thalt_exits\tirq_exits\tirq_window_exits\tio_exits\t"
        "mmio_exits\tirq_injections\tinsn_emulation\tpf_fixed\t";
    char path[PATH_MAX], text[1024];

    snprintf(path, sizeof(path), "%s/kvm-counts.tsv", captures);
    FILE *f = fopen(path, "re");
    if (f == NULL || fgets(text, sizeof(text), f) == NULL)
        bail_out("%s: %s", path, strerror(errno));
    if (strncmp(text, header, strlen(header)) != 0)
        bail_out("%s: other columns than those that are known here", path);
    return f;
}

/* The named difference in that cell, or NULL. */
static const struct difference *difference_in(const struct kvm_row *row, enum counter counter)
{
    for (size_t i = 0; i < SIZE(differences); i++) {
        const struct difference *d = &differences[i];
        if (strcmp(d->file, row->file) == 0 && d->vcpu == row->vcpu && d->counter == counter)
            return d;
    }
    return NULL;
}

/* Counts all that the streams have. */
static void count_all(void)
{
    drain(UINT64_MAX);
    settle_exits(UINT64_MAX);
    find_vcpus(true);
}

/* Tests each column of row but for the named differences; gives how many of these there were. */
static int is_row(const struct kvm_row *row, const char *how)
{
    const uint64_t *got = counts_of(row->pid, row->vcpu);
    uint64_t wanted[NCOUNTERS];
    char name[128];
    int named = 0;

    for (int i = 0; i < NCOUNTERS; i++) {
        const struct difference *d = difference_in(row, (enum counter)i);
        wanted[i] = d != NULL ? d->got : row->counts[i] == UINT64_MAX ? got[i] : row->counts[i];
        if (d != NULL && d->got != row->counts[i]) {
            note("%s: %" PRIu64 ", KVM's own %" PRIu64 ": %s",
                counter_columns[FIRST_COUNT + i].name, d->got, row->counts[i], d->reason);
            named++;
        }
    }
    snprintf(
        name, sizeof(name), "%s, vCPU %ld: the counts are KVM's own%s", row->file, row->vcpu, how);
    is_counts(got, wanted, name);
    return named;
}

/* How many events all CPUs have lost. */
static uint64_t lost(void)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < reading.nstreams; i++)
        sum += reading.streams[i].lost;
    return sum;
}

/* How many rows there are in all guests. */
static size_t row_count(void)
{
    size_t n = 0;

    for (size_t i = 0; i < world.nguests; i++)
        n += world.guests[i]->nvcpus;
    return n;
}

/* Every recording, as one, and as a host whose CPUs have the same sub-buffers. */
static void test_captures(bool live)
{
    FILE *f = open_rows();
    struct kvm_row row;
    size_t nrows = 0;
    int named = 0;

    set_overrun(0, 15721);
    set_overrun(1, 0);
    while (read_row(f, &row)) {
        load_capture(row.file, HARDWARE);
        if (live)
            make_live();
        count_all();
        named += is_row(&row, live ? ", live" : "");
        ok(world.nguests == 1 && row_count() == world.nthreads, "%s: no other row", row.file);
        if (strcmp(row.file, "svm-6.1-overrun.dat") == 0)
            ok(reading.streams[0].lost == 15721 && lost() == 15721,
                "%s: 15721 events lost on CPU 0", row.file);
        else
            ok(lost() == 0, "%s: no event lost", row.file);
        nrows++;
    }
    fclose(f);
    ok(nrows == 14, "all 14 vCPUs were compared");
    ok(named == 10 && SIZE(differences) == 10, "10 cells differ from KVM's own, as named above");
}

/* The x86 recordings, as a kernel before 5.10 would have made them. */
static void test_old_kernels(void)
{
    FILE *f = open_rows();
    struct kvm_row row;

    while (read_row(f, &row)) {
        if (strncmp(row.file, "arm64", 5) == 0)
            continue;
        load_capture(row.file, BEFORE_5_10);
        count_all();
        is_row(&row, ", with the vCPU from kvm_entry");
    }
    fclose(f);
}

/* The recordings in which user space answers all, as a host without kvm_exit would have them. */
static void test_software_captures(void)
{
    FILE *f = open_rows();
    struct kvm_row row;

    while (read_row(f, &row)) {
        uint64_t *c = row.counts;
        if (strcmp(row.file, "svm-6.1-mix2.dat") != 0 && strcmp(row.file, "svm-6.1-nonpt.dat") != 0)
            continue;
        load_capture(row.file, SOFTWARE);
        count_all();
        c[EXITS] = c[HALTX] + c[IOX] + c[MMIOX];
        c[IRQX] = c[EPTV] = 0;
        char name[128];
        snprintf(name, sizeof(name), "%s, vCPU %ld: kvm_userspace_exit gives KVM's own counts",
            row.file, row.vcpu);
        is_counts(counts_of(row.pid, row.vcpu), c, name);
    }
    fclose(f);
}

/* KVM keeps no counts by reason on arm64; trace-cmd report shows these. */
static void test_arm64_capture(void)
{
    /* 151 data aborts and 1 instruction abort, of which 101 came to user space, as MMIO. */
    static const uint64_t wanted[2][NCOUNTERS] = {{[EXITS] = 202, [MMIOX] = 101, [EPTV] = 51},
        {[EXITS] = 206, [IRQX] = 4, [MMIOX] = 101, [EPTV] = 51}};

    load_capture("arm64-6.1-mix2.dat", HARDWARE);
    count_all();
    is_counts(counts_of(268, 0), wanted[0], "arm64-6.1-mix2.dat, vCPU 0: what the guest did");
    is_counts(counts_of(268, 1), wanted[1], "arm64-6.1-mix2.dat, vCPU 1: what the guest did");
}

/*
 * Counting, in the order of the stamps, whatever CPU an event comes from.
 */

/* What the letters of a scenario mean. */
static const struct {
    char letter;      /* in the scenario */
    enum event event; /* what it is */
    uint64_t reason;  /* VMX's exit_reason, or KVM_EXIT's number */
    uint64_t error;   /* kvm_userspace_exit's errno */
} letters[] = {
    {'p', KVM_EXIT, 48, 0}, /* EPT violation: a page fault */
    {'s', KVM_EXIT, 0, 0},  /* exception: a page fault with shadow paging */
    {'h', KVM_EXIT, 12, 0}, /* HLT */
    {'c', KVM_EXIT, 49, 0}, /* EPT misconfiguration: MMIO that KVM knows already */
    {'m', KVM_MMIO, 0, 0}, {'e', KVM_EMULATE_INSN, 0, 0}, {'q', KVM_INJ_VIRQ, 0, 0},
    {'I', KVM_USERSPACE_EXIT, 2, 0},             /* port I/O */
    {'H', KVM_USERSPACE_EXIT, 5, 0},             /* HLT */
    {'M', KVM_USERSPACE_EXIT, 6, 0},             /* MMIO */
    {'W', KVM_USERSPACE_EXIT, 7, 0},             /* interrupt window */
    {'S', KVM_USERSPACE_EXIT, 10, (uint64_t)-4}, /* a signal: EINTR */
    {'F', KVM_USERSPACE_EXIT, 6, (uint64_t)-14}, /* an error: EFAULT, whatever the reason says */
};

/* Events of one thread, and what the reports of them show in sum. */
struct scenario {
    const char *promise;        /* the test's name */
    const char *steps;          /* each a CPU and a letter, or a CPU and L: it loses events; | is a
                                   report, and _ time enough to be sure that no kvm_mmio follows */
    uint64_t wanted[NCOUNTERS]; /* the sums, those of exits first */
};

/* Starts the next interval, as report() does. */
static void end_interval(void)
{
    forget_threads(UINT64_MAX);
    forget_guests(UINT64_MAX);
    clear_counts();
}

/* Adds what a report at end would show for vCPU 0 to sums, and starts the next interval. */
static void report_to(uint64_t sums[NCOUNTERS], uint64_t end)
{
    struct line line;
    struct guest *g = guest_of(TID, 0);

    g->gone = 0;
    read_until(UINT64_MAX);
    settle_exits(end);
    find_vcpus(true);
    set_line(&line, "", &(struct row){.guest = g, .vcpu = vcpu_of(g, 0)}, NULL, NULL);
    for (int i = 0; i < NCOUNTERS; i++)
        sums[i] += (uint64_t)strtoull(line.cells[FIRST_COUNT + i], NULL, 10);
    end_interval();
}

/* Writes the event that letter stands for. */
static void put_letter(int cpu, uint64_t time, char letter)
{
    size_t i = 0;

    while (letters[i].letter != letter)
        i++;
    put(cpu, time,
        &(struct sent){letters[i].event, TID,
            {[EXIT_REASON] = letters[i].reason,
                [ISA] = 1,
                [REASON] = letters[i].reason,
                [ERRNO] = letters[i].error}});
}

/* Tests the scenario on such a host, with its CPUs numbered upwards or downwards. */
static void run_scenario(const struct scenario *scenario, enum host host, bool downwards)
{
    enum { CPUS = 3 };
    uint64_t sums[NCOUNTERS] = {0};
    uint64_t time = 1;
    char name[256];

    make_host(host, CPUS);
    add_thread(TID, TID, host == SOFTWARE ? 0 : UNKNOWN_VCPU);
    for (const char *s = scenario->steps; *s != '\0'; s++) {
        if (*s == '|')
            report_to(sums, time);
        if (*s == '_')
            time += DOUBT;
        if (*s < '0' || *s >= '0' + CPUS)
            continue;
        int cpu = downwards ? CPUS - 1 - (*s - '0') : *s - '0';
        if (*++s == 'L')
            lose(cpu, 7);
        else
            put_letter(cpu, time++, *s);
    }
    report_to(sums, UINT64_MAX);
    snprintf(name, sizeof(name), "%s (%s%s)", scenario->promise, scenario->steps,
        downwards ? ", the CPUs the other way round" : "");
    is_counts(sums, scenario->wanted, name);
}

/* When an exit moves to mmiox. */
static void test_mmio(void)
{
    static const struct scenario scenarios[] = {
        {"a page fault is no MMIO", "0p", {1, [EPTV] = 1}},
        {"kvm_mmio makes MMIO of the page fault before it", "0p 0m", {1, [MMIOX] = 1}},
        {"also if the thread went to another CPU", "0p 1m", {1, [MMIOX] = 1}},
        {"also if it went to and fro", "0p 1e 2e 1m 0p 2p",
            {3, [MMIOX] = 1, [EMUL] = 2, [EPTV] = 2}},
        {"an exit moves once", "0p 0m 0m 1m 0m", {1, [MMIOX] = 1}},
        {"only the last exit moves", "0p 0p 1m 0m", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"an exit without a column moves, too", "0s 0m", {1, [MMIOX] = 1}},
        {"an exit without a column moves once", "0s 1m 0m", {1, [MMIOX] = 1}},
        {"an exit with another column does not", "0h 0m", {1, [HALTX] = 1}},
        {"nor does one before that", "0p 0h 0m", {2, [HALTX] = 1, [EPTV] = 1}},
        {"MMIO that KVM knows already counts once", "0c 0m 0m", {1, [MMIOX] = 1}},
        {"kvm_mmio without an exit counts nothing", "0m 1m", {0}},
        {"events lost in between: the exit does not move", "0p 0L 0m", {1, [EPTV] = 1}},
        {"lost where kvm_mmio was read", "0p 1L 1m", {1, [EPTV] = 1}},
        {"lost where kvm_mmio was read, an event before", "0p 1L 1e 1m",
            {1, [EMUL] = 1, [EPTV] = 1}},
        {"lost where the exit was read", "0p 0L 0e 1m", {1, [EMUL] = 1, [EPTV] = 1}},
        {"lost where the exit was read, another one before", "0p 1p 1L 1e 2m",
            {2, [EMUL] = 1, [EPTV] = 2}},
        {"an exit without a column does not move then, either", "0s 0L 0m", {1}},
        {"lost on a third CPU: the exit moves", "0p 2L 2e 1m", {1, [MMIOX] = 1, [EMUL] = 1}},
        {"lost before the exit: it moves", "0L 0p 0m", {1, [MMIOX] = 1}},
        {"lost before the exit, on two CPUs: it moves", "0L 1L 0e 1p 0m",
            {1, [MMIOX] = 1, [EMUL] = 1}},
        {"lost after kvm_mmio: the exit has moved", "0p 0m 0L 0p", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"an exit waits for its kvm_mmio, also for the next report", "0p | 0m", {1, [MMIOX] = 1}},
        {"and the one after", "0p | | 1m 0p", {2, [MMIOX] = 1, [EPTV] = 1}},
        {"not beyond the next exit", "0p | 0h 0m", {2, [HALTX] = 1, [EPTV] = 1}},
        {"and not for ever", "0p _ | 0m", {1, [EPTV] = 1}},
        {"an exit without a column moves out of a report, too", "0s | 0m", {1, [MMIOX] = 1}},
        {"all events count in the report after they came", "0h | 0h 0q | 0e 0e",
            {2, [HALTX] = 2, [IRQS] = 1, [EMUL] = 2}},
    };

    for (size_t i = 0; i < SIZE(scenarios); i++) {
        run_scenario(&scenarios[i], HARDWARE, false);
        run_scenario(&scenarios[i], HARDWARE, true);
    }
}

/* When an exit that kvm_mmio may follow is reported. */
static void test_doubt(void)
{
    uint64_t sums[NCOUNTERS] = {0};

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put_letter(0, 1, 'p');
    report_to(sums, DOUBT);
    ok(sums[EXITS] == 1 && sums[EPTV] == 0, "it is an exit at once, and no eptv yet");
    report_to(sums, DOUBT + 1);
    ok(sums[EXITS] == 1 && sums[EPTV] == 1, "a second later it is an eptv");
    put_letter(0, DOUBT + 2, 'p');
    read_until(UINT64_MAX);
    guest_of(TID, 0)->gone = 1;
    settle_exits(DOUBT + 3);
    ok(counts_of(TID, 0)[EPTV] == 1, "or at once, when the guest is gone");
}

/*
 * Keys (-e).
 */

/* The key of vCPU 0 of TID with the given id; all 0 if there is none. */
static struct key key_at(uint64_t id)
{
    const struct tally *t = &vcpu_of(guest_of(TID, 0), 0)->tally;

    for (size_t i = 0; i < t->nkeys; i++) {
        if (t->keys[i].id == id)
            return t->keys[i];
    }
    return (struct key){.id = id};
}

/* A host of 3 CPUs, whose events are those that a table needs, with a thread TID. */
static void make_table(enum table table)
{
    make_host(HARDWARE, 3);
    options.table = table;
    memset(event_of_id, 0, sizeof(event_of_id));
    choose_events(false);
    add_thread(TID, TID, UNKNOWN_VCPU);
    reading.gap = 0;
}

/* Tests count, number of times, and sum, least and greatest of these, of a key. */
static void is_key(uint64_t id, const uint64_t wanted[5], const char *name)
{
    struct key k = key_at(id);

    if (!ok(k.count == wanted[0] && k.timed == wanted[1] && k.total == wanted[2] &&
                k.min == wanted[3] && k.max == wanted[4],
            "%s", name))
        note("got %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, k.count, k.timed,
            k.total, k.min, k.max);
}

/* From an exit to the entry of the same vCPU. */
static void test_exit_times(void)
{
    struct sent hlt = vmx_exit(TID, 0, 12), io = vmx_exit(TID, 0, 30), other = vmx_exit(TID, 1, 12);
    struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}},
                entry1 = {KVM_ENTRY, TID, {[VCPU_ID] = 1}};

    for (int cpu = 0; cpu < 2; cpu++) {
        make_table(VMEXIT);
        put(cpu, 100, &hlt);
        put(1 - cpu, 150, &entry);
        put(1 - cpu, 200, &io);
        put(cpu, 203, &entry);
        put(cpu, 300, &hlt);
        put(cpu, 310, &entry);
        read_until(UINT64_MAX);
        is_key(
            12, (uint64_t[]){2, 2, 60, 10, 50}, "an exit's time ends with the entry, on any CPU");
        is_key(30, (uint64_t[]){1, 1, 3, 3, 3}, "each reason has its own");
    }
    make_table(VMEXIT);
    put(0, 50, &entry);
    put(0, 100, &hlt);
    put(0, 120, &other);
    put(0, 130, &entry1);
    put(0, 150, &entry);
    put(0, 160, &hlt);
    read_until(UINT64_MAX);
    is_key(12, (uint64_t[]){2, 1, 50, 50, 50},
        "one thread runs two vCPUs: each exit ends with its own vCPU's entry; the last one has no "
        "end");
    clear_counts();
    put(2, 1160, &entry);
    read_until(UINT64_MAX);
    is_key(12, (uint64_t[]){0, 1, 1000, 1000, 1000},
        "an exit that lasts counts when it began, its time when it ended");
    for (int cpu = 0; cpu < 3; cpu++) {
        make_table(VMEXIT);
        put(0, 100, &hlt);
        lose(cpu, 3);
        put(cpu, 120, &entry);
        put(1, 130, &io);
        put(1, 140, &entry);
        read_until(UINT64_MAX);
        is_key(12, (uint64_t[]){1, 0, 0, 0, 0}, "events lost in between: no time is made up");
        is_key(30, (uint64_t[]){1, 1, 10, 10, 10}, "and times go on after that");
    }
}

/* Where there is no kvm_entry: up to the load of the guest's FPU. */
static void test_user_exit_times(void)
{
    struct sent hlt = {KVM_USERSPACE_EXIT, TID, {[REASON] = KVM_EXIT_HLT}};
    struct sent unload = {KVM_FPU, TID, {[LOAD] = 0}}, load = {KVM_FPU, TID, {[LOAD] = 1}};

    make_table(VMEXIT);
    memset(event_of_id, 0, sizeof(event_of_id));
    choose_events(true);
    (*thread_slot(TID))->vcpu = vcpu_of(guest_of(TID, 0), 0);
    put(0, 100, &hlt);
    put(0, 110, &unload);
    put(0, 150, &load);
    put(0, 170, &unload);
    put(0, 180, &load);
    read_until(UINT64_MAX);
    find_vcpus(true);
    is_key(KVM_EXIT_HLT, (uint64_t[]){1, 1, 50, 50, 50},
        "user space has the guest until its FPU is loaded");
}

/* Times of MMIO and port I/O are perf-kvm's. */
static void test_device_times(void)
{
    struct sent exit = vmx_exit(TID, 0, 48), entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}};
    struct sent unsatisfied = {KVM_MMIO, TID, {[TYPE] = 0, [GPA] = 0x1000}};
    struct sent read = {KVM_MMIO, TID, {[TYPE] = MMIO_READ, [GPA] = 0x1000}};
    struct sent write = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE, [GPA] = 0x1000}};
    struct sent out = {KVM_PIO, TID, {[PORT] = 0x3f8, [RW] = 1}};

    make_table(MMIO);
    put(0, 100, &exit);
    put(0, 101, &unsatisfied);
    put(1, 130, &read);
    put(1, 131, &read);
    put(1, 140, &entry);
    put(1, 200, &exit);
    put(0, 205, &write);
    put(0, 215, &write);
    put(2, 240, &entry);
    read_until(UINT64_MAX);
    is_key(0x2000, (uint64_t[]){2, 1, 30, 30, 30},
        "a read lasts from the exit to kvm_mmio, once an exit");
    is_key(0x2001, (uint64_t[]){2, 1, 25, 25, 25}, "a write from the last kvm_mmio to the entry");
    make_table(IOPORT);
    put(0, 100, &out);
    put(1, 117, &entry);
    put(1, 130, &entry);
    read_until(UINT64_MAX);
    is_key(0x3f8 << 1 | 1, (uint64_t[]){1, 1, 17, 17, 17}, "port I/O from kvm_pio to the entry");
}

/* More keys than are kept apart. */
static void test_many_keys(void)
{
    enum { KEYS = 20000, HOT = 1000 };
    struct sent write = {KVM_MMIO, TID, {[TYPE] = MMIO_WRITE, [VCPU_ID] = 0}};
    struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = 0}};
    const struct tally *t;
    uint64_t time = 1, count = 0;
    size_t most = 0;

    make_table(MMIO);
    put(0, time++, &entry);
    for (int i = 0; i < KEYS; i++) {
        write.values[GPA] = 0x100000 + chance() % (1u << 30);
        put(0, time++, &write);
        write.values[GPA] = 0xfee000b0;
        if (i % (KEYS / HOT) == 0)
            put(0, time++, &write);
        if (i % 100 == 0) {
            read_until(UINT64_MAX);
            t = &vcpu_of(guest_of(TID, 0), 0)->tally;
            most = t->nkeys > most ? t->nkeys : most;
        }
    }
    read_until(UINT64_MAX);
    t = &vcpu_of(guest_of(TID, 0), 0)->tally;
    for (size_t i = 0; i < t->nkeys; i++)
        count += t->keys[i].count;
    ok(count == KEYS + HOT, "20000 addresses: nothing is lost");
    ok(most <= MAX_KEYS && t->nkeys > MAX_KEYS / 2 - 2, "and at most %u rows are kept", MAX_KEYS);
    ok(key_at(0xfee000b0ull << 1 | 1).count >= HOT - 1, "the frequent one has its own");
    ok(key_at(OTHER_KEYS).count != 0, "and the rest is in the row other");
    clear_counts();
    ok(t->keys == NULL && t->nkeys == 0, "the next interval starts without them");
}

/* Tests the names that a print fmt gives to the numbers 1 and 2, and to the second table's 5. */
static void is_symbols(const char *print, const char *wanted, const char *name)
{
    char *boxed_print = boxed_text(print, strlen(print)), got[256] = "", key[64];
    const uint64_t ids[] = {1, 2, 5 | SECOND_SYMBOLS};

    options.table = VMEXIT;
    symbols[0].n = symbols[1].n = 0;
    parse_symbols(boxed_print);
    for (size_t i = 0; i < SIZE(ids); i++) {
        key_name(ids[i], key, sizeof(key));
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s", i == 0 ? "" : " ", key);
    }
    is_text(got, wanted, name);
    free(boxed_print);
}

static void test_symbols(void)
{
#define X "print fmt: \"%s\", __print_symbolic(REC->x, "
    clear();
    is_symbols(X "{ 1, \"A\" }, { 0x2, \"B\" }), __print_symbolic(REC->y & 0xff, { 5, \"C\" })",
        "A B C", "names are those of print fmt");
    is_symbols(X "{(1), \"A\"}, {1 + 1, \"B\"}) {5, \"C\"}", "A B 0x5",
        "a number may be in parentheses, or a sum");
    is_symbols(X "{ 1, \"A\" \"B\" }, { 2 , \"C\"  \"D\" \"E\" })", "AB CDE 0x5",
        "a name may be of several strings");
    is_symbols(X "{ 7, \"A\" })", "0x1 0x2 0x5", "a number without a name is shown itself");
    is_symbols(X "{ 1, \"A\033[1m\t\" })", "A?[1m? 0x2 0x5", "no control byte is in a name");
    is_symbols(X "{ BIT(1), \"A\" }, { 2, \"B\" })", "0x1 B 0x5", "what is no number is left out");
    is_symbols("print fmt: \"%d\", REC->x", "0x1 0x2 0x5", "there may be no names");
    is_symbols(X "{ 1, \""
                 "0123456789012345678901234567890123456789"
                 "\" })",
        "012345678901234567890123456789012345678 0x2 0x5", "a long name is cut");
    static const char *const damaged[] = {X, X "{", X "{ 1", X "{ 1,", X "{ 1, \"", X "{ 1, \"A",
        X "{ 1, \"A\"", X "{}", X "{ 1 + ", X "{{{{", "__print_symbolic(", ""};
    for (size_t i = 0; i < SIZE(damaged); i++)
        is_symbols(damaged[i], "0x1 0x2 0x5", "a table that ends too soon");
#undef X
    free(symbols[0].list);
    free(symbols[1].list);
    memset(symbols, 0, sizeof(symbols));
}

/* Exits where there is no kvm_exit. */
static void test_user_exits(void)
{
    static const struct scenario scenarios[] = {
        {"user space: port I/O", "0I 0I", {2, [IOX] = 2}},
        {"user space: HLT", "0H 0H", {2, [HALTX] = 2}},
        {"user space: interrupt window", "0W 0W", {2, [IRQWX] = 2}},
        {"user space: MMIO", "0e 0M", {1, [MMIOX] = 1, [EMUL] = 1}},
        {"MMIO again, with no instruction between, is the same exit", "0M 0M 1M", {1, [MMIOX] = 1}},
        {"MMIO of another instruction is another exit", "0M 0e 1M", {2, [MMIOX] = 2, [EMUL] = 1}},
        {"port I/O that goes on after MMIO is the same exit", "0M 0I", {1, [MMIOX] = 1}},
        {"the port I/O after that is another one", "0M 0I 0I", {2, [IOX] = 1, [MMIOX] = 1}},
        {"MMIO after port I/O is another exit", "0I 0M", {2, [IOX] = 1, [MMIOX] = 1}},
        {"HLT after MMIO is another exit", "0M 0H", {2, [HALTX] = 1, [MMIOX] = 1}},
        {"and MMIO after that, too", "0M 0H 0M", {3, [HALTX] = 1, [MMIOX] = 2}},
        {"an injection: the guest was entered", "0M 0q 0M", {2, [MMIOX] = 2, [IRQS] = 1}},
        {"an error is no exit", "0F 0S", {0}},
        {"MMIO goes on after a signal", "0M 0S 0M 0F 0M", {1, [MMIOX] = 1}},
        {"MMIO goes on in the next report", "0M | 0M | 0e 0M", {2, [MMIOX] = 2, [EMUL] = 1}},
    };

    for (size_t i = 0; i < SIZE(scenarios); i++) {
        run_scenario(&scenarios[i], SOFTWARE, false);
        run_scenario(&scenarios[i], SOFTWARE, true);
    }
}

/* One thread runs vCPUs in turn, its events spread over all CPUs by chance. */
static void test_order(void)
{
    enum { VCPUS = 5, ENTRIES = 20000 };
    uint64_t wanted[VCPUS] = {0};
    uint64_t time = 1000;
    bool same = true;

    make_host(BEFORE_5_10, MAX_CPUS);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (int i = 0; i < ENTRIES; i++) {
        uint64_t vcpu = chance() % VCPUS;
        struct sent entry = {KVM_ENTRY, TID, {[VCPU_ID] = vcpu}};
        struct sent leaving = vmx_exit(TID, 0, 12);
        put((int)(chance() % MAX_CPUS), time, &entry);
        /* Now and then longer than an event's delta reaches. */
        time += chance() % 64 == 0 ? chance() % (1u << 29) : 1 + chance() % 1000;
        put((int)(chance() % MAX_CPUS), time, &leaving);
        time += 1 + chance() % 1000;
        wanted[vcpu]++;
        if (chance() % 1000 == 0)
            read_until(chance() % 2 == 0 ? time : time - chance() % 2000);
    }
    read_until(time);
    for (int i = 0; i < VCPUS; i++)
        same &= counts_of(TID, i)[HALTX] == wanted[i] && counts_of(TID, i)[EXITS] == wanted[i];
    ok(same, "%d exits spread over %d CPUs count for the vCPU that was entered before each",
        ENTRIES, MAX_CPUS);
}

/* drain() stops at its time. */
static void test_until(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 2);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put(0, 100, &leaving);
    put(0, 200, &leaving);
    put(1, 199, &leaving);
    put(1, 300, &leaving);
    read_until(100);
    ok(counts_of(TID, 0)[EXITS] == 0, "an event counts after its time only");
    drain(200);
    ok(counts_of(TID, 0)[EXITS] == 2, "events count that are stamped before the end");
    drain(201);
    ok(counts_of(TID, 0)[EXITS] == 3, "an event stamped at the end counts the next time");
    drain(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 4, "all events count once");
    put(0, 400, &leaving);
    put(1, 400, &leaving);
    end_page(0);
    end_page(1);
    int fd = reading.streams[0].fd;
    reading.streams[0].fd = -1; /* poll() says nothing of it */
    drain(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 5, "a CPU is read if poll() says that it has events");
    reading.streams[0].fd = fd;
    drain(UINT64_MAX);
    ok(counts_of(TID, 0)[EXITS] == 6, "and else the next time");
}

/* The same with no other CPU that has events. */
static void test_until_alone(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (uint64_t time = 100; time < 200; time++)
        put(0, time, &leaving);
    read_until(150);
    ok(counts_of(TID, 0)[EXITS] == 50, "one CPU's events count up to the end only");
    drain(200);
    ok(counts_of(TID, 0)[EXITS] == 100, "and the others the next time");
}

/* What a CPU lost, by the kernel's counter. */
static void test_lost(void)
{
    struct sent leaving = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 2);
    add_thread(TID, TID, UNKNOWN_VCPU);
    for (uint64_t time = 1; time <= 4; time++) {
        put(1, time, &leaving);
        lose(1, 1000 * time);
    }
    put(1, 5, &leaving);
    read_until(UINT64_MAX);
    ok(reading.streams[0].lost == 0 && reading.streams[1].lost == 10000,
        "the events that a CPU lost count once each");
    ok(counts_of(TID, 0)[EXITS] == 5, "those that it did not lose count");
}

/*
 * Exit reasons.
 */

/* Counts one event in an empty host, and gives the column beside exits, or NCOUNTERS. */
static enum counter column_of(const struct sent *e)
{
    static const struct thread fresh;
    uint8_t record[EVENT];
    struct stream s = {.next = {.time = 1, .data = record, .size = EVENT}};
    enum counter found = NCOUNTERS;
    struct thread *t = thread_of(TID, TID, 0);
    uint64_t sum = 0;

    /* As if the thread were new. */
    struct guest *g = t->guest;
    *t = fresh;
    t->tid = TID;
    t->guest = g;
    t->tally = &t->pending;
    encode(e, record);
    /* With a vCPU's number in the event the counts are the vCPU's at once. */
    memset(&vcpu_of(g, 0)->tally, 0, sizeof(struct tally));
    count(&s);
    settle_exit(t);
    for (int i = 0; i < NCOUNTERS; i++) {
        sum += t->tally->counts[i];
        if (i != EXITS && t->tally->counts[i] != 0)
            found = (enum counter)i;
    }
    /* One exit, one column at most: anything else is none of the counters. */
    return t->tally->counts[EXITS] == 1 && sum == 1 + (found != NCOUNTERS) ? found : EXITS;
}

/* Tests that all codes up to last are in the columns of the table; e's field is the code. */
static void is_table(struct sent *e, enum field_name field, uint64_t last,
    const struct reason *table, size_t size, const char *name)
{
    bool same = true;

    for (uint64_t code = 0; code <= last; code++) {
        enum counter wanted = NCOUNTERS;
        for (size_t i = 0; i < size; i++) {
            if (table[i].code == code)
                wanted = table[i].counter;
        }
        e->values[field] = code;
        enum counter got = column_of(e);
        if (got != wanted)
            note("reason 0x%" PRIx64 ": column %d, not %d", code, (int)got, (int)wanted);
        same &= got == wanted;
    }
    ok(same, "%s", name);
}

static void test_vmx_reasons(void)
{
    static const struct reason vmx[] = {
        {1, IRQX}, {7, IRQWX}, {12, HALTX}, {30, IOX}, {48, EPTV}, {49, MMIOX}};
    struct sent e = vmx_exit(TID, 0, 0);

    make_host(HARDWARE, 1);
    is_table(
        &e, EXIT_REASON, 0xffff, vmx, SIZE(vmx), "VMX: each basic reason has its column or none");
    e.values[EXIT_REASON] = 0x08000000 | 12; /* SDM: the processor was in enclave mode */
    ok(column_of(&e) == HALTX, "VMX: the flags above the basic reason do not matter");
    e.values[EXIT_REASON] = 0x80000000 | 33;
    ok(column_of(&e) == NCOUNTERS, "VMX: a failed entry is an exit without a column");
}

static void test_svm_reasons(void)
{
    static const struct reason svm[] = {
        {0x60, IRQX}, {0x64, IRQWX}, {0x78, HALTX}, {0xa6, HALTX}, {0x7b, IOX}, {0x400, EPTV}};
    static const struct reason reserved[] = {
        {0x60, IRQX}, {0x64, IRQWX}, {0x78, HALTX}, {0xa6, HALTX}, {0x7b, IOX}, {0x400, MMIOX}};
    struct sent e = {KVM_EXIT, TID, {[ISA] = 2, [INFO1] = ~(uint64_t)8}};

    make_host(HARDWARE, 1);
    is_table(&e, EXIT_REASON, 0xffff, svm, SIZE(svm), "SVM: each reason has its column or none");
    e.values[INFO1] = 8;
    is_table(&e, EXIT_REASON, 0xffff, reserved, SIZE(reserved),
        "SVM: a nested page fault on a reserved bit is MMIO");
    e.values[EXIT_REASON] = 0xffffffff;
    ok(column_of(&e) == NCOUNTERS, "SVM: a failed entry is an exit without a column");
    e.values[EXIT_REASON] = 0x10060;
    ok(column_of(&e) == NCOUNTERS, "SVM: all bits of a reason count");
}

static void test_arm64_reasons(void)
{
    static const struct reason trap[] = {{0x01, HALTX}, {0x20, EPTV}, {0x24, EPTV}};
    static const struct reason irq[] = {{0, IRQX}};
    struct sent e = {KVM_EXIT, TID, {[RET] = 2}};

    load_formats("arm64-6.1-mix2.dat", HARDWARE, 1);
    is_table(
        &e, ESR_EC, 0xff, trap, SIZE(trap), "arm64: each class of traps has its column or none");
    e.values[RET] = 0x80000002; /* an SError is pending as well */
    is_table(&e, ESR_EC, 0xff, trap, SIZE(trap), "arm64: also with an SError");
    e.values[RET] = 0xbadca11; /* the hypervisor is gone */
    is_table(&e, ESR_EC, 0xff, NULL, 0, "arm64: esr_ec says nothing of another exception");
    e.values[ESR_EC] = 0x24;
    is_table(&e, RET, 1, irq, SIZE(irq), "arm64: an IRQ has its column, an SError none");
}

static void test_user_reasons(void)
{
    static const struct reason user[] = {{2, IOX}, {5, HALTX}, {6, MMIOX}, {7, IRQWX}};
    struct sent e = {KVM_USERSPACE_EXIT, TID, {0}};

    make_host(SOFTWARE, 1);
    is_table(
        &e, REASON, 0xffff, user, SIZE(user), "user space: each reason has its column or none");
}

/* A kvm_exit without isa, as of an architecture that is not known. */
static void test_other_reasons(void)
{
    struct sent e = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    events[KVM_EXIT].fields[ISA].size = 0;
    is_table(&e, EXIT_REASON, 0xffff, NULL, 0, "an unknown architecture's exits have no column");
}

/*
 * Threads, processes and rows.
 */

/* Makes a CPU with the given event, and counts it. */
static void count_one(const struct sent *e)
{
    uint8_t record[EVENT];
    struct stream s = {.next = {.time = 1, .data = record, .size = EVENT}};

    encode(e, record);
    count(&s);
}

/* Makes task_newtask known, which no recording has. */
static void add_newtask(void)
{
    char format[] = "name: task_newtask\nID: 77\nformat:\n"
                    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
                    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
                    "\tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n"
                    "\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;\n"
                    "\tfield:unsigned long clone_flags;\toffset:32;\tsize:8;\tsigned:0;\n";

    parse_format(&events[TASK_NEWTASK], format);
    event_of_id[events[TASK_NEWTASK].id] = &events[TASK_NEWTASK];
}

/* Thread parent starts child, a thread of the same process or another process. */
static struct sent newtask(int parent, int child, bool is_thread)
{
    return (struct sent){TASK_NEWTASK, parent,
        {[PID] = (uint64_t)child, [CLONE_FLAGS] = is_thread ? CLONE_THREAD : 0}};
}

static void start_task(int parent, int child, bool is_thread)
{
    struct sent e = newtask(parent, child, is_thread);

    count_one(&e);
}

static void start_thread(int parent, int child)
{
    start_task(parent, child, true);
}

/* Which process a thread's events are put down to, once the thread is gone. */
static void test_processes(void)
{
    make_host(HARDWARE, 1);
    add_newtask();
    start_thread(TID, TID + 1);
    start_thread(TID + 1, TID + 2);
    struct sent e = vmx_exit(TID + 2, 3, 12);
    count_one(&e);
    ok(counts_of(TID, 3)[HALTX] == 1,
        "a thread that is gone counts for the process that started it");
    e = vmx_exit(TID + 3, 3, 12);
    count_one(&e);
    ok(counts_of(TID + 3, 3)[HALTX] == 1, "a process counts for itself");
    e = vmx_exit(TID + 4, 3, 12);
    world.births[TID % BIRTHS + 4] = (struct birth){TID + 4, 0};
    count_one(&e);
    ok(world.unknown == 1 && known_guest(TID + 4) == NULL,
        "one that nobody was seen to start, and that is gone, counts nowhere, and that is noted");
    ok(world.nguests == 2 && world.guests[0]->pid == TID,
        "the one who starts a thread is no guest by that");
    start_task(TID + 2, TID + 40, false);
    e = vmx_exit(TID + 40, 0, 12);
    count_one(&e);
    ok(counts_of(TID + 40, 0)[HALTX] == 1, "a process that a thread started is one of its own");
    start_thread(TID + 10, TID + 11);
    start_thread(TID + 11, TID + 10);
    ok(process_of(TID + 10, 0) == TID + 10 && process_of(TID + 11, 0) == TID + 10,
        "numbers that came into use again are no endless loop");
    start_thread(TID + 20, TID + 21 + (int)BIRTHS);
    start_thread(TID + 30, TID + 21);
    ok(process_of(TID + 21, 0) == TID + 30 && process_of(TID + 21 + (int)BIRTHS, 0) == 0,
        "a later thread in the same place is not taken for the earlier one");
    uint64_t t = now(CLOCK_MONOTONIC);
    ok(process_of((int)getpid(), t) == (int)getpid(), "a process that is there is found by /proc");
    usleep(50000); /* more than a clock tick */
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    ok(process_then(child, now(CLOCK_MONOTONIC)) == child && process_then(child, t) == 0,
        "but not for an event before its start");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* Which process one is that is just ending. */
static void test_ending(void)
{
    enum { PROCESSES = 3000 };
    int right = 0;

    clear();
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        bool same = child > 0;
        int process;
        while (same && kill(child, 0) == 0)
            same = (process = process_then(child, now(CLOCK_MONOTONIC))) == child || process == 0;
        right += same;
    }
    signal(SIGCHLD, SIG_DFL);
    ok(right == PROCESSES, "each of %d processes is its own, or none, while it ends", PROCESSES);
}

/*
 * A thread's number that comes into use again, in the process and in another one.  Exits of e
 * count in counter.
 */
static void test_used_again(enum host host, const struct sent *e, enum counter counter)
{
    const char *name = host == HARDWARE ? "told by events" : "found by debugfs";
    struct sent same = newtask(TID, e->tid, true), other = newtask(TID + 50, e->tid, true);

    make_host(host, 1);
    add_newtask();
    add_vcpu(TID, 0);
    add_vcpu(TID + 50, 0);
    add_thread(e->tid, TID, 0);
    put(0, 1, e);
    put(0, 2, &same);
    put(0, 3, e);
    read_until(4);
    ok(known_thread(e->tid)->guest->pid == TID, "vCPU %s: another thread of the same process",
        name);
    put(0, 5, &other);
    put(0, 6, e);
    read_until(6);
    ok(counts_of(TID, 0)[counter] == 2, "one of another: the first one's counts stay");
    put(0, 7, e);
    put(0, 8, e);
    read_until(9);
    count_all();
    ok(counts_of(TID, 0)[counter] == 2 && counts_of(TID + 50, 0)[counter] == 3,
        "and the other's are its own");
}

/* What is no event that counts. */
static void test_ignored(void)
{
    uint8_t record[EVENT] = {0};
    struct stream s = {.next = {.time = 1, .data = record, .size = 0}};
    struct sent e = vmx_exit(TID, 0, 12);

    make_host(HARDWARE, 1);
    count(&s);
    s.next.size = EVENT;
    count(&s); /* of type 0 */
    memset(record, 0xff, EVENT);
    count(&s); /* of a type that nobody asked for */
    encode(&e, record);
    for (s.next.size = 0; s.next.size < 8; s.next.size++) {
        uint8_t *part = boxed(record, s.next.size);
        s.next.data = part;
        count(&s); /* too short for common_pid */
        free(part);
    }
    s.next.data = record;
    struct sent idle = vmx_exit(0, 0, 12), negative = vmx_exit(-1, 0, 12);
    count_one(&idle);
    count_one(&negative);
    ok(world.nguests == 0 && world.nthreads == 0, "what has no known type or no thread is ignored");
    s.next.size = events[KVM_EXIT].fields[VCPU_ID].offset;
    count(&s);
    ok(counts_of(TID, 0)[HALTX] == 1, "a field that is behind the end of its event is 0");
}

/* Many threads and guests. */
static void test_threads(void)
{
    enum { THREADS = 3000 };
    bool same = true;

    make_host(HARDWARE, 1);
    for (int round = 1; round <= 2; round++) {
        for (int i = THREADS - 1; i >= 0; i--) {
            struct sent e = vmx_exit(TID + i * 16, (uint64_t)i, 12);
            count_one(&e);
        }
    }
    for (int i = 0; i < THREADS; i++)
        same &= counts_of(TID + i * 16, i)[HALTX] == 2 && world.guests[i]->pid == TID + i * 16;
    ok(same && world.nguests == THREADS, "%d threads count apart from each other", THREADS);
}

/* Which vCPU the events of a thread count for that do not tell it. */
static void test_find_vcpu(void)
{
    struct sent e = {KVM_USERSPACE_EXIT, TID, {[REASON] = 5}};

    make_host(SOFTWARE, 1);
    add_vcpu(TID, 4);
    vcpu_of(guest_of(TID, 0), 5); /* of a virtual machine that is gone */
    count_one(&e);
    find_vcpus(true);
    ok(counts_of(TID, 4)[HALTX] == 1, "a guest's only vCPU is the one that its threads run");
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    add_vcpu(TID, 1);
    count_one(&e);
    find_vcpus(true);
    ok(counts_of(TID, UNKNOWN_VCPU)[HALTX] == 1, "what nothing tells counts for the vCPU `?'");
    make_host(BEFORE_5_10, 1);
    struct sent leaving = vmx_exit(TID, 0, 12), entry = {KVM_ENTRY, TID, {[VCPU_ID] = 9}};
    count_one(&leaving);
    count_one(&entry);
    count_one(&leaving);
    ok(counts_of(TID, 9)[HALTX] == 2, "an exit before the first entry is that vCPU's, too");
    for (uint64_t i = 0; i < 10; i++) {
        entry.values[VCPU_ID] = i % 2;
        count_one(&entry);
        count_one(&leaving);
    }
    ok(counts_of(TID, 0)[HALTX] == 5 && counts_of(TID, 1)[HALTX] == 5,
        "one thread that runs two vCPUs counts for each of them");
}

/* What a recording keeps of a thread that ran several vCPUs, where events do not tell which. */
static void test_moved(void)
{
    make_host(SOFTWARE, 1);
    add_vcpu(TID, 0);
    add_vcpu(TID, 1);
    add_thread(TID, TID, 0);
    struct thread *t = known_thread(TID);
    options.write = "a recording";
    save_thread(t);
    t->seen = 1; /* as debugfs tells */
    ok(find_vcpu(t) == NULL && t->vcpu->id == 1, "a thread runs another vCPU than before");
    save_thread(t);
    options.write = NULL;
    const uint8_t *entries = (const uint8_t *)t->guest->ended.s;
    ok(entry_vcpu(entries, 0) == 0 && entry_vcpu(entries, 1) == UNKNOWN_VCPU,
        "no vCPU has all that it counted, in a recording");
}

/* A CPU whose last event was of a thread that is forgotten since. */
static void forget_last_thread(void)
{
    struct sent before = vmx_exit(TID, 0, 12), after = vmx_exit(TID + 1, 1, 12);

    make_host(HARDWARE, 1);
    add_thread(TID, TID, UNKNOWN_VCPU);
    put(0, 1, &before);
    read_until(UINT64_MAX);
    find_vcpus(true);
    world.guests[0]->gone = 1;
    end_interval();
    if (world.nguests != 1 || world.nthreads != 1)
        exit(2); /* more of its events may come */
    end_interval();
    if (world.nguests != 0 || world.nthreads != 0)
        exit(3);
    put(0, 2, &after);
    read_until(UINT64_MAX);
    if (counts_of(TID + 1, 1)[HALTX] != 1)
        exit(4);
}

static void test_forget(void)
{
    char said[4096];
    int status = run_child(forget_last_thread, said, sizeof(said));

    if (!ok(status == 0 && said[0] == '\0',
            "a CPU's next event counts though its last thread is gone"))
        note("status %d, stderr: %.300s", status, said);
}

/* Makes a guest with a thread, which ran its vCPU 3 and is to be recorded. */
static struct thread *make_saved(void)
{
    static struct thread t;

    clear();
    t = (struct thread){.tid = TID, .told = true, .vcpu = add_vcpu(7, 3)};
    t.guest = guest_of(7, 0);
    options.write = output.name = "web.dat";
    return &t;
}

/* Saves as many threads as a recording tells of one guest, each twice, and two more. */
static void save_too_many(void)
{
    struct thread *t = make_saved();

    for (unsigned i = 0; i < 2 * MAX_ENTRIES + 2; i++) {
        t->tid = (int)(i < 2 * MAX_ENTRIES ? i / 2 + 1 : i);
        save_thread(t);
    }
    exit(unify_entries(&t->guest->ended) == MAX_ENTRIES ? 0 : 1);
}

static void test_entries(void)
{
    struct thread *t = make_saved();
    char said[4096];

    for (int i = 0; i < 5; i++) {
        t->tid = TID + i % 2;
        save_thread(t);
    }
    ok(unify_entries(&t->guest->ended) == 2, "a thread that ran a vCPU is recorded once");
    options.write = output.name = NULL;
    clear();
    int status = run_child(save_too_many, said, sizeof(said));
    ok(status == 0, "as many threads as -r can take are recorded");
    is_text(said,
        "kvmstat: web.dat: process 7: too many threads: the recording does not tell which vCPUs "
        "they ran (record for a shorter time, or with -p)\n",
        "and that there were more is said, once");
}

/*
 * Sub-buffers.
 */

/* A sub-buffer's header: time stamp and commit word, both of 8 bytes. */
static const struct page_layout layout64 = {
    .time = {0, 8}, .commit = {8, 8}, .data = 16, .size = PAGE};

/* The same of a 32-bit kernel, whose commit word has 4 bytes. */
static const struct page_layout layout32 = {
    .time = {0, 8}, .commit = {8, 4}, .data = 12, .size = PAGE};

#define HEADER 16        /* layout64's data */
#define START 1000000000 /* the time stamp of sub-buffers made here */

/* The first word of an event. */
static uint32_t word_of(uint32_t type, uint32_t delta)
{
    return delta << 5 | type;
}

/* A sub-buffer with size bytes of events, nothing behind them; to be freed. */
static uint8_t *make_page(const void *data, size_t size, uint64_t commit)
{
    uint8_t *p = resize(NULL, HEADER + size, 1);
    uint64_t time = START;

    memcpy(p, &time, 8);
    memcpy(p + 8, &commit, 8);
    memcpy(p + HEADER, data, size);
    return p;
}

/* How the reading of a sub-buffer went. */
struct walk {
    int end;            /* subbuf_next()'s last answer; 2 if subbuf_open() refused */
    size_t n;           /* events */
    struct record last; /* the last one; its data is no longer there */
    bool outside;       /* an event was outside the data, or they do not end */
};

/* Reads all of the size bytes at p. */
static struct walk walk(const uint8_t *p, size_t size)
{
    struct walk w = {.end = 2};
    struct subbuf b;
    struct record r;

    if (!subbuf_open(&b, p, size, &layout64))
        return w;
    while ((w.end = subbuf_next(&b, &r)) == 1 && !w.outside) {
        w.n++;
        w.last = r;
        w.outside = r.data < p + HEADER || r.data > p + size ||
                    r.size > (size_t)(p + size - r.data) || w.n > size / 4;
    }
    return w;
}

/* The same of a sub-buffer with the given bytes of events. */
static struct walk walk_data(const void *data, size_t size)
{
    uint8_t *p = make_page(data, size, size);
    struct walk w = walk(p, HEADER + size);

    free(p);
    return w;
}

/*
 * Tests a sub-buffer with a single event, of the given words: how it ends, which
 * time it has, how many bytes of data; and each of its beginnings, which are
 * nothing or make no sense.
 */
static void is_event(const uint32_t *words, size_t size, int events_in_it, uint64_t time,
    size_t data, const char *name)
{
    struct walk w = walk_data(words, size);
    bool right = w.end == 0 && !w.outside && w.n == (size_t)events_in_it;
    bool empty = (words[0] & TYPE_MASK) == TYPE_PADDING && words[0] >> 5 == 0;

    if (events_in_it == 1)
        right &= w.last.time == time && w.last.size == data;
    for (size_t cut = 0; cut < size; cut++) {
        w = walk_data(words, cut);
        right &= w.n == 0 && !w.outside && w.end == (cut == 0 || (empty && cut >= 4) ? 0 : -1);
    }
    ok(right, "%s", name);
}

static void test_event_types(void)
{
    uint32_t words[32] = {0};
    char name[128];

    for (uint32_t type = 1; type <= 28; type++) {
        words[0] = word_of(type, 5);
        snprintf(name, sizeof(name), "type %u has %u bytes of data", type, type * 4);
        is_event(words, 4 + type * 4, 1, START + 5, type * 4, name);
    }
    words[0] = word_of(0, 0x7ffffff);
    for (words[1] = 4; words[1] <= 116; words[1] += 28) {
        snprintf(name, sizeof(name), "type 0 has a length: %u, itself included", words[1]);
        is_event(words, 4 + words[1], 1, START + 0x7ffffff, words[1] - 4, name);
    }
    words[1] = 16;
    words[0] = word_of(29, 0);
    is_event(words, 20, 0, 0, 0, "type 29 with no delta: the rest is empty");
    words[0] = word_of(29, 1);
    is_event(words, 20, 0, 0, 0, "type 29 with a delta is skipped");
    words[0] = word_of(30, 1);
    is_event(words, 8, 0, 0, 0, "type 30 is no event of its own");
    words[0] = word_of(31, 1);
    is_event(words, 8, 0, 0, 0, "type 31 is no event of its own");
}

/* All types one after the other. */
static void test_event_times(void)
{
    static const uint64_t high = (uint64_t)21 << 59;
    uint32_t words[] = {
        29 | 7 << 5, 12, 1, 2,          /* a discarded event: its delta counts */
        2 | 1 << 5, 11, 12,             /* event 1 */
        30 | 3 << 5, 2,                 /* 2 * 2^27 + 3 later */
        1 | 4 << 5, 21,                 /* event 2 */
        31 | 9u << 5, 0xabcdef,         /* 0xabcdef * 2^27 + 9 since boot */
        0 | 2 << 5, 8, 31,              /* event 3 */
        29, 0xffffffff, 30, 0xffffffff, /* the rest is empty, whatever stands there */
    };
    uint8_t *p = make_page(words, sizeof(words), sizeof(words));
    uint64_t time = high + START;
    struct subbuf b;
    struct record r;

    memcpy(p, &time, 8);
    ok(subbuf_open(&b, p, HEADER + sizeof(words), &layout64) && !b.missed, "a sub-buffer opens");
    time += 8;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 8 && load(r.data, 4) == 11,
        "the first event's stamp is the page's and the deltas up to it");
    time += (2u << 27) + 7;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 4 && load(r.data, 4) == 21,
        "a time extend adds to the stamp");
    time = high + ((uint64_t)0xabcdef << 27) + 11;
    ok(subbuf_next(&b, &r) == 1 && r.time == time && r.size == 4 && load(r.data, 4) == 31,
        "an absolute stamp replaces all but the five highest bits");
    ok(subbuf_next(&b, &r) == 0 && subbuf_next(&b, &r) == 0, "the end stays the end");
    free(p);
}

/* Lengths that cannot be. */
static void test_lengths(void)
{
    static const uint32_t types[] = {0, 29 | 1 << 5};
    bool right = true;

    for (size_t i = 0; i < SIZE(types); i++) {
        static const uint32_t lengths[] = {
            0, 1, 3, 13, 16, 0x7fffffff, 0x80000000, 0xfffffffc, UINT32_MAX};
        for (size_t j = 0; j < SIZE(lengths); j++) {
            uint32_t words[] = {types[i], lengths[j], 0, 0};
            struct walk w = walk_data(words, sizeof(words));
            right &= w.end == -1 && w.n == 0 && !w.outside;
        }
        uint32_t words[] = {types[i], 12, 0, 0};
        right &= walk_data(words, sizeof(words)).end == 0;
    }
    ok(right, "a length that is shorter than itself or goes over the end makes no sense");
}

static void test_commit(void)
{
    static const struct {
        uint64_t word; /* the commit word */
        size_t size;   /* the length in it */
        bool missed;   /* events were lost */
    } commits[] = {
        {0, 0, false},
        {0xfd8, 0xfd8, false},
        {0xff0, 0xff0, false},
        {0x80000010, 0x10, true},
        {0xffffffffc0000fd8, 0xfd8, true},
        {0xffffffff80000ff0, 0xff0, true},
        {0xffffffffc0000000, 0, true},
        {0x40000fd8, 0xfd8, false},
    };
    uint8_t p[PAGE] = {0};
    struct subbuf b;
    bool right = true;

    for (size_t i = 0; i < SIZE(commits); i++) {
        memcpy(p + 8, &commits[i].word, 8);
        right &= subbuf_open(&b, p, PAGE, &layout64) && b.size == commits[i].size &&
                 b.missed == commits[i].missed && b.data == p + 16 && b.at == 0;
        memset(p + 12, 0xff, 4); /* is the first event there */
        right &= subbuf_open(&b, p, PAGE, &layout32) && b.size == commits[i].size &&
                 b.missed == commits[i].missed && b.data == p + 12 && b.at == 0;
    }
    ok(right, "the commit word's length and flags are told apart, also if it is sign-extended");
    right = true;
    for (uint64_t size = PAGE - HEADER + 1; size <= 0xfffff; size++) {
        memcpy(p + 8, &size, 8);
        right &= !subbuf_open(&b, p, PAGE, &layout64);
    }
    ok(right, "a length that is larger than the page is refused");
    right = true;
    uint8_t *whole = make_page("", 0, 0);
    for (size_t size = 0; size < HEADER; size++) {
        uint8_t *part = boxed(whole, size);
        right &= walk(part, size).end == 2;
        free(part);
    }
    free(whole);
    ok(right, "a page without all of its header is refused");
}

/* Bytes by chance end, and nothing outside of them is read. */
static void test_random_pages(void)
{
    enum { PAGES = 200000, MOST = 96 };
    size_t ends[2] = {0};
    bool right = true;

    for (int i = 0; i < PAGES; i++) {
        uint32_t words[MOST / 4];
        for (size_t j = 0; j < SIZE(words); j++) {
            words[j] = (uint32_t)chance();
            if (chance() % 2 == 0)
                words[j] &= 0xff; /* what looks like a length */
        }
        struct walk w = walk_data(words, (size_t)(chance() % (MOST + 1)));
        right &= !w.outside;
        ends[w.end == 0]++;
    }
    ok(right && ends[0] > PAGES / 100 && ends[1] > PAGES / 100,
        "%d sub-buffers with bytes by chance end inside", PAGES);
}

/* The same of real sub-buffers with some bytes changed. */
static void test_damaged_pages(void)
{
    enum { ROUNDS = 20000 };
    size_t ends[3] = {0};
    bool right = true;
    uint8_t p[PAGE];

    load_capture("svm-6.1-mix2.dat", HARDWARE);
    for (int i = 0; i < ROUNDS; i++) {
        off_t page = (off_t)(chance() % 50) * PAGE;
        if (pread(reading.streams[0].fd, p, PAGE, page) != PAGE)
            bail_out("reading a sub-buffer: %s", strerror(errno));
        for (uint64_t n = chance() % 8; n > 0; n--)
            p[8 + chance() % 100] = (uint8_t)chance();
        /* Cut, too: read() gave less. */
        size_t size = chance() % 2 == 0 ? PAGE : chance() % PAGE;
        uint8_t *part = boxed(p, size);
        struct walk w = walk(part, size);
        free(part);
        right &= !w.outside;
        ends[w.end < 0 ? 1 : w.end]++;
    }
    ok(right && ends[0] > 100 && ends[1] > 100 && ends[2] > 100,
        "%d damaged sub-buffers of a real host end inside", ROUNDS);
}

/* Puts a page with one word of events, header, into CPU 0's buffer, and counts. */
static void count_page(uint32_t header, uint64_t commit)
{
    uint8_t p[PAGE] = {0};

    make_host(HARDWARE, 1);
    memcpy(p + 8, &commit, 8);
    memcpy(p + HEADER, &header, 4);
    if (pwrite(reading.streams[0].fd, p, PAGE, 0) == PAGE)
        drain(UINT64_MAX);
}

static void count_senseless_page(void)
{
    count_page(word_of(30, 0), 4);
}

static void count_large_page(void)
{
    count_page(0, PAGE);
}

static void count_page_without_stats(void)
{
    trace.dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    count_page(0, 0x80000004);
}

static void test_fatal_pages(void)
{
    is_fatal(count_senseless_page,
        "kvmstat: CPU 0: a sub-buffer that makes no sense (is this kernel newer than kvmstat?)\n",
        "a sub-buffer that makes no sense ends kvmstat");
    is_fatal(count_large_page,
        "kvmstat: CPU 0: a sub-buffer that is larger than it can be (is this kernel newer than "
        "kvmstat?)\n",
        "a sub-buffer that is too large ends kvmstat");
    is_fatal(count_page_without_stats,
        "kvmstat: per_cpu/cpu0/stats: No such file or directory (see DIAGNOSTICS in kvmstat(1))\n",
        "losses that cannot be counted end kvmstat");
}

/*
 * Descriptions of events.
 */

#define COMMON_FORMAT                                                                              \
    "name: kvm_exit\nID: 1473\nformat:\n"                                                          \
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"                         \
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"

/* parse_format() of a text, in a block of its own size: the id, or -1. */
static int parse_boxed(struct event_type *type, const char *text, size_t size)
{
    char *copy = boxed_text(text, size);
    int id = parse_format(type, copy) ? type->id : -1;

    free(copy);
    return id;
}

/* Whether a field of an event is at the given place. */
static bool is_at(const struct event_type *type, enum field_name field, size_t offset, size_t size)
{
    return type->fields[field].offset == offset && type->fields[field].size == size;
}

/* Tests that a format with this line gives no field of the given name. */
static void is_no_field(const char *text, enum field_name field, const char *name)
{
    char format[1024];
    struct event_type type = {.name = NULL};

    snprintf(format, sizeof(format), COMMON_FORMAT "%s", text);
    int id = parse_boxed(&type, format, strlen(format));
    ok(id == 1473 && is_at(&type, COMMON_PID, 4, 4) && type.fields[field].size == 0, "%s", name);
}

static void test_format(void)
{
    static const char text[] =
        COMMON_FORMAT "\tfield:unsigned int exit_reason;\toffset:8;\tsize:4;\tsigned:0;\n"
                      "\tfield:unsigned long guest_rip;\toffset:16;\tsize:8;\tsigned:0;\n"
                      "\tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n"
                      "\tfield:u64 info1;\toffset:32;\tsize:8;\tsigned:0;\n"
                      "\tfield:__u8 insn[15];\toffset:40;\tsize:15;\tsigned:0;\n"
                      "\tfield:__data_loc char[] name;\toffset:56;\tsize:4;\tsigned:0;\n"
                      "\tfield:unsigned int vcpu_id;\toffset:60;\tsize:4;\tsigned:0;\n\n"
                      "print fmt: \"vcpu %u reason %s\", REC->vcpu_id, REC->isa == 1\n";
    struct event_type whole = {.name = NULL}, part;
    bool right = true;

    ok(parse_boxed(&whole, text, strlen(text)) == 1473, "a format has the event's id");
    ok(is_at(&whole, COMMON_PID, 4, 4) && is_at(&whole, EXIT_REASON, 8, 4) &&
            is_at(&whole, ISA, 24, 4) && is_at(&whole, INFO1, 32, 8) &&
            is_at(&whole, VCPU_ID, 60, 4),
        "and where its fields are");
    ok(is_at(&whole, RET, 0, 0) && is_at(&whole, REASON, 0, 0) && is_at(&whole, PID, 0, 0),
        "a field that it does not have has no size, nor one whose name ends so");
    for (size_t cut = 0; cut < strlen(text); cut++) {
        part = (struct event_type){.name = NULL};
        int id = parse_boxed(&part, text, cut);
        right &= id == -1 || id == 1473;
        for (int i = 0; i < NFIELDS; i++)
            right &= part.fields[i].size == 0 ||
                     memcmp(&part.fields[i], &whole.fields[i], sizeof(struct field)) == 0;
    }
    ok(right, "a format that is cut anywhere has fewer fields, no other ones");
}

static void test_bad_formats(void)
{
    static const char *const bad[] = {"", "ID:", "ID: 0\n", "ID: -5\n", "ID: 65536\n",
        "ID: 99999999999999999999\n", "ID: x\n", "format:\n", "\n\n\n", "field:", "ID: 5\n"};
    bool right = true;

    for (size_t i = 0; i < SIZE(bad); i++) {
        struct event_type type = {.name = NULL};
        char text[1024];
        right &= parse_boxed(&type, bad[i], strlen(bad[i])) == -1;
        /* Neither with fields, but for the last one, which has all but these. */
        snprintf(text, sizeof(text), "%s%s", bad[i], strstr(COMMON_FORMAT, "\tfield"));
        right &= parse_boxed(&type, text, strlen(text)) == (i + 1 < SIZE(bad) ? -1 : 5);
    }
    ok(right, "a format without an id from 1 to 65535, or without common_pid, is refused");
    is_no_field("\tfield:int isa;\tsize:4;\n", ISA, "a field without an offset is none");
    is_no_field("\tfield:int isa;\toffset:4;\n", ISA, "a field without a size is none");
    is_no_field("\tfield:int isa;\n\tfield:int ret;\toffset:8;\tsize:4;\n", ISA,
        "a field does not get the next one's offset and size");
    is_no_field("\tfield:int isa\toffset:4 size:4\n", ISA, "a field without a semicolon is none");
    is_no_field(
        "\tfield:int isa;\toffset:4;\tsize:4;", ISA, "a field without the line's end is none");
    is_no_field(
        "\tfield:int isa;\toffset:65535;\tsize:4;\n", ISA, "an offset of 65535 is too large");
    is_no_field("\tfield:int isa;\toffset:-1;\tsize:4;\n", ISA, "a negative offset is too large");
    is_no_field("\tfield:int isa;\toffset:18446744073709551616;\tsize:4;\n", ISA,
        "an offset that no number holds is too large");
    is_no_field("\tfield:int isa;\toffset:8;\tsize:9;\n", ISA, "a size of 9 bytes is too large");
    is_no_field("\tfield:int isa;\toffset:8;\tsize:-4;\n", ISA, "a negative size is too large");
    is_no_field(
        "\tfield:int xisa;\toffset:8;\tsize:4;\n", ISA, "a name that ends like another is another");
    is_no_field("\tfield:int isa_;\toffset:8;\tsize:4;\n", ISA,
        "a name that starts like another is another");
}

/* Values of fields in an event that ends before, at and behind them. */
static void test_field_values(void)
{
    static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const struct {
        struct field f; /* where */
        uint64_t value; /* its value */
    } values[] = {{{0, 1}, 1}, {{7, 1}, 8}, {{0, 2}, 0x0201}, {{6, 2}, 0x0807},
        {{4, 4}, 0x08070605}, {{1, 4}, 0x05040302}, {{0, 8}, 0x0807060504030201}, {{0, 0}, 0},
        {{7, 2}, 0}, {{5, 4}, 0}, {{1, 8}, 0}, {{8, 1}, 0}, {{UINT16_MAX, 8}, 0}, {{0, 3}, 0}};
    uint8_t *data = boxed(bytes, sizeof(bytes));
    struct record r = {.data = data, .size = sizeof(bytes)};
    bool right = true;

    for (size_t i = 0; i < SIZE(values); i++)
        right &= field_value(&r, values[i].f) == values[i].value;
    free(data);
    ok(right, "a field's value is its bytes', and 0 if the event does not have them all");
}

/* Formats of a real host with some bytes changed. */
static void test_damaged_formats(void)
{
    enum { ROUNDS = 20000 };
    static const char text[] = COMMON_FORMAT "\tfield:u32 isa;\toffset:24;\tsize:4;\tsigned:0;\n";
    bool right = true;

    for (int i = 0; i < ROUNDS; i++) {
        struct event_type type = {.name = NULL};
        char *copy = boxed_text(text, strlen(text));
        for (uint64_t n = 1 + chance() % 4; n > 0; n--)
            copy[chance() % strlen(text)] = (char)chance();
        int id = parse_format(&type, copy) ? type.id : -1;
        right &= id == -1 || (id > 0 && id <= UINT16_MAX && type.fields[COMMON_PID].size != 0);
        for (int j = 0; j < NFIELDS; j++)
            right &= type.fields[j].offset < UINT16_MAX && type.fields[j].size <= 8;
        free(copy);
    }
    ok(right, "%d damaged formats are refused, or have sizes and offsets that can be", ROUNDS);
}

#define TIME_LINE "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
#define COMMIT_LINE "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
#define OVERWRITE_LINE "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
#define DATA_LINE "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n"

/* parse_header_page() of a text, in a block of its own size. */
static bool parse_boxed_page(struct page_layout *page, const char *text, size_t size)
{
    char *copy = boxed_text(text, size);
    bool good = parse_header_page(page, copy);

    free(copy);
    return good;
}

static void test_header_page(void)
{
    static const char text[] = TIME_LINE COMMIT_LINE OVERWRITE_LINE DATA_LINE;
    static const char text32[] =
        TIME_LINE "\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;\n" OVERWRITE_LINE
                  "\tfield: char data;\toffset:12;\tsize:4084;\tsigned:1;\n";
    static const char large[] =
        TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:65520;\tsigned:1;\n";
    struct page_layout page;
    bool right = true;

    ok(parse_boxed_page(&page, text, strlen(text)) && memcmp(&page, &layout64, sizeof(page)) == 0,
        "header_page has the layout of a sub-buffer");
    ok(parse_boxed_page(&page, text32, strlen(text32)) &&
            memcmp(&page, &layout32, sizeof(page)) == 0,
        "also that of a 32-bit kernel");
    ok(parse_boxed_page(&page, large, strlen(large)) && page.size == 65536,
        "also that of larger pages");
    for (size_t cut = 0; cut < strlen(text); cut++)
        right &= !parse_boxed_page(&page, text, cut);
    ok(right, "header_page that is cut anywhere is refused");
}

static void test_bad_header_pages(void)
{
    static const struct {
        const char *text; /* header_page */
        const char *name; /* what is wrong with it */
    } bad[] = {
        {COMMIT_LINE DATA_LINE, "no time stamp"},
        {TIME_LINE DATA_LINE, "no commit word"},
        {TIME_LINE COMMIT_LINE, "no data"},
        {"\tfield: u64 timestamp;\toffset:0;\tsize:4;\n" COMMIT_LINE DATA_LINE,
            "a short time stamp"},
        {"\tfield: u64 timestamp;\toffset:9;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp in the data"},
        {"\tfield: u64 timestamp;\toffset:18446744073709551615;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp nowhere"},
        {"\tfield: u64 timestamp;\toffset:-8;\tsize:8;\n" COMMIT_LINE DATA_LINE,
            "a time stamp before the page"},
        {TIME_LINE "\tfield: local_t commit;\toffset:8;\tsize:2;\n" DATA_LINE,
            "a short commit word"},
        {TIME_LINE "\tfield: local_t commit;\toffset:9;\tsize:8;\n" DATA_LINE,
            "a commit word in the data"},
        {TIME_LINE "\tfield: local_t commit;\toffset:-8;\tsize:8;\n" DATA_LINE,
            "a commit word before the page"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:0;\n", "no room for data"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:16;\tsize:16777216;\n", "huge data"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:64;\tsize:4080;\n", "a huge header"},
        {TIME_LINE COMMIT_LINE "\tfield: char data;\toffset:-16;\tsize:4080;\n",
            "data before the page"},
    };
    struct page_layout page;

    for (size_t i = 0; i < SIZE(bad); i++)
        ok(!parse_boxed_page(&page, bad[i].text, strlen(bad[i].text)),
            "header_page is refused that has %s", bad[i].name);
}

/*
 * Guests' names.
 */

/* A command line as /proc/PID/cmdline has it; the literal's own NUL is the one behind. */
#define COMMAND(words) words, sizeof(words) - 1

static void test_names(void)
{
    static const struct {
        const char *command; /* the words, each with its NUL */
        size_t size;         /* bytes of them */
        const char *name;    /* the guest's, or NULL */
    } commands[] = {
        {COMMAND("qemu-system-x86_64\0-name\0x\0"), "x"},
        {COMMAND("/usr/bin/qemu-system-x86_64\0-m\0"
                 "512\0-name\0guest=x,debug-threads=on\0-S\0"),
            "x"},
        {COMMAND("qemu-kvm\0-name\0debug-threads=on,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0x,debug-threads=on\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0x,process=y\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0process=y,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0a,,b\0"), "a,b"},
        {COMMAND("qemu-kvm\0-name\0guest=a,,b,,,,c,process=d,,e\0"), "a,b,,c"},
        {COMMAND("qemu-kvm\0-name\0process=d,,guest=e,guest=x\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0guest=a=b\0"), "a=b"},
        {COMMAND("qemu-kvm\0-name\0guest=a,guest=b\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0a,guest=b\0"), "b"},
        {COMMAND("qemu-kvm\0-name\0guest=x,guests=y\0"), "x"},
        {COMMAND("qemu-kvm\0-name\0debug-threads=on\0"), ""},
        {COMMAND("qemu-kvm\0-name\0guest=\0"), ""},
        {COMMAND("qemu-kvm\0-name\0\0"), ""},
        {COMMAND("qemu-kvm\0-name\0a b\n\377\0"), "a b\n\377"},
        {COMMAND("qemu-kvm\0--name\0guest=x,debug-threads=on\0"), "x"},
        {COMMAND("/opt/qemu/bin/qemu-system-aarch64\0--name\0a,,b\0"), "a,b"},
        {COMMAND("firecracker\0--id\0x\0"), "x"},
        {COMMAND("/usr/bin/firecracker\0--api-sock\0/run/s\0--id=x\0"), "x"},
        {COMMAND("firecracker\0--id\0a,b=c\0"), "a,b=c"},
        {COMMAND("firecracker\0--id=\0"), ""},
        {COMMAND("crosvm\0run\0--name\0x\0--mem\0"
                 "512\0"),
            "x"},
        {COMMAND("crosvm\0run\0--name=a,,b\0"), "a,,b"},
        {COMMAND("crosvm\0run\0--name\0a,,b\0"), "a,,b"},
        {COMMAND("firecracker\0--identity\0x\0--ids=y\0--names\0z\0--namesake=z\0"), NULL},
        {COMMAND("firecracker\0--id"), NULL},
        {COMMAND("firecracker\0--id\0"), NULL},
        {COMMAND("crosvm\0--name\0"), NULL},
        {COMMAND("qemu-kvm\0-name\0"), NULL},
        {COMMAND("qemu-kvm\0--name"), NULL},
        {COMMAND("qemu-kvm\0-m\0"
                 "512\0"),
            NULL},
        {COMMAND("name\0"), NULL},
        {COMMAND("\0"), NULL},
        {COMMAND("\0\0-name\0x\0"), "x"},
        /* One dash or two, whatever the monitor's file is called. */
        {COMMAND("/usr/libexec/kvm-wrapper\0--name\0guest=x,debug-threads=on\0"), "x"},
        {COMMAND("run\0--name\0debug-threads=on,guest=a,,b\0"), "a,b"},
        {COMMAND("run\0-name\0x\0"), "x"},
        {COMMAND("run\0-name=a,b\0"), "a,b"},
        {COMMAND("run\0-id\0a,b\0"), "a,b"},
        {COMMAND("run\0-id=x\0"), "x"},
        {COMMAND("/opt/bin/crosvm\0run\0-name\0a,b\0"), "a,b"},
        {COMMAND("lkvm\0run\0--name\0guest=x\0"), "guest=x"},
        {COMMAND("run\0---name\0x\0---id=x\0name\0x\0id=x\0-\0--\0"), NULL},
        /* A long command line is cut. */
        {COMMAND("qemu-kvm\0-name\0guest=x,,"), "x,"},
        {COMMAND("qemu-kvm\0-name\0guest=x,"), "x"},
        {COMMAND("qemu-kvm\0-name\0gue"), "gue"},
    };

    for (size_t i = 0; i < SIZE(commands); i++) {
        char text[256] = "the guest's name in: ";
        size_t used = strlen(text);
        for (size_t j = 0; j < commands[i].size; j++) {
            char c = commands[i].command[j];
            text[used++] = c == '\0' || c == '\n' ? ' ' : c == '\377' ? '?' : c;
        }
        text[used] = '\0';
        char *command = boxed_text(commands[i].command, commands[i].size);
        char *name = name_in_command(command, commands[i].size);
        is_text(name, commands[i].name, text);
        free(command);
    }
}

/* Tests what put_name() makes of name. */
static void is_put(const char *name, const char *wanted, const char *what)
{
    struct text t = {.s = NULL};
    char *copy = boxed_text(name, strlen(name));

    put_name(&t, copy);
    put_bytes(&t, "", 1);
    is_text(t.s, wanted, what);
    free(copy);
    free(t.s);
}

static void test_put_name(void)
{
    char byte[2] = "", wanted[8];
    bool right = true;

    is_put("", "", "an empty name is empty");
    is_put("web 1,2=3~", "web 1,2=3~", "ASCII stays");
    is_put("a\\b", "a\\\\b", "a backslash is doubled");
    is_put("\t\n\r\x1b[2J\x01\x1f", "\\x09\\x0a\\x0d\\x1b[2J\\x01\\x1f",
        "control characters are not put out");
    is_put("a\x7f", "a\\x7f", "DEL is not put out");
    is_put("\xc2\x80\xc2\x9b\xc2\x9f", "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f",
        "C1 controls are not put out");
    is_put("\xc2\xa0\xc3\xa9\xdf\xbf", "\xc2\xa0\xc3\xa9\xdf\xbf", "UTF-8 of two bytes stays");
    is_put("\xe0\xa0\x80\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
        "\xe0\xa0\x80\xe2\x82\xac\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd",
        "UTF-8 of three bytes stays");
    is_put("\xf0\x90\x80\x80\xf0\x9f\x90\xa7\xf4\x8f\xbf\xbf",
        "\xf0\x90\x80\x80\xf0\x9f\x90\xa7\xf4\x8f\xbf\xbf", "UTF-8 of four bytes stays");
    is_put(
        "\xc0\x8a\xc1\xbf", "\\xc0\\x8a\\xc1\\xbf", "overlong UTF-8 of two bytes is not put out");
    is_put("\xe0\x80\x8a\xe0\x9f\xbf", "\\xe0\\x80\\x8a\\xe0\\x9f\\xbf",
        "overlong UTF-8 of three bytes is not put out");
    is_put("\xf0\x80\x80\x8a\xf0\x8f\xbf\xbf", "\\xf0\\x80\\x80\\x8a\\xf0\\x8f\\xbf\\xbf",
        "overlong UTF-8 of four bytes is not put out");
    is_put(
        "\xed\xa0\x80\xed\xbf\xbf", "\\xed\\xa0\\x80\\xed\\xbf\\xbf", "surrogates are not put out");
    is_put("\xf4\x90\x80\x80\xf7\xbf\xbf\xbf", "\\xf4\\x90\\x80\\x80\\xf7\\xbf\\xbf\\xbf",
        "what is above U+10FFFF is not put out");
    is_put("\x80g\xbf\xf8\x90\x80\x80\x80\xfe\xff",
        "\\x80g\\xbf\\xf8\\x90\\x80\\x80\\x80\\xfe\\xff",
        "bytes that start no character are not put out");
    is_put("\xc3(\xe2\x82(\xf0\x9f\x90(\xc3\xc3\xa9",
        "\\xc3(\\xe2\\x82(\\xf0\\x9f\\x90(\\xc3\xc3\xa9",
        "an unfinished character does not swallow the next one");
    is_put("a\xe2\x80\xaeg\xe2\x80\x8b", "a\\xe2\\x80\\xaeg\\xe2\\x80\\x8b",
        "what changes the direction, or has no width, is not put out");
    is_put("\xc3", "\\xc3", "one of two bytes at the end");
    is_put("\xe2\x82", "\\xe2\\x82", "two of three bytes at the end");
    is_put("\xf0\x9f\x90", "\\xf0\\x9f\\x90", "three of four bytes at the end");
    for (int c = 1; c < 256; c++) {
        struct text t = {.s = NULL};
        byte[0] = (char)c;
        snprintf(wanted, sizeof(wanted),
            c < 0x20 || c >= 0x7f ? "\\x%02x"
            : c == '\\'           ? "\\\\"
                                  : "%c",
            (unsigned)c);
        put_name(&t, byte);
        right &= t.size == strlen(wanted) && memcmp(t.s, wanted, t.size) == 0;
        free(t.s);
    }
    ok(right, "each byte by itself is put out as it is, or as what it is");
}

/* The UTF-8 of c, in buf. */
static const char *utf8(uint32_t c, char buf[static 5])
{
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (size_t i = size; i-- > 1; c >>= 6)
        buf[i] = (char)(0x80 | (c & 0x3f));
    buf[0] = (char)(size == 1 ? c : (0xf00u >> size & 0xf0) | c);
    buf[size] = '\0';
    return buf;
}

static void test_hidden(void)
{
    /* The first and the last of each range of Cf, Zl and Zp, as perl's \p{Cf} and so on has them.
     */
    static const uint32_t ranges[][2] = {{0xad, 0xad}, {0x600, 0x605}, {0x61c, 0x61c},
        {0x6dd, 0x6dd}, {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2}, {0x180e, 0x180e},
        {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb},
        {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f}, {0x1bca0, 0x1bca3},
        {0x1d173, 0x1d17a}, {0xe0000, 0xe007f}};
    char buf[5], strange[64] = "";

    for (size_t i = 0; i < SIZE(ranges); i++) {
        uint32_t first = ranges[i][0], last = ranges[i][1];
        bool right = printable(utf8(first, buf)) == 0 && printable(utf8(last, buf)) == 0 &&
                     (printable(utf8(first - 1, buf)) != 0 || first == 0x600) &&
                     printable(utf8(last + 1, buf)) != 0;
        if (!right)
            snprintf(strange, sizeof(strange), "U+%04X to U+%04X", first, last);
    }
    is_text(strange, "", "format characters and separators of lines are not put out, others are");
}

/* Tests that n times s and what is behind is cut to what is kept, in no character's middle. */
static void is_cut(const char *s, size_t n, const char *behind, size_t wanted)
{
    char *name = resize(NULL, n * strlen(s) + strlen(behind) + 1, 1);

    name[0] = '\0';
    for (size_t i = 0; i < n; i++)
        strcpy(name + i * strlen(s), s);
    strcat(name, behind);
    cut_name(name);
    ok(strlen(name) == wanted, "%zu of \"%s\" and \"%s\": %zu bytes, wanted %zu", n, s, behind,
        strlen(name), wanted);
    free(name);
}

static void test_cut_name(void)
{
    is_cut("a", MAX_NAME, "", MAX_NAME);
    is_cut("a", MAX_NAME, "bc", MAX_NAME);
    is_cut("a", MAX_NAME - 1, "\xc3\xa9", MAX_NAME - 1);
    is_cut("\xc3\xa9", 600, "", MAX_NAME - 1);
    is_cut("\xe2\x82\xac", 400, "", MAX_NAME);
    is_cut("\xf0\x9f\x90\xa7", 300, "", MAX_NAME - 3);
    is_cut("\xe2\x80\x8b", 342, "", MAX_NAME);
    is_cut("\xff", 2000, "", MAX_NAME);
    is_cut("a", MAX_NAME - 1, "\xe2\x82", MAX_NAME);
}

/*
 * Numbers, times and lines.
 */

static void test_numbers(void)
{
    static const struct {
        const char *s;  /* the text */
        uint64_t max;   /* the limit */
        bool good;      /* it is a number up to that */
        uint64_t value; /* which */
        size_t size;    /* of how many digits */
    } numbers[] = {{"0", 100, true, 0, 1}, {"99", 100, true, 99, 2}, {"100", 100, true, 100, 3},
        {"101", 100, false, 0, 0}, {"1000", 100, false, 0, 0}, {"007x", 100, true, 7, 3},
        {"1.5", 100, true, 1, 1}, {"", 100, false, 0, 0}, {"x", 100, false, 0, 0},
        {"-1", 100, false, 0, 0}, {"+1", 100, false, 0, 0}, {" 1", 100, false, 0, 0},
        {"4294967295", UINT32_MAX, true, UINT32_MAX, 10}, {"4294967296", UINT32_MAX, false, 0, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX, 20},
        {"18446744073709551616", UINT64_MAX, false, 0, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0, 0}};
    static const struct {
        const char *s; /* the text */
        int value;     /* parse_int()'s */
    } ints[] = {{"0", 0}, {"42", 42}, {"2147483647", INT_MAX}, {"2147483648", -1},
        {"4294967297", -1}, {"", -1}, {"-1", -1}, {"+1", -1}, {" 1", -1}, {"1 ", -1}, {"1x", -1},
        {"0x1", -1}, {"1.0", -1}};
    char buf[21];
    bool right = true;

    for (size_t i = 0; i < SIZE(numbers); i++) {
        const char *s = numbers[i].s;
        uint64_t value;
        bool good = parse_digits(&s, numbers[i].max, &value);
        right &= good == numbers[i].good && s == numbers[i].s + numbers[i].size &&
                 (!good || value == numbers[i].value);
    }
    ok(right, "digits are a number up to the limit, or none");
    right = true;
    for (size_t i = 0; i < SIZE(ints); i++)
        right &= parse_int(ints[i].s) == ints[i].value;
    ok(right, "an int is all digits, up to 2147483647");
    ok(strcmp(digits(0, buf), "0") == 0 && strcmp(digits(1234567890, buf), "1234567890") == 0 &&
            strcmp(digits(UINT64_MAX, buf), "18446744073709551615") == 0,
        "numbers are put out in full");
}

/* Tests the stamp that -T stamp gives at a time in ms since 1970, in a time zone. */
static void is_stamp(char stamp, int decimals, const char *zone, uint64_t ms, const char *wanted)
{
    char got[64], name[128];
    uint64_t difference = now(CLOCK_REALTIME) - now(CLOCK_MONOTONIC);

    setenv("TZ", zone, 1);
    tzset();
    options.stamp = stamp;
    options.decimals = decimals;
    /* 5 ms more, so that the clocks' wobble does not reach the second decimal. */
    format_stamp((ms + 5) * (NSEC / 1000) - difference, got, sizeof(got));
    if (decimals > 2)
        memset(got + strcspn(got, ".") + 3, '#', (size_t)decimals - 2);
    snprintf(
        name, sizeof(name), "-T %c: %s, %d decimals", stamp == 0 ? '-' : stamp, wanted, decimals);
    is_text(got, wanted, name);
}

static void test_stamp(void)
{
    /* As POSIX writes them, so that no time zone files are needed. */
    static const char utc[] = "UTC0", kolkata[] = "IST-5:30";
    static const char st_johns[] = "NST3:30NDT,M3.2.0,M11.1.0";

    clear();
    is_stamp('u', 0, utc, 1700000000500, "1700000000");
    is_stamp('u', 1, utc, 1700000000500, "1700000000.5");
    is_stamp('u', 2, kolkata, 1700000000500, "1700000000.50");
    is_stamp('u', 9, utc, 4102444800500, "4102444800.50#######");
    is_stamp('u', 2, utc, 1700000000000, "1700000000.00");
    is_stamp('d', 0, utc, 1700000000500, "2023-11-14T22:13:20+00:00");
    is_stamp('d', 2, utc, 1700000000500, "2023-11-14T22:13:20.50+00:00");
    is_stamp('d', 9, utc, 4102444800500, "2100-01-01T00:00:00.50#######+00:00");
    is_stamp('d', 0, kolkata, 1700000000500, "2023-11-15T03:43:20+05:30");
    is_stamp('d', 1, kolkata, 1700000000500, "2023-11-15T03:43:20.5+05:30");
    is_stamp('d', 0, st_johns, 1700000000500, "2023-11-14T18:43:20-03:30");
    is_stamp('d', 2, st_johns, 1690000000500, "2023-07-22T01:56:40.50-02:30");
    is_stamp(0, 2, utc, 1700000000500, "");
}

/* Writes to a full pipe that nobody reads, when a signal has come just before. */
static void write_late(void)
{
    struct itimerspec much = {.it_value.tv_sec = 20};
    struct sigevent killing = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    sigset_t unblocked;
    timer_t timer;
    int ends[2];

    signal(SIGALRM, SIG_IGN);
    catch_signals(&unblocked);
    if (pipe2(ends, O_NONBLOCK) != 0 || timer_create(CLOCK_MONOTONIC, &killing, &timer) != 0)
        _exit(2);
    while (write(ends[1], "x", 1) == 1)
        ;
    fcntl(ends[1], F_SETFL, 0);
    timer_settime(timer, 0, &much, NULL);
    raise(SIGTERM);
    write_patiently(ends[1], "x", 1);
    _exit(signalled == SIGTERM ? 0 : 3);
}

static void test_late_signal(void)
{
    char said[4096];

    ok(run_child(write_late, said, sizeof(said)) == 0,
        "a signal just before a write to a full pipe ends the wait, where SIGALRM was ignored, "
        "too");
}

/* Nothing, put into a text that has no room yet: undefined if it is left to memcpy(). */
static void put_nothing(void)
{
    struct text t = {.s = NULL};

    put_bytes(&t, "", 0);
    put_cell(&t, "", 0);
    free(t.s);
}

static void test_empty_text(void)
{
    char said[4096];
    int status = run_child(put_nothing, said, sizeof(said));

    if (!ok(status == 0 && said[0] == '\0', "an empty text takes nothing"))
        note("status %d, stderr: %.300s", status, said);
}

/* What put_rows() prints, to be freed. */
static char *rows(const char *stamp, bool header)
{
    struct text t = {.s = NULL};

    reserve(&t, 1);
    put_rows(&t, stamp, header);
    put_bytes(&t, "", 1);
    return t.s;
}

/* Tests what put_rows() prints. */
static void is_rows(const char *stamp, bool header, const char *wanted, const char *name)
{
    char *got = rows(stamp, header);

    is_text(got, wanted, name);
    free(got);
}

#define HEAD "   pid vcpu |  exits :  haltx   irqx  irqwx    iox  mmiox |   irqs   emul   eptv"
#define ZEROS " |      0 :      0      0      0      0      0 |      0      0      0"

static void test_rows(void)
{
    struct vcpu *v;

    clear();
    is_rows("", true, HEAD "\n", "the header is there without rows");
    is_rows("1700000000", true, "      time " HEAD "\n", "also with -T");
    v = add_vcpu(99, 0);
    for (int i = 0; i < NCOUNTERS; i++)
        v->tally.counts[i] = (uint64_t)i + 1;
    is_rows("", true,
        HEAD "\n    99    0 |      1 :      2      3      4      5      6 |      7      8      9\n",
        "a row has the counters in the order of the columns");
    is_rows("", false,
        "    99    0 |      1 :      2      3      4      5      6 |      7      8      9\n",
        "one row has no header but in its turn");
    memset(&v->tally, 0, sizeof(v->tally));
    is_rows("", false, "    99    0" ZEROS "\n", "a vCPU that does nothing has a row");
    add_vcpu(99, 10);
    add_vcpu(99, 2);
    add_vcpu(8, UNKNOWN_VCPU)->tally.counts[EMUL] = 1;
    add_vcpu(8, 255);
    vcpu_of(guest_of(8, 0), 1); /* of a virtual machine that is gone */
    is_rows("", false,
        HEAD "\n     8  255" ZEROS "\n     8    ? |      0 :      0      0      0      0      0 |"
             "      0      1      0\n    99    0" ZEROS "\n    99    2" ZEROS "\n    99   10" ZEROS
             "\n",
        "rows are in order of pid and vCPU, ? last, under a header");
    add_vcpu(8, UNKNOWN_VCPU)->tally.counts[EMUL] = 0;
    guest_of(99, 0)->gone = 1;
    is_rows("", false, "     8  255" ZEROS "\n",
        "the vCPU ? and guests that are gone have a row if they counted");
    vcpu_of(guest_of(99, 0), 2)->tally.counts[EPTV] = 1;
    int pids[] = {7, 99};
    options.pids = pids;
    options.npids = SIZE(pids);
    guest_of(8, 0)->asked = is_asked_for(8);
    is_rows("", false,
        "    99    2 |      0 :      0      0      0      0      0 |      0      0      1\n",
        "-p leaves other processes' rows out");
    pids[0] = 8;
    options.npids = 1;
    guest_of(8, 0)->asked = is_asked_for(8);
    guest_of(99, 0)->asked = is_asked_for(99);
    is_rows("", false, "     8  255" ZEROS "\n", "-p has rows of vCPUs that do nothing");
    options.pids = NULL;
    options.npids = 0;
}

static void test_row_options(void)
{
    clear();
    options.no_header = true;
    add_vcpu(99, 0)->tally.counts[EXITS] = 5;
    is_rows("", true, "99\t0\t5\t0\t0\t0\t0\t0\t0\t0\t0\n", "-H: a tab between fields, no header");
    is_rows("1700000000.50", true, "1700000000.50\t99\t0\t5\t0\t0\t0\t0\t0\t0\t0\t0\n",
        "-H -T: the time is the first field");
    options.names = true;
    guest_of(99, 0)->name = strdup("a\tb");
    is_rows("", true, "99\t0\t5\t0\t0\t0\t0\t0\t0\t0\t0\ta\\x09b\n",
        "-H -n: the name is the last field");
    options.no_header = false;
    is_rows("", true,
        HEAD " name\n    99    0 |      5 :      0      0      0      0      0 |      0      0"
             "      0 a\\x09b\n",
        "-n: the name is the last column");
    is_rows("1700000000", true,
        "      time " HEAD " name\n1700000000     99    0 |      5 :      0      0      0      0"
        "      0 |      0      0      0 a\\x09b\n",
        "-T: the time is the first column");
}

/* Numbers that are wider than their columns. */
static void test_wide_rows(void)
{
    bool right = true;

    for (int wide = 0; wide < NCOUNTERS + 2; wide++) {
        clear();
        struct vcpu *v =
            add_vcpu(wide == NCOUNTERS ? 4194303 : 1, wide == NCOUNTERS + 1 ? 1048575 : 0);
        add_vcpu(2, 0)->tally.counts[EXITS] = 1;
        if (wide < NCOUNTERS)
            v->tally.counts[wide] = 1234567890123456789;
        char *got = rows("1700000000", true), *next;
        size_t length = strcspn(got, "\n"), nlines = 0;
        for (char *at = got; *at != '\0'; at = next) {
            next = strchr(at, '\n') + 1;
            right &= (size_t)(next - at) == length + 1;
            for (size_t i = 0; i < length && right; i++)
                right &= (at[i] == '|') == (got[i] == '|') && (at[i] == ':') == (got[i] == ':');
            nlines++;
        }
        right &= nlines == 3 && length > strlen("1700000000 " HEAD);
        right &= wide >= NCOUNTERS || strstr(got, " 1234567890123456789") != NULL;
        if (!right)
            note("%s", got);
        free(got);
    }
    ok(right, "a wide number moves its column, in the header and in all rows");
}

int main(int argc, char **argv)
{
    if (argc > 1)
        captures = argv[1];
    else if (access(captures, F_OK) != 0)
        captures = "captures";        /* run from tests/ */
    setvbuf(stdout, NULL, _IOLBF, 0); /* so that a child has nothing to print again */
    make_temporary();
    procfs = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    clear_world();
    test_captures(false);
    test_captures(true);
    test_old_kernels();
    test_software_captures();
    test_arm64_capture();
    test_mmio();
    test_doubt();
    test_exit_times();
    test_user_exit_times();
    test_device_times();
    test_many_keys();
    test_symbols();
    test_user_exits();
    test_order();
    test_until();
    test_until_alone();
    test_lost();
    test_vmx_reasons();
    test_svm_reasons();
    test_arm64_reasons();
    test_user_reasons();
    test_other_reasons();
    test_processes();
    test_ending();
    const struct sent fault = vmx_exit(TID + 1, 0, 48);
    const struct sent halt = {KVM_USERSPACE_EXIT, TID + 1, {[REASON] = 5}};
    test_used_again(HARDWARE, &fault, EPTV);
    test_used_again(SOFTWARE, &halt, HALTX);
    test_ignored();
    test_threads();
    test_find_vcpu();
    test_moved();
    test_forget();
    test_entries();
    test_event_types();
    test_event_times();
    test_lengths();
    test_commit();
    test_random_pages();
    test_damaged_pages();
    test_fatal_pages();
    test_format();
    test_bad_formats();
    test_field_values();
    test_damaged_formats();
    test_header_page();
    test_bad_header_pages();
    test_names();
    test_put_name();
    test_hidden();
    test_cut_name();
    test_numbers();
    test_stamp();
    test_empty_text();
    test_late_signal();
    test_rows();
    test_row_options();
    test_wide_rows();
    clear();
    remove_temporary();
    printf("1..%d\n", ntests);
    return nfailed != 0;
}
