/*
 * output - the lines of reports, and writing them
 *
 * A part of unit.c, which includes it.
 */

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
    struct row *found = NULL;
    size_t n = list_rows(&found, has_row);

    reserve(&t, 1);
    n = choose_rows(found, n);
    put_rows(&t, found, n, stamp, header);
    free(found);
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
#define NARROW_HEAD "  pid vcpu | exits : haltx  irqx irqwx   iox mmiox |  irqs  emul  eptv"
#define NARROW_FIVE " |     5 :     0     0     0     0     0 |     0     0     0"
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
    options.some = true;
    guest_of(8, 0)->asked = is_asked_for(guest_of(8, 0));
    is_rows("", false,
        "    99    2 |      0 :      0      0      0      0      0 |      0      0      1\n",
        "-p leaves other processes' rows out");
    pids[0] = 8;
    options.npids = 1;
    guest_of(8, 0)->asked = is_asked_for(guest_of(8, 0));
    guest_of(99, 0)->asked = is_asked_for(guest_of(99, 0));
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
    is_rows("", true, NARROW_HEAD " name\n   99    0" NARROW_FIVE " a\\x09b\n",
        "-n: the name is the last column");
    ok(strlen(NARROW_HEAD " web-01-ab") == 80, "-n: a name of 9 characters fits in 80 columns");
    is_rows("1700000000", true,
        "      time " NARROW_HEAD " name\n1700000000    99    0" NARROW_FIVE " a\\x09b\n",
        "-T: the time is the first column");
}

/* Rows of three guests, whose vCPUs have these exits: 5, 0; 9, 5; 0. */
static void add_guests(void)
{
    clear();
    options.no_header = true;
    add_vcpu(1, 0)->tally.counts[EXITS] = 5;
    add_vcpu(1, 1);
    add_vcpu(2, 0)->tally.counts[EXITS] = 9;
    add_vcpu(2, 7)->tally.counts[EXITS] = 5;
    add_vcpu(3, 0);
}

#define NONE "\t0\t0\t0\t0\t0\t0\t0\t0"

static void test_row_order(void)
{
    add_guests();
    options.order = "exits";
    is_rows("", false,
        "2\t0\t9" NONE "\n1\t0\t5" NONE "\n2\t7\t5" NONE "\n1\t1\t0" NONE "\n3\t0\t0" NONE "\n",
        "-k: the highest first, equal ones in order of pid and vCPU");
    options.rows = 2;
    is_rows("", false, "2\t0\t9" NONE "\n1\t0\t5" NONE "\n", "-l: so many rows");
    options.order = NULL;
    is_rows("", false, "1\t0\t5" NONE "\n1\t1\t0" NONE "\n", "-l without -k: the first ones");
    options.no_zeros = true;
    is_rows("", false, "1\t0\t5" NONE "\n2\t0\t9" NONE "\n", "-z -l: rows with counts only");
    options.rows = 0;
    options.shares = true;
    options.order = "wait%";
    vcpu_of(guest_of(2, 0), 7)->tally.shares[WAIT] = 1;
    vcpu_of(guest_of(3, 0), 0)->tally.shares[WAIT] = 9999;
    is_rows("", false,
        "2\t7\t5" NONE "\t0.0\t0.0\n1\t0\t5" NONE "\t0.0\t0.0\n2\t0\t9" NONE "\t0.0\t0.0\n",
        "-c: -k takes shares, and -z looks at the counts alone");
}

static void test_sums(void)
{
    add_guests();
    options.sums = options.shares = true;
    add_vcpu(1, UNKNOWN_VCPU)->tally.counts[EPTV] = 3;
    guest_of(1, 0)->vcpus[0]->tally.shares[RUN] = 9990;
    guest_of(1, 0)->vcpus[1]->tally.shares[RUN] = 9985;
    guest_of(2, 0)->vcpus[1]->tally.shareless = true;
    is_rows("", false,
        "1\t2\t5\t0\t0\t0\t0\t0\t0\t0\t3\t199.7\t0.0\n2\t2\t14" NONE "\t-\t-\n3\t1\t0" NONE
        "\t0.0\t0.0\n",
        "-s: sums of each guest, and its number of vCPUs, without ?; shares if all are known");
    add_guests();
    options.sums = options.no_zeros = true;
    options.order = "exits";
    options.rows = 1;
    is_rows("", false, "2\t2\t14" NONE "\n", "-s -z -k -l: the guest with the most");
}

/* Keys, as those of -e, of two vCPUs of a guest. */
static void test_key_sums(void)
{
    clear();
    reading.nkeys = 0;
    options.table = VMEXIT;
    options.no_header = options.sums = true;
    key_of(&add_vcpu(1, 0)->tally, 12)->count = 3;
    key_of(&add_vcpu(1, 0)->tally, 1)->count = 1;
    key_of(&add_vcpu(1, 1)->tally, 1)->count = 4;
    options.rows = 1;
    is_rows("", false, "1\t2\t0x1\t5\t62.50\t-\t-\t-\t-\n", "-e -s -l: the guest's first key");
    ok(reading.nkeys == 2, "a key that two vCPUs had is one in the sum");
    options.sums = false;
    key_of(&add_vcpu(2, 0)->tally, 1)->count = 1;
    is_rows("", false,
        "1\t0\t0x1\t5\t62.50\t-\t-\t-\t-\n1\t1\t-\t0\t0.00\t0.00\t0.00\t0.00\t0.00\n"
        "2\t0\t0x1\t1\t100.00\t-\t-\t-\t-\n",
        "-e -l: the first key of each vCPU");
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

static const struct test output_tests[] = {
    {"empty_text", test_empty_text},
    {"key_sums", test_key_sums},
    {"late_signal", test_late_signal},
    {"row_order", test_row_order},
    {"rows", test_rows},
    {"row_options", test_row_options},
    {"sums", test_sums},
    {"wide_rows", test_wide_rows},
};
