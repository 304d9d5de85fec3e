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

/* Lines that are cut at some widths: of 1, 2 and 3 bytes a character, the last one 2 columns wide.
 */
static void test_cut_lines(void)
{
    static const char lines[] = "ab\nabc\xc3\xa9\n\xe3\x81\x82"
                                "d\n\n";
    static const struct {
        size_t width;       /* in columns */
        const char *wanted; /* the lines then */
    } cuts[] = {{1, "a\na\n\n\n"}, {2, "ab\nab\n\xe3\x81\x82\n\n"},
        {3, "ab\nabc\n\xe3\x81\x82"
            "d\n\n"},
        {4, lines}};

    for (size_t i = 0; i < SIZE(cuts); i++) {
        struct text t = {.s = NULL};
        put_bytes(&t, lines, strlen(lines));
        cut_lines(&t, cuts[i].width);
        put_bytes(&t, "", 1);
        is_text(t.s, cuts[i].wanted, "lines cut at a terminal's width");
        free(t.s);
    }
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
        "2\t7\t5" NONE "\t0.0\t0.0\tidle\n1\t0\t5" NONE "\t0.0\t0.0\tidle\n2\t0\t9" NONE
        "\t0.0\t0.0\tidle\n",
        "-c: -k takes shares, and -z looks at the counts alone");
}

static void test_sums(void)
{
    add_guests();
    options.sums = 1;
    options.shares = true;
    add_vcpu(1, UNKNOWN_VCPU)->tally.counts[EPTV] = 3;
    guest_of(1, 0)->vcpus[0]->tally.shares[RUN] = 9990;
    guest_of(1, 0)->vcpus[1]->tally.shares[RUN] = 9985;
    guest_of(2, 0)->vcpus[1]->tally.shareless = true;
    is_rows("", false,
        "1\t2\t5\t0\t0\t0\t0\t0\t0\t0\t3\t199.7\t0.0\tspins\n2\t2\t14" NONE
        "\t-\t-\t-\n3\t1\t0" NONE "\t0.0\t0.0\tstill\n",
        "-s: sums of each guest, and its number of vCPUs, without ?; shares if all are known");
    add_guests();
    options.sums = 2;
    options.shares = options.names = true;
    add_vcpu(1, UNKNOWN_VCPU)->tally.counts[EPTV] = 3;
    guest_of(1, 0)->vcpus[1]->tally.shares[RUN] = 5000;
    is_rows("", false, "-\t5\t19\t0\t0\t0\t0\t0\t0\t0\t3\t50.0\t0.0\tbusy\t3\n",
        "-ss: the sums of all, and the numbers of vCPUs, without ?, and of guests");
    clear_counts();
    is_rows("", false, "-\t5\t0" NONE "\t0.0\t0.0\tstill\t3\n", "and again in the next report");
    clear();
    options.sums = 2;
    is_rows("", true,
        "   pid vcpus |  exits :  haltx   irqx  irqwx    iox  mmiox |   irqs   emul   eptv\n"
        "     -     0" ZEROS "\n",
        "-ss: a line also where there is no guest");
    add_guests();
    options.sums = 1;
    options.no_zeros = true;
    options.order = "exits";
    options.rows = 1;
    is_rows("", false, "2\t2\t14" NONE "\n", "-s -z -k -l: the guest with the most");
}

/* Tests the state of a vCPU with these exits, irqx, irqs and tenths of a per cent. */
static void is_state(const char *wanted, uint64_t exits, uint64_t irqx, uint64_t irqs, uint64_t run,
    uint64_t wait, const char *name)
{
    struct vcpu v = {.tid = 7,
        .tally = {.counts = {[EXITS] = exits, [IRQX] = irqx, [IRQS] = irqs},
            .shares = {[RUN] = run * 10 + 9, [WAIT] = wait * 10 + 9}}};

    is_text(states[state_of(&v)], wanted, name);
}

static void test_states(void)
{
    is_state("still", 0, 0, 0, 0, 0, "nothing, but for what is not shown");
    is_state("idle", 1, 0, 0, 0, 0, "an exit");
    is_state("idle", 0, 0, 1, 0, 0, "an interrupt");
    is_state("idle", 0, 0, 0, 1, 0, "time on a CPU");
    is_state("idle", 0, 0, 0, 0, 1, "waiting for one");
    is_state("idle", 999, 0, 0, 400, 99, "wants a CPU for less than half of the time");
    is_state("busy", 999, 0, 0, 400, 100, "for half of it");
    is_state("busy", 999, 998, 0, 999, 0, "all the time, with an exit that is no irqx");
    is_state("busy", 9, 9, 0, 899, 0, "none, but not nearly all the time");
    is_state("spins", 9, 9, 0, 900, 0, "none, and nearly all the time");
    is_state("spins", 0, 0, 0, 100, 800, "waiting for most of it");
    is_state("starved", 0, 0, 0, 99, 900, "too much of it to tell");
    is_state("starved", 2, 1, 0, 0, 200, "waits for a fifth of the time");
    is_state("idle", 2, 1, 0, 0, 199, "for less");
}

/* Objects of JSON, with names and keys of any bytes. */
static void test_json(void)
{
    clear();
    options.json = options.no_header = options.names = options.shares = true;
    options.stamp = 'd';
    struct vcpu *v = add_vcpu(99, UNKNOWN_VCPU);
    v->tally.shareless = true;
    v->tally.counts[EXITS] = UINT64_MAX;
    guest_of(99, 0)->name = strdup("a\"\\\n\xff\xc3\xa9?");
    is_rows("\"time\":1,\"interval\":2", true,
        "{\"time\":1,\"interval\":2,\"pid\":99,\"vcpu\":null,\"exits\":18446744073709551615,"
        "\"haltx\":0,\"irqx\":0,\"irqwx\":0,\"iox\":0,\"mmiox\":0,\"irqs\":0,\"emul\":0,"
        "\"eptv\":0,\"run%\":null,\"wait%\":null,\"state\":null,"
        "\"name\":\"a\\\"\\\\\\\\\\\\x0a\\\\xff\xc3\xa9?\"}\n",
        "-j: words are strings, and what is not known is null");
    clear();
    options.json = options.no_header = options.names = true;
    options.table = VMEXIT;
    options.sums = 2;
    key_of(&add_vcpu(1, 0)->tally, 12)->count = 3;
    is_rows("\"time\":1,\"interval\":2", true,
        "{\"time\":1,\"interval\":2,\"pid\":null,\"vcpus\":1,\"vmexit\":\"0xc\",\"count\":3,"
        "\"count%\":100.00,\"time%\":null,\"min us\":null,\"max us\":null,\"avg us\":null,"
        "\"guests\":1}\n",
        "-j -e -ss: a key is a string, also if it is a number");
    clear_counts();
    char stamp[128];
    options.stamp = 'u';
    format_stamp(7 * (uint64_t)NSEC, 7 * (uint64_t)NSEC + 250000000, stamp, sizeof(stamp));
    ok(strstr(stamp, "\"time\":") == stamp && stamp[7] != '"' &&
            strcmp(strchr(stamp, ','), ",\"interval\":0.25") == 0,
        "-j -T u: the time is a number");
    options.stamp = 'd';
    format_stamp(0, 100 * (uint64_t)NSEC, stamp, sizeof(stamp));
    ok(stamp[7] == '"' && strcmp(strrchr(stamp, ','), ",\"interval\":100") == 0,
        "-j: else a string");
}

/* Keys, as those of -e, of two vCPUs of a guest. */
static void test_key_sums(void)
{
    clear();
    options.table = VMEXIT;
    options.no_header = true;
    options.sums = 1;
    key_of(&add_vcpu(1, 0)->tally, 12)->count = 3;
    key_of(&add_vcpu(1, 0)->tally, 1)->count = 1;
    key_of(&add_vcpu(1, 1)->tally, 1)->count = 4;
    options.rows = 1;
    is_rows("", false, "1\t2\t0x1\t5\t62.50\t-\t-\t-\t-\n", "-e -s -l: the guest's first key");
    ok(world.guests[0]->vcpus[0]->tally.nkeys == 2, "a key that two vCPUs had is one in the sum");
    clear();
    options.table = VMEXIT;
    options.no_header = true;
    options.sums = 2;
    key_of(&add_vcpu(1, 0)->tally, 12)->count = 3;
    key_of(&add_vcpu(2, 0)->tally, 12)->count = 4;
    is_rows("", false, "-\t2\t0xc\t7\t100.00\t-\t-\t-\t-\n", "-e -ss: the host's keys");
    clear_counts();
    ok(host_sums.tally.nkeys == 0, "and no key of it is left behind");
    clear();
    options.table = VMEXIT;
    options.no_header = true;
    options.rows = 1;
    key_of(&add_vcpu(1, 0)->tally, 12)->count = 3;
    key_of(&add_vcpu(1, 0)->tally, 1)->count = 5;
    add_vcpu(1, 1);
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

/*
 * The time of the directory of -m's file, by which pmcd's agent sees that the file is another one:
 * the agent may have looked just before that got its name.
 */
static void test_touched_directory(void)
{
    const struct timespec long_ago[2] = {{0}};
    struct stat st = {.st_mtime = 1};

    clear();
    metrics.dir = temporary;
    metrics.room = MIN_ROOM;
    ok(replace_metrics_file(NULL, 0), "a file of metrics");
    futimens(temporary, long_ago);
    report_metrics();
    fstat(temporary, &st);
    ok(st.st_mtime == 0, "which is kept as long as it has the same vCPUs");
    struct vcpu *v = add_vcpu(TID, 0);
    known_guest(TID)->asked = true;
    known_guest(TID)->name = copy("web");
    report_metrics();
    ok(v->instance != 0 && metrics.touch_at > now(CLOCK_MONOTONIC) + NSEC / 2,
        "with another one: a new file, and the directory's time is to be set later");
    futimens(temporary, long_ago);
    metrics.touch_at = 1;
    report_metrics();
    fstat(temporary, &st);
    ok(st.st_mtime != 0 && metrics.touch_at == 0, "then it is set, once");
    remove_metrics_file();
    metrics.dir = -1;
}

static const struct test output_tests[] = {
    {"cut_lines", test_cut_lines},
    {"empty_text", test_empty_text},
    {"json", test_json},
    {"key_sums", test_key_sums},
    {"late_signal", test_late_signal},
    {"row_order", test_row_order},
    {"rows", test_rows},
    {"row_options", test_row_options},
    {"states", test_states},
    {"sums", test_sums},
    {"touched_directory", test_touched_directory},
    {"wide_rows", test_wide_rows},
};
