/*
 * captures - real recordings against KVM's own counts
 *
 * A part of unit.c, which includes it.
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
            printf("# %s: %" PRIu64 ", KVM's own %" PRIu64 ": %s\n",
                counter_columns[FIRST_COUNT + i].name, d->got, row->counts[i], d->reason);
            named++;
        }
    }
    snprintf(
        name, sizeof(name), "%s, vCPU %ld: the counts are KVM's own%s", row->file, row->vcpu, how);
    is_counts(got, wanted, name);
    return named;
}

/* How many rows there are in all guests. */
static size_t row_count(void)
{
    size_t n = 0;

    for (size_t i = 0; i < world.nguests; i++)
        n += world.guests[i]->nvcpus;
    return n;
}

/* How many threads ran a vCPU: on arm64, that of the monitor has events, too, as it makes them. */
static size_t runner_count(void)
{
    size_t n = 0;

    for (size_t i = 0; i < world.space; i++)
        n += world.threads[i] != NULL && world.threads[i]->ran;
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
        nrows++;
        load_capture(row.file, HARDWARE);
        if (live && input.nowners == 0 && reading.host == RISCV64_HOST)
            continue; /* only the threads' names tell the vCPUs, and live these have ended */
        if (live)
            make_live();
        count_all();
        named += is_row(&row, live ? ", live" : "");
        ok(world.nguests == 1 && row_count() == runner_count(), "%s: no other row", row.file);
        if (strcmp(row.file, "svm-6.1-overrun.dat") == 0)
            ok(reading.streams[0].lost == 15721 && lost() == 15721,
                "%s: 15721 events lost on CPU 0", row.file);
        else
            ok(lost() == 0, "%s: no event lost", row.file);
    }
    fclose(f);
    ok(nrows == 16, "all 16 vCPUs were compared");
    ok(named == 10 && SIZE(differences) == 10, "10 cells differ from KVM's own, as named above");
}

/* The x86 recordings, as a kernel before 5.10 would have made them. */
static void test_old_kernels(void)
{
    FILE *f = open_rows();
    struct kvm_row row;

    while (read_row(f, &row)) {
        if (strncmp(row.file, "arm64", 5) == 0 || strncmp(row.file, "riscv64", 7) == 0)
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

static void test_recordings(void)
{
    test_captures(false);
}

static void test_live(void)
{
    test_captures(true);
}

static const struct test captures_tests[] = {
    {"recordings", test_recordings},
    {"live", test_live},
    {"old_kernels", test_old_kernels},
    {"software_captures", test_software_captures},
    {"arm64_capture", test_arm64_capture},
};
