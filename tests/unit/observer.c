/*
 * observer - what is asked of the process that looks at others, and whose VMs are whose
 *
 * A part of unit.c, which includes it.
 */

/* Makes 1/stat a pipe in the temporary directory: who opens it waits.  Or removes it again. */
static void set_trap(bool there)
{
    if (there) {
        mkdirat(temporary, "1", 0700);
        if (mkfifoat(temporary, "1/stat", 0600) != 0)
            bail_out("1/stat: %s", strerror(errno));
    } else {
        unlinkat(temporary, "1/stat", 0);
        unlinkat(temporary, "1", AT_REMOVEDIR);
    }
}

/* A process at which the observer waits for ever. */
static void test_hung_process(void)
{
    struct question q = {.kind = ASK_NAME, .id = 2};

    clear();
    set_trap(true);
    start_observer(temporary);
    view.left = FIRST_LOOK;
    ok(ask_task(1) == ETIMEDOUT, "who keeps the observer waiting: no answer in time");
    ok(view.left < FIRST_LOOK && observer.nlate == 1, "which is a part of the look's time");
    ok(observer.left_out == 1 && observer.nleft_out == 1, "it is left out");
    uint64_t left = view.left;
    ok(ask_task(1) == ETIMEDOUT && view.left == left, "and not asked about again");
    ok(ask_task(2) == ESRCH && ask(&q) == 0, "a new observer answers what is asked of others");
    observer.hung[0].until = 0;
    ok(ask_task(1) == ETIMEDOUT && observer.nlate == 2 && observer.nhung == 1,
        "later, it is asked about again");
    set_trap(false);
    observer.hung[0].until = 0;
    ok(ask_task(1) == ESRCH, "and may be there no more");
    observer.nhung = observer.nlate = observer.nleft_out = 0;
}

/* A guest that started then and has n open files. */
static struct guest *holder(int pid, uint64_t started, const struct descriptor *files, size_t n)
{
    struct guest *g = guest_of(pid, 0);

    g->started = started;
    g->gone = 0;
    g->asked = true;
    g->files = resize(g->files, n, sizeof(*files));
    if (n != 0)
        memcpy(g->files, files, n * sizeof(*files));
    g->nfiles = n;
    view.changed = true;
    return g;
}

/* Settles the owners, and checks which guests of 1, 2 and 3 show vCPU 0: a digit for each. */
static void is_shown_by(const char *wanted, const char *name)
{
    char shown[4] = "";
    size_t n = 0;

    view.changed = true;
    settle_owners();
    for (int pid = 1; pid <= 3; pid++) {
        const struct guest *g = known_guest(pid);
        if (g != NULL && has_vcpu(g, 0) && has_row(g, g->vcpus[0]))
            shown[n++] = (char)('0' + pid);
    }
    is_text(shown, wanted, name);
}

static void test_owners(void)
{
    static const struct descriptor made[] = {
        {.fd = 5, .id = MACHINE, .number = 1}, {.fd = 6, .id = 0, .number = 2}};
    static const struct descriptor own[] = {{.fd = 5, .id = MACHINE, .number = 1},
        {.fd = 6, .id = 0, .number = 2}, {.fd = 7, .id = MACHINE, .number = 3},
        {.fd = 8, .id = 0, .number = 4}};

    clear();
    holder(1, 7, made, SIZE(made));
    is_shown_by("1", "a process that has a VM alone shows it");
    holder(2, 8, made, SIZE(made));
    is_shown_by("1", "one that was started later has its descriptors, too: no row");
    holder(1, 9, made, SIZE(made));
    is_shown_by("2", "of those that neither made nor run it, the oldest shows it");
    thread_of(1, known_guest(1))->ran = true;
    is_shown_by("1", "but rather the one that runs it");
    holder(3, 10, own, SIZE(own));
    is_shown_by("13", "who has a VM of its own beside one of others' shows that");
    known_guest(1)->gone = 1;
    is_shown_by("23", "who has ended leaves it to another one");
}

/* One process's table is another's, too. */
static void test_twins(void)
{
    static const struct descriptor made[] = {
        {.fd = 5, .id = MACHINE, .number = 1}, {.fd = 6, .id = 0, .number = 2}};

    clear();
    holder(1, 7, made, SIZE(made));
    holder(2, 8, NULL, 0)->twin = 1;
    is_shown_by("1", "two processes with one table: the one whose table was read shows it");
    thread_of(2, known_guest(2))->ran = true;
    is_shown_by("2", "or the one that runs it");
}

static void test_open_files(void)
{
    int pid = (int)getpid(), a = open("/dev/null", O_RDONLY), b = dup(a),
        c = open("/dev/null", O_RDONLY);

    if (syscall(SYS_kcmp, pid, pid, 0, (long)a, (long)b) != 0) {
        note("open files: %s", strerror(errno)); /* a kernel without kcmp(2) */
        return;
    }
    uint64_t first = meet(pid, a, MACHINE)->number;
    ok(first != 0 && meet(pid, b, MACHINE)->number == first, "a duplicate is the same open file");
    ok(meet(pid, c, MACHINE)->number != first, "another one of the same file is not");
    close(a);
    close(b);
    close(c);
}

static const struct test observer_tests[] = {
    {"hung_process", test_hung_process},
    {"open_files", test_open_files},
    {"owners", test_owners},
    {"twins", test_twins},
};
